# The sample service, with the agent in it. Build from the top of the repository:
#
#     docker build -f deploy/shop.Dockerfile -t aiocop-shop .

FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements requirements
RUN python -m venv /opt/shop \
    && /opt/shop/bin/pip install --no-cache-dir --constraint requirements/constraints.txt \
        fastapi httptools httpx msgpack requests sniffio uvicorn uvloop
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY shared shared
COPY collector collector
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/shop/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim
# The collector's user: only it and its group may connect to the socket.
RUN groupadd --gid 8717 aiocop \
    && useradd --uid 8717 --gid aiocop --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aiocop \
    && install --directory --owner aiocop --group aiocop --mode 0750 /run/aiocop
COPY --from=build /opt/shop /opt/shop
COPY examples /app
WORKDIR /app
ENV PATH=/opt/shop/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AIOCOP_COLLECTOR=unix:///run/aiocop/collector.sock
USER 8717:8717
EXPOSE 8000
ENTRYPOINT ["uvicorn", "shop.main:app", "--host", "0.0.0.0", "--port", "8000", "--loop", "uvloop"]
CMD ["--workers", "2"]
