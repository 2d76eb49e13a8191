"""Check-ins that are handed a command each, with its record."""

from __future__ import annotations

import asyncio
import time

from bench import check_ins, fill, load
from bench.harness import Bench, Database
from bench.results import Limit, Result
from redflag.audit import actor as actors
from redflag.commands import queue

NAME = "deliveries"
AGENTS = 10_000
CONCURRENCY = 64


async def run(bench: Bench) -> None:
    """Rounds of 10,000 agents, each with one command pending, until enough were delivered to tell."""
    rounds = bench.of(1, 5)
    agents = AGENTS * rounds
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, agents)
        await fill.pending(database.superuser, agents, of_agents=agents)
        await database.settle()
        trivial = await check_ins.trivial_limit(bench)
        async with database.server() as server:
            # The agents are known already, as they are after ten minutes: while nothing is pending, they come by once
            await database.superuser.execute("CREATE TABLE aside (LIKE agent_commands)")
            await _put_aside(database, back=False)
            await load.closed(server.url, agents, concurrency=CONCURRENCY, rounds=1)
            await _put_aside(database, back=True)
            report = await load.closed(
                server.url,
                agents,
                concurrency=CONCURRENCY,
                rounds=1,
                lost=1.0,
                measured=lambda: database.measured(server),
            )
        records = await database.superuser.fetchval(
            "SELECT count(*) FROM update_logs WHERE result = 'sent'", timeout=120
        )
        bare = await _bare_deliveries(bench, database, agents)
    bench.add(
        Result(
            name="deliveries.rate",
            title=f"check-ins that are handed a command each, with its record, {AGENTS:,} agents, c={CONCURRENCY}",
            value=report.rate, unit="per second", goal=6000.0,
            limits=[Limit("the trivial endpoint of the same server", trivial.rate),
                    Limit("the same statement straight from asyncpg", bare)],
            costs=report.used.each(report.count),
            facts={"check-ins": report.count, "delivered": report.delivered, "records": records, "p50 ms": report.p50,
                   "p99 ms": report.p99, "errors": report.errors} | report.used.facts(),
        )
    )  # fmt: skip


async def _put_aside(database: Database, *, back: bool) -> None:
    """Takes all commands out of the table, or puts them back, as only a benchmark may."""
    columns = await database.superuser.fetchval(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'aside'::regclass AND attnum > 0"
    )
    source, target = ("aside", "agent_commands") if back else ("agent_commands", "aside")
    async with fill.bare(database.superuser, "agent_commands", indexes=False):
        await database.superuser.execute(
            f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {source}", timeout=300
        )
        await database.superuser.execute(f"TRUNCATE {source} CASCADE", timeout=60)
    if back:
        await database.superuser.execute("VACUUM (ANALYZE) agent_commands", timeout=120)


async def _bare_deliveries(bench: Bench, database: Database, agents: int) -> float:
    """Commands a second by the statement that hands them out, straight from asyncpg: 64 agents at a time, on two connections."""
    count = bench.of(2000, 20_000)
    await fill.pending(database.superuser, count, of_agents=count, records=False, indexes=False, first_agent=1)
    numbers = list(range(1, count + 1))
    batches = [numbers[low : low + CONCURRENCY] for low in range(0, count, CONCURRENCY)]
    done = 0
    async with database.pool(2) as connections:

        async def work() -> None:
            nonlocal done
            async with connections.acquire() as connection:
                while batches:
                    chosen = batches.pop()
                    # Protocol 0: what was handed out before is not handed out again
                    asking = [
                        queue.Asking(fill.agent_id(one), actors.agent(fill.agent_id(one), "127.0.0.1"), 0, ())
                        for one in chosen
                    ]
                    found = await queue.deliver(connection, asking)
                    done += sum(len(commands) for commands in found.values())

        began = time.perf_counter()
        await asyncio.gather(work(), work())
        return done / (time.perf_counter() - began)
