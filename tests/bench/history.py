"""Pages of a long history: each filter alone, with an agent or a command, two others together, at any depth; and text."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import random
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from bench import fill
from bench.harness import Bench, Database, quantile
from bench.results import Limit, Result
from redflag.audit import sequencer
from redflag.commands import history
from redflag.commands.history import Filter
from redflag.commands.states import Kind
from redflag.commands.states import Result as Outcome
from redflag.errors import RedFlagError

NAME = "history"
AGENTS = 2000
MONTHS = 12
BOUND_MS = history.LONGEST_SECONDS * 1000.0

# What each filter may be: something frequent, something in a few records in a hundred, and what is in five records of all
_TYPES = ("collect_logs", "dry_run_update", "rare_type")
_ACTORS = ("user:ada", "agent:" + str(fill.agent_id(77)), "user:rare")
_KINDS = (Kind.TRANSITION, Kind.ACCESS, Kind.LATE_RESULT, Kind.ERASURE)
_ACTIONS = ("install", "logged_in", "rare_action")
_RESULTS = (Outcome.SUCCESS, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.PARTIAL, Outcome.DENIED)


@dataclass
class Sample:
    """One page: the filter in words, how long it took in milliseconds, and whether it was refused for its time."""

    what: str
    ms: float
    refused: bool


async def run(bench: Bench) -> None:
    """Fills the history, then reads pages of it as the API does."""
    rows = bench.of(300_000, 10_000_000)
    async with bench.database(NAME) as database:
        bench.say(f"{rows:,} records over {MONTHS} months are filled in")
        began = time.perf_counter()
        await fill.agents(database.superuser, AGENTS)
        await fill.history(
            database.superuser, bench.postgres.url("postgres", database.name), rows, agents=AGENTS, months=MONTHS
        )
        await database.superuser.execute("VACUUM (ANALYZE) update_logs", timeout=900)
        await database.superuser.execute("CHECKPOINT", timeout=900)
        filled = time.perf_counter() - began
        bench.say(f"filled in {filled:.0f} s")
        reader = await _reader(database)
        async with database.pool(4) as connections:
            reader.pool = connections
            await _measure(bench, reader, rows, filled)


@dataclass
class Reader:
    """Reads pages at random depths of the history between two times."""

    begin: datetime.datetime
    end: datetime.datetime
    commands: list[uuid.UUID]
    chance: random.Random
    pool: Any = None

    async def page(self, shown: Filter, *, deep: bool) -> Sample:
        """One page of 50, with the positions in the log that the API shows beside it."""
        cursor = None
        if deep:
            at = self.begin + (self.end - self.begin) * self.chance.random()
            cursor = history.encode_cursor(at, uuid.UUID(int=self.chance.getrandbits(128)))
        async with self.pool.acquire() as connection:
            began, refused = time.perf_counter(), False
            try:
                page = await history.page(connection, shown, cursor=cursor, limit=50)
                await sequencer.sql.positions.all(connection, records=[event["id"] for event in page.events])
            except RedFlagError:
                refused = True
            return Sample(shown.told() or "nothing", (time.perf_counter() - began) * 1000, refused)

    async def pages(self, filters: list[Filter], times: int) -> list[Sample]:
        """Each filter from the newest record on, and so often from anywhere."""
        made = []
        for shown in filters:
            made.append(await self.page(shown, deep=False))
            made += [await self.page(shown, deep=True) for _ in range(times)]
        return made

    def anywhen(self, days: float) -> tuple[datetime.datetime, datetime.datetime]:
        """A period of so many days."""
        span = datetime.timedelta(days=days)
        since = self.begin + (self.end - self.begin - span) * self.chance.random()
        return since, since + span


async def _reader(database: Database) -> Reader:
    begin, end = await database.superuser.fetchrow(
        "SELECT min(executed_at), max(executed_at) FROM update_logs", timeout=120
    )
    commands = await database.superuser.fetch(
        "SELECT DISTINCT command_id FROM (SELECT command_id FROM update_logs TABLESAMPLE SYSTEM (1) WHERE command_id IS NOT NULL"
        " LIMIT 300) AS sampled",
        timeout=120,
    )
    return Reader(begin, end, [row["command_id"] for row in commands], random.Random(5))


def _others(reader: Reader) -> list[Filter]:
    """Every filter alone, but those by agent and by command."""
    since, until = reader.anywhen(1)
    return [
        *(Filter(command_type=one) for one in _TYPES),
        *(Filter(result=one) for one in _RESULTS),
        *(Filter(actor=one) for one in _ACTORS),
        *(Filter(kind=one) for one in _KINDS),
        *(Filter(action=one) for one in _ACTIONS),
        Filter(since=since, until=until),
        Filter(until=since),
        Filter(since=since),
        Filter(include_timeout=False),
        Filter(commands_only=True),
    ]


def _merged(one: Filter, other: Filter) -> Filter | None:
    """Both together, unless they say something of the same column."""
    said = {name: value for name, value in vars(other).items() if value != getattr(Filter(), name)}
    if any(getattr(one, name) != getattr(Filter(), name) for name in said):
        return None
    return replace(one, **said)


async def _measure(bench: Bench, reader: Reader, rows: int, filled: float) -> None:
    agents = [Filter(agent_id=fill.agent_id(reader.chance.randint(1, AGENTS))) for _ in range(8)]
    commands = [Filter(command_id=one) for one in reader.commands[:8]]
    others = _others(reader)
    await reader.pages([Filter()], 20)
    alone = await reader.pages([Filter(), *agents, *commands, *others], bench.of(4, 20))
    within = [
        merged
        for named in [agents[0], agents[1], commands[0]]
        for other in others
        if (merged := _merged(named, other)) is not None
    ]
    named = await reader.pages(within, bench.of(2, 10))
    bare = await _bare_pages(reader, [one.agent_id for one in agents], bench.of(50, 400))
    title = f"history page at {rows:,} records, any depth"
    _add(
        bench, "history.single", f"{title}: each filter alone, and with an agent or a command, p99", 20.0, alone + named,
        [Limit("an agent's page by index straight from asyncpg, p99", bare)], {"records": rows, "filled in s": filled},
    )  # fmt: skip
    pairs = [merged for one, other in itertools.combinations(others, 2) if (merged := _merged(one, other)) is not None]
    if bench.quick:
        pairs = reader.chance.sample(pairs, 40)
    found = await reader.pages(pairs, bench.of(1, 2))
    _add(bench, "history.pairs", f"{title}: other pairs of filters, p99", 300.0, found, [], {"pairs": len(pairs)})
    texts = []
    for words in ("libexample", "1.2.1234", "nothing says this"):
        texts += [Filter(text=words, since=since, until=until) for since, until in [reader.anywhen(31)]]
        texts += [replace(agents[2], text=words)]
    found = await reader.pages(texts, bench.of(1, 3))
    _add(
        bench, "history.text", f"{title}: a text, of an agent or within 31 days, slowest", BOUND_MS * 1.1, found, [], {},
        part=1.0,
    )  # fmt: skip


def _add(
    bench: Bench,
    name: str,
    title: str,
    goal: float,
    samples: list[Sample],
    limits: list[Limit],
    facts: dict[str, Any],
    part: float = 0.99,
) -> None:
    slowest: dict[str, float] = {}
    for one in samples:
        slowest[one.what] = max(slowest.get(one.what, 0.0), one.ms)
    ordered = sorted(slowest.items(), key=lambda item: -item[1])[:5]
    times = [one.ms for one in samples]
    bench.add(
        Result(
            name=name, title=title, value=quantile(times, part), unit="ms", goal=goal, better="less", limits=limits,
            facts={
                "pages": len(samples), "filters": len(slowest), "p50 ms": quantile(times, 0.5), "p90 ms": quantile(times, 0.9),
                "worst ms": max(times), "ended by the time bound": sum(one.refused for one in samples),
                "slowest": "; ".join(f"{what} ({ms:.1f} ms)" for what, ms in ordered),
            } | facts,
        )
    )  # fmt: skip


async def _bare_pages(reader: Reader, agents: list[uuid.UUID | None], times: int) -> float:
    """The same page without a filter to choose from: one prepared statement, one index. The p99 in milliseconds."""
    statement = (
        "SELECT id, kind, command_id, agent_id, version, command_type, action, actor, result, message, metadata, params, sent_at,"
        " completed_at, stdout, stderr, exit_code, duration_seconds, executed_at, created_at FROM update_logs"
        " WHERE agent_id = $1 AND (executed_at, id) < ($2, $3) ORDER BY executed_at DESC, id DESC LIMIT 51"
    )
    found = []
    async with reader.pool.acquire() as connection:
        for turn in range(times):
            at = reader.begin + (reader.end - reader.begin) * reader.chance.random()
            began = time.perf_counter()
            await connection.fetch(
                statement, agents[turn % len(agents)], at, uuid.UUID(int=reader.chance.getrandbits(128))
            )
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0)
    return quantile(found, 0.99)
