"""Errors as HTTP says them: RFC 9457 problem documents on the admin API, `{"error": …}` on the agents' routes.

One table gives each class of the error tree its status. What is not in the tree is a fault of ours: it is logged with its
request id, and the caller is told that id and nothing else.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from redflag import errors

log = logging.getLogger("redflag.web")

STATUS: dict[type[errors.RedFlagError], int] = {
    errors.TooLarge: 413,
    errors.InvalidInput: 422,
    errors.NotAuthenticated: 401,
    errors.NotPermitted: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.DatabaseUnreachable: 503,
}
UNAVAILABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)


def status_of(error: Exception) -> int:
    """The HTTP status of an error: the nearest class in the table, else 500."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 503 if isinstance(error, UNAVAILABLE) else 500


def headers_of(error: Exception, status: int) -> dict[str, str]:
    """The headers that go with a status."""
    if isinstance(error, errors.RateLimited | errors.Overloaded):
        return {"Retry-After": str(error.retry_after)}
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": "5"} if status == 503 else {}


def explain(error: Exception, status: int) -> str:
    """What the caller is told. Nothing of the server's inside leaves it."""
    if isinstance(error, errors.RedFlagError) and status != 500:
        return str(error)
    if status == 503:
        log.error("the database is away: %s: %s", type(error).__name__, error)
        return "The database does not answer. Try again in a moment."
    reference = uuid.uuid4().hex[:12]
    log.error("request failed, reference %s", reference, exc_info=error)
    return f"The server failed on this request. Its log has more under reference {reference}."


def agent_error(error: Exception) -> Response:
    """An error as agents read it."""
    status = status_of(error)
    # RedFlag's agents know 400 for what is wrong with a request
    told = msgspec.json.encode({"error": explain(error, status)})
    return Response(told, 400 if status == 422 else status, headers_of(error, status), "application/json")


def problem(status: int, title: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """A problem document (RFC 9457 §3)."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail} | more
    return Response(msgspec.json.encode(body), status, headers, "application/problem+json")


_TITLES = {
    400: "Bad request", 401: "Not authenticated", 403: "Not permitted", 404: "Not found", 405: "Method not allowed", 409: "Conflict",
    413: "Too large", 422: "Invalid input", 429: "Too many requests", 500: "Server error", 503: "Unavailable",
}  # fmt: skip


AsPage = Callable[[Request, int, str, str], Response | None]


def install(app: FastAPI, as_page: AsPage = lambda *_: None) -> None:
    """Makes the app answer every error with a problem document, or with the page that `as_page` makes of it for a person."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [
            {"where": ".".join(str(part) for part in one["loc"]), "what": one["msg"]} for one in error.errors()[:20]
        ]
        first = found[0] if found else {"where": "request", "what": "invalid"}
        status = 400 if any(one["type"] == "json_invalid" for one in error.errors()) else 422
        detail = f"{first['where']}: {first['what']}"
        return as_page(request, status, _TITLES[status], detail) or problem(
            status, _TITLES[status], detail, errors=found
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        title, detail = _TITLES.get(error.status_code, "Error"), str(error.detail)
        return as_page(request, error.status_code, title, detail) or problem(
            error.status_code, title, detail, headers=dict(error.headers or {})
        )

    async def any_error(request: Request, error: Exception) -> Response:
        status = status_of(error)
        title, detail = _TITLES[status], explain(error, status)
        return as_page(request, status, title, detail) or problem(
            status, title, detail, headers=headers_of(error, status)
        )

    for kind in (errors.RedFlagError, *UNAVAILABLE, Exception):
        app.add_exception_handler(kind, any_error)
