"""Runs a simulation: shares the agents out among processes, and puts together what they measure.

    report = await engine.run(plan, url, [(agent_id, token), ...])

Promises: nothing is measured before every agent has joined; whatever ends the run, no process of it is left behind.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import msgspec

from redflag.errors import InvalidInput, ProcessError
from redflag.simulation import plan as plans
from redflag.simulation.histogram import Histogram
from redflag.simulation.job import Begin, Credential, Job, Request, Said, framed
from redflag.simulation.plan import Plan
from redflag.simulation.report import Report
from redflag.simulation.target import Target, find

READY_SECONDS = 60.0
# For how long what the table shows of the last moments looks back
LAST_SECONDS = 5
# After the drain: what is still there then is killed
END_SECONDS = 15.0
_decode = msgspec.msgpack.Decoder(Said).decode


@dataclass
class Now:
    """How a simulation is going: the report so far, and the last seconds. `seconds_left` counts down to its end."""

    report: Report
    phase: str
    requests_per_second: float
    check_in: Histogram
    lag: Histogram
    failures: int
    busy: int
    seconds_left: float


async def run(
    plan: Plan,
    target: Target | str,
    credentials: Sequence[Credential | tuple[Any, ...]],
    *,
    requests: Sequence[Request] | None = None,
    tell: Callable[[Now], None] | None = None,
    stop: asyncio.Event | None = None,
    renewed: Callable[[dict[int, str]], None] | None = None,
) -> Report:
    """Simulates agents, each given as (agent_id, token) or (agent_id, token, refresh_token), and returns what was measured.

    `requests` are what a closed loop asks, each once, instead of check-ins. `tell` is called every second, `renewed` with new
    access tokens by the agents' numbers. `stop` ends it early, in order. Raises InvalidInput, Unreachable, ProcessError.
    """
    plan.check()
    if isinstance(target, str):
        target = await find(target)
    agents = [_credential(number, one) for number, one in enumerate(credentials)]
    if not agents and not requests:
        raise InvalidInput("There are no agents to simulate", "Enrol some first")
    count = plans.processes(plan, len(agents))
    shared = plan.closed or plan.connections
    count = max(1, min(count, shared or count, len(agents) or len(requests or ())))
    from_ = plans.sources(plan, len(agents), target)
    jobs = [
        Job(
            number=number,
            of=len(agents),
            share=1.0 / count,
            connections=shared * (number + 1) // count - shared * number // count,
            plan=plan,
            target=target,
            agents=agents[number::count],
            sources=from_,
            requests=None if requests is None else list(requests[number::count]),
        )
        for number in range(count)
    ]
    return await _Run(plan, len(agents), jobs, tell, renewed).run(stop or asyncio.Event())


class _Run:
    def __init__(
        self,
        plan: Plan,
        agents: int,
        jobs: list[Job],
        tell: Callable[[Now], None] | None,
        renewed: Callable[[dict[int, str]], None] | None,
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._tell = tell
        self._renewed = renewed
        self._report = Report(plan, agents, len(jobs))
        self._last: collections.deque[tuple[float, Said]] = collections.deque()
        self._open: dict[int, int] = {}
        self._busy: dict[int, int] = {}
        self._phases: dict[int, str] = {}
        self._used: dict[int, float] = {}
        self._measured_for: dict[int, float] = {}
        self._until = 0.0

    async def run(self, stop: asyncio.Event) -> Report:
        async with contextlib.AsyncExitStack() as stack:
            processes = [await stack.enter_async_context(_process(job)) for job in self._jobs]
            _, joining = self._plan.joining(self._report.agents)
            begins = time.monotonic() + 0.2 + max(len(job.agents) for job in self._jobs) * 20e-6
            measured_from = begins + joining
            self._until = measured_from + self._plan.duration
            for process in processes:
                process.write(framed(Begin(begins, measured_from, self._until)))
            following = [asyncio.ensure_future(self._follow(process)) for process in processes]
            telling = asyncio.ensure_future(self._tell_always())
            stopping = asyncio.ensure_future(_stop_all(stop, processes))
            try:
                longest = self._until - time.monotonic() + self._plan.drain + self._plan.patience + END_SECONDS
                async with asyncio.timeout(longest):
                    await asyncio.gather(*following)
            except TimeoutError:
                raise ProcessError("A process of the simulator did not end", "Try again with fewer agents") from None
            finally:
                for task in (telling, stopping, *following):
                    task.cancel()
                await asyncio.gather(telling, stopping, *following, return_exceptions=True)
        return self._report

    async def _follow(self, process: _Process) -> None:
        while True:
            said = await process.next()
            if said is None:
                raise process.fault("ended before it was done")
            if said.fault:
                raise process.fault(said.fault)
            self._take(said)
            if said.phase == "over":
                return

    def _take(self, said: Said) -> None:
        report, number = self._report, said.number
        report.whole.merge(said.part)
        if said.phase == "measuring":
            report.measured.merge(said.part)
            self._measured_for[number] = self._measured_for.get(number, 0.0) + said.seconds
            report.seconds = max(self._measured_for.values())
            used = said.processor_seconds - self._used.get(number, 0.0)
            report.processor_seconds[number] = report.processor_seconds.get(number, 0.0) + used
        self._used[number] = said.processor_seconds
        self._phases[number] = said.phase
        self._busy[number] = said.busy
        if said.phase != "over":
            self._open[number] = said.open
        report.open = sum(self._open.values())
        report.most_open = max(report.most_open, report.open)
        self._last.append((time.monotonic(), said))
        if said.renewed and self._renewed is not None:
            self._renewed(said.renewed)

    async def _tell_always(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._tell is not None:
                self._tell(self._now())

    def _now(self) -> Now:
        now = time.monotonic()
        while self._last and self._last[0][0] < now - LAST_SECONDS:
            self._last.popleft()
        recent = Report(self._plan, self._report.agents, len(self._jobs))
        for _, said in self._last:
            recent.measured.merge(said.part)
        seconds: collections.Counter[int] = collections.Counter()
        for _, said in self._last:
            seconds[said.number] += said.seconds  # type: ignore[assignment]
        phases = set(self._phases.values())
        return Now(
            report=self._report,
            phase=next((one for one in ("joining", "measuring", "ending") if one in phases), "over"),
            requests_per_second=recent.requests / max([*seconds.values(), 1e-9]) if seconds else 0.0,
            check_in=recent.latency,
            lag=recent.durations("lag"),
            failures=recent.measured.failed,
            busy=sum(self._busy.values()),
            seconds_left=max(0.0, self._until - now),
        )


class _Process:
    def __init__(self, process: asyncio.subprocess.Process, said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    async def ready(self, job: Job) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                self.write(framed(job))
                await self._input.drain()
                await self._output.readexactly(1)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            raise self.fault("did not start") from None

    def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._input.write(data)

    async def next(self) -> Said | None:
        try:
            size = int.from_bytes(await self._output.readexactly(4), "big")
            return _decode(await self._output.readexactly(size))
        except asyncio.IncompleteReadError:
            return None

    def fault(self, what: str) -> ProcessError:
        self._said.seek(0)
        lines = self._said.read()[-4000:].decode(errors="replace").splitlines()[-8:]
        more = ":\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
        return ProcessError(
            f"A process of the simulator: {what}{more}", "Please report it, if the machine has memory left"
        )

    def stop(self) -> None:
        """Has it end in order."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._input.write_eof()

    async def end(self) -> None:
        if self._process.returncode is None:
            self.stop()
            try:
                async with asyncio.timeout(2.0):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        self._input.close()
        with contextlib.suppress(ConnectionError):
            await self._input.wait_closed()

    @property
    def _input(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None  # noqa: S101 - made with a pipe
        return self._process.stdin

    @property
    def _output(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout


@contextlib.asynccontextmanager
async def _process(job: Job) -> Any:
    with tempfile.TemporaryFile() as said:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "redflag.simulation.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            limit=1 << 24,
        )
        process = _Process(started, said)
        try:
            await process.ready(job)
            yield process
        finally:
            await process.end()


async def _stop_all(stop: asyncio.Event, processes: Iterable[_Process]) -> None:
    await stop.wait()
    for process in processes:
        process.stop()


def _credential(number: int, given: Credential | tuple[Any, ...]) -> Credential:
    agent_id, token, *refresh = (given.agent_id, given.token, given.refresh) if isinstance(given, Credential) else given
    made = Credential(number, str(agent_id), str(token), str(refresh[0]) if refresh else "")
    for word in (made.agent_id, made.token):
        # They go into requests as they are
        if not word.isascii() or not word.isprintable() or not word or " " in word:
            raise InvalidInput(f"Agent {number} of the simulation has an id or a token that is none", "Enrol it anew")
    return made
