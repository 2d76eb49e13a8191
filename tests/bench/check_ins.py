"""Check-ins as fast as they go, and what one costs as the fleet grows."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from bench import fill, load
from bench.harness import Bench, Database, trivial_server
from bench.results import Curve, Limit, Result
from redflag.fleet import checkin

NAME = "check_ins"
AGENTS = 10_000
CONCURRENCY = 64


async def run(bench: Bench) -> None:
    """10,000 agents, nothing pending, 64 at once: with one server process and with two."""
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, AGENTS)
        await database.settle()
        statement = await bare_statement(database)
        for workers in (2, 1):
            trivial = await trivial_limit(bench, workers)
            await _saturate(bench, database, workers, trivial, statement)
    await _growth(bench)


async def trivial_limit(bench: Bench, workers: int = 1) -> load.Report:
    """The same load on the trivial endpoint, with as many processes; measured once in a run."""
    known: dict[int, load.Report] = bench.trivial
    if workers not in known:
        async with trivial_server(bench, workers) as url:
            await load.closed(url, AGENTS, concurrency=CONCURRENCY, rounds=1)
            known[workers] = await load.closed(url, AGENTS, concurrency=CONCURRENCY, seconds=bench.of(1.5, 8))
    return known[workers]


async def _saturate(bench: Bench, database: Database, workers: int, trivial: load.Report, statement: float) -> None:
    lines: list[tuple[float, float]] = []
    lateness: list[tuple[float, float]] = []
    async with database.server(workers) as server:
        # Every process is to know every token, as after the first ten minutes
        await load.closed(server.url, AGENTS, concurrency=CONCURRENCY, rounds=bench.of(2, 3))
        report = await load.closed(
            server.url,
            AGENTS,
            concurrency=CONCURRENCY,
            seconds=bench.of(3, 20),
            measured=lambda: database.measured(server),
        )
        alone = await load.closed(
            server.url, AGENTS, concurrency=1, seconds=bench.of(1.5, 10), measured=lambda: database.measured(server)
        )
        lines += [(1.0, alone.rate), (float(CONCURRENCY), report.rate)]
        lateness += [(1.0, alone.p99), (float(CONCURRENCY), report.p99)]
        for concurrency in bench.of((256,), (2, 4, 8, 16, 32, 128, 256, 512)):
            one = await load.closed(server.url, AGENTS, concurrency=concurrency, seconds=bench.of(1, 5))
            lines.append((float(concurrency), one.rate))
            lateness.append((float(concurrency), one.p99))
        memory = server.memory()
    name = NAME if workers == 1 else f"{NAME}_{workers}"
    with_ = f"{workers} server process{'es' if workers > 1 else ''}"
    judged = workers == 1
    bench.add(
        Result(
            name=f"{name}.rate",
            title=f"check-ins over HTTP, {AGENTS:,} agents, nothing pending, c={CONCURRENCY}, {with_}",
            value=report.rate, unit="per second", goal=12_000.0 if judged else None,
            limits=[Limit("the trivial endpoint of the same server", trivial.rate),
                    Limit("the same statement straight from asyncpg", statement)],
            costs=report.used.each(report.count), facts={
                "errors": report.errors,
                "check-ins in a statement": report.count / max(report.used.commits, 1),
                **memory,
            }
            | report.used.facts(),
        )
    )  # fmt: skip
    bench.add(
        Result(
            name=f"{name}.p99", title=f"the same, p99, {with_}", value=report.p99, unit="ms",
            goal=15.0 if judged else None, better="less", limits=[Limit("the trivial endpoint, p99", trivial.p99)],
            facts={"p50 ms": report.p50, "worst ms": report.worst},
        )
    )  # fmt: skip
    bench.add(
        Result(
            name=f"{name}.alone", title=f"the same, one at a time, {with_}", value=alone.rate, unit="per second",
            costs=alone.used.each(alone.count), facts={"p50 ms": alone.p50, "p99 ms": alone.p99},
        )
    )  # fmt: skip
    known = bench.run.curves.get("throughput")
    rates = (known.lines if known else {}) | {with_: sorted(lines)}
    bench.draw(
        "throughput",
        Curve(
            title=f"Check-ins against concurrency, {AGENTS:,} agents", x="requests at once", y="check-ins/s", lines=rates,
            log_x=True, marks={"y: goal 12,000/s": 12_000},
        ),
    )  # fmt: skip
    known = bench.run.curves.get("latency")
    waits = (known.lines if known else {}) | {with_: sorted(lateness)}
    bench.draw(
        "latency",
        Curve(
            title=f"p99 of check-ins against concurrency, {AGENTS:,} agents", x="requests at once", y="p99, ms", lines=waits,
            log_x=True, log_y=True, marks={"y: goal at 64: 15 ms": 15},
        ),
    )  # fmt: skip


async def bare_statement(database: Database, agents: int = AGENTS, seconds: float = 2.0) -> float:
    """Check-ins a second by the same statement straight from asyncpg: 64 at a time, on two connections."""
    return CONCURRENCY / await _statement_seconds(database, agents, CONCURRENCY, seconds)


async def _statement_seconds(database: Database, agents: int, batch: int, seconds: float) -> float:
    """How long two connections together take for a statement of so many check-ins."""
    chance = random.Random(3)
    done = 0
    async with database.pool(2) as connections:
        ends = time.perf_counter() + seconds

        async def work() -> None:
            nonlocal done
            async with connections.acquire() as connection:
                while time.perf_counter() < ends:
                    chosen = sorted(chance.sample(range(1, agents + 1), min(batch, agents)))
                    await seen(connection, chosen)
                    done += 1

        began = time.perf_counter()
        await asyncio.gather(work(), work())
        return (time.perf_counter() - began) / max(done, 1)


async def seen(connection: Any, numbers: list[int]) -> None:
    """The statement of check-ins, for agents by their numbers."""
    query = checkin.sql.seen
    what = {
        "agents": [fill.agent_id(one) for one in numbers],
        "addresses": ["127.0.0.1"] * len(numbers),
        "metrics": [{"cpu_percent": 3.5, "memory_percent": 40.5, "disk_percent": 61, "uptime": "12 days"}]
        * len(numbers),
        "protocols": [1] * len(numbers),
    }
    await query.all(connection, **{name: what[name] for name in query.order})


async def _growth(bench: Bench) -> None:
    """What a check-in costs PostgreSQL with 1,000 to a million agents, coming by in no order."""
    points = []
    for agents in bench.of((1000, 10_000, 100_000), (1000, 10_000, 100_000, 1_000_000)):
        async with bench.database("growth") as database:
            await fill.agents(database.superuser, agents)
            await database.settle()
            await _statement_seconds(database, agents, CONCURRENCY, bench.of(0.2, 3))
            taken = await _statement_seconds(database, agents, CONCURRENCY, bench.of(0.6, 5))
            points.append((float(agents), taken * 1e6 / CONCURRENCY))
    bench.draw(
        "agents",
        Curve(
            title="A check-in's share of its statement, against the number of agents", x="agents", y="µs",
            lines={"straight from asyncpg, 64 at a time on 2 connections": points}, log_x=True,
        ),
    )  # fmt: skip
