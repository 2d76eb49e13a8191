"""A whole fleet: 100,000 agents that come by once a minute, each on a connection of its own."""

from __future__ import annotations

import asyncio

from bench import fill, load
from bench.harness import Bench, Database, trivial_server
from bench.results import Limit, Result

NAME = "open_loop"
AGENTS = 100_000
RATE = 1667.0
WITH_A_COMMAND = 0.01


async def run(bench: Bench) -> None:
    """1,667 check-ins a second for five minutes at 10,000 connections; then memory at as many as the machine lets us open."""
    agents = bench.of(5000, AGENTS)
    many = min(load.most_connections(), 66_000)
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, agents)
        await fill.pending(database.superuser, round(agents * WITH_A_COMMAND), of_agents=agents)
        await database.settle()
        seconds = bench.of(5, 300)
        connections = min(10_000, load.most_connections()) if not bench.quick else 2000
        async with trivial_server(bench) as url:
            limit = await load.open_loop(url, agents, RATE, bench.of(2, 20), connections=connections)
        report, memory = await _fleet(bench, database, agents, seconds, connections)
        bench.add(
            Result(
                name="open_loop.p99",
                title=f"{RATE:,.0f} check-ins/s of {agents:,} agents for {seconds} s at {connections:,} connections, p99",
                value=report.p99, unit="ms", goal=25.0, better="less",
                limits=[Limit("the trivial endpoint, p99", limit.p99)], costs=report.used.each(report.count),
                facts={"p50 ms": report.p50, "p99.9 ms": report.p999, "worst ms": report.worst, "check-ins": report.count,
                       "delivered": report.delivered, "rate": report.rate, "generator late, p99 ms": report.lag,
                       "failures": report.failures} | report.used.facts(),
            )
        )  # fmt: skip
        bench.add(
            Result(
                name="open_loop.errors", title="the same, errors", value=report.errors, unit="", goal=0.0, better="less"
            )
        )
        bench.add(
            Result(
                name="open_loop.cores", title="the same, cores that server and PostgreSQL keep busy",
                value=report.used.cores, unit="cores", goal=1.0, better="less",
                facts={"server": report.used.server / report.used.seconds, "postgres": report.used.postgres / report.used.seconds},
            )
        )  # fmt: skip
        bench.add(
            Result(
                name="open_loop.memory", title=f"RSS of all server processes at {connections:,} connections",
                value=memory["rss_mb"], unit="MB", goal=400.0, better="less",
                facts={"connections": connections, "pss MB": memory["pss_mb"]},
            )
        )  # fmt: skip
    if not bench.quick and many > connections:
        await _many(bench, many)


async def _many(bench: Bench, many: int) -> None:
    """Each agent on a connection of its own, as many as there may be: what they weigh, and whether the fleet is still served."""
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, many)
        await database.settle()
        report, memory = await _fleet(bench, database, many, 75, 0, rate=many / 60)
    bench.add(
        Result(
            name="open_loop.memory_many", title=f"RSS of all server processes at {many:,} connections",
            value=memory["rss_mb"], unit="MB",
            facts={"connections": many, "pss MB": memory["pss_mb"], "p99 ms": report.p99, "errors": report.errors, "rate": report.rate,
                   "failures": report.failures},
        )
    )  # fmt: skip


async def _fleet(
    bench: Bench, database: Database, agents: int, seconds: float, connections: int, rate: float = RATE
) -> tuple[load.Report, dict[str, float]]:
    """The fleet for so long, and the server's memory shortly before the end."""
    async with database.server() as server:
        joining = load.joining_seconds(agents, rate, connections)
        bench.say(f"{agents:,} agents come by for {joining + seconds:.0f} s")
        running = asyncio.create_task(
            load.open_loop(
                server.url, agents, rate, seconds, connections=connections, measured=lambda: database.measured(server)
            )
        )
        await asyncio.sleep(joining + seconds * 0.8)
        memory = server.memory()
        return await running, memory
