"""Reports of a command's end, with 2 kB of output and their record."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

from bench import fill, load
from bench.harness import Bench, Database, trivial_server
from bench.results import Limit, Result
from redflag.audit import actor as actors
from redflag.commands import results

NAME = "reports"
AGENTS = 10_000
CONCURRENCY = 64
OUTPUT = "".join(f"Setting up libexample{number} (1.{number}.0-2+deb12u7) ...\n" for number in range(60))[:2048]


async def run(bench: Bench) -> None:
    """Each of many commands that were handed out is reported once, over HTTP."""
    count = bench.of(6000, 60_000)
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, AGENTS)
        await fill.pending(database.superuser, count + count // 3, of_agents=AGENTS, handed_out=True)
        await database.settle()
        rows = await database.superuser.fetch("SELECT id, agent_id FROM agent_commands ORDER BY id", timeout=60)
        numbers = {fill.agent_id(number): number for number in range(1, AGENTS + 1)}
        asked = [load.request(numbers[row["agent_id"]], "logs", _body(row["id"])) for row in rows[:count]]
        bare = await _bare_reports(database, rows[count:])
        async with trivial_server(bench) as url:
            trivial = await load.requests(url, asked[: bench.of(3000, 20_000)], concurrency=CONCURRENCY)
        async with database.server() as server:
            await load.closed(server.url, AGENTS, concurrency=CONCURRENCY, rounds=1)
            report = await load.requests(
                server.url, asked, concurrency=CONCURRENCY, measured=lambda: database.measured(server)
            )
        ended = await database.superuser.fetchval(
            "SELECT count(*) FROM update_logs WHERE result = 'success' AND length(stdout) >= 2000 AND command_id = ANY ($1::uuid[])",
            [row["id"] for row in rows[:count]], timeout=120,
        )  # fmt: skip
    bench.add(
        Result(
            name="reports.rate", title=f"reports with 2 kB of output, complete with record, c={CONCURRENCY}",
            value=report.rate, unit="per second", goal=3000.0,
            limits=[Limit("the trivial endpoint with the same bodies", trivial.rate),
                    Limit("the same statement straight from asyncpg", bare)],
            costs=report.used.each(report.count),
            facts={"reports": report.count, "records": ended, "p50 ms": report.p50, "p99 ms": report.p99,
                   "errors": report.errors, "failures": report.failures} | report.used.facts(),
        )
    )  # fmt: skip


def _body(command: uuid.UUID) -> bytes:
    told = {"command_id": str(command), "action": "scan_updates", "result": "success", "stdout": OUTPUT, "stderr": "",
            "exit_code": 0, "duration_seconds": 3}  # fmt: skip
    return json.dumps(told).encode()


async def _bare_reports(database: Database, rows: list[Any]) -> float:
    """Reports a second by the same statement straight from asyncpg: 64 at a time, on two connections."""
    told = results.Report("success", action="scan_updates", stdout=OUTPUT)
    ready = [
        await results.prepare(
            actors.agent(row["agent_id"], "127.0.0.1"), row["agent_id"], row["id"], told, max_output=1 << 20
        )
        for row in rows
    ]
    batches = [ready[low : low + CONCURRENCY] for low in range(0, len(ready), CONCURRENCY)]
    async with database.pool(2) as connections:

        async def work() -> None:
            async with connections.acquire() as connection:
                while batches:
                    await results.store(connection, batches.pop())

        began = time.perf_counter()
        await asyncio.gather(work(), work())
        return len(ready) / (time.perf_counter() - began)
