"""After a time in which nobody swept, what nobody could have delivered gets more time: once, and nothing else does."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from integration.commands.helpers import (
    HOUR,
    MINUTE,
    agent_actor,
    command,
    make_agent,
    make_command,
    make_database,
    records,
    replay,
    until,
)
from redflag.commands import queue
from redflag.commands.states import Status
from redflag.database import pool as pools
from redflag.timeouts import sweeper as room
from redflag.timeouts.sweeper import Sweeper

ALIVE = "gap-before"


@pytest_asyncio.fixture(scope="module")
async def alone(postgres: Any) -> AsyncIterator[tuple[Any, Any]]:
    """The owner's connection and the server's pool of a database in which nobody else sweeps."""
    addresses = await make_database(postgres, "gap")
    connections, owner = await pools.open_pool(addresses.server, size=10), await pools.connect(addresses.owner)
    yield owner, connections
    await owner.close()
    await connections.close()


@pytest.fixture
async def place(alone: tuple[Any, Any]) -> tuple[Any, Any, uuid.UUID]:
    """The same, and an agent; nothing of an earlier test is live, and no gap is open."""
    owner, connections = alone
    await owner.execute("UPDATE agent_commands SET status = 'cancelled' WHERE next_deadline_at IS NOT NULL")
    await nobody_swept_for(owner, datetime.timedelta(0))
    return owner, connections, await make_agent(owner)


async def nobody_swept_for(owner: Any, away: datetime.timedelta) -> None:
    """As if the last sweep of all replicas was this long ago."""
    await owner.execute(
        """INSERT INTO timeout_service (replica, last_success_at) VALUES ($1, now())
           ON CONFLICT (replica) DO NOTHING""",
        ALIVE,
    )
    await owner.execute("UPDATE timeout_service SET last_success_at = now() - $1::interval", away)


async def gaps(owner: Any) -> list[Any]:
    return await owner.fetch("SELECT * FROM sweep_gaps ORDER BY began_at")


async def said(owner: Any) -> int:
    return await owner.fetchval(
        "SELECT count(*) FROM update_logs WHERE kind = 'service' AND action = 'timeout_service_gap'"
    )


async def test_what_fell_due_while_nobody_swept_gets_ten_minutes_and_is_delivered(
    place: tuple[Any, Any, uuid.UUID],
) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=35 * MINUTE)
    await nobody_swept_for(owner, 10 * MINUTE)
    known, told = len(await gaps(owner)), await said(owner)
    swept = await Sweeper(connections, "gap-a").sweep()
    assert swept.timed_out == []
    row = await command(owner, one)
    assert row["status"] == Status.PENDING
    left = row["next_deadline_at"] - await owner.fetchval("SELECT now()")
    assert 9 * MINUTE < left <= 10 * MINUTE
    # Moving a deadline is no change; the one event of the service speaks of it
    assert (row["version"], len(await records(owner, one))) == (1, 1)
    found = (await gaps(owner))[known:]
    assert [gap["extended"] for gap in found] == [1]
    assert await said(owner) == told + 1
    event = await owner.fetchrow(
        "SELECT * FROM update_logs WHERE action = 'timeout_service_gap' ORDER BY created_at DESC LIMIT 1"
    )
    assert event["actor"] == "service:timeout@gap-a"
    assert event["metadata"]["extended"] == 1
    assert datetime.datetime.fromisoformat(event["metadata"]["began_at"]) == found[0]["began_at"]
    async with connections.acquire() as connection:
        asking = queue.Asking(agent_id, agent_actor(agent_id), 1)
        assert [row["id"] for row in (await queue.deliver(connection, [asking]))[agent_id]] == [one]


async def test_it_is_given_once_and_then_it_times_out(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=35 * MINUTE)
    await nobody_swept_for(owner, 10 * MINUTE)
    assert (await Sweeper(connections, "gap-a").sweep()).timed_out == []
    extended = (await command(owner, one))["next_deadline_at"]
    for replica in ("gap-a", "gap-b"):
        assert (await Sweeper(connections, replica).sweep()).timed_out == []
    assert (await command(owner, one))["next_deadline_at"] == extended
    await owner.execute("UPDATE agent_commands SET next_deadline_at = now() - interval '1 second' WHERE id = $1", one)
    assert (await Sweeper(connections, "gap-b").sweep()).timed_out == [one]
    assert await replay(owner, [one]) == []


async def test_several_replicas_that_come_back_at_once_handle_it_once(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    commands = [await make_command(owner, agent_id, age=35 * MINUTE) for _ in range(20)]
    await nobody_swept_for(owner, 10 * MINUTE)
    known, told = len(await gaps(owner)), await said(owner)
    swept = await asyncio.gather(*(Sweeper(connections, f"gap-{n}").sweep() for n in range(8)))
    assert [one for each in swept for one in each.timed_out] == []
    assert [gap["extended"] for gap in (await gaps(owner))[known:]] == [20]
    assert await said(owner) == told + 1
    deadlines = {(await command(owner, one))["next_deadline_at"] for one in commands}
    assert len(deadlines) == 1


async def test_only_what_fell_due_inside_the_gap_and_was_waiting_gets_more_time(
    place: tuple[Any, Any, uuid.UUID],
) -> None:
    owner, connections, agent_id = place
    inside = await make_command(owner, agent_id, age=35 * MINUTE)
    # Its deadline was over while somebody still swept: a sweep was about to find it
    before = await make_command(owner, agent_id, age=55 * MINUTE)
    # These were with their agents, who could have reported
    sent = await make_command(owner, agent_id, Status.SENT, age=125 * MINUTE)
    running = await make_command(owner, agent_id, Status.RUNNING, age=125 * MINUTE)
    still = await make_command(owner, agent_id)
    deadline = (await command(owner, still))["next_deadline_at"]
    await nobody_swept_for(owner, 10 * MINUTE)
    swept = await Sweeper(connections, "gap-a").sweep()
    assert set(swept.timed_out) == {before, sent, running}
    assert (await command(owner, inside))["status"] == Status.PENDING
    assert (await command(owner, still))["next_deadline_at"] == deadline


async def test_what_was_made_after_the_gap_is_untouched(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    await nobody_swept_for(owner, 10 * MINUTE)
    sweeper = Sweeper(connections, "gap-a")
    await sweeper.sweep()
    late = await make_command(owner, agent_id, age=35 * MINUTE)
    swept = await asyncio.gather(sweeper.sweep(), Sweeper(connections, "gap-b").sweep())
    assert [one for each in swept for one in each.timed_out] == [late]


async def test_what_is_made_while_the_gap_is_handled_is_untouched(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=35 * MINUTE)
    await nobody_swept_for(owner, 10 * MINUTE)
    # The gap ended when it was claimed: a command of a later moment, whatever its deadline, is none of its
    began = await owner.fetchval("SELECT max(last_success_at) FROM timeout_service")
    async with owner.transaction():
        await owner.execute(
            "INSERT INTO sweep_gaps (began_at, ended_at) VALUES ($1, now() - interval '2 minutes')", began
        )
        young = await make_command(owner, agent_id, age=MINUTE)
        await owner.execute(
            "UPDATE agent_commands SET next_deadline_at = now() - interval '3 minutes' WHERE id = $1", young
        )
    async with connections.acquire() as connection:
        gap = await owner.fetchrow("SELECT * FROM sweep_gaps WHERE began_at = $1", began)
        assert (
            await room.sql.extend.value(
                connection, grace=10 * MINUTE, began_at=gap["began_at"], ended_at=gap["ended_at"]
            )
            == 1
        )
    assert (await Sweeper(connections, "gap-a").sweep()).timed_out == [young]
    assert (await command(owner, one))["status"] == Status.PENDING


@pytest.mark.parametrize("away", [0, 30, 55])
async def test_a_short_pause_is_no_gap(away: int, place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=30 * MINUTE + datetime.timedelta(seconds=1))
    await nobody_swept_for(owner, datetime.timedelta(seconds=away))
    known = len(await gaps(owner))
    assert (await Sweeper(connections, "gap-a").sweep()).timed_out == [one]
    assert len(await gaps(owner)) == known


async def test_a_replica_that_was_away_alone_is_no_gap(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=35 * MINUTE)
    await nobody_swept_for(owner, HOUR)
    await owner.execute(
        "UPDATE timeout_service SET last_success_at = now() - interval '4 seconds' WHERE replica = $1", ALIVE
    )
    assert (await Sweeper(connections, "gap-other").sweep()).timed_out == [one]


async def test_each_gap_is_handled_for_itself(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    known = len(await gaps(owner))
    for minutes in (10, 5):
        one = await make_command(owner, agent_id, age=33 * MINUTE)
        await nobody_swept_for(owner, minutes * MINUTE)
        assert (await Sweeper(connections, "gap-a").sweep()).timed_out == []
        assert (await command(owner, one))["status"] == Status.PENDING
    assert len(await gaps(owner)) == known + 2


async def test_a_service_that_starts_after_a_gap_gives_more_time_before_it_sweeps(
    place: tuple[Any, Any, uuid.UUID],
) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=35 * MINUTE)
    await nobody_swept_for(owner, 10 * MINUTE)
    known = len(await gaps(owner))
    sweepers = [Sweeper(connections, f"gap-start-{n}", interval=0.01) for n in range(4)]
    stop = asyncio.Event()
    running = [asyncio.create_task(sweeper.run(stop)) for sweeper in sweepers]
    await until(owner, "SELECT count(*) = 4 FROM timeout_service WHERE replica LIKE 'gap-start-%' AND runs > 0")
    stop.set()
    await asyncio.gather(*running)
    assert (await command(owner, one))["status"] == Status.PENDING
    assert [gap["extended"] for gap in (await gaps(owner))[known:]] == [1]


async def test_the_first_service_of_all_sees_no_gap(place: tuple[Any, Any, uuid.UUID]) -> None:
    owner, connections, agent_id = place
    one = await make_command(owner, agent_id, age=35 * MINUTE)
    await owner.execute("DELETE FROM timeout_service")
    known = len(await gaps(owner))
    assert (await Sweeper(connections, "gap-first").sweep()).timed_out == [one]
    assert len(await gaps(owner)) == known
