"""The way of what agents call, past every framework: it is nearly all that a large fleet asks.

Only what is plain goes this way: a token that this process remembers, for the agent in the path, with a small body that came
together with the request. Whatever else there is (a token seen for the first time or never valid, another agent's path, a
large body) goes the ordinary way, which looks it up, counts it, records what it refuses, and answers the same for the same.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from redflag.audit import actor as actors
from redflag.web import problems
from redflag.web.agent import wire
from redflag.web.agent.routes import CALLS
from redflag.web.connections import EXCHANGE, Exchange
from redflag.web.context import Context, caller_of

_BEFORE = "/api/v1/agents/"
_AGENT = slice(len(_BEFORE), len(_BEFORE) + 36)
# After an agent's identifier, the slash and the call's name
_NAME = slice(_AGENT.stop + 1, None)
SMALL = 64 * 1024


class Gate:
    """Answers agents' calls itself, and hands everything else to `app`. `headers` go with every answer."""

    def __init__(self, app: ASGIApp, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.app = app
        self.context: Context | None = None
        self._headers = headers
        lines = [b"content-type: application/json", *(b"%b: %b" % header for header in headers)]
        self._head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b\r\n" % line for line in lines)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        # Taken out, because it leads back to the scope: whatever leads back to itself only the collector of garbage frees
        exchange: Exchange | None = scope.pop(EXCHANGE, None)
        if scope["type"] == "http" and exchange is not None and self.context is not None:
            path: str = scope["path"]
            caller = CALLS.get((scope["method"], path[_NAME])) if path.startswith(_BEFORE) else None
            if caller is not None and path[_AGENT.stop] == "/":
                body = exchange.body()
                agent_id = _known(self.context, scope["headers"], path[_AGENT])
                if agent_id is not None and body is not None and len(body) <= SMALL:
                    actor = actors.agent(agent_id, _address(self.context, scope))
                    call = wire.Call(self.context, agent_id, actor, body, _wait(scope), _looked(exchange))
                    await self._answer(caller, call, exchange, scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _answer(
        self, caller: wire.Caller, call: wire.Call, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            encoded = msgspec.json.encode(await caller(call))
        except Exception as error:
            answer = problems.agent_error(error)
            answer.raw_headers += self._headers
            await answer(scope, receive, send)
            return
        await exchange.answer(self._head, encoded)


def _known(here: Context, headers: list[tuple[bytes, bytes]], named: str) -> uuid.UUID | None:
    """The agent whose token this is, if this process remembers it and the path names it."""
    for name, value in headers:
        if name == b"authorization":
            agent_id = here.authenticator.remembered_agent(value.decode("latin-1"))
            return agent_id if agent_id is not None and str(agent_id) == named.lower() else None
    return None


def _wait(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("wait", ["0"])[-1] if query else "0"


def _address(here: Context, scope: Scope) -> str:
    client = scope.get("client")
    peer = client[0] if client else "0.0.0.0"  # noqa: S104 - said of an unknown peer, not bound
    trusted = here.settings.trusted_proxies
    said = (
        [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"] if trusted else []
    )
    return caller_of(peer, said, trusted)


def _looked(exchange: Exchange) -> Any:
    """Whether the agent has gone, asked as Starlette's requests are asked."""

    async def look() -> bool:
        return exchange.has_gone()

    return look
