"""The queue hands each command out once, never past its deadline, and once more what an agent does not say it holds."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from typing import Any

import pytest

from integration.commands.helpers import (
    HOUR,
    MINUTE,
    agent_actor,
    command,
    make_agent,
    make_command,
    move_deadline,
    person,
    records,
    replay,
    results,
)
from redflag.commands import queue
from redflag.commands.queue import Asking, Progress
from redflag.commands.states import LIVE, TERMINAL, Status
from redflag.errors import Conflict, InvalidInput, NotFound
from redflag.fleet.checkin import CheckIn, CheckIns
from redflag.timeouts.sweeper import Sweeper

NOW = datetime.timedelta(0)


async def ask(
    pool: Any, agent_id: uuid.UUID, *, protocol: int = 1, held: tuple[uuid.UUID, ...] = ()
) -> list[uuid.UUID]:
    """What one poll is handed."""
    async with pool.acquire() as connection:
        asking = Asking(agent_id, agent_actor(agent_id), protocol, held)
        return [row["id"] for row in (await queue.deliver(connection, [asking]))[agent_id]]


# --- Enqueuing ---


async def test_one_command_for_each_agent_in_one_statement(pool: Any, server: Any, owner: Any) -> None:
    agents = [await make_agent(owner) for _ in range(3)]
    made = await queue.enqueue(server, person(), agents, "scan_updates", {"deep": True})
    assert {row["agent_id"] for row in made} == set(agents)
    for row in made:
        told = await records(server, row["id"])
        assert [(one["version"], one["result"], one["actor"], one["params"]) for one in told] == [
            (1, "pending", "user:tester", {"deep": True})
        ]
        assert told[0]["metadata"]["address"] == "192.0.2.8"


async def test_an_unknown_agent_is_named_and_nothing_is_enqueued_for_the_others(
    server: Any, agent_id: uuid.UUID
) -> None:
    missing = uuid.uuid4()
    with pytest.raises(NotFound, match=str(missing)):
        await queue.enqueue(server, person(), [agent_id, missing], "scan_updates")
    assert await queue.list_commands(server, agent_id=agent_id) == []
    assert (
        await server.fetchval("SELECT count(*) FROM update_logs WHERE agent_id = $1 AND kind = 'transition'", agent_id)
        == 0
    )


async def test_a_removed_agent_gets_no_more_commands(server: Any, owner: Any) -> None:
    agent_id = await make_agent(owner)
    await owner.execute("UPDATE agents SET removed_at = now() WHERE id = $1", agent_id)
    with pytest.raises(NotFound):
        await queue.enqueue(server, person(), [agent_id], "scan_updates")


async def test_timeouts_given_with_a_command_win_over_the_policy(server: Any, agent_id: uuid.UUID) -> None:
    made = await queue.enqueue(
        server, person(), [agent_id], "scan_updates", delivery_timeout=2 * HOUR, execution_timeout=9 * HOUR
    )
    row = await command(server, made[0]["id"])
    assert row["next_deadline_at"] - row["created_at"] == 2 * HOUR
    assert (row["execution_timeout"], row["deadline_kind"]) == (9 * HOUR, "delivery")


async def test_secrets_in_parameters_reach_neither_the_table_nor_the_record(server: Any, agent_id: uuid.UUID) -> None:
    made = await queue.enqueue(
        server, person(), [agent_id], "scan_updates", {"password": "hunter2", "deep": {"x": "token=abc"}}
    )
    row, told = await command(server, made[0]["id"]), await records(server, made[0]["id"])
    assert row["params"] == told[0]["params"] == {"password": "[redacted]", "deep": {"x": "token=[redacted]"}}


@pytest.mark.parametrize(
    ("command_type", "params"),
    [
        ("Scan", {}),
        ("", {}),
        ("scan updates", {}),
        ("dry_run_update", {}),
        ("dry_run_update", {"update_id": 7}),
        ("install_updates", {"action": "update_all"}),
        ("scan_updates", {"long": "x" * 70_000}),
    ],
)
async def test_what_would_harm_an_agent_is_not_enqueued(
    command_type: str, params: dict[str, Any], server: Any, agent_id: uuid.UUID
) -> None:
    with pytest.raises(InvalidInput):
        await queue.enqueue(server, person(), [agent_id], command_type, params)


# --- Delivery ---


@pytest.mark.parametrize("protocol", [0, 1])
async def test_eight_polls_at_once_get_each_of_25_commands_once(protocol: int, pool: Any, owner: Any) -> None:
    agent_id = await make_agent(owner, protocol=protocol)
    commands = {await make_command(owner, agent_id) for _ in range(25)}
    got: list[uuid.UUID] = []
    while True:
        # As eight servers would be asked; what was handed out before is named as held
        answers = await asyncio.gather(*(ask(pool, agent_id, protocol=protocol, held=tuple(got)) for _ in range(8)))
        new = [one for answer in answers for one in answer]
        assert all(len(answer) <= 10 for answer in answers)
        if protocol == 1:
            # It has not named these yet, so a poll that came a moment later may hand them out once more
            new = list(dict.fromkeys(new))
        if not new:
            break
        got += new
    assert len(got) == 25
    assert set(got) == commands
    for one in got:
        told = await results(owner, one)
        assert told[:2] == ["pending", "sent"]
        assert len(told) == 2 or protocol == 1
    assert await replay(owner, got) == []


async def test_a_busy_server_hands_out_each_of_many_agents_commands_once(pool: Any, owner: Any) -> None:
    agents = [await make_agent(owner, protocol=0) for _ in range(20)]
    commands = {await make_command(owner, one) for one in agents for _ in range(3)}
    check_ins = CheckIns(pool)
    answers = await asyncio.gather(
        *(check_ins.check_in(CheckIn(one, agent_actor(one), protocol=0)) for one in agents for _ in range(4))
    )
    got = [row["id"] for answer in answers for row in answer.commands]
    assert len(got) == len(commands)
    assert set(got) == commands


async def test_the_oldest_come_first_ten_at_a_time(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    commands = [await make_command(owner, agent_id, age=(12 - n) * MINUTE) for n in range(12)]
    assert await ask(pool, agent_id, protocol=0) == commands[:10]
    assert await ask(pool, agent_id, protocol=0) == commands[10:]
    assert await ask(pool, agent_id, protocol=0) == []


async def test_an_agent_gets_no_other_agents_commands(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    other = await make_agent(owner)
    await make_command(owner, other)
    assert await ask(pool, agent_id) == []


@pytest.mark.parametrize("protocol", [0, 1])
async def test_nothing_is_handed_out_past_its_deadline_even_without_a_sweep(
    protocol: int, pool: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    late = await make_command(owner, agent_id, overdue=datetime.timedelta(milliseconds=1))
    assert await ask(pool, agent_id, protocol=protocol) == []
    answer = await CheckIns(pool).check_in(CheckIn(agent_id, agent_actor(agent_id), protocol=protocol))
    assert answer.commands == []
    assert (await command(owner, late))["status"] == Status.PENDING


async def test_delivery_says_to_whom_and_when(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    row, told = await command(owner, one), (await records(owner, one))[-1]
    assert (told["actor"], told["result"], told["sent_at"]) == (f"agent:{agent_id}", "sent", row["sent_at"])
    assert told["metadata"]["address"] == "192.0.2.7"
    assert (row["deliveries"], row["deadline_kind"]) == (1, "start")
    assert row["next_deadline_at"] - row["sent_at"] == MINUTE


# --- Sent is not received ---


async def test_what_an_agent_does_not_name_is_handed_out_again_and_recorded(
    pool: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one, two = [await make_command(owner, agent_id, age=(2 - n) * MINUTE) for n in range(2)]
    assert await ask(pool, agent_id) == [one, two]
    assert await ask(pool, agent_id, held=(one,)) == [two]
    assert await ask(pool, agent_id, held=(one, two)) == []
    assert await results(owner, one) == ["pending", "sent"]
    told = await records(owner, two)
    assert [record["result"] for record in told] == ["pending", "sent", "sent"]
    assert told[-1]["message"] == "handed out again"
    assert (await command(owner, two))["deliveries"] == 2


async def test_handed_out_again_it_keeps_its_first_start_deadline(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    first = await command(owner, one)
    await ask(pool, agent_id)
    again = await command(owner, one)
    assert again["sent_at"] > first["sent_at"]
    assert again["next_deadline_at"] == first["next_deadline_at"]


async def test_an_agent_that_cannot_say_what_it_holds_is_handed_nothing_twice(pool: Any, owner: Any) -> None:
    agent_id = await make_agent(owner, protocol=0)
    one = await make_command(owner, agent_id)
    assert await ask(pool, agent_id, protocol=0) == [one]
    assert await ask(pool, agent_id, protocol=0) == []
    row = await command(owner, one)
    assert row["deadline_kind"] == "execution"
    assert row["next_deadline_at"] - row["sent_at"] == 2 * HOUR


async def test_what_it_received_is_not_handed_out_again(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    live, ended = await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(received=(one,)))
    assert list(live) == [one]
    assert ended == []
    assert await ask(pool, agent_id) == []
    row = await command(owner, one)
    assert (row["status"], row["deadline_kind"]) == (Status.SENT, "execution")
    assert await results(owner, one) == ["pending", "sent"]


async def test_what_it_runs_is_not_handed_out_again(pool: Any, server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    live, _ = await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=(one,)))
    assert 7100 < live[one] <= 7200
    assert await ask(pool, agent_id) == []
    assert await results(owner, one) == ["pending", "sent", "running"]


async def test_saying_twice_at_once_that_it_runs_is_one_change(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)

    async def say() -> None:
        async with pool.acquire() as connection:
            await queue.acknowledge(connection, agent_actor(agent_id), agent_id, Progress(running=(one,)))

    await asyncio.gather(*(say() for _ in range(8)))
    assert await results(owner, one) == ["pending", "sent", "running"]


async def test_an_agent_is_told_what_has_ended_and_what_it_never_had(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one, other_agent = await make_command(owner, agent_id), await make_agent(owner)
    foreign = await make_command(owner, other_agent, Status.SENT)
    unknown = uuid.uuid4()
    await ask(pool, agent_id)
    await queue.cancel(server, person(), one)
    named = (one, foreign, unknown)
    live, ended = await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=named))
    assert live == {}
    assert set(ended) == set(named)
    assert (await command(owner, foreign))["status"] == Status.SENT


async def test_a_check_in_acknowledges_what_it_names_and_tells_what_has_ended(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one, two = [await make_command(owner, agent_id, age=(2 - n) * MINUTE) for n in range(2)]
    check_ins = CheckIns(pool)
    answer = await check_ins.check_in(CheckIn(agent_id, agent_actor(agent_id), 1))
    assert [row["id"] for row in answer.commands] == [one, two]
    await queue.cancel(server, person(), two)
    answer = await check_ins.check_in(CheckIn(agent_id, agent_actor(agent_id), 1, held=(one, two)))
    assert answer.commands == []
    assert answer.ended == [two]
    assert (await command(owner, one))["acknowledged_at"] is not None


async def test_an_agent_that_throws_the_answer_away_is_handed_nothing(pool: Any, owner: Any) -> None:
    agent_id = await make_agent(owner, protocol=0)
    one = await make_command(owner, agent_id)
    answer = await CheckIns(pool).check_in(CheckIn(agent_id, agent_actor(agent_id), throw_away=True))
    assert answer.commands == []
    assert (await command(owner, one))["status"] == Status.PENDING


async def test_one_that_never_confirms_is_taken_back_handed_out_again_and_times_out_at_last(
    pool: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id)
    sweeper = Sweeper(pool, "queue", gap=86_400)
    for _ in range(2):
        assert await ask(pool, agent_id) == [one]
        await move_deadline(owner, one, MINUTE)
        swept = await sweeper.sweep()
        assert one in swept.redelivered
        assert one not in swept.timed_out
        row = await command(owner, one)
        assert (row["status"], row["deadline_kind"]) == (Status.PENDING, "delivery")
        assert row["next_deadline_at"] == row["created_at"] + 30 * MINUTE
    await move_deadline(owner, one, MINUTE)
    assert await ask(pool, agent_id) == []
    assert one in (await sweeper.sweep()).timed_out
    told = await records(owner, one)
    assert [record["result"] for record in told] == ["pending", "sent", "pending", "sent", "pending", "timed_out"]
    assert told[-1]["metadata"]["timeout_reason"] == "not_delivered"
    assert "taken back" in told[2]["message"]
    assert await replay(owner, [one]) == []


async def test_one_that_was_taken_back_and_runs_after_all_is_running(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    await move_deadline(owner, one, MINUTE)
    await Sweeper(pool, "queue", gap=86_400).sweep()
    await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=(one,)))
    assert await results(owner, one) == ["pending", "sent", "pending", "running"]
    assert await ask(pool, agent_id) == []


async def test_one_that_was_acknowledged_is_never_taken_back(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(received=(one,)))
    await move_deadline(owner, one, MINUTE)
    swept = await Sweeper(pool, "queue", gap=86_400).sweep()
    assert one in swept.timed_out
    assert (await records(owner, one))[-1]["metadata"]["deadline_kind"] == "execution"


# --- Idle ---


async def test_how_far_it_is_may_be_said_with_its_start(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id)
    await ask(pool, agent_id)
    await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=(one,), said=((one, "1 of 7"),)))
    found = await command(owner, one)
    assert (found["status"], found["progress"]) == ("running", "1 of 7")


async def test_word_of_progress_moves_the_deadline_and_is_no_change(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id)
    await owner.execute("UPDATE agent_commands SET idle_timeout = '5 minutes' WHERE id = $1", one)
    await ask(pool, agent_id)
    await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=(one,)))
    first = await command(owner, one)
    assert first["deadline_kind"] == "idle"
    await queue.acknowledge(
        server, agent_actor(agent_id), agent_id, Progress(running=(one,), said=((one, "half; password=hunter2"),))
    )
    second = await command(owner, one)
    assert second["next_deadline_at"] > first["next_deadline_at"]
    assert second["next_deadline_at"] - second["last_progress_at"] == 5 * MINUTE
    assert second["progress"] == "half; password=[redacted]"
    assert (second["version"], second["act"]) == (first["version"], first["act"])
    assert await results(owner, one) == ["pending", "sent", "running"]


async def test_one_without_progress_times_out_as_idle(pool: Any, server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)
    await owner.execute("UPDATE agent_commands SET idle_timeout = '5 minutes' WHERE id = $1", one)
    await ask(pool, agent_id)
    await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=(one,)))
    await owner.execute("UPDATE agent_commands SET last_progress_at = now() - interval '6 minutes' WHERE id = $1", one)
    assert one in (await Sweeper(pool, "queue", gap=86_400).sweep()).timed_out
    told = (await records(owner, one))[-1]
    assert told["metadata"]["timeout_reason"] == "no_progress"
    assert told["metadata"]["timeout_duration"] == "5 min 0 s"
    assert 55_000 <= told["metadata"]["lateness_ms"] <= 120_000


async def test_progress_never_outlives_the_execution_timeout(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.RUNNING, age=118 * MINUTE, sent=118 * MINUTE)
    await owner.execute(
        "UPDATE agent_commands SET idle_timeout = '5 minutes', last_progress_at = now() WHERE id = $1", one
    )
    await queue.acknowledge(server, agent_actor(agent_id), agent_id, Progress(running=(one,)))
    row = await command(owner, one)
    assert (row["deadline_kind"], row["next_deadline_at"] - row["sent_at"]) == ("execution", 2 * HOUR)


# --- Cancelling and trying again ---


@pytest.mark.parametrize("status", sorted(LIVE))
async def test_a_live_command_is_cancelled_with_its_reason(
    status: Status, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, status)
    await queue.cancel(server, person(), one, "not today, token=abc")
    told = (await records(owner, one))[-1]
    assert (told["result"], told["actor"], told["message"]) == (
        "cancelled",
        "user:tester",
        "not today, token=[redacted]",
    )
    with pytest.raises(Conflict, match="cancelled"):
        await queue.cancel(server, person(), one)
    assert len(await records(owner, one)) == 2


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_what_has_ended_is_tried_again_as_a_new_command_that_names_it(
    status: Status, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, status, params={"deep": True})
    with pytest.raises(Conflict, match=status):
        await queue.cancel(server, person(), one)
    again = await queue.retry(server, person(), one)
    assert (again["agent_id"], again["command_type"], again["params"]) == (agent_id, "scan_updates", {"deep": True})
    assert again["retried_from_id"] == one
    assert (await records(owner, again["id"]))[0]["metadata"]["retried_from_id"] == str(one)
    assert len(await records(owner, one)) == 1


@pytest.mark.parametrize("status", sorted(LIVE))
async def test_what_is_live_is_not_tried_again(status: Status, server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, status)
    with pytest.raises(Conflict, match="still"):
        await queue.retry(server, person(), one)


async def test_what_is_not_there_is_not_found(server: Any) -> None:
    for act in (queue.cancel, queue.retry):
        with pytest.raises(NotFound):
            await act(server, person(), uuid.uuid4())
    with pytest.raises(NotFound):
        await queue.show(server, uuid.uuid4())


async def test_of_many_that_cancel_at_once_one_does(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)

    async def cancel() -> bool:
        async with pool.acquire() as connection:
            try:
                await queue.cancel(connection, person(), one)
            except Conflict:
                return False
            return True

    assert sum(await asyncio.gather(*(cancel() for _ in range(8)))) == 1
    assert await results(owner, one) == ["pending", "cancelled"]


async def test_the_list_shows_the_newest_first_from_a_position_on(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    commands = [await make_command(owner, agent_id, age=n * MINUTE) for n in range(5)]
    first = await queue.list_commands(server, agent_id=agent_id, limit=2)
    last = first[-1]
    rest = await queue.list_commands(server, agent_id=agent_id, before=(last["created_at"], last["id"]))
    assert [row["id"] for row in first + rest] == commands
    await queue.cancel(server, person(), commands[0])
    live = await queue.list_commands(server, agent_id=agent_id, live=True)
    assert [row["id"] for row in live] == commands[1:]


# --- How many are live, and which of them has waited the longest ---


async def test_live_commands_are_counted_by_state_with_the_one_that_waits_the_longest(
    owner: Any, server: Any, pool: Any
) -> None:
    agent_id = await make_agent(owner)
    before, _ = await queue.live(server)
    assert set(before) == LIVE
    ages = datetime.timedelta(days=300), datetime.timedelta(days=299)
    oldest, _ = [await make_command(owner, agent_id, age=age, overdue=-HOUR) for age in ages]
    running = await make_command(owner, agent_id, "running", age=datetime.timedelta(days=301), overdue=-HOUR)
    counted, waits = await queue.live(server)
    assert (counted["pending"], counted["running"]) == (before["pending"] + 2, before["running"] + 1)
    assert waits == oldest
    for one in (oldest, running):
        await queue.cancel(server, person(), one)
    _, waits = await queue.live(server)
    assert waits not in {None, oldest}
