"""The way of check-ins, past every framework: they are nearly all that a large fleet asks.

Only what is plain goes this way: a token that this process remembers, for the agent in the path, with a small body. Whatever
else there is (a token seen for the first time or never valid, another agent's path) goes the ordinary way, which looks it up,
records what it refuses, and answers the same for the same.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from redflag.audit import actor as actors
from redflag.errors import InvalidInput, TooLarge
from redflag.web import problems
from redflag.web.agent import checkin
from redflag.web.context import Context, caller_of

_BEFORE, _AFTER = "/api/v1/agents/", "/commands"
_LENGTH = len(_BEFORE) + 36 + len(_AFTER)
BODY_SECONDS = 60.0


class Gate:
    """Answers check-ins itself, and hands everything else to `app`. `headers` go with every answer."""

    def __init__(self, app: ASGIApp, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.app = app
        self.context: Context | None = None
        self._headers = [(b"content-type", b"application/json"), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] == "GET" and self.context is not None:
            path: str = scope["path"]
            if len(path) == _LENGTH and path.startswith(_BEFORE) and path.endswith(_AFTER):
                agent_id = _known(self.context, scope["headers"], path[len(_BEFORE) : -len(_AFTER)])
                if agent_id is not None:
                    await self._check_in(self.context, agent_id, scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _check_in(self, here: Context, agent_id: uuid.UUID, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        try:
            actor = actors.agent(agent_id, _address(here, scope))
            body = _decoded(await _body(receive))
            query = scope["query_string"]
            wait = checkin.wait_of(parse_qs(query.decode("latin-1")).get("wait", ["0"])[-1]) if query else 0.0
            told = await checkin.answer(here, agent_id, actor, body, wait, began, _has_gone(receive))
            encoded = msgspec.json.encode(told)
        except _Gone:
            return
        except Exception as error:
            await problems.agent_error(error)(scope, receive, send)
            return
        headers = [*self._headers, (b"content-length", b"%d" % len(encoded))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})


def _known(here: Context, headers: list[tuple[bytes, bytes]], named: str) -> uuid.UUID | None:
    """The agent whose token this is, if this process remembers it and the path names it."""
    for name, value in headers:
        if name == b"authorization":
            agent_id = here.authenticator.remembered_agent(value.decode("latin-1"))
            return agent_id if agent_id is not None and str(agent_id) == named.lower() else None
    return None


class _Gone(Exception):
    """The agent closed its connection before it had said all."""


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _Gone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts, size = [body], len(body)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > checkin.MOST_BODY:
                    parts = [b""]
    except TimeoutError:
        raise InvalidInput(f"The body stopped coming for {BODY_SECONDS:.0f} s", "Send it again") from None
    if size > checkin.MOST_BODY:
        raise TooLarge(f"The body of a check-in is larger than {checkin.MOST_BODY} bytes", "Send less at once")
    return b"".join(parts)


def _decoded(body: bytes) -> dict[str, Any]:
    """What is no JSON object is taken for an empty one."""
    try:
        value = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _address(here: Context, scope: Scope) -> str:
    client = scope.get("client")
    peer = client[0] if client else "0.0.0.0"  # noqa: S104 - said of an unknown peer, not bound
    trusted = here.settings.trusted_proxies
    said = (
        [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"] if trusted else []
    )
    return caller_of(peer, said, trusted)


def _has_gone(receive: Receive) -> Callable[[], Awaitable[bool]]:
    """Whether the connection is closed: looked for without waiting."""

    async def look() -> bool:
        coming = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        if coming.done():
            return bool(coming.result()["type"] == "http.disconnect")
        coming.cancel()
        return False

    return look
