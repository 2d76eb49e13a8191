"""The last day's timeouts are counted by hour and type, and how late they were is told for each hour."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from integration.commands.helpers import HOUR, MINUTE, make_agent, make_command, make_database
from redflag.database import pool as pools
from redflag.timeouts import recent
from redflag.timeouts.sweeper import Sweeper


@pytest_asyncio.fixture(scope="module")
async def place(postgres: Any) -> AsyncIterator[tuple[Any, Any]]:
    addresses = await make_database(postgres, "recent")
    owner, pool = await pools.connect(addresses.owner), await pools.open_pool(addresses.server, size=4)
    yield owner, pool
    await owner.close()
    await pool.close()


async def test_nothing_timed_out_where_nothing_did(place: tuple[Any, Any]) -> None:
    async with place[1].acquire() as connection:
        day = await recent.last_day(connection)
    assert (day.types, day.timed_out, day.most_ms, len(day.hours)) == ([], 0, None, 24)
    now = datetime.datetime.now(datetime.UTC)
    assert day.hours[-1].began_at <= now < day.hours[-1].began_at + HOUR
    assert {later.began_at - earlier.began_at for earlier, later in zip(day.hours, day.hours[1:], strict=False)} == {
        HOUR
    }


async def test_timeouts_are_counted_by_type_the_most_frequent_first(place: tuple[Any, Any]) -> None:
    owner, pool = place
    agent = await make_agent(owner)
    # Of seven types the rarest two are counted together
    for rank in range(7):
        for _ in range(8 - rank):
            await make_command(owner, agent, overdue=MINUTE, command_type=f"type_{rank}")
    await make_command(owner, agent, command_type="lives")
    await Sweeper(pool, "tests").sweep()
    async with pool.acquire() as connection:
        day = await recent.last_day(connection)
    assert day.types == [*(f"type_{rank}" for rank in range(recent.TYPES)), recent.OTHER]
    assert day.by_type == [8, 7, 6, 5, 4, 3 + 2]
    assert day.timed_out == 35
    assert day.most_ms is not None
    assert 60_000 <= day.most_ms < 120_000
    # Ended in the hour that runs, or in the one before if it turned meanwhile
    late = [hour for hour in day.hours if hour.most_ms is not None]
    assert late == [hour for hour in day.hours[-2:] if sum(hour.timed_out)]
    assert all(hour.median_ms is not None and hour.median_ms <= (hour.most_ms or 0) for hour in late)


async def test_what_a_hand_wrote_beside_it_is_not_counted(place: tuple[Any, Any]) -> None:
    owner, pool = place
    async with pool.acquire() as connection:
        before = (await recent.last_day(connection)).timed_out
        await owner.execute(
            "INSERT INTO update_logs (command_id, command_type, result) VALUES ($1, 'by_hand', 'timed_out')",
            uuid.uuid4(),
        )
        assert (await recent.last_day(connection)).timed_out == before


async def test_gaps_come_the_newest_first(place: tuple[Any, Any]) -> None:
    owner, pool = place
    for days in (3, 1, 2):
        await owner.execute(
            "INSERT INTO sweep_gaps (began_at, ended_at, extended) VALUES (now() - $1::interval, now(), $2)",
            datetime.timedelta(days=days), days,
        )  # fmt: skip
    async with pool.acquire() as connection:
        assert [gap["extended"] for gap in await recent.gaps(connection, limit=2)] == [1, 2]
