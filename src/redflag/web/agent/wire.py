"""Reading what agents send, and answering them.

Lenient in what it reads, as the protocol asks: absent fields, null lists, unknown words. Strict in whom it believes.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from redflag.audit import actor as actors
from redflag.audit import events
from redflag.audit.actor import Actor
from redflag.errors import InvalidInput, NotAuthenticated, NotPermitted, TooLarge
from redflag.web import problems
from redflag.web.context import Context, address, context
from redflag.web.guards import bearer

Handler = Callable[[Request], Awaitable[Response]]


def answered(handler: Handler) -> Handler:
    """Answers every error as agents read it."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            return problems.agent_error(error)

    return answer


def ok(body: Any) -> Response:
    """200, the only success that RedFlag's agents know."""
    return Response(msgspec.json.encode(body), media_type="application/json")


@dataclass(slots=True)
class Call:
    """What an agent asks, once it is known to be that agent. `wait`: for how many seconds it may be held, as it says itself."""

    here: Context
    agent_id: uuid.UUID
    actor: Actor
    content: bytes
    wait: str
    has_gone: Callable[[], Awaitable[bool]]

    def body(self, *, tolerant: bool = False, most: int | None = None) -> dict[str, Any]:
        """The JSON object of the body, as `decoded` reads it."""
        return decoded(self.content, tolerant=tolerant, most=most)


# Answers an agent's call with what becomes JSON
Caller = Callable[[Call], Awaitable[Any]]


def endpoint(caller: Caller) -> Handler:
    """The route of a call, for whatever does not go through the gate."""

    async def handle(request: Request) -> Response:
        agent_id, actor = await known_agent(request)
        content = await request.body()
        wait = request.query_params.get("wait", "0")
        return ok(await caller(Call(context(request), agent_id, actor, content, wait, request.is_disconnected)))

    return answered(handle)


async def read(request: Request, *, most: int) -> dict[str, Any]:
    """The JSON object of a request's body. Raises InvalidInput or TooLarge."""
    return decoded(await request.body(), most=most)


def decoded(body: bytes, *, tolerant: bool = False, most: int | None = None) -> dict[str, Any]:
    """The JSON object that a body is. `tolerant`: whatever is no object is taken for an empty one. Raises InvalidInput or TooLarge."""
    if most is not None and len(body) > most:
        raise TooLarge(f"The body is larger than {most} bytes", "Send less")
    try:
        value = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if tolerant:
            return {}
        raise InvalidInput(f"The body is no JSON: {error}", "Send one JSON object") from None
    if not isinstance(value, dict):
        if tolerant:
            return {}
        raise InvalidInput("The body is no JSON object", "Send one JSON object")
    return value


async def known_agent(request: Request) -> tuple[uuid.UUID, Actor]:
    """The agent whose token this is, if it speaks for itself. Raises NotAuthenticated or NotPermitted; both are recorded."""
    here = context(request)
    where = address(request)
    try:
        agent_id = await here.authenticator.authenticate_agent(bearer(request))
    except NotAuthenticated:
        async with here.pool.acquire() as connection:
            await events.count_refusal(connection, where, action=f"{request.method} agent route")
        raise
    actor = actors.agent(agent_id, where)
    if request.path_params.get("agent_id", "").lower() != str(agent_id):
        async with here.pool.acquire() as connection:
            await events.record_refusal(
                connection, actor, action="access_refused", message="an agent asked on another agent's behalf"
            )
        raise NotPermitted("This token is another agent's", "An agent speaks for itself only")
    return agent_id, actor


def text(body: dict[str, Any], name: str, default: str = "") -> str:
    """A text field; null and absent are the default. Raises InvalidInput for any other type."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, str):
        return value
    raise InvalidInput(f"{name} is no text", "Send a string")


def number(body: dict[str, Any], name: str, default: int = 0) -> int:
    """A whole number; null and absent are the default, fractions are cut off. Raises InvalidInput for any other type."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**62:
        raise InvalidInput(f"{name} is no number", "Send a number")
    return int(value)


def mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    """An object; null and absent are empty. Raises InvalidInput for any other type."""
    value = body.get(name)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise InvalidInput(f"{name} is no object", "Send an object")


def sequence(body: dict[str, Any], name: str, limit: int) -> list[Any]:
    """A list; null and absent are empty. Raises InvalidInput for any other type or a longer one."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"{name} is no list", "Send a list")
    if len(value) > limit:
        raise InvalidInput(f"{name} has more than {limit} entries", "Send several reports")
    return value


def identifier(value: Any, name: str) -> uuid.UUID:
    """A UUID. Raises InvalidInput."""
    try:
        return uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(f"{name} is no UUID", "Send the id as it was handed out") from None


def identifiers(body: dict[str, Any], name: str, limit: int = 1000) -> tuple[uuid.UUID, ...]:
    """A list of UUIDs. Raises InvalidInput."""
    return tuple(dict.fromkeys(identifier(value, name) for value in sequence(body, name, limit)))


def rfc3339(moment: datetime.datetime) -> str:
    """A time as Go reads it: UTC, to the second, with a Z."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
