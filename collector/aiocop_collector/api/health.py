"""`GET /healthz`: the process runs. `GET /readyz`: it can keep what it is sent; if not, why."""

import asyncio
from typing import Final, Literal

from fastapi import APIRouter, Response
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from aiocop_collector.answers.base import Answer
from aiocop_collector.collector import Collector
from aiocop_collector.store.database import reason_of
from aiocop_collector.store.schema import services

_DATABASE_TIMEOUT_S: Final = 2.0


class Alive(Answer):
    status: Literal["alive"] = "alive"


class DatabaseReadiness(Answer):
    ready: bool
    error: str | None = None


class WriterReadiness(Answer):
    ready: bool
    state: Literal["idle", "writing", "waiting", "stopped"]
    error: str | None
    pending_reports: int
    pending_bytes: int
    last_commit_at_ms: int | None


class SocketReadiness(Answer):
    ready: bool
    address: str


class Readiness(Answer):
    status: Literal["ready", "not_ready"]
    database: DatabaseReadiness
    writer: WriterReadiness
    sockets: list[SocketReadiness]
    duties: dict[str, bool]
    """What one collector does for all on the store, and whether this is the one: `upkeep`, `webhook NAME`."""
    counters: dict[str, int]
    """Totals of this process, see counters.py."""


def build_health_router(collector: Collector) -> APIRouter:
    """Both need no token."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive")
    async def get_healthz(response: Response) -> Alive:
        """200 as long as the process answers at all."""
        response.headers["Cache-Control"] = "no-store"
        return Alive()

    @router.get("/readyz", summary="Can it keep what it is sent", responses={503: {"model": Readiness}})
    async def get_readyz(response: Response) -> Readiness:
        """200 when the database answers, the writer's last commit succeeded and all sockets are open; else 503."""
        readiness = await _readiness(collector)
        response.headers["Cache-Control"] = "no-store"
        if readiness.status != "ready":
            response.status_code = 503
        return readiness

    return router


async def _readiness(collector: Collector) -> Readiness:
    database = await _ask_database(collector)
    status = collector.store.status()
    writer = WriterReadiness(
        ready=status.error is None and status.writer != "stopped",
        state=status.writer,
        error=status.error,
        pending_reports=status.pending_reports,
        pending_bytes=status.pending_bytes,
        last_commit_at_ms=status.last_commit_at_ms,
    )
    sockets = [
        SocketReadiness(ready=receiver.is_listening, address=receiver.address) for receiver in collector.receivers
    ]
    ready = database.ready and writer.ready and bool(sockets) and all(socket.ready for socket in sockets)
    return Readiness(
        status="ready" if ready else "not_ready",
        database=database,
        writer=writer,
        sockets=sockets,
        duties=dict(collector.election.standing()),
        counters=collector.counters.totals(),
    )


async def _ask_database(collector: Collector) -> DatabaseReadiness:
    try:
        await asyncio.wait_for(_read_one(collector), _DATABASE_TIMEOUT_S)
    except asyncio.TimeoutError:
        return DatabaseReadiness(ready=False, error=f"no answer within {_DATABASE_TIMEOUT_S:.0f} s")
    except (SQLAlchemyError, OSError) as error:
        return DatabaseReadiness(ready=False, error=reason_of(error))
    return DatabaseReadiness(ready=True)


async def _read_one(collector: Collector) -> None:
    async with collector.engine.connect() as connection:
        await connection.execute(select(services.c.id).limit(1))
