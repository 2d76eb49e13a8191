"""Deadlines: how late timeouts come, a storm of them, and what waiting costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench import fill, load
from bench.harness import Bench, Database, Server, quantile
from bench.results import Curve, Limit, Result
from redflag.commands import replay
from redflag.database import pool
from redflag.timeouts import sweeper

NAME = "deadlines"
EXPIRIES_PER_SECOND = 5000
AGENTS = 10_000


async def run(bench: Bench) -> None:
    """All three rows, each on commands of its own."""
    async with bench.database(NAME) as database:
        live = bench.of(100_000, 1_000_000)
        bench.say(f"{AGENTS:,} agents and {live:,} live commands are filled in")
        await fill.agents(database.superuser, AGENTS)
        await fill.pending(database.superuser, live, of_agents=AGENTS)
        await database.settle()
        await _idle(bench, database, live)
        await _lateness(bench, database, live)
    async with bench.database(NAME) as database:
        await _storm(bench, database)
    await _growth(bench)


async def _idle(bench: Bench, database: Database, live: int) -> None:
    """A sweep that finds nothing, by EXPLAIN ANALYZE; and what a server without anything to do costs beside so many commands."""
    milliseconds = await _idle_sweep(database)
    bare = await _idle_sweep(database, "SELECT id FROM agent_commands WHERE next_deadline_at <= now() LIMIT 1000")
    seconds = bench.of(2, 15)
    async with database.server() as server:
        await asyncio.sleep(bench.of(1, 2))
        async with database.measured(server) as used:
            await asyncio.sleep(seconds)
    bench.add(
        Result(
            name="deadlines.idle_sweep",
            title=f"idle sweep with {live:,} live commands, time in the database",
            value=milliseconds, unit="ms", goal=1.0, better="less",
            limits=[Limit("the bare look at the index", bare)],
            facts={
                "live commands": live,
                "an idle server, ms of processor each second, server": used.server * 1e3 / used.seconds,
                "an idle server, ms of processor each second, PostgreSQL": used.postgres * 1e3 / used.seconds,
            } | used.facts(),
        )
    )  # fmt: skip


async def _idle_sweep(database: Database, statement: str = "") -> float:
    """The median time of a sweep's execution in the database, in milliseconds."""
    query = sweeper.sql.sweep
    arguments = query.arguments({"batch": sweeper.BATCH, "act": {"actor": "service:bench"}, "replica": "bench"})
    explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
    found = []
    async with database.pool(1) as connections, connections.acquire() as connection:
        for _ in range(21):
            told = await connection.fetchval(explain + (statement or query.text), *([] if statement else arguments))
            plan = load.json_of(told)[0]
            found.append(plan["Execution Time"])
    return quantile(found[1:], 0.5)


async def _lateness(bench: Bench, database: Database, live: int) -> None:
    """5,000 commands expire each second beside the live ones, with a server that sweeps them and records every one."""
    seconds = bench.of(3, 60)
    count = EXPIRIES_PER_SECOND * seconds
    bench.say(f"{count:,} commands more, of which {EXPIRIES_PER_SECOND:,} expire each second")
    async with database.server() as server:
        live += await _due_soon(database, count, f" + g * interval '1 second' / {EXPIRIES_PER_SECOND}")
        left = await database.superuser.fetchval(
            "SELECT extract(epoch FROM min(next_deadline_at) - clock_timestamp())::float8 FROM agent_commands"
        )
        await asyncio.sleep(max(left - 0.5, 0))
        async with database.measured(server) as used:
            await _drained(database, seconds + 60)
        late = await _lateness_of(database)
        twice, replayed = await _accounts(database, live + count, count)
    known = quantile(late, 0.99)
    bare = await _bare_claims(database)
    bench.add(
        Result(
            name="deadlines.lateness",
            title=f"lateness of timeouts, p99, {EXPIRIES_PER_SECOND:,} expiries/s beside {live:,} live commands",
            value=known, unit="ms", goal=250.0, better="less",
            limits=[Limit("the pause between two sweeps", 100.0)],
            costs=used.each(len(late)),
            facts={
                "expired": len(late), "lost": count - len(late), "recorded twice": twice, "replay": replayed,
                "p50 ms": quantile(late, 0.5), "p90 ms": quantile(late, 0.9), "p99.9 ms": quantile(late, 0.999),
                "worst ms": max(late, default=0), "began too late for the first by s": max(-left, 0.0),
                "bare updates straight from asyncpg, each second": bare,
            } | used.facts(),
        )
    )  # fmt: skip
    steps = [part / 200 for part in range(1, 200)] + [0.999, 1.0]
    bench.draw(
        "lateness",
        Curve(
            title=f"Lateness of {len(late):,} timeouts at {EXPIRIES_PER_SECOND:,}/s, {live:,} commands live",
            x="lateness, ms", y="share of timeouts",
            lines={"timeouts": [(quantile(late, part), part) for part in steps]},
            marks={"x: goal for p99: 250 ms": 250},
        ),
    )  # fmt: skip


async def _due_soon(database: Database, count: int, spread: str = "", *, present: int = 0) -> int:
    """Fills in so many commands, due a few seconds after the last of them is there; how long it takes is tried out with a tenth of
    them, due in hours. Returns how many those are. None is for the first agents, those `present`: they would fetch them instead."""
    trial, began = max(count // 10, 1000), time.perf_counter()
    away = {"of_agents": AGENTS - present, "first_agent": 1 + present}
    await fill.pending(database.superuser, trial, indexes=False, **away)
    lead = (time.perf_counter() - began) * count / trial * 1.3 + database.bench.of(5, 10)
    due = f"date_trunc('milliseconds', now()) + interval '{lead} seconds'{spread}"
    await fill.pending(database.superuser, count, due=due, indexes=False, **away)
    await database.superuser.execute("ANALYZE agent_commands", timeout=120)
    return trial


async def _drained(database: Database, seconds: float) -> bool:
    """Waits until nothing is live but what is due in more than an hour."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        overdue = await database.superuser.fetchval(
            "SELECT count(*) FROM (SELECT FROM agent_commands WHERE next_deadline_at < now() + interval '70 minutes' LIMIT 1) AS nearest"
        )
        if overdue == 0:
            return True
        await asyncio.sleep(0.2)
    return False


async def _lateness_of(database: Database) -> list[float]:
    """Milliseconds between deadline and end, as the records say."""
    rows = await database.superuser.fetch(
        "SELECT (metadata ->> 'lateness_ms')::float8 AS late FROM update_logs WHERE kind = 'transition' AND result = 'timed_out'",
        timeout=300,
    )
    return [row["late"] for row in rows]


async def _accounts(database: Database, commands: int, expired: int) -> tuple[int, str]:
    """How many were recorded twice, and what a replay of all records says of all commands."""
    twice = await database.superuser.fetchval(
        "SELECT count(*) FROM (SELECT FROM update_logs WHERE result = 'timed_out' GROUP BY command_id HAVING count(*) > 1) AS more",
        timeout=300,
    )
    known = await database.superuser.fetchval("SELECT count(*) FROM agent_commands", timeout=300)
    ended = await database.superuser.fetchval(
        "SELECT count(*) FROM agent_commands WHERE status = 'timed_out'", timeout=300
    )
    if (known, ended) != (commands, expired):
        return twice, f"{known:,} commands, {ended:,} timed out: {commands:,} and {expired:,} expected"
    difference = await asyncio.wait_for(_first_difference(database), 600)
    return twice, f"{commands:,} commands agree" if difference is None else str(difference)


async def _first_difference(database: Database) -> Any:
    """A replay of all records, on a connection that waits as long as it takes."""
    connection = await pool.connect(database.url, application="bench")
    try:
        await connection.execute("SET work_mem = '256MB'")
        return await replay.first_difference(connection)
    finally:
        await connection.close()


async def _storm(bench: Bench, database: Database) -> None:
    """200,000 due at one instant: once alone, and once while other agents check in. What is past its deadline was not fetched, so that
    its agents are those which are away."""
    count = bench.of(20_000, 200_000)
    rate = bench.of(500, 1667)
    bench.say(f"{count:,} commands that are due at one instant, twice")
    await fill.agents(database.superuser, AGENTS)
    for alone in (True, False):
        async with database.server() as server:
            await _due_soon(database, count, present=0 if alone else rate * 2)
            at = await database.superuser.fetchval("SELECT min(next_deadline_at) FROM agent_commands")
            left = await _until(database, at)
            if alone:
                await asyncio.sleep(max(left - 0.3, 0))
                async with database.measured(server) as used:
                    await _drained(database, 120)
                await _report_storm(bench, database, at, count, used, left, None)
            else:
                await _beside_check_ins(bench, database, server, at, count, rate)


async def _beside_check_ins(bench: Bench, database: Database, server: Server, at: Any, count: int, rate: int) -> None:
    """Check-ins begin to be measured a second before the storm, and end with it."""
    agents = rate * 2
    joining = load.joining_seconds(agents, rate, 500)
    left = await _until(database, at) - joining - 1.5
    await asyncio.sleep(max(left, 0))
    over = asyncio.Event()
    checking_in = asyncio.create_task(load.open_loop(server.url, agents, rate, 240, connections=500, stop=over))
    await asyncio.sleep(max(await _until(database, at) - 0.2, 0))
    async with database.measured(server) as used:
        await _drained(database, 200)
    over.set()
    await _report_storm(bench, database, at, count, used, left, (rate, await checking_in))


async def _until(database: Database, moment: Any) -> float:
    left: float = await database.superuser.fetchval(
        "SELECT extract(epoch FROM $1::timestamptz - clock_timestamp())::float8", moment
    )
    return left


async def _report_storm(
    bench: Bench,
    database: Database,
    at: Any,
    count: int,
    used: Any,
    left: float,
    beside: tuple[float, load.Report] | None,
) -> None:
    row = await database.superuser.fetchrow(
        "SELECT count(*) AS ended, extract(epoch FROM max(completed_at) - min(completed_at))::float8 AS seconds,"
        " extract(epoch FROM max(completed_at) - $1::timestamptz)::float8 AS last FROM agent_commands"
        " WHERE status = 'timed_out' AND completed_at >= $1::timestamptz AND deadline_kind IS NULL",
        at, timeout=300,
    )  # fmt: skip
    records = await database.superuser.fetchval(
        "SELECT count(*) FROM update_logs WHERE result = 'timed_out' AND executed_at >= $1::timestamptz",
        at,
        timeout=300,
    )
    rate = row["ended"] / max(row["seconds"] or 0.0, 0.001)
    what = "alone" if beside is None else f"beside {beside[0]:,.0f} check-ins/s"
    bare = await _bare_claims(database)
    bench.add(
        Result(
            name="deadlines.drain" if beside is not None else "deadlines.drain_alone",
            title=f"{count:,} commands due at one instant, {what}: drained with full records",
            value=rate, unit="per second", goal=15_000.0,
            limits=[Limit("bare updates of the same rows straight from asyncpg", bare)],
            # Beside check-ins it is theirs as well
            costs=used.each(row["ended"]) if beside is None else {},
            facts={"ended": row["ended"], "records": records, "lost": count - row["ended"], "last after s": row["last"]}
            | ({"was ready s before": left} if left > 0 else {"began too late by s": -left}) | used.facts(),
        )
    )  # fmt: skip
    if beside is not None:
        bench.add(
            Result(
                name="deadlines.check_ins_meanwhile",
                title=f"check-ins at {beside[0]:,.0f}/s while {count:,} commands are timed out, p99",
                value=beside[1].p99, unit="ms", goal=100.0, better="less",
                facts={"check-ins": beside[1].count, "errors": beside[1].errors, "worst ms": beside[1].worst,
                       "generator late, p99 ms": beside[1].lag},
            )
        )  # fmt: skip


async def _bare_claims(database: Database) -> float:
    """Rows a second that plain updates of a status reach, a thousand a statement on three connections, with no trigger and no record."""
    await database.superuser.execute(
        "CREATE TABLE bare (LIKE agent_commands INCLUDING DEFAULTS) WITH (fillfactor = 80);"
        " INSERT INTO bare SELECT * FROM agent_commands LIMIT 30000; CREATE INDEX ON bare (id);"
        " GRANT SELECT, UPDATE ON bare TO redflag_server; ANALYZE bare",
        timeout=120,
    )
    ids = [row["id"] for row in await database.superuser.fetch("SELECT id FROM bare")]
    batches = [ids[low : low + 1000] for low in range(0, len(ids), 1000)]
    async with database.pool(3) as connections:

        async def work() -> None:
            async with connections.acquire() as connection:
                while batches:
                    await connection.execute(
                        "UPDATE bare SET status = 'timed_out', completed_at = clock_timestamp(), next_deadline_at = NULL,"
                        " deadline_kind = NULL"
                        " WHERE id = ANY ($1::uuid[])", batches.pop(),
                    )  # fmt: skip

        began = time.perf_counter()
        await asyncio.gather(work(), work(), work())
        seconds = time.perf_counter() - began
    await database.superuser.execute("DROP TABLE bare")
    return len(ids) / seconds


async def _growth(bench: Bench) -> None:
    """What a sweep costs with 1,000 to a million live commands: one that finds nothing, and one that ends a thousand."""
    idle, full = [], []
    for live in bench.of((1000, 10_000, 100_000), (1000, 10_000, 100_000, 1_000_000)):
        async with bench.database("growth") as database:
            await fill.agents(database.superuser, 1000)
            await fill.pending(database.superuser, live, of_agents=1000, records=False)
            await database.superuser.execute("VACUUM (ANALYZE) agent_commands", timeout=300)
            idle.append((float(live), await _idle_sweep(database)))
            await fill.pending(
                database.superuser,
                5000,
                of_agents=1000,
                records=False,
                indexes=False,
                due="now() - interval '1 second'",
            )
            async with database.pool(1) as connections:
                one = sweeper.Sweeper(connections, "bench")
                began = time.perf_counter()
                swept = await one.sweep()
                full.append((float(live), (time.perf_counter() - began) * 1e6 / max(len(swept.timed_out), 1)))
    bench.draw(
        "commands",
        Curve(
            title="A sweep against the number of live commands", x="live commands", y="ms, or µs for each",
            lines={"idle sweep, ms": idle, "each of 5,000 timed out, µs": full}, log_x=True, log_y=True,
        ),
    )  # fmt: skip
