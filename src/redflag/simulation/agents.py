"""Simulated agents, as the protocol has them: RedFlag's own, which poll, and this project's, whose calls are held.

Promises, as the real ones keep them: one check-in at a time; a command that is handed out again is not run again; an agent of ours
reports until the server has given a final answer, later each time, and never sooner than the server asked. What is due while
an agent still waits is not sent as well, which would flood a server that is slow; it is counted, and its wait is measured.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from redflag.simulation import says, tally
from redflag.simulation.answers import Answer
from redflag.simulation.lines import CHECK_IN, INFO, RECEIVED, RENEWAL, REPORT, RUNNING, Call, Line

if TYPE_CHECKING:
    from redflag.simulation.open_loop import OpenLoop

# Of the agents' protocol, as docs/reference/agent-protocol.md has it
RAPID_SECONDS = 5.0
PROGRESS_SECONDS = 20.0
LONGEST_BACK_OFF = 300.0
MOST_WAIT = 300.0
FINAL = frozenset({400, 403, 404, 409, 413, 422})


class Work:
    """A command that an agent has."""

    __slots__ = ("began", "command", "failures", "is_lost", "is_over", "is_running")

    def __init__(self, command: says.Command, is_lost: bool) -> None:
        self.command = command
        self.is_lost = is_lost
        self.is_running = False
        self.is_over = False
        self.began = 0.0
        self.failures = 0


class Agent:
    """What both kinds have in common."""

    __slots__ = (
        "asking", "failures", "id", "index", "line", "missed", "not_before", "rapid_until", "refresh", "token", "work", "world",
    )  # fmt: skip

    def __init__(self, world: OpenLoop, index: int, agent_id: str, token: str, refresh: str, line: Line) -> None:
        self.world = world
        self.index = index
        self.id = agent_id.encode()
        self.token = token.encode()
        self.refresh = refresh
        self.line = line
        self.asking = False
        self.failures = 0
        self.not_before = 0.0
        self.rapid_until = 0.0
        # When it should have come by while it still waited
        self.missed: list[float] | None = None
        self.work: dict[str, Work] | None = None

    def tick(self, due: float) -> None:
        """It is time to come by."""
        raise NotImplementedError

    def finish(self, work: Work) -> None:
        """A command is done, and is reported."""
        if not work.is_over and work.is_running:
            work.is_over = True
            self._report(work)

    def hourly(self, due: float) -> None:
        """It is time to tell of the host."""
        self.world.at(due + self.world.plan.hourly, self.hourly)
        self.reporting().submit(Call(self, INFO, due))

    def reporting(self) -> Line:
        """The line for whatever is no check-in."""
        return self.line

    def request(self, call: Call) -> bytes:
        """The bytes of a call."""
        world = self.world
        if call.kind == CHECK_IN:
            return self.check_in(call)
        if call.kind == RENEWAL:
            body = msgspec.json.encode({"agent_id": self.id.decode(), "refresh_token": self.refresh})
            return world.requests.make(b"POST", b"/api/v1/agents/renew", b"", body)
        if call.kind == INFO:
            path, body = b"system-info", world.info
        elif call.kind == REPORT:
            work: Work = call.what
            path, body = b"logs", says.report(work.command, time.monotonic() - work.began, world.output())
        elif call.kind == RUNNING:
            path, body = b"progress", says.progress([], [call.what.command.id])
        else:
            path, body = b"progress", says.progress([work.command.id for work in call.what], [])
        return world.requests.of_agent(b"POST", self.id, path, self.token, body)

    def check_in(self, call: Call) -> bytes:
        """The bytes of a check-in."""
        raise NotImplementedError

    def answered(self, call: Call, answer: Answer) -> None:
        """Sees to an answer."""
        now = time.monotonic()
        if answer.status == 200:
            try:
                self._took(call, answer.body, now)
            except msgspec.DecodeError as error:
                self.world.tally.fail(tally.BAD_ANSWER, f"{call.kind}: {error}: {answer.body[:100]!r}")
                self.refused(call, 0, None)
        elif answer.status == 401 and self.refresh and call.kind != RENEWAL and not call.renewed:
            call.renewed = True
            self._line_of(call).submit(Call(self, RENEWAL, now, call))
        else:
            said = answer.body[:200].decode("utf-8", "replace")
            self.world.tally.fail(str(answer.status), f"{call.kind}: {said}")
            self.refused(call, answer.status, answer.retry_after)

    def failed(self, call: Call, kind: str, example: str) -> None:  # noqa: ARG002 - every kind is treated alike
        """Nothing came. It was counted where it was seen."""
        self.refused(call, 0, None)

    def refused(self, call: Call, status: int, retry_after: float | None) -> None:  # noqa: ARG002
        """A call was in vain. `status` 0: nothing usable came back."""
        if call.kind == RENEWAL:
            self.refused(call.what, 401, None)
        elif call.kind == CHECK_IN:
            self.asking = False
            self.failures += 1
            if retry_after:
                self.not_before = time.monotonic() + retry_after * self.world.chance.uniform(1.0, 1.25)

    def _took(self, call: Call, body: bytes, now: float) -> None:
        if call.kind == CHECK_IN:
            told = self.world.understood(body)
            self.asking = False
            self.failures = 0
            self._note(call, told, now)
            self.took(call, told, now)
            return
        self.world.tally.durations[call.kind].add(now - call.sent_at)
        if call.kind == REPORT:
            status = says.reported(body).status
            self.world.tally.counts[status if status in says.OTHER_STATUSES else "recorded"] += 1
            self.forget(call.what)
        elif call.kind == RENEWAL:
            token = says.renewed(body).token
            self.token = token.encode()
            self.world.renewed[self.index] = token
            self._line_of(call.what).submit(call.what)
        elif call.kind in {RECEIVED, RUNNING}:
            self.progressed(call, says.progressed(body), now)

    def _line_of(self, call: Call) -> Line:
        return self.line if call.kind == CHECK_IN else self.reporting()

    def _note(self, call: Call, told: says.CheckedIn, now: float) -> None:
        """Measures a check-in. Of a held call what counts is how much longer it took than it asked to be held."""
        counted = self.world.tally
        counted.counts["check_ins"] += 1
        beyond = now - call.sent_at - call.holds
        if call.holds and beyond < -0.05:
            if not told.commands and not told.ended:
                counted.counts["released_early"] += 1
            return
        counted.durations["answer"].add(beyond)
        counted.durations["check_in"].add(beyond if call.holds else now - min(call.due, call.sent_at))
        if self.missed:
            for due in self.missed:
                counted.durations["check_in"].add(now - due)
            self.missed = None

    def took(self, call: Call, told: says.CheckedIn, now: float) -> None:
        """Sees to what a check-in brought."""
        raise NotImplementedError

    def progressed(self, call: Call, told: says.Progressed, now: float) -> None:
        """Sees to what the server says of its commands."""

    def handed(self, told: says.CheckedIn, now: float) -> list[Work]:
        """The commands of an answer that are new to this agent."""
        new = []
        for command in told.commands or ():
            self.world.received(self, command.id, now)
            if self.work is None:
                self.work = {}
            if command.id in self.work:
                self.world.tally.counts["handed_again"] += 1
                continue
            work = Work(command, self.world.chance.random() < self.world.plan.lost)
            self.work[command.id] = work
            self.world.tally.counts["delivered"] += 1
            if work.is_lost:
                self.world.tally.counts["lost"] += 1
            else:
                self.world.busy += 1
            new.append(work)
        return new

    def forget(self, work: Work) -> None:
        """A command is over, one way or another."""
        if self.work is not None and self.work.pop(work.command.id, None) is not None and not work.is_lost:
            self.world.busy -= 1
            work.is_over = True
        if not self.work:
            self.work = None

    def run(self, work: Work, now: float) -> None:
        """A command begins, and is finished after a while."""
        work.is_running = True
        work.began = now
        if work.command.type == "enable_heartbeat":
            minutes = (work.command.params or {}).get("duration_minutes", 60)
            self.rapid_until = now + (minutes * 60 if isinstance(minutes, int | float) else 3600)
        elif work.command.type == "disable_heartbeat":
            self.rapid_until = 0.0
        self.world.at(now + self.world.work_seconds(), lambda _due: self.finish(work))

    def _report(self, work: Work) -> None:
        self.reporting().submit(Call(self, REPORT, time.monotonic(), work))


class PollingAgent(Agent):
    """One of RedFlag's own: comes by at fixed times, takes what there is, and posts each result once."""

    __slots__ = ("base",)

    def __init__(
        self, world: OpenLoop, index: int, agent_id: str, token: str, refresh: str, line: Line, base: float
    ) -> None:
        super().__init__(world, index, agent_id, token, refresh, line)
        self.base = base
        world.at(base, self.tick)

    def tick(self, due: float) -> None:
        """Its times are fixed beforehand: one that comes while it still waits is missed, and was waited through all the same."""
        world = self.world
        if world.ending:
            return
        if due < self.rapid_until:
            world.at(due + RAPID_SECONDS * world.chance.uniform(0.95, 1.05), self.tick)
        else:
            interval = world.plan.interval
            self.base += interval
            while self.base <= due:
                self.base += interval
            world.at(self.base + interval * world.chance.uniform(-0.02, 0.02), self.tick)
        if self.asking:
            world.tally.counts["missed"] += 1
            if self.missed is None:
                self.missed = []
            self.missed.append(due)
        elif due < self.not_before:
            world.tally.counts["put_off"] += 1
        else:
            self.asking = True
            self.line.submit(Call(self, CHECK_IN, due))

    def check_in(self, call: Call) -> bytes:  # noqa: ARG002
        """How the host fares."""
        world = self.world
        return world.requests.of_agent(b"GET", self.id, b"commands", self.token, world.metrics() + b"}")

    def took(self, call: Call, told: says.CheckedIn, now: float) -> None:  # noqa: ARG002
        """Runs what there is."""
        for work in self.handed(told, now):
            if work.is_lost:
                self.forget(work)
            else:
                self.run(work, now)

    def refused(self, call: Call, status: int, retry_after: float | None) -> None:
        """A result that cannot be posted is lost: that is how these agents are."""
        super().refused(call, status, retry_after)
        if call.kind == REPORT:
            self.world.tally.counts["reports_lost"] += 1
            self.forget(call.what)


class HeldAgent(Agent):
    """One of this project's: asks to be held as long as the server offers, and tells what it received, runs and has done."""

    __slots__ = ("_log_due", "_reporting", "_wait")

    def __init__(
        self, world: OpenLoop, index: int, agent_id: str, token: str, refresh: str, line: Line, at: float
    ) -> None:
        super().__init__(world, index, agent_id, token, refresh, line)
        self._wait = 0.0
        self._reporting: Line | None = None
        self._log_due = at + world.chance.random() * world.plan.hourly if world.plan.hourly else float("inf")
        world.at(at, self.tick)

    def tick(self, due: float) -> None:
        """Asks, if it does not ask already."""
        if self.world.ending or self.asking:
            return
        self.asking = True
        self.line.submit(Call(self, CHECK_IN, due, holds=self._wait))

    def is_held(self, now: float) -> bool:
        """Whether its call is held at this moment, and was before."""
        call = self.line.current
        return call is not None and call.holds > 0 and 0 < call.sent_at < now - 0.1

    def reporting(self) -> Line:
        """A second connection: the first one is held."""
        if self._reporting is None:
            self._reporting = self.world.lines.make(self.line.source)
        return self._reporting

    def check_in(self, call: Call) -> bytes:
        """How the host fares, what it holds, and now and then of which checkpoint it knows."""
        world, log = self.world, b""
        if self._log_due <= call.sent_at:
            log = world.log
            self._log_due = call.sent_at + world.plan.hourly
            world.tally.counts["log_looks"] += 1
        path = b"commands?wait=%d" % call.holds if call.holds else b"commands"
        body = says.held(world.metrics(), list(self.work or ()), log)
        return world.requests.of_agent(b"GET", self.id, path, self.token, body)

    def took(self, call: Call, told: says.CheckedIn, now: float) -> None:  # noqa: ARG002
        """Tells what it received, starts it, and asks again."""
        self._wait = float(int(min(told.wait, MOST_WAIT))) if told.wait >= 1 else 0.0
        world = self.world
        if told.log is not None:
            world.saw_log(told.log)
        for command_id in told.ended or ():
            work = (self.work or {}).get(command_id)
            if work is not None:
                self._let_go(work)
        new = self.handed(told, now)
        if new:
            self.line.submit(Call(self, RECEIVED, now, new))
            for work in new:
                self._tell(work)
        interval = told.check_in_interval or world.plan.interval
        if now < self.rapid_until:
            interval = min(interval, RAPID_SECONDS)
        # As the agent has it: the pause guards against a server that says it holds and does not
        pause = min(1.0, interval) if self._wait else interval
        world.at(now + pause * world.chance.uniform(0.9, 1.1), self.tick)

    def progressed(self, call: Call, told: says.Progressed, now: float) -> None:
        """What is live begins, or goes on; what is not is let go."""
        if call.kind == RUNNING:
            work: Work = call.what
            if work.command.id not in (told.live or ()):
                self._let_go(work)
            elif not work.is_running and work.is_lost:
                work.is_running = True
            elif not work.is_running:
                self.run(work, now)
                self.world.at(now + PROGRESS_SECONDS, lambda due: self._still(work, due))

    def refused(self, call: Call, status: int, retry_after: float | None) -> None:
        """Tries again, later each time, until the server has given a final answer."""
        super().refused(call, status, retry_after)
        world, now = self.world, time.monotonic()
        if call.kind == CHECK_IN:
            world.at(now + self._back_off(self.failures, 2.0, retry_after), self.tick)
        elif call.kind == REPORT or (call.kind == RUNNING and not call.what.is_running):
            work: Work = call.what
            if status in FINAL:
                world.tally.counts["reports_refused" if call.kind == REPORT else "starts_refused"] += 1
                self.forget(work)
                return
            work.failures += 1
            again = self._report if call.kind == REPORT else self._tell
            world.at(now + self._back_off(work.failures, 1.0, retry_after), lambda _due: again(work))

    def _tell(self, work: Work) -> None:
        """A command starts only after the server's word."""
        self.reporting().submit(Call(self, RUNNING, time.monotonic(), work))

    def _still(self, work: Work, due: float) -> None:
        if not work.is_over:
            self._tell(work)
            self.world.at(due + PROGRESS_SECONDS, lambda again: self._still(work, again))

    def _let_go(self, work: Work) -> None:
        """The server has ended a command. One that is being reported is ended by that."""
        if not work.is_over and self.work is not None and work.command.id in self.work:
            self.world.tally.counts["ended_by_server"] += 1
            self.forget(work)

    def _back_off(self, failures: int, first: float, retry_after: float | None) -> float:
        if self.world.ending:
            return 0.5
        chance = self.world.chance
        pause = min(LONGEST_BACK_OFF, first * 2.0 ** min(failures - 1, 20)) * chance.uniform(0.5, 1.0)
        return max(pause, (retry_after or 0.0) * chance.uniform(1.0, 1.25))
