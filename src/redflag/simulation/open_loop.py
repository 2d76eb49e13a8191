"""An open loop: each agent comes by at its own times, fixed beforehand, whether the server is quick or slow.

So a server that stalls is not spared the load of the meantime in the figures: what was due is measured from when it was due. One
process, its share of the agents; what is due lies in one heap.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from redflag.simulation import says
from redflag.simulation.agents import Agent, HeldAgent, PollingAgent
from redflag.simulation.connection import Dialer
from redflag.simulation.enqueuing import Enqueuer
from redflag.simulation.job import Job
from redflag.simulation.lines import Line, Lines
from redflag.simulation.plan import Protocol
from redflag.simulation.tally import Tally
from redflag.simulation.target import Requests

# Timers are good to a millisecond: what is due within half of one is sent now
TIMER_SECONDS = 0.001
EARLY_SECONDS = TIMER_SECONDS / 2
AT_ONCE = 128
LOOK_SECONDS = 0.1
STRAGGLER_SECONDS = 5.0
Due = Callable[[float], None]


class OpenLoop:
    """The agents of one process, and what they share."""

    def __init__(self, job: Job, counted: Tally, begins: float) -> None:
        self.plan = job.plan
        self.tally = counted
        self.chance = random.Random(job.number)  # noqa: S311 - spread, not secret
        self.requests = Requests(job.target)
        self.info = says.system_info(self.chance)
        # The checkpoint that was seen last, as the agents name it
        self.log = b'{"size":0}'
        # New access tokens, by the agent's number
        self.renewed: dict[int, str] = {}
        self.ending = False
        # Commands that agents still have to report
        self.busy = 0
        joins = self.plan.ramp * job.share
        often = 2.0 * len(job.agents) / self.plan.interval
        self.lines = Lines(Dialer(job.target, max(joins, often, 10.0)), counted, self.plan.patience)
        protocol = self.plan.protocol.number
        self._metrics = says.metrics(protocol, self.chance)
        self._outputs = says.outputs(self.plan.output, self.chance)
        self._due: list[tuple[float, int, Due]] = []
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")
        self._known: dict[bytes, says.CheckedIn] = {}
        self.agents = self._make_agents(job, begins)
        self._enqueuer = Enqueuer(self, job) if self.plan.commands else None

    def _make_agents(self, job: Job, begins: float) -> list[Agent]:
        plan, shared = self.plan, list[Line]()
        rounds, _ = plan.joining(job.of)
        for place in range(job.connections):
            shared.append(self.lines.make(_of(job.sources, place)))
        made: list[Agent] = []
        for place, one in enumerate(job.agents):
            line = shared[place % len(shared)] if shared else self.lines.make(_of(job.sources, one.number))
            if plan.protocol is Protocol.HELD:
                at = begins + one.number / plan.ramp
                agent: Agent = HeldAgent(self, one.number, one.agent_id, one.token, one.refresh, line, at)
            else:
                # Evenly over the interval, those that join in the same round as well
                at = begins + plan.interval * (one.number / job.of + one.number % rounds)
                agent = PollingAgent(self, one.number, one.agent_id, one.token, one.refresh, line, at)
            made.append(agent)
            if plan.hourly:
                self.at(at + self.chance.random() * plan.hourly, agent.hourly)
        return made

    def at(self, when: float, what: Due) -> None:
        """Has something done at a time of the monotonic clock; it is told that time."""
        heapq.heappush(self._due, (when, next(self._number), what))
        if when < self._armed_for:
            self._arm()

    def metrics(self) -> bytes:
        """How some host fares."""
        return self._metrics[next(self._number) % len(self._metrics)]

    def output(self) -> bytes:
        """What some command printed."""
        return self._outputs[next(self._number) % len(self._outputs)]

    def work_seconds(self) -> float:
        """How long a command takes: most a little, some long."""
        if self.ending or not self.plan.work:
            return 0.0
        return min(self.chance.expovariate(1.0 / self.plan.work), 10.0 * self.plan.work)

    def understood(self, body: bytes) -> says.CheckedIn:
        """The answer to a check-in. Nearly all are the same, and read once. Raises msgspec.DecodeError."""
        told = self._known.get(body)
        if told is None:
            told = says.checked_in(body)
            if not told.commands and not told.ended and told.log is None and len(body) < 300:
                if len(self._known) > 64:
                    self._known.clear()
                self._known[body] = told
        return told

    def saw_log(self, told: dict[str, Any]) -> None:
        """The newest checkpoint: its first two lines are the log's origin and size. The agents of a process hold the same one."""
        lines = str(told.get("checkpoint", "")).split("\n")
        if len(lines) > 2 and lines[1].isdigit():
            self.log = msgspec.json.encode({"origin": lines[0], "size": int(lines[1])})

    def received(self, agent: Agent, command_id: str, now: float) -> None:
        """An agent was handed a command."""
        if self._enqueuer is not None:
            self._enqueuer.received(agent.id, command_id, now)

    async def run(self, measured_from: float, until: float, stop: asyncio.Event) -> None:
        """Runs until `until`, or until it is told to stop; then reports what is still to be reported."""
        enqueuing = asyncio.ensure_future(self._enqueuer.run(measured_from)) if self._enqueuer else None
        looking = asyncio.ensure_future(self._look())
        try:
            await _either(stop, until)
            if enqueuing is not None and self._enqueuer is not None:
                self._enqueuer.stop()
                await enqueuing
                await self._wait(lambda: not self._enqueuer or not self._enqueuer.waiting, STRAGGLER_SECONDS, stop)
            self._finish()
            await self._wait(lambda: not self.busy and not self._is_asking(), self.plan.drain, None)
            self.tally.counts["unreported"] += self.busy
        finally:
            looking.cancel()
            if enqueuing is not None:
                enqueuing.cancel()
            self.lines.dialer.close()
            if self._timer is not None:
                self._timer.cancel()

    def close(self) -> None:
        """Ends all connections: the agents are there no more."""
        for line in self.lines.all:
            line.current = None
            line.drop()

    def _finish(self) -> None:
        """No more check-ins; what runs is done at once, and reported."""
        self.ending = True
        for agent in self.agents:
            for work in list((agent.work or {}).values()):
                if not work.is_lost:
                    agent.finish(work)

    def _is_asking(self) -> bool:
        """Whether a check-in is under way that is not held, and may bring a command."""
        if self.plan.protocol is Protocol.HELD:
            return False
        return any(agent.asking for agent in self.agents)

    async def _wait(self, condition: Callable[[], bool], seconds: float, stop: asyncio.Event | None) -> None:
        ends = time.monotonic() + seconds
        while not condition() and time.monotonic() < ends and not (stop is not None and stop.is_set()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _look(self) -> None:
        """Every answer that does not come is given up in its time: all lines are looked at within a part of the patience."""
        part = min(1.0, LOOK_SECONDS / max(min(self.plan.patience / 4, 5.0), LOOK_SECONDS))
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.lines.expire(part)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = self._due[0][0]
        wait = max(TIMER_SECONDS, self._armed_for - EARLY_SECONDS - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._armed_for = float("-inf")  # what is added meanwhile arms nothing
        due, lag = self._due, self.tally.durations["lag"]
        # Between two handfuls the answers that came are seen to
        for _ in range(AT_ONCE):
            now = time.monotonic()
            if not due or due[0][0] > now + EARLY_SECONDS:
                break
            when, _number, what = heapq.heappop(due)
            lag.add(max(0.0, now - when))
            what(when)
        self._armed_for = float("inf")
        if due:
            self._arm()


def _of(sources: list[str], number: int) -> str:
    return sources[number % len(sources)] if sources else ""


async def _either(stop: asyncio.Event, until: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            await stop.wait()
    except TimeoutError:
        return
