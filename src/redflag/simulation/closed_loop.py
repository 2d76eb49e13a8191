"""A closed loop: so many connections, on each the next request as soon as the last was answered. It finds what a server can do.

The agents' tokens are used one after the other. Commands that come with an answer are reported next on the same connection. A server
that says when to come back is obeyed: the connection pauses.
"""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import Iterator

import msgspec

from redflag.simulation import says, tally
from redflag.simulation.answers import Answer, BadAnswer
from redflag.simulation.connection import Connection, Dialer
from redflag.simulation.histogram import Histogram
from redflag.simulation.job import Credential, Job
from redflag.simulation.lines import CHECK_IN, REPORT, RUNNING
from redflag.simulation.tally import Tally
from redflag.simulation.target import Requests

# After what brought no answer
PAUSE_SECONDS = 0.5
# Requests of so many agents are kept, and made once
MOST_KEPT = 20_000
LOOK_SECONDS = 0.25


class ClosedLoop:
    """The connections of one process."""

    def __init__(self, job: Job, counted: Tally) -> None:
        self.plan = job.plan
        self.tally = counted
        self.chance = random.Random(job.number)  # noqa: S311 - spread, not secret
        self.requests = Requests(job.target)
        self.busy = 0
        self.renewed: dict[int, str] = {}
        self.is_over = False
        self.done = asyncio.Event()
        self.dialer = Dialer(job.target, max(self.plan.ramp, 100.0))
        self._outputs = says.outputs(self.plan.output, self.chance)
        self._metrics = says.metrics(self.plan.protocol.number, self.chance)
        self._known: set[bytes] = set()
        self._kept: list[bytes | None] = [None] * (len(job.agents) if len(job.agents) <= MOST_KEPT else 0)
        self._agents = job.agents
        self._next = self._given(job) if job.requests is not None else self._check_ins()
        self.pumps = [
            Pump(self, job.sources[place % len(job.sources)] if job.sources else "") for place in range(job.connections)
        ]

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(pump.transport is not None for pump in self.pumps)

    async def run(self, measured_from: float, until: float, stop: asyncio.Event) -> None:
        """Runs until `until`, until all was asked that is to be asked, or until it is told to stop."""
        await asyncio.sleep(max(0.0, measured_from - time.monotonic()))
        for pump in self.pumps:
            pump.begin()
        while time.monotonic() < until and not stop.is_set() and not self.done.is_set():
            await asyncio.sleep(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))
            for pump in self.pumps:
                pump.expire(time.monotonic())
        self.is_over = True
        ends = time.monotonic() + self.plan.drain
        while any(pump.is_asking for pump in self.pumps) and time.monotonic() < ends:
            await asyncio.sleep(0.01)
            for pump in self.pumps:
                pump.expire(time.monotonic())
        self.dialer.close()

    def close(self) -> None:
        """Ends all connections."""
        for pump in self.pumps:
            pump.is_asking = False
            pump.drop()

    def next(self) -> tuple[Credential | None, bytes, str] | None:
        """Who asks next, what, and what it counts as. None: there is nothing more."""
        if self.is_over:
            return None
        found = next(self._next, None)
        if found is None and all(not pump.is_asking for pump in self.pumps):
            self.done.set()
        return found

    def answered(self, pump: Pump, body: bytes) -> None:
        """Sees to the answer to a check-in, unless it is one of those that say nothing."""
        if body in self._known or pump.agent is None:
            return
        told = says.checked_in(body)
        if not told.commands:
            if len(self._known) > 64:
                self._known.clear()
            self._known.add(body)
            return
        for command in told.commands:
            self.tally.counts["delivered"] += 1
            if self.chance.random() < self.plan.lost:
                self.tally.counts["lost"] += 1
                continue
            agent_id, token = pump.agent.agent_id.encode(), pump.agent.token.encode()
            if self.plan.protocol.number:
                running = says.progress([], [command.id])
                pump.todo.append((self.requests.of_agent(b"POST", agent_id, b"progress", token, running), RUNNING))
            ended = says.report(command, 0.0, self._outputs[self.chance.randrange(len(self._outputs))])
            pump.todo.append((self.requests.of_agent(b"POST", agent_id, b"logs", token, ended), REPORT))

    def _check_ins(self) -> Iterator[tuple[Credential | None, bytes, str]]:
        rounds = 0
        while not self.plan.rounds or rounds < self.plan.rounds:
            for place, agent in enumerate(self._agents):
                yield agent, self._check_in(place, agent), CHECK_IN
            rounds += 1

    def _check_in(self, place: int, agent: Credential) -> bytes:
        if self._kept and (kept := self._kept[place]) is not None:
            return kept
        if self.plan.path:
            made = self.requests.make(b"GET", self.plan.path.encode(), agent.token.encode())
        else:
            held = b',"held":[]' if self.plan.protocol.number else b""
            body = b"%b%b}" % (self._metrics[place % len(self._metrics)], held)
            made = self.requests.of_agent(b"GET", agent.agent_id.encode(), b"commands", agent.token.encode(), body)
        if self._kept:
            self._kept[place] = made
        return made

    def _given(self, job: Job) -> Iterator[tuple[Credential | None, bytes, str]]:
        for one in job.requests or ():
            yield (
                None,
                self.requests.of_agent(
                    one.method.encode(), one.agent_id.encode(), one.call.encode(), one.token.encode(), one.body
                ),
                REPORT if one.call == "logs" else CHECK_IN if one.call == "commands" else one.call,
            )


class Pump(Connection):
    """One connection that is never idle."""

    __slots__ = ("_kept", "_kind", "_loop", "_request", "_sent_at", "agent", "is_asking", "todo")

    def __init__(self, loop: ClosedLoop, source: str) -> None:
        super().__init__(source)
        self._loop = loop
        self._kept = False
        self._request = b""
        self._kind = CHECK_IN
        self._sent_at = 0.0
        self.agent: Credential | None = None
        self.is_asking = False
        # Requests that go before the next check-in
        self.todo: collections.deque[tuple[bytes, str]] = collections.deque()

    def begin(self) -> None:
        """The next request, if there is one."""
        if self.todo:
            self._request, self._kind = self.todo.popleft()
        else:
            self.is_asking = False
            found = self._loop.next()
            if found is None:
                return
            self.agent, self._request, self._kind = found
        self.is_asking = True
        self._send()

    def expire(self, now: float) -> None:
        """Gives up what was not answered in time."""
        patience = self._loop.plan.patience
        if self.is_asking and self.transport is not None and now - self._sent_at > patience:
            self.drop()
            self._fail(tally.TIMEOUT, f"{self._kind} was not answered within {patience:.0f} s")

    def opened(self) -> None:
        """The request that waits for it goes out."""
        self._kept = False
        self._loop.tally.counts["connected"] += 1
        self._loop.tally.durations["connect"].add(time.monotonic() - self._sent_at)
        self._send()

    def not_opened(self, error: BaseException) -> None:
        """Tries again a little later."""
        self._fail(tally.kind_of(error), f"a connection could not be opened: {error or type(error).__name__}")

    def answered(self, answer: Answer) -> None:
        """Counts it, and goes on."""
        counted, kind = self._loop.tally, self._kind
        self._kept = True
        if answer.status == 200:
            durations: Histogram = counted.durations[kind]
            durations.add(time.monotonic() - self._sent_at)
            if kind == CHECK_IN:
                counted.counts["check_ins"] += 1
                try:
                    if not self._loop.plan.path:
                        self._loop.answered(self, answer.body)
                except msgspec.DecodeError as error:
                    counted.fail(tally.BAD_ANSWER, f"{kind}: {error}: {answer.body[:100]!r}")
            elif kind == REPORT:
                status = says.reported(answer.body).status
                counted.counts[status if status in says.OTHER_STATUSES else "recorded"] += 1
        else:
            counted.fail(str(answer.status), f"{kind}: {answer.body[:200].decode('utf-8', 'replace')}")
            if answer.retry_after:
                pause = min(answer.retry_after, 60.0) * self._loop.chance.uniform(1.0, 1.25)
                self._pause(pause)
                return
        self.begin()

    def gone(self, error: BaseException | None) -> None:
        """A connection that was kept may have been closed just then: the request is sent once more."""
        if not self.is_asking:
            return
        if self._kept and not isinstance(error, BadAnswer):
            self._loop.tally.counts["asked_again"] += 1
            self._send()
        else:
            said = f": {error}" if error else " by the server"
            kind = tally.BAD_ANSWER if isinstance(error, BadAnswer) else tally.kind_of(error)
            self._fail(kind, f"{self._kind}: the connection ended{said}")

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        if self.transport is None:
            self._loop.dialer.open(self)
        else:
            self.transport.write(self._request)

    def _fail(self, kind: str, example: str) -> None:
        self._loop.tally.fail(kind, example)
        self._pause(PAUSE_SECONDS * self._loop.chance.uniform(1.0, 2.0))

    def _pause(self, seconds: float) -> None:
        self.is_asking = False
        if not self._loop.is_over:
            asyncio.get_running_loop().call_later(seconds, self.begin)
