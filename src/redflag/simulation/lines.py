"""The connections of simulated agents in an open loop: what is asked on each goes out one call at a time, in order.

A call is answered or fails, for certain: a connection that ends, cannot be opened or brings no answer in time fails the call that is
under way and goes on with the next one. A connection that the server closed while it was idle says nothing about the server: what
was sent on it just then is sent once more.
"""

from __future__ import annotations

import collections
import time
from typing import Any, Protocol

from redflag.simulation import tally
from redflag.simulation.answers import Answer, BadAnswer
from redflag.simulation.connection import Connection, Dialer
from redflag.simulation.tally import Tally

# What agents ask; their durations go by these names
CHECK_IN, RECEIVED, RUNNING, REPORT, INFO, RENEWAL = "check_in", "received", "running", "report", "info", "renewal"


class Call:
    """Something that an agent asks. `due`: when it should have been sent; `holds`: for how long the server may hold it."""

    __slots__ = ("again", "agent", "due", "gives_up", "holds", "kind", "renewed", "sent_at", "what")

    def __init__(self, agent: Asking, kind: str, due: float, what: Any = None, holds: float = 0.0) -> None:
        self.agent = agent
        self.kind = kind
        self.due = due
        self.what = what
        self.holds = holds
        self.again = False
        self.renewed = False
        self.sent_at = 0.0
        self.gives_up = float("inf")


class Asking(Protocol):
    """Who asks: is told of each call what to send, and what became of it."""

    def request(self, call: Call) -> bytes:
        """The bytes of a call. They are made when they are sent, and kept by nobody: a fleet's would fill the memory."""
        ...

    def answered(self, call: Call, answer: Answer) -> None:
        """An answer came, whatever its status."""
        ...

    def failed(self, call: Call, kind: str, example: str) -> None:
        """No answer will come."""
        ...


class Lines:
    """All lines of a process: what they share, and how many are open."""

    def __init__(self, dialer: Dialer, counted: Tally, patience: float) -> None:
        self.dialer = dialer
        self.tally = counted
        self.patience = patience
        self.open = 0
        self.all: list[Line] = []
        self._looked_at = 0

    def make(self, source: str) -> Line:
        """A line, opened when it is needed. `source`: the address that it is opened from; empty: any."""
        line = Line(self, source)
        self.all.append(line)
        return line

    def expire(self, part: float) -> None:
        """Fails what was not answered in time, on a part of all lines; the next call looks at the next part."""
        now, count = time.monotonic(), max(1, int(len(self.all) * part))
        if self._looked_at >= len(self.all):
            self._looked_at = 0
        for line in self.all[self._looked_at : self._looked_at + count]:
            line.expire(now)
        self._looked_at += count


class Line(Connection):
    """One connection, and what is to be asked on it."""

    __slots__ = ("_began", "_kept", "_lines", "_waiting", "current")

    def __init__(self, lines: Lines, source: str) -> None:
        super().__init__(source)
        self._lines = lines
        self.current: Call | None = None
        self._waiting: collections.deque[Call] | None = None
        self._kept = False
        self._began = 0.0

    def submit(self, call: Call) -> None:
        """Has a call made when those before it are over."""
        if self.current is None:
            self._begin(call)
        elif self._waiting is None:
            self._waiting = collections.deque((call,))
        else:
            self._waiting.append(call)

    def expire(self, now: float) -> None:
        """Fails the call under way if its time is over."""
        call = self.current
        if call is not None and now > call.gives_up:
            self.drop()
            self._fail(tally.TIMEOUT, f"{call.kind} was not answered within {now - call.sent_at:.0f} s")

    def opened(self) -> None:
        """The call that waits for it goes out."""
        self._kept = False
        self._lines.open += 1
        self._lines.tally.counts["connected"] += 1
        self._lines.tally.durations["connect"].add(time.monotonic() - self._began)
        if self.current is not None:
            self._send(self.current)

    def closed(self) -> None:
        """One fewer is open."""
        self._lines.open -= 1

    def not_opened(self, error: BaseException) -> None:
        """The call that waits for it fails."""
        self._fail(tally.kind_of(error), f"a connection could not be opened: {error or type(error).__name__}")

    def answered(self, answer: Answer) -> None:
        """Whoever asked is told, and the next call begins."""
        call = self.current
        if call is None:
            self.drop()
            self._lines.tally.fail(tally.BAD_ANSWER, "an answer that nobody asked for")
            return
        self._kept = True
        self.current = None
        self._next()
        call.agent.answered(call, answer)

    def gone(self, error: BaseException | None) -> None:
        """What was under way is asked once more on a new connection if this one may just have been idle for too long."""
        call = self.current
        if call is None:
            self._lines.tally.counts["closed_idle"] += 1
        elif self._kept and not call.again and not isinstance(error, BadAnswer):
            call.again = True
            self._lines.tally.counts["asked_again"] += 1
            self._begin(call)
        else:
            kind = tally.BAD_ANSWER if isinstance(error, BadAnswer) else tally.kind_of(error)
            said = f": {error}" if error else " by the server"
            self._fail(kind, f"{call.kind}: the connection ended{said}")

    def _begin(self, call: Call) -> None:
        self.current = call
        if self.transport is None:
            call.gives_up = float("inf")  # opening has a time limit of its own
            self._began = time.monotonic()
            self._lines.dialer.open(self)
        else:
            self._send(call)

    def _send(self, call: Call) -> None:
        call.sent_at = time.monotonic()
        call.gives_up = call.sent_at + call.holds + self._lines.patience
        self.transport.write(call.agent.request(call))

    def _next(self) -> None:
        if self._waiting:
            self._begin(self._waiting.popleft())

    def _fail(self, kind: str, example: str) -> None:
        call, self.current = self.current, None
        self._next()
        if call is not None:
            self._lines.tally.fail(kind, example)
            call.agent.failed(call, kind, example)
