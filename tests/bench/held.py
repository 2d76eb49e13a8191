"""Held calls: how soon a command reaches an agent that waits for one."""

from __future__ import annotations

import asyncio

from bench import fill, load
from bench.harness import Bench
from bench.results import Limit, Result
from redflag.access import tokens
from redflag.access.roles import Role
from redflag.audit import actor as actors

NAME = "held"
COMMANDS_PER_SECOND = 20.0


async def run(bench: Bench) -> None:
    """10,000 agents wait in long polls; commands are enqueued over the API, and each is timed until its agent has it."""
    agents = bench.of(2000, min(10_000, load.most_connections()))
    seconds = bench.of(4, 60)
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, agents)
        await database.settle()
        async with database.pool(1) as connections, connections.acquire() as connection:
            token, _ = await tokens.create(
                connection, actors.service("bench", "here"), "bench", Role.ADMIN, giver=Role.ADMIN
            )
        async with database.server() as server:
            joining = load.joining_held_seconds(agents)
            bench.say(f"{agents:,} agents are held for {joining + seconds:.0f} s")
            running = asyncio.create_task(
                load.held(
                    server.url, agents, seconds, COMMANDS_PER_SECOND, token, measured=lambda: database.measured(server)
                )
            )
            await asyncio.sleep(joining + seconds * 0.8)
            memory = server.memory()
            report = await running
    facts = {
        "commands": report.woken.count, "worst ms": report.woken.worst, "errors": report.errors, "failures": report.failures,
        "enqueued over the API, p50 ms": report.enqueued.p50, "rss MB": memory["rss_mb"],
    } | report.used.facts()  # fmt: skip
    limit = [Limit("the request that enqueues it", report.enqueued.p50)]
    bench.add(
        Result(
            name="held.p50", title=f"{agents:,} agents held; a command enqueued for one reaches it, p50",
            value=report.woken.p50, unit="ms", goal=50.0, better="less", limits=limit, facts=facts,
        )
    )  # fmt: skip
    bench.add(
        Result(
            name="held.p99", title="the same, p99", value=report.woken.p99, unit="ms", goal=250.0, better="less",
            limits=[Limit("the request that enqueues it, p99", report.enqueued.p99)],
        )
    )  # fmt: skip
