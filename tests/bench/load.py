"""Load over HTTP, made by `redflag simulate`'s engine, in processes of its own; what it found in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import fill
from bench.harness import Used
from redflag.simulation import engine
from redflag.simulation import plan as plans
from redflag.simulation.histogram import Histogram
from redflag.simulation.job import Request
from redflag.simulation.plan import Plan, Protocol
from redflag.simulation.report import Report as Found

Measured = Callable[[], contextlib.AbstractAsyncContextManager[Used]]
# For a closed loop that ends by itself
LONGEST_SECONDS = 900.0


@dataclass
class Times:
    """How long something took: quantiles in milliseconds."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    worst: float = 0.0
    mean: float = 0.0

    @classmethod
    def of(cls, one: Histogram) -> Times:
        """What a histogram holds."""
        p50, p99, p999 = (one.quantile(part) * 1000 for part in (0.5, 0.99, 0.999))
        return cls(one.total, p50, p99, p999, one.largest * 1000, one.mean * 1000)


@dataclass
class Report(Times):
    """What was asked and answered in the time that was measured. `lag`: how late the generator itself was, p99 in milliseconds."""

    seconds: float = 0.0
    rate: float = 0.0
    errors: int = 0
    failures: str = ""
    delivered: int = 0
    lag: float = 0.0
    used: Used = field(default_factory=Used)
    woken: Times = field(default_factory=Times)
    enqueued: Times = field(default_factory=Times)


async def closed(
    url: str,
    agents: int,
    *,
    concurrency: int,
    seconds: float = LONGEST_SECONDS,
    rounds: int = 0,
    lost: float = 0.0,
    measured: Measured | None = None,
) -> Report:
    """Check-ins, as many at once as `concurrency`, for so long or until each agent came by so often. `lost`: as the simulator says it."""
    plan = Plan(
        protocol=Protocol.REDFLAG,
        closed=concurrency,
        duration=seconds,
        rounds=rounds,
        lost=lost,
        ramp=5000.0,
        drain=10.0,
    )
    return await _closed(plan, url, fill_credentials(agents), None, measured)


async def requests(url: str, asked: list[Request], *, concurrency: int, measured: Measured | None = None) -> Report:
    """These requests, each once, as many at once as `concurrency`."""
    plan = Plan(closed=concurrency, duration=LONGEST_SECONDS, ramp=5000.0, patience=60.0)
    return await _closed(plan, url, [], asked, measured)


async def open_loop(
    url: str,
    agents: int,
    rate: float,
    seconds: float,
    *,
    connections: int = 0,
    measured: Measured | None = None,
    stop: asyncio.Event | None = None,
) -> Report:
    """So many agents that come by `rate` times a second together, whatever the server does. `connections` 0: each has its own.
    `stop` ends it sooner."""
    return await _timed(_open_plan(agents, rate, seconds, connections), url, agents, measured, stop)


async def held(
    url: str, agents: int, seconds: float, commands: float, token: str, *, measured: Measured | None = None
) -> Report:
    """Agents whose calls are held, and so many commands a second that are enqueued for them with an administrator's token."""
    plan = Plan(
        protocol=Protocol.HELD,
        duration=seconds,
        commands=commands,
        admin_token=token,
        hourly=0.0,
        ramp=1000.0,
        work=0.5,
    )
    return await _timed(plan, url, agents, measured)


def joining_seconds(agents: int, rate: float, connections: int) -> float:
    """Before an open loop is measured."""
    return _open_plan(agents, rate, 1.0, connections).joining(agents)[1]


def joining_held_seconds(agents: int) -> float:
    """Before held calls are measured."""
    return Plan(protocol=Protocol.HELD, ramp=1000.0).joining(agents)[1]


def request(number: int, call: str, body: bytes) -> Request:
    """A POST of an agent's."""
    return Request(str(fill.agent_id(number)), fill.agent_token(number), call, body)


def fill_credentials(agents: int) -> list[tuple[str, str]]:
    """The agents that `fill` made."""
    return [(str(fill.agent_id(number)), fill.agent_token(number)) for number in range(1, agents + 1)]


def most_connections() -> int:
    """How many connections one server process and the generator may have open here."""
    return plans.most_files() - plans.OTHER_FILES * 10


def json_of(told: Any) -> Any:
    """A JSON column, whether the connection reads it or not."""
    return json.loads(told) if isinstance(told, str) else told


def _open_plan(agents: int, rate: float, seconds: float, connections: int) -> Plan:
    return Plan(
        protocol=Protocol.REDFLAG, interval=agents / rate, duration=seconds, connections=connections, hourly=0.0,
        ramp=max(2000.0, math.ceil(rate)),
    )  # fmt: skip


async def _closed(
    plan: Plan, url: str, credentials: list[tuple[str, str]], asked: list[Request] | None, measured: Measured | None
) -> Report:
    async with measured() if measured is not None else contextlib.nullcontext(Used()) as used:
        found = await engine.run(plan, url, credentials, requests=asked)
    # The generator's processes start and end within, while the server has nothing to do
    used.seconds, used.load = found.seconds, sum(found.processor_seconds.values())
    return _report(found, used)


async def _timed(
    plan: Plan, url: str, agents: int, measured: Measured | None, stop: asyncio.Event | None = None
) -> Report:
    """An open loop; what is spent is measured from when all have joined."""
    joined = asyncio.Event()
    running = asyncio.create_task(
        engine.run(
            plan,
            url,
            fill_credentials(agents),
            tell=lambda now: joined.set() if now.phase == "measuring" else None,
            stop=stop,
        )
    )
    waiting = asyncio.create_task(joined.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    used = Used()
    if measured is not None and not running.done():
        async with measured() as used:
            await asyncio.wait({running}, timeout=max(plan.duration - 2.5, 0.5))
    return _report(await running, used)


def _report(found: Found, used: Used) -> Report:
    # Of a closed loop that was given its requests one kind only is measured
    kinds = [kind for kind in found.measured.durations if kind not in {"lag", "connect", "woken", "reached", "enqueue"}]
    asked = found.latency if found.latency.total or not kinds else found.durations(kinds[0])
    times = Times.of(asked)
    return Report(
        **vars(times),
        seconds=found.seconds,
        rate=times.count / found.seconds if found.seconds else 0.0,
        errors=sum(one.count for one in found.failures.values()),
        failures="; ".join(f"{one.count} x {kind}: {one.example}" for kind, one in sorted(found.failures.items())),
        delivered=found.counts.get("delivered", 0),
        lag=found.durations("lag").quantile(0.99) * 1000,
        used=used,
        woken=Times.of(found.durations("woken")),
        enqueued=Times.of(found.durations("enqueue")),
    )
