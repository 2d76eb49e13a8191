"""The updates' states in Python and in SQL are one vocabulary."""

from __future__ import annotations

import itertools
import re
from typing import Any

import asyncpg

from redflag.updates.states import TRANSITIONS, Status


async def test_every_pair_of_states_is_legal_in_sql_exactly_if_it_is_in_python(server: Any) -> None:
    for old, new in itertools.product(Status, Status):
        legal = await server.fetchval("SELECT update_transition_is_legal($1, $2)", old, new)
        assert legal == (new in TRANSITIONS[old]), f"{old} → {new}"


async def test_the_check_constraint_knows_the_same_words(server: Any) -> None:
    text = await server.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'updates_status_check'"
    )
    assert set(re.findall(r"'(\w+)'", text)) == set(Status)


async def test_the_server_is_held_to_the_table(server: Any, owner: Any, machine: Any, package: Any) -> None:
    await machine.report([package("curl")])
    row = await machine.row("curl")
    for old, new in itertools.product(Status, Status):
        if old == new:
            continue
        await owner.execute("UPDATE updates SET status = $2 WHERE id = $1", row["id"], old)
        transaction = server.transaction()
        await transaction.start()
        refusal = None
        try:
            await server.execute(
                "UPDATE updates SET status = $2, act = jsonb_build_object('actor', 'user:ada', 'request_id', uuidv7()) WHERE id = $1",
                row["id"],
                new,
            )
        except asyncpg.PostgresError as error:
            refusal = error.sqlstate
        await transaction.rollback()
        assert refusal == (None if new in TRANSITIONS[old] else "RF001"), f"{old} → {new}"
