"""The sweep ends what is past its deadline, each command once, and its record says everything that a person asks."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

import redflag
from integration.commands.helpers import (
    HOUR,
    MINUTE,
    command,
    make_agent,
    make_command,
    move_deadline,
    person,
    records,
    replay,
    results,
    until,
)
from integration.commands.helpers import make_database as database_of_its_own
from redflag.commands.states import LIVE, TERMINAL, Status
from redflag.database import pool as pools
from redflag.database.courtesy import Courtesy
from redflag.timeouts import sweeper as room
from redflag.timeouts.sweeper import Sweeper

DAY = 24 * HOUR
SEED_KEYS = {
    "timeout_duration",
    "timeout_reason",
    "deadline_kind",
    "deadline_at",
    "stuck_seconds",
    "detected_by",
    "service_version",
    "detection_method",
    "lateness_ms",
}


@pytest_asyncio.fixture(scope="module")
async def alone(postgres: Any) -> AsyncIterator[tuple[Any, Any]]:
    """The owner's connection and the server's pool of a database in which nobody else sweeps."""
    addresses = await database_of_its_own(postgres, "sweeping")
    connections, owner = await pools.open_pool(addresses.server, size=10), await pools.connect(addresses.owner)
    yield owner, connections
    await owner.close()
    await connections.close()


async def test_the_seeds_commands_time_out_and_the_others_stay(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    ends = [
        await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR),
        await make_command(owner, agent_id, Status.SENT, age=122 * MINUTE),
        await make_command(owner, agent_id, Status.RUNNING, age=3 * HOUR),
        await make_command(owner, agent_id, age=31 * MINUTE),
    ]
    stays = [
        await make_command(owner, agent_id, Status.SENT, age=118 * MINUTE),
        await make_command(owner, agent_id, Status.COMPLETED, age=3 * HOUR),
        await make_command(owner, agent_id, age=28 * MINUTE),
        await make_command(owner, agent_id, age=MINUTE),
    ]
    swept = await Sweeper(pool, "seed", gap=86_400).sweep()
    assert set(ends) <= set(swept.timed_out)
    assert not set(stays) & set(swept.timed_out + swept.redelivered)
    assert [(await command(owner, one))["status"] for one in ends] == [Status.TIMED_OUT] * 4
    assert [len(await records(owner, one)) for one in ends + stays] == [2] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("status", "age", "sent", "kind", "reason", "duration", "stuck"),
    [
        (Status.PENDING, 31 * MINUTE, None, "delivery", "not_delivered", "30 min 0 s", 31 * MINUTE),
        (Status.SENT, datetime.timedelta(0), 3 * HOUR, "execution", "no_response", "2 h 0 min 0 s", 3 * HOUR),
        (Status.RUNNING, 5 * HOUR, 3 * HOUR, "execution", "no_response", "2 h 0 min 0 s", 3 * HOUR),
    ],
)
async def test_the_record_of_a_timeout_says_all_that_the_seed_asks(
    status: Status,
    age: Any,
    sent: Any,
    kind: str,
    reason: str,
    duration: str,
    stuck: Any,
    pool: Any,
    owner: Any,
    agent_id: uuid.UUID,
) -> None:
    one = await make_command(owner, agent_id, status, age=age, sent=sent)
    before = await command(owner, one)
    swept = await Sweeper(pool, "one", gap=86_400).sweep()
    after, told = await command(owner, one), (await records(owner, one))[-1]
    said = told["metadata"]

    assert one in swept.timed_out
    assert (told["result"], told["actor"], told["version"]) == ("timed_out", "service:timeout@one", 2)
    assert set(said) >= SEED_KEYS
    assert all(said[key] not in ("", None, {}, []) for key in SEED_KEYS)
    assert (said["deadline_kind"], said["timeout_reason"], said["timeout_duration"]) == (kind, reason, duration)
    assert (said["detected_by"], said["detection_method"]) == ("timeout@one", "sweep")
    assert said["service_version"] == redflag.__version__
    assert datetime.datetime.fromisoformat(said["deadline_at"]) == before["next_deadline_at"]
    assert said["stuck_seconds"] == pytest.approx(stuck.total_seconds(), abs=5)
    late = (told["executed_at"] - before["next_deadline_at"]).total_seconds() * 1000
    assert said["lateness_ms"] == pytest.approx(late, abs=1)
    assert swept.max_lateness_ms >= said["lateness_ms"] - 1000
    assert ("sent_at" in said) == (sent is not None)
    if sent is not None:
        assert datetime.datetime.fromisoformat(said["sent_at"]) == before["sent_at"]
    assert told["message"].startswith("timed out after ")
    assert duration in told["message"]
    assert after["completed_at"] == told["completed_at"] is not None


async def test_a_run_by_hand_names_its_person_and_is_recorded(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR)
    actor = person(f"operator-{uuid.uuid4()}")
    swept = await Sweeper(pool, "hand", gap=86_400).sweep(actor, "manual run")
    assert one in swept.timed_out
    told = (await records(owner, one))[-1]
    assert (told["actor"], told["metadata"]["detection_method"]) == (actor.name, "manual run")
    assert told["metadata"]["address"] == "192.0.2.8"
    run = await owner.fetchrow("SELECT * FROM update_logs WHERE kind = 'service' AND actor = $1", actor.name)
    assert run["action"] == "timeout_service_run"
    assert run["metadata"]["timed_out"] == len(swept.timed_out)


async def test_a_second_sweep_finds_nothing_more(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR)
    sweeper = Sweeper(pool, "again", gap=86_400)
    assert one in (await sweeper.sweep()).timed_out
    for again in await asyncio.gather(*(sweeper.sweep() for _ in range(4))):
        assert one not in again.timed_out
    assert await results(owner, one) == ["sent", "timed_out"]


async def test_what_its_agent_never_confirmed_is_taken_back_not_ended(
    pool: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    await owner.execute(
        "UPDATE agent_commands SET deadline_kind = 'start', next_deadline_at = now() - interval '1 second' WHERE id = $1",
        one,
    )
    swept = await Sweeper(pool, "start", gap=86_400).sweep()
    assert one in swept.redelivered
    assert one not in swept.timed_out
    told = (await records(owner, one))[-1]
    assert (told["result"], told["actor"]) == ("pending", "service:timeout@start")
    assert "taken back" in told["message"]


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_what_has_ended_is_not_swept(status: Status, pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, status, age=5 * HOUR)
    await Sweeper(pool, "ended", gap=86_400).sweep()
    assert len(await records(owner, one)) == 1


async def test_brought_back_by_hand_it_times_out_again(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.COMPLETED, age=5 * HOUR)
    await owner.execute(
        "UPDATE agent_commands SET status = 'sent', sent_at = now() - interval '3 hours' WHERE id = $1", one
    )
    await Sweeper(pool, "back", gap=86_400).sweep()
    told = await records(owner, one)
    assert [record["result"] for record in told] == ["success", "sent", "timed_out"]
    assert told[1]["metadata"]["forced"] is True
    assert await replay(owner, [one]) == []


async def test_a_timeout_by_hand_says_so(owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR)
    await owner.execute("UPDATE agent_commands SET status = 'timed_out' WHERE id = $1", one)
    told = (await records(owner, one))[-1]
    assert (told["actor"], told["metadata"]["detected_by"]) == ("db:redflag_owner", "db:redflag_owner")
    assert told["metadata"]["detection_method"] == "by hand"
    assert set(told["metadata"]) >= SEED_KEYS
    assert "forced" not in told["metadata"]


@pytest.mark.parametrize("status", sorted(LIVE))
async def test_the_server_itself_cannot_time_out_what_is_not_due(
    status: Status, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, status)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await server.execute(
            """UPDATE agent_commands SET status = 'timed_out', act = '{"actor": "service:timeout@x", "request_id": "1"}' WHERE id = $1""",
            one,
        )
    assert refused.value.sqlstate == "RF001"
    assert len(await records(owner, one)) == 1


async def test_eight_sweepers_end_five_thousand_commands_each_once(alone: tuple[Any, Any]) -> None:
    owner, connections = alone
    agents = [await make_agent(owner) for _ in range(10)]
    await owner.execute(
        """INSERT INTO agent_commands (agent_id, command_type, status, sent_at)
           SELECT ($1::uuid[])[n % 10 + 1], 'scan_updates', 'sent', now() - interval '2 hours' - n * interval '1 second'
           FROM generate_series(1, 5000) AS n""",
        agents,
    )
    swept = await asyncio.gather(*(Sweeper(connections, f"sweeper-{n}").sweep() for n in range(8)))
    ended = [one for each in swept for one in each.timed_out]
    assert len(ended) == len(set(ended)) == 5000
    told = await owner.fetchrow(
        """SELECT count(*) AS records, count(DISTINCT command_id) AS commands, count(DISTINCT actor) AS sweepers
           FROM update_logs WHERE result = 'timed_out'"""
    )
    assert (told["records"], told["commands"]) == (5000, 5000)
    assert await replay(owner) == []
    totals = await owner.fetchrow(
        """SELECT (SELECT sum(timed_out) FROM timeout_totals WHERE command_type = 'scan_updates') AS totals,
                  (SELECT sum(timed_out) FROM timeout_service) AS said"""
    )
    assert (totals["totals"], totals["said"]) == (5000, 5000)
    status = await room.status(owner)
    assert status["totals"]["timed_out"] == 5000
    assert status["overdue"] == 0


async def test_more_than_a_batch_is_ended_in_one_run_the_longest_overdue_first(
    alone: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, connections = alone
    monkeypatch.setattr(room, "BATCH", 10)
    agent_id = await make_agent(owner)
    commands = [await make_command(owner, agent_id, Status.SENT, sent=(2 * HOUR + n * MINUTE)) for n in range(1, 26)]
    swept = await Sweeper(connections, "batches").sweep()
    assert set(swept.timed_out[:10]) == set(commands[-10:])
    assert set(swept.timed_out) == set(commands)


class HeldUp(Courtesy):
    """Somebody always waits."""

    def held_up(self) -> bool:
        return True


@pytest.mark.parametrize("others", [Courtesy(), HeldUp()], ids=["nobody waits", "somebody waits"])
async def test_a_storm_takes_a_second_lane_only_when_it_holds_nobody_up(
    others: Courtesy, alone: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, connections = alone
    monkeypatch.setattr(room, "BATCH", 10)
    await owner.execute(
        """INSERT INTO agent_commands (agent_id, command_type, status, sent_at)
           SELECT $1, 'scan_updates', 'sent', now() - interval '3 hours' FROM generate_series(1, 200)""",
        await make_agent(owner),
    )
    name = f"pace-{uuid.uuid4()}"
    swept = await Sweeper(connections, name, courtesy=others).sweep()
    assert len(set(swept.timed_out)) == len(swept.timed_out) == 200
    lanes = await owner.fetch(
        "SELECT replica, timed_out FROM timeout_totals WHERE starts_with(replica, $1) ORDER BY replica", name
    )
    assert sum(lane["timed_out"] for lane in lanes) == 200
    assert [lane["replica"] for lane in lanes][1:] == ([] if isinstance(others, HeldUp) else [f"{name}/lane-2"])


async def test_what_another_holds_is_left_for_the_next_sweep(alone: tuple[Any, Any]) -> None:
    owner, connections = alone
    agent_id = await make_agent(owner)
    one, two = [await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR) for _ in range(2)]
    async with owner.transaction():
        await owner.execute("SELECT FROM agent_commands WHERE id = $1 FOR UPDATE", one)
        assert (await Sweeper(connections, "held").sweep()).timed_out == [two]
    assert (await Sweeper(connections, "held").sweep()).timed_out == [one]


async def test_a_sweep_that_cannot_record_ends_nothing_is_counted_and_tried_again(alone: tuple[Any, Any]) -> None:
    owner, connections = alone
    agent_id = await make_agent(owner)
    one = await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR)
    await owner.execute("ALTER TABLE update_logs ADD CONSTRAINT probe CHECK (result <> 'timed_out') NOT VALID")
    sweeper, stop = Sweeper(connections, "fault", interval=0.01), asyncio.Event()
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await sweeper.sweep()
        assert (await command(owner, one))["status"] == Status.SENT
        running = asyncio.create_task(sweeper.run(stop))
        await until(owner, "SELECT failures > 0 FROM timeout_service WHERE replica = 'fault'")
    finally:
        await owner.execute("ALTER TABLE update_logs DROP CONSTRAINT probe")
    await until(owner, "SELECT status = 'timed_out' FROM agent_commands WHERE id = $1", one)
    stop.set()
    await running
    assert await results(owner, one) == ["sent", "timed_out"]
    row = await owner.fetchrow("SELECT * FROM timeout_service WHERE replica = 'fault'")
    assert "probe" in row["last_error"]
    assert row["stopped_at"] is not None


async def test_a_sweeper_whose_connections_are_cut_again_and_again_goes_on(
    alone: tuple[Any, Any], superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, connections = alone
    monkeypatch.setattr(room, "FAILURE_PAUSE_SECONDS", 0.01)
    agent_id = await make_agent(owner)
    sweeper, stop = Sweeper(connections, "cut", interval=0.001), asyncio.Event()
    running = asyncio.create_task(sweeper.run(stop))
    commands = []
    for _ in range(30):
        commands.append(await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR))
        await superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'sweeping' AND usename = 'redflag_server'"
        )
    await until(owner, "SELECT bool_and(status = 'timed_out') FROM agent_commands WHERE id = ANY ($1)", commands)
    await until(owner, "SELECT failures > 0 FROM timeout_service WHERE replica = 'cut'")
    assert not running.done()
    stop.set()
    await running
    assert await replay(owner, commands) == []


async def test_the_service_acts_by_itself_and_says_when_it_starts_and_stops(alone: tuple[Any, Any]) -> None:
    owner, connections = alone
    agent_id = await make_agent(owner)
    sweeper, stop = Sweeper(connections, "itself", interval=0.01), asyncio.Event()
    running = asyncio.create_task(sweeper.run(stop))
    one = await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR)
    await until(owner, "SELECT status = 'timed_out' FROM agent_commands WHERE id = $1", one)
    stop.set()
    await running
    said = await owner.fetch(
        "SELECT action FROM update_logs WHERE kind = 'service' AND actor = 'service:timeout@itself' ORDER BY created_at"
    )
    assert [row["action"] for row in said] == ["timeout_service_started", "timeout_service_stopped"]
    row = await owner.fetchrow("SELECT * FROM timeout_service WHERE replica = 'itself'")
    assert row["timed_out"] == 1
    assert row["runs"] >= 1


async def test_lateness_is_small_when_the_service_runs(alone: tuple[Any, Any]) -> None:
    owner, connections = alone
    agent_id = await make_agent(owner)
    sweeper, stop = Sweeper(connections, "late", interval=0.02), asyncio.Event()
    running = asyncio.create_task(sweeper.run(stop))
    await owner.execute(
        """INSERT INTO agent_commands (agent_id, command_type, delivery_timeout)
           SELECT $1, 'collect_specs', n * interval '20 milliseconds' FROM generate_series(1, 20) AS n""",
        agent_id,
    )
    await until(owner, "SELECT bool_and(status = 'timed_out') FROM agent_commands WHERE agent_id = $1", agent_id)
    stop.set()
    await running
    late = await owner.fetchval(
        "SELECT max((metadata ->> 'lateness_ms')::float) FROM update_logs WHERE agent_id = $1 AND result = 'timed_out'",
        agent_id,
    )
    # Alone it is some 30 ms; a busy machine may be busy for a while
    assert late < 5000


async def test_what_expires_next_is_told_beforehand(alone: tuple[Any, Any]) -> None:
    owner, _ = alone
    agent_id = await make_agent(owner)
    near = await make_command(owner, agent_id, age=29 * MINUTE)
    far = await make_command(owner, agent_id)
    told = [row["id"] for row in await room.preview(owner, within=2 * MINUTE)]
    assert near in told
    assert far not in told
    await move_deadline(owner, near, MINUTE)
    status = await room.status(owner)
    assert status["overdue"] == 1
    assert 59 < status["lag_seconds"] < 90


async def test_an_update_that_waited_for_a_command_fails_with_it(alone: tuple[Any, Any]) -> None:
    owner, connections = alone
    agent_id = await make_agent(owner)
    ids = {}
    for status, expected in (("installing", "failed"), ("dependencies", "pending"), ("installed", "installed")):
        one = await make_command(owner, agent_id, Status.SENT, sent=3 * HOUR)
        ids[one] = expected
        await owner.execute(
            "INSERT INTO updates (agent_id, package_type, package_name, status, command_id) VALUES ($1, 'apt', $2, $3, $4)",
            agent_id, status, status, one,
        )  # fmt: skip
    await Sweeper(connections, "updates").sweep()
    for one, expected in ids.items():
        row = await owner.fetchrow("SELECT status, reason FROM updates WHERE command_id = $1", one)
        assert row["status"] == expected
        if expected != "installed":
            assert str(one) in row["reason"]
