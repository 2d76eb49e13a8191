"""A policy says how long a command may take; a change of it is recorded, holds for new commands, and for live ones by choice."""

from __future__ import annotations

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
    person,
    records,
    refusal,
)
from redflag.commands import queue
from redflag.commands.states import LIVE, TERMINAL, Status
from redflag.database import pool as pools
from redflag.errors import InvalidInput
from redflag.timeouts import policies

SECOND = datetime.timedelta(seconds=1)


@pytest_asyncio.fixture(scope="module")
async def connections(postgres: Any) -> AsyncIterator[tuple[Any, Any]]:
    addresses = await make_database(postgres, "policies")
    owner, server = await pools.connect(addresses.owner), await pools.connect(addresses.server)
    yield owner, server
    await owner.close()
    await server.close()


@pytest.fixture
async def place(connections: tuple[Any, Any]) -> tuple[Any, Any, uuid.UUID, str]:
    """The owner, the server, an agent, and a command type that nobody else uses."""
    owner, server = connections
    return owner, server, await make_agent(owner), f"type_{uuid.uuid4().hex[:12]}"


async def test_the_defaults_are_the_seeds(connections: tuple[Any, Any]) -> None:
    told = (await policies.list_policies(connections[1]))[-1]
    assert told["command_type"] == "*"
    assert (told["delivery_timeout"], told["start_timeout"], told["execution_timeout"], told["idle_timeout"]) == (
        30 * MINUTE, MINUTE, 2 * HOUR, None,
    )  # fmt: skip


async def test_what_is_not_given_is_taken_from_the_policy_of_all_other_types(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    _, server, _, kind = place
    row, applied = await policies.set_policy(server, person(), kind, execution=9 * HOUR)
    assert (row["delivery_timeout"], row["start_timeout"], row["execution_timeout"], row["idle_timeout"]) == (
        30 * MINUTE, MINUTE, 9 * HOUR, None,
    )  # fmt: skip
    assert applied == 0
    row, _ = await policies.set_policy(server, person(), kind, idle=5 * MINUTE)
    assert (row["execution_timeout"], row["idle_timeout"]) == (9 * HOUR, 5 * MINUTE)
    row, _ = await policies.set_policy(server, person(), kind, no_idle=True)
    assert (row["execution_timeout"], row["idle_timeout"]) == (9 * HOUR, None)


async def test_a_new_policy_may_go_without_the_idle_timeout_of_all_other_types(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    owner, server, _, kind = place
    await owner.execute("UPDATE timeout_policies SET idle_timeout = '7 minutes' WHERE command_type = '*'")
    try:
        row, _ = await policies.set_policy(server, person(), kind, no_idle=True)
        assert row["idle_timeout"] is None
        row, _ = await policies.set_policy(server, person(), f"{kind}_2", execution=HOUR)
        assert row["idle_timeout"] == 7 * MINUTE
    finally:
        await owner.execute("UPDATE timeout_policies SET idle_timeout = NULL WHERE command_type = '*'")


async def test_a_changed_policy_holds_for_new_commands_only(place: tuple[Any, Any, uuid.UUID, str]) -> None:
    owner, server, agent_id, kind = place
    old = await make_command(owner, agent_id, command_type=kind)
    await policies.set_policy(server, person(), kind, delivery=5 * MINUTE)
    new = await make_command(owner, agent_id, command_type=kind)
    other = await make_command(owner, agent_id, command_type=f"{kind}_2")
    for one, expected in ((old, 30 * MINUTE), (new, 5 * MINUTE), (other, 30 * MINUTE)):
        row = await command(owner, one)
        assert row["next_deadline_at"] - row["created_at"] == expected


async def test_applied_to_live_ones_it_moves_their_deadlines_and_is_recorded(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    owner, server, agent_id, kind = place
    live = {status: await make_command(owner, agent_id, status, command_type=kind) for status in LIVE}
    ended = {status: await make_command(owner, agent_id, status, command_type=kind) for status in TERMINAL}
    other = await make_command(owner, agent_id, command_type=f"{kind}_2")
    before = await command(owner, other)
    actor = person()
    _, applied = await policies.set_policy(
        server, actor, kind, delivery=5 * MINUTE, execution=3 * HOUR, apply_to_live=True
    )
    assert applied == len(live)
    for status, one in live.items():
        row = await command(owner, one)
        since = row["created_at"] if status == Status.PENDING else row["sent_at"]
        assert row["next_deadline_at"] - since == (5 * MINUTE if status == Status.PENDING else 3 * HOUR)
        # Moving a deadline is no change of the command
        assert (row["version"], len(await records(owner, one))) == (1, 1)
    for one in ended.values():
        assert (await command(owner, one))["next_deadline_at"] is None
    assert await command(owner, other) == before
    told = await owner.fetchrow(
        "SELECT * FROM update_logs WHERE action = 'policy_applied' AND message LIKE 'policy ' || $1 || ' applied%'",
        kind,
    )
    assert (told["kind"], told["actor"], told["metadata"]["commands"]) == ("service", actor.name, len(live))


async def test_the_policy_of_all_others_is_applied_to_types_without_one_only(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    owner, server, agent_id, kind = place
    await policies.set_policy(server, person(), kind, delivery=5 * MINUTE)
    own = await make_command(owner, agent_id, command_type=kind)
    none = await make_command(owner, agent_id, command_type=f"{kind}_2")
    await policies.set_policy(server, person(), "*", delivery=40 * MINUTE, apply_to_live=True)
    await policies.set_policy(server, person(), "*", delivery=30 * MINUTE)
    for one, expected in ((own, 5 * MINUTE), (none, 40 * MINUTE)):
        row = await command(owner, one)
        assert row["next_deadline_at"] - row["created_at"] == expected


async def test_one_that_waits_for_its_start_keeps_when_it_was_handed_out(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    owner, server, agent_id, kind = place
    one = await make_command(owner, agent_id, command_type=kind)
    await queue.deliver(server, [queue.Asking(agent_id, agent_actor(agent_id), 1)])
    await policies.set_policy(server, person(), kind, start=90 * SECOND, apply_to_live=True)
    row = await command(owner, one)
    assert row["deadline_kind"] == "start"
    assert row["next_deadline_at"] - row["sent_at"] == 90 * SECOND


async def test_a_change_is_recorded_once_with_what_it_was_and_what_it_is(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    owner, server, _, kind = place
    actor = person()
    await policies.set_policy(server, actor, kind, execution=9 * HOUR)
    await policies.set_policy(server, person(), kind, execution=10 * HOUR)
    told = await owner.fetch("SELECT * FROM update_logs WHERE metadata ->> 'subject_id' = $1 ORDER BY created_at", kind)
    assert [(row["kind"], row["action"], row["actor"], row["result"]) for row in told] == [
        ("change", "policy_changed", actor.name, "success")
    ] * 2
    assert told[0]["metadata"]["new"]["execution_timeout"] == "09:00:00"
    assert (told[1]["metadata"]["old"], told[1]["metadata"]["new"]) == (
        {"execution_timeout": "09:00:00"}, {"execution_timeout": "10:00:00"},
    )  # fmt: skip


async def test_a_change_by_hand_is_recorded_under_the_database_role(place: tuple[Any, Any, uuid.UUID, str]) -> None:
    owner, _, _, kind = place
    await owner.execute(
        'INSERT INTO timeout_policies (command_type, act) VALUES ($1, \'{"actor": "user:alice"}\')', kind
    )
    await owner.execute("UPDATE timeout_policies SET execution_timeout = '1 hour' WHERE command_type = $1", kind)
    await owner.execute("UPDATE timeout_policies SET execution_timeout = '1 hour' WHERE command_type = $1", kind)
    await owner.execute("DELETE FROM timeout_policies WHERE command_type = $1", kind)
    told = await owner.fetch(
        "SELECT action, actor FROM update_logs WHERE metadata ->> 'subject_id' = $1 ORDER BY created_at", kind
    )
    assert [(row["action"], row["actor"]) for row in told] == [
        ("policy_created", "db:redflag_owner"),
        ("policy_changed", "db:redflag_owner"),
        ("policy_removed", "db:redflag_owner"),
    ]


async def test_the_server_cannot_change_a_policy_without_saying_who_acts(connections: tuple[Any, Any]) -> None:
    _, server = connections
    error = await refusal(
        server, "UPDATE timeout_policies SET delivery_timeout = '1 hour', act = NULL WHERE command_type = '*'"
    )
    assert error is not None
    assert error.sqlstate == "RF002"


@pytest.mark.parametrize(
    "wrong",
    [
        {"delivery": datetime.timedelta(0)},
        {"execution": -MINUTE},
        {"start": datetime.timedelta(days=367)},
        {"idle": datetime.timedelta(0)},
    ],
)
async def test_a_time_that_is_none_is_refused(wrong: dict[str, Any], connections: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInput):
        await policies.set_policy(connections[1], person(), "scan_updates", **wrong)


@pytest.mark.parametrize("kind", ["", "Scan", "a b", "**", "x" * 101])
async def test_a_type_that_is_none_is_refused(kind: str, connections: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInput):
        await policies.set_policy(connections[1], person(), kind, delivery=HOUR)


async def test_without_a_policy_for_all_others_nothing_is_enqueued_without_a_deadline(
    connections: tuple[Any, Any],
) -> None:
    owner, _ = connections
    agent_id = await make_agent(owner)
    whole = owner.transaction()
    await whole.start()
    try:
        await owner.execute("DELETE FROM timeout_policies WHERE command_type = '*'")
        error = await refusal(
            owner, "INSERT INTO agent_commands (agent_id, command_type) VALUES ($1, 'scan_updates')", agent_id
        )
        assert error is not None
        assert error.sqlstate == "RF005"
    finally:
        await whole.rollback()


async def test_the_live_commands_that_a_policy_would_be_applied_to_are_counted_before(
    place: tuple[Any, Any, uuid.UUID, str],
) -> None:
    owner, server, agent_id, kind = place
    others = await policies.live_of_type(server, "*")
    for status in (Status.PENDING, Status.RUNNING, Status.COMPLETED):
        await make_command(owner, agent_id, status, command_type=kind)
    assert await policies.live_of_type(server, kind) == 2
    assert await policies.live_of_type(server, "*") == others + 2
    assert await policies.live_of_type(server, kind, most=1) == 1
    await policies.set_policy(server, person(), kind, delivery=HOUR)
    assert await policies.live_of_type(server, "*") == others
