"""Check-ins: gathered into statements, two at the most for each."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from redflag.audit import actor as actors
from redflag.commands import queue
from redflag.database import faults
from redflag.errors import NotFound
from redflag.fleet import agents, presence
from redflag.fleet.checkin import CheckIn, CheckIns


def _check_in(agent_id: uuid.UUID, protocol: int = 1, **more) -> CheckIn:
    return CheckIn(agent_id, actors.agent(agent_id, "127.0.0.1"), protocol, **more)


async def _new_agents(owner, count: int) -> list[uuid.UUID]:
    rows = await owner.fetch(
        "INSERT INTO agents (hostname, protocol) SELECT 'checkin', 1 FROM generate_series(1, $1) RETURNING id", count
    )
    return [row["id"] for row in rows]


async def test_many_agents_at_once_each_get_their_own_commands_in_a_handful_of_statements(owner, pool):
    fleet = await _new_agents(owner, 300)
    async with pool.acquire() as connection:
        await queue.enqueue(connection, actors.user("alice"), fleet, "scan_updates")
    counted = _Counting(pool)
    check_ins = CheckIns(counted)
    answers = await asyncio.gather(*[check_ins.check_in(_check_in(one)) for one in fleet])
    assert all(len(answer.commands) == 1 for answer in answers)
    assert all(answer.commands[0]["agent_id"] == one for one, answer in zip(fleet, answers, strict=True))
    # 300 in batches of at most 256: two batches, two statements each
    assert counted.statements <= 6


async def test_a_check_in_with_nothing_waiting_is_one_statement(owner, pool):
    (one,) = await _new_agents(owner, 1)
    counted = _Counting(pool)
    assert (await CheckIns(counted).check_in(_check_in(one))).commands == []
    assert counted.statements == 1


async def test_an_agent_that_asks_twice_at_once_is_handed_each_command_once(owner, pool):
    (one,) = await _new_agents(owner, 1)
    async with pool.acquire() as connection:
        for _ in range(15):
            await queue.enqueue(connection, actors.user("alice"), [one], "scan_updates")
    check_ins = CheckIns(pool)
    answers = await asyncio.gather(*[check_ins.check_in(_check_in(one, protocol=0)) for _ in range(4)])
    handed = [command["id"] for answer in answers for command in answer.commands]
    assert len(handed) == len(set(handed)) == 15


async def test_a_throw_away_check_in_is_noted_and_handed_nothing(owner, pool):
    (one,) = await _new_agents(owner, 1)
    async with pool.acquire() as connection:
        await queue.enqueue(connection, actors.user("alice"), [one], "scan_updates")
    check_ins = CheckIns(pool)
    assert (await check_ins.check_in(_check_in(one, protocol=0, throw_away=True))).commands == []
    assert len((await check_ins.check_in(_check_in(one, protocol=0))).commands) == 1


async def test_presence_keeps_the_last_metrics_and_says_who_is_online(owner, pool):
    (one,) = await _new_agents(owner, 1)
    check_ins = CheckIns(pool)
    await check_ins.check_in(_check_in(one, metrics={"memory_percent": 5.5}))
    await check_ins.check_in(_check_in(one))
    async with pool.acquire() as connection:
        row = await agents.show(connection, one)
        assert row["metrics"] == {"memory_percent": 5.5}
        assert row["address"] == "127.0.0.1"
        assert agents.presence(row["seconds_since_seen"], 60) == agents.Presence.ONLINE
        await presence.set_rapid(connection, one, 10)
        assert (await check_ins.check_in(_check_in(one))).rapid_until is not None
        await presence.set_rapid(connection, one, None)
        assert (await check_ins.check_in(_check_in(one))).rapid_until is None
        with pytest.raises(NotFound):
            await agents.show(connection, uuid.uuid4())


async def test_what_an_agent_holds_and_has_ended_is_told_and_what_it_holds_is_not_handed_out_again(owner, pool):
    (one,) = await _new_agents(owner, 1)
    async with pool.acquire() as connection:
        rows = await queue.enqueue(connection, actors.user("alice"), [one], "scan_updates")
        check_ins = CheckIns(pool)
        command = rows[0]["id"]
        assert [row["id"] for row in (await check_ins.check_in(_check_in(one))).commands] == [command]
        # Not named: handed out again. Named: not.
        assert [row["id"] for row in (await check_ins.check_in(_check_in(one))).commands] == [command]
        held = await check_ins.check_in(_check_in(one, held=(command,)))
        assert (held.commands, held.ended) == ([], [])
        await queue.cancel(connection, actors.user("alice"), command)
        assert (await check_ins.check_in(_check_in(one, held=(command,)))).ended == [command]


async def test_everybody_in_a_statement_that_fails_is_told(owner, pool):
    (one,) = await _new_agents(owner, 1)
    unknown = uuid.uuid4()
    check_ins = CheckIns(pool)
    answers = await asyncio.gather(
        *[check_ins.check_in(_check_in(each)) for each in (one, unknown)], return_exceptions=True
    )
    assert isinstance(answers[1], Exception)
    faults.waiting.clear()
    assert (await check_ins.check_in(_check_in(one))).commands == []


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, "lost"), (0, "online"), (209, "online"), (211, "late"), (86_401, "lost")]
)
def test_presence_is_said_in_words(seconds, expected):
    assert agents.presence(seconds, 60) == expected


class _Counting:
    """A pool that counts the statements of the connections it lends."""

    def __init__(self, pool) -> None:
        self._pool = pool
        self.statements = 0

    def acquire(self):
        return _Lent(self)


class _Lent:
    def __init__(self, counting: _Counting) -> None:
        self._counting = counting

    async def __aenter__(self):
        self._connection = await self._counting._pool.acquire()
        return self

    async def __aexit__(self, *_):
        await self._counting._pool.release(self._connection)

    async def fetch(self, *arguments):
        self._counting.statements += 1
        return await self._connection.fetch(*arguments)
