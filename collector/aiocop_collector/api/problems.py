"""Errors as RFC 9457 problem documents: what was wrong, which parameter, and what was probably meant."""

import re
import sqlite3
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import Annotated, Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from aiocop_collector.answers.base import Answer
from aiocop_collector.queries.errors import BadParameterError, QuestionError, UnknownAgentError, UnknownHotspotError
from aiocop_collector.store.database import reason_of

_DATABASE_TROUBLE: Final = (DBAPIError, PoolTimeoutError, sqlite3.Error, OSError)
"""OSError is what drivers raise where a server cannot be reached."""

_RETRY_AFTER_S: Final = 5
PROBLEM_JSON: Final = "application/problem+json"
_QUOTED: Final = re.compile(r"'([^']*)'")


class ParameterProblem(Answer):
    """One thing that is wrong with a request."""

    parameter: str
    message: str


class Problem(Answer):
    """RFC 9457, with the parameters at fault."""

    type: str = "about:blank"
    title: str
    status: int
    detail: Annotated[str, Field(description="One sentence for a person.")]
    errors: list[ParameterProblem] = Field(default=[])


def problem_responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route, so that OpenAPI shows what may come instead of an answer."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status.value: {"description": status.phrase, "model": Problem, "content": content} for status in statuses}


def problem(
    status: HTTPStatus,
    detail: str,
    errors: Iterable[ParameterProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response for one problem."""
    document = Problem(title=status.phrase, status=status.value, detail=detail, errors=list(errors))
    return JSONResponse(
        document.model_dump(),
        status_code=status.value,
        media_type=PROBLEM_JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem document. An unexpected one is still raised, to be logged by the server."""
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(QuestionError, _on_question_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for trouble in _DATABASE_TROUBLE:
        app.add_exception_handler(trouble, _on_database_trouble)
    app.add_exception_handler(Exception, _on_failure)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    names = _known_names(request)
    errors = [_explain(item, names) for item in cast("RequestValidationError", error).errors()]
    detail = " ".join(_sentence(item.message) for item in errors)
    return problem(HTTPStatus(422), detail, errors)


async def _on_question_error(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, (UnknownHotspotError, UnknownAgentError)):
        return problem(HTTPStatus.NOT_FOUND, str(error))
    errors = []
    if isinstance(error, BadParameterError):
        errors.append(ParameterProblem(parameter=error.parameter, message=str(error)))
    return problem(HTTPStatus(422), _sentence(str(error)), errors)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    raised = cast("HTTPException", error)
    status = HTTPStatus(raised.status_code)
    detail = raised.detail
    if status == HTTPStatus.NOT_FOUND and detail == status.phrase:
        detail = f"There is nothing at {request.url.path}; /openapi.json lists what there is."
    elif status == HTTPStatus.METHOD_NOT_ALLOWED and detail == status.phrase:
        detail = f"{request.method} is not possible at {request.url.path}."
    return problem(status, detail, headers=raised.headers)


async def _on_database_trouble(_request: Request, error: Exception) -> JSONResponse:
    # Locked, full, gone, corrupt: it is not the question, and asking again later may do. The writer logs the same.
    detail = f"The database cannot answer now: {reason_of(error)}. /readyz says when it can."
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(_RETRY_AFTER_S)})


async def _on_failure(_request: Request, _error: Exception) -> JSONResponse:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The collector failed to answer; its log says why.")


def _explain(item: Mapping[str, Any], names: Iterable[str]) -> ParameterProblem:
    kind, (place, *path) = item["type"], item["loc"]
    parameter = str(path[0]) if path else str(place)
    value = item.get("input")
    if kind == "extra_forbidden":
        message = f"{parameter} is not a known {'parameter' if place == 'query' else 'field'}"
        return ParameterProblem(parameter=parameter, message=message + _suggestion(parameter, names))
    if kind == "literal_error":
        choices = _QUOTED.findall(item["ctx"]["expected"])
        message = f"{parameter}: {str(value)[:60]!r} is not one of {', '.join(choices)}"
        return ParameterProblem(parameter=parameter, message=message + _suggestion(str(value), choices))
    if kind == "json_invalid":
        return ParameterProblem(parameter="body", message=f"the body is not JSON: {item['ctx']['error']}")
    # pydantic's own words otherwise; they are sentences without a subject.
    text = str(item["msg"]).removeprefix("Value error, ")
    return ParameterProblem(parameter=parameter, message=f"{parameter}: {text[:1].lower()}{text[1:]}")


def _suggestion(given: str, known: Iterable[str]) -> str:
    close = get_close_matches(given.lower(), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _known_names(request: Request) -> list[str]:
    """Parameters and body fields of the route that was asked, from the application's own OpenAPI document."""
    route = request.scope.get("route")
    document = request.app.openapi()
    operation = document["paths"].get(getattr(route, "path_format", ""), {}).get(request.method.lower(), {})
    names = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    for body in operation.get("requestBody", {}).get("content", {}).values():
        schema = document["components"]["schemas"].get(body["schema"].get("$ref", "").rpartition("/")[2], {})
        names += schema.get("properties", ())
    return names
