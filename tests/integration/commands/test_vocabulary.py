"""The words have one home, redflag.commands.states, and the database knows exactly these."""

from __future__ import annotations

import datetime
import enum
import itertools
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from integration.commands.helpers import make_agent, make_database
from redflag.audit import actor as actors
from redflag.commands.states import (
    AFTER_DELIVERY,
    LIVE,
    REPORTED,
    RESULTS,
    TERMINAL,
    TRANSITIONS,
    DeadlineKind,
    Kind,
    Result,
    Status,
    outcome_of,
)
from redflag.database import pool as pools
from redflag.timeouts import sweeper
from redflag.timeouts.sweeper import LATENESS_BOUNDS, STUCK_BOUNDS

# The constraint that holds a column to the words of an enum
CONSTRAINTS: dict[str, type[enum.StrEnum]] = {
    "update_logs_result_check": Result,
    "agent_commands_status_check": Status,
    "agent_commands_deadline_kind_check": DeadlineKind,
}
SEED = {"success", "failed", "error", "pending", "timed_out"}


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_lists_exactly_the_words_of_its_enum(name: str, owner: Any) -> None:
    definitions = await owner.fetch(
        "SELECT pg_get_constraintdef(oid) AS said FROM pg_constraint WHERE conname = $1 AND convalidated", name
    )
    assert definitions
    for definition in definitions:
        listed = re.search(r"'\{(.+)\}'::text\[\]", definition["said"])
        words = listed[1].split(",") if listed else re.findall(r"'([^']+)'::text", definition["said"])
        assert sorted(words) == sorted(CONSTRAINTS[name])


async def test_the_guard_of_the_record_lists_exactly_the_kinds(owner: Any) -> None:
    text = await owner.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'update_logs_admit'")
    listed = re.search(r"NEW\.kind <> ALL \('\{(.+)\}'::text\[\]\)", text)
    assert listed
    assert sorted(listed[1].split(",")) == sorted(Kind)


@pytest_asyncio.fixture
async def recording(owner: Any) -> AsyncIterator[str]:
    """A table of the owner's whose trigger records its rows under the kind that they name, as a trigger of ours would; rolled back."""
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(
        """CREATE TABLE told (kind text);
           CREATE FUNCTION told_record() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             INSERT INTO update_logs (kind, command_id, version, actor, result)
             VALUES (NEW.kind, gen_random_uuid(), 1, 'service:test@here', 'success');
             RETURN NULL;
           END $$;
           CREATE TRIGGER told_record AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION told_record()"""
    )
    yield "told"
    await transaction.rollback()


async def test_a_trigger_records_every_kind(recording: str, owner: Any) -> None:
    for word in Kind:
        await owner.execute(f"INSERT INTO {recording} VALUES ($1)", word)
    kinds = await owner.fetch("SELECT kind FROM update_logs WHERE actor = 'service:test@here' AND created_at >= now()")
    assert sorted(row["kind"] for row in kinds) == sorted(Kind)


@pytest.mark.parametrize("word", ["no_such_kind", "Note", "", " note"])
async def test_another_kind_is_refused_even_of_a_trigger(word: str, recording: str, owner: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await owner.execute(f"INSERT INTO {recording} VALUES ($1)", word)
    assert refused.value.constraint_name == "update_logs_kind_check"


@pytest.mark.parametrize("word", sorted(Result))
async def test_every_result_can_be_recorded(word: str, owner: Any) -> None:
    noted = await owner.fetchval(
        "INSERT INTO update_logs (result, message) VALUES ($1, 'vocabulary') RETURNING result", word
    )
    assert noted == word


@pytest.mark.parametrize("word", ["no_such_result", "Success", "", "timeout", " failed"])
async def test_another_result_is_refused_by_the_constraint_of_that_name(word: str, owner: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await owner.execute("INSERT INTO update_logs (result) VALUES ($1)", word)
    assert refused.value.constraint_name == "update_logs_result_check"


@pytest.mark.parametrize("word", ["expired", "PENDING", ""])
async def test_another_status_is_refused_even_by_force(word: str, owner: Any, agent_id: uuid.UUID) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(
            "INSERT INTO agent_commands (agent_id, command_type, status) VALUES ($1, 'scan_updates', $2)",
            agent_id,
            word,
        )


async def test_the_seeds_results_are_among_ours() -> None:
    assert set(Result) >= SEED
    assert Status.TIMED_OUT in set(Result)


async def test_the_constraint_says_what_it_is_for(owner: Any) -> None:
    comment = await owner.fetchval(
        """SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint
           WHERE conname = 'update_logs_result_check' AND conrelid = 'update_logs'::regclass"""
    )
    assert "states.py" in comment
    assert "timed_out" in comment


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Status, Status)))
async def test_the_database_has_the_same_transitions(old: Status, new: Status, owner: Any) -> None:
    assert await owner.fetchval("SELECT command_transition_is_legal($1, $2)", old, new) is (new in TRANSITIONS[old])


@pytest.mark.parametrize(("old", "new"), [("expired", "pending"), ("pending", "expired"), ("", "")])
async def test_the_database_leads_nowhere_from_or_to_an_unknown_word(old: str, new: str, owner: Any) -> None:
    assert await owner.fetchval("SELECT command_transition_is_legal($1, $2)", old, new) is False


async def test_the_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(RESULTS) == set(Status)
    assert set(Status) == LIVE | TERMINAL
    assert all(not TRANSITIONS[status] for status in TERMINAL)
    assert all(TRANSITIONS[status] >= TERMINAL for status in LIVE)
    assert TRANSITIONS[Status.PENDING] >= AFTER_DELIVERY


async def test_a_result_tells_the_status_that_it_stands_for() -> None:
    told = [result for results in RESULTS.values() for result in results]
    assert len(told) == len(set(told))
    assert set(told) == set(Result) - {Result.DENIED}


@pytest.mark.parametrize("word", [*REPORTED, "SUCCESS", " Installed ", "whatever", "", "ok"])
async def test_what_an_agent_says_is_an_end_that_the_database_takes(word: str) -> None:
    status, result = outcome_of(word)
    assert status in {Status.COMPLETED, Status.FAILED}
    assert result in RESULTS[status]
    if word.strip().lower() not in REPORTED:
        assert (status, result) == (Status.FAILED, Result.ERROR)


@pytest_asyncio.fixture(scope="module")
async def alone(postgres: Any) -> AsyncIterator[tuple[Any, Any]]:
    """The owner's and the server's connection to a database in which nothing else ends."""
    addresses = await make_database(postgres, "vocabulary")
    owner, server = await pools.connect(addresses.owner), await pools.connect(addresses.server)
    yield owner, server
    await owner.close()
    await server.close()


async def test_the_sweep_counts_in_the_buckets_that_the_metrics_name(alone: tuple[Any, Any]) -> None:
    owner, server = alone
    agent_id = await make_agent(owner)
    # Stuck a little less, and a little more, than each bound; and overdue by anything between nothing and all of it
    stuck = [bound + more for bound in STUCK_BOUNDS for more in (-20, 20)]
    overdue = [bound + more for bound in LATENESS_BOUNDS for more in (-bound / 2, bound / 10)]
    overdue = list(itertools.islice(itertools.cycle(overdue), len(stuck)))
    for seconds, late in zip(stuck, overdue, strict=True):
        await owner.execute(
            """INSERT INTO agent_commands (agent_id, command_type, status, sent_at, execution_timeout)
               VALUES ($1, 'scan_updates', 'sent', now() - $2::interval, '366 days')""",
            agent_id, datetime.timedelta(seconds=seconds),
        )  # fmt: skip
        await owner.execute(
            "UPDATE agent_commands SET next_deadline_at = now() - $2::interval WHERE agent_id = $1 AND next_deadline_at > now()",
            agent_id, datetime.timedelta(seconds=late),
        )  # fmt: skip
    act = actors.detection(actors.service("timeout", "bounds"), service_name="timeout@bounds", method="sweep")
    ended = await sweeper.sql.sweep.all(server, batch=1000, act=act, replica="bounds")
    totals = await owner.fetchrow("SELECT * FROM timeout_totals WHERE replica = 'bounds'")

    assert totals["timed_out"] == len(ended) == len(stuck)
    assert totals["stuck_buckets"] == [sum(one < bound for one in stuck) for bound in STUCK_BOUNDS]
    late = [row["late_seconds"] for row in ended]
    assert totals["lateness_buckets"] == [sum(one <= bound for one in late) for bound in LATENESS_BOUNDS]
    assert float(totals["lateness_seconds"]) == pytest.approx(sum(late), abs=0.001)
    assert sum(stuck) <= totals["stuck_seconds"] <= sum(stuck) + 20 * len(stuck)


async def test_a_second_sweep_adds_to_each_bucket(alone: tuple[Any, Any]) -> None:
    owner, server = alone
    agent_id = await make_agent(owner)
    for _ in range(2):
        await owner.execute(
            """INSERT INTO agent_commands (agent_id, command_type, status, sent_at, execution_timeout)
               VALUES ($1, 'collect_specs', 'sent', now() - interval '10 minutes', '9 minutes')""",
            agent_id,
        )
        act = actors.detection(actors.service("timeout", "twice"), service_name="timeout@twice", method="sweep")
        await sweeper.sql.sweep.all(server, batch=1000, act=act, replica="twice")
    totals = await owner.fetchrow("SELECT * FROM timeout_totals WHERE replica = 'twice'")
    assert totals["stuck_buckets"] == [2 if bound >= 900 else 0 for bound in STUCK_BOUNDS]
    assert totals["lateness_buckets"] == [2 if bound >= 3600 else 0 for bound in LATENESS_BOUNDS]


async def test_how_long_it_was_stuck_is_the_same_in_the_record_and_in_the_totals(alone: tuple[Any, Any]) -> None:
    owner, server = alone
    agent_id = await make_agent(owner)
    for command_type, status in (("of_delivery", "pending"), ("of_execution", "sent")):
        await owner.execute(
            """INSERT INTO agent_commands (agent_id, command_type, status, created_at, sent_at, delivery_timeout, execution_timeout)
               VALUES ($1, $2, $3, now() - interval '5 hours', now() - interval '2 hours', '1 hour', '1 hour')""",
            agent_id, command_type, status,
        )  # fmt: skip
    act = actors.detection(actors.service("timeout", "same"), service_name="timeout@same", method="sweep")
    await sweeper.sql.sweep.all(server, batch=1000, act=act, replica="same")
    for command_type, hours in (("of_delivery", 5), ("of_execution", 2)):
        counted = await owner.fetchval(
            "SELECT stuck_seconds FROM timeout_totals WHERE replica = 'same' AND command_type = $1", command_type
        )
        told = await owner.fetchval(
            "SELECT (metadata ->> 'stuck_seconds')::float FROM update_logs WHERE command_type = $1 AND result = 'timed_out'",
            command_type,
        )
        assert float(counted) == pytest.approx(told, abs=1)
        assert told == pytest.approx(hours * 3600, abs=60)
