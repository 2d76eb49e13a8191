"""Connections as a large fleet needs them: the more there are, the sooner an idle one is closed; and a plain answer is one write.

RedFlag's agents come by every half minute or so and keep their connection for it; one that is closed under them costs them
and the server a handshake. So the shortest time is a little more than that, and only as many files as the process may have
open make it shorter than the usual one.

A request that is here in whole can be answered past ASGI's messages (`Exchange`): uvicorn writes the head and the body of an
answer one after the other, each a call of the system and a packet, which is a fifth of all that a check-in costs.
"""

from __future__ import annotations

import functools
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_SECONDS = 75
SHORTEST_SECONDS = 40
# Where a request's `Exchange` is in its scope
EXCHANGE = "redflag.exchange"


def idle_seconds(connections: int, files: int) -> int:
    """After how many seconds an idle connection is closed: the longest time up to half of the files, the shortest from nine tenths on."""
    used = connections / files
    part = min(max((used - 0.5) / 0.4, 0.0), 1.0)
    return round(LONGEST_SECONDS - part * (LONGEST_SECONDS - SHORTEST_SECONDS))


@functools.lru_cache(maxsize=1)
def most_files() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


class Exchange:
    """A request and its answer, as uvicorn's cycle has them. Whoever answers here sends no ASGI message."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """The body, if all of it has come already. None: what is still to come is read in the ordinary way."""
        cycle = self._cycle
        return None if cycle.more_body or cycle.disconnected else bytes(cycle.body)

    def has_gone(self) -> bool:
        """Whether the other end has closed the connection."""
        return bool(self._cycle.disconnected)

    async def answer(self, head: bytes, body: bytes) -> None:
        """Writes an answer, in one piece. `head`: the status line and header lines, each with its end, but for the body's length.
        To somebody who has gone nothing is written."""
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        ends = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        cycle.transport.write(
            b"%bcontent-length: %d\r\n%b%b%b" % (head, len(body), _usual(cycle.default_headers), ends, body)
        )
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with an idle time that follows how many there are, and an `Exchange` in each scope."""

    @property
    def timeout_keep_alive(self) -> int:
        """Asked for after each answer. Seconds."""
        return idle_seconds(len(self.connections), most_files())

    @timeout_keep_alive.setter
    def timeout_keep_alive(self, _seconds: Any) -> None:
        """What uvicorn was configured with is the same for all, and not used."""

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.scope[EXCHANGE] = Exchange(cycle)
        super()._start_asgi_task(cycle, app)


# uvicorn makes the headers that every answer carries (the date) anew each second
_lines: tuple[Any, bytes] = (None, b"")


def _usual(headers: list[tuple[bytes, bytes]]) -> bytes:
    global _lines  # noqa: PLW0603 - of one process and one event loop
    if _lines[0] is not headers:
        _lines = (headers, b"".join(b"%b: %b\r\n" % header for header in headers))
    return _lines[1]
