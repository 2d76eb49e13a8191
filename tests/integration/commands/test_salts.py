"""The salt of a record is nobody's to foresee: not from another's, and not from what a session was told before."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

NOTE = "INSERT INTO update_logs (result, message) SELECT 'success', 'salted' FROM generate_series(1, $1::integer) RETURNING id"


@pytest_asyncio.fixture(autouse=True)
async def forgetful(owner: Any) -> AsyncIterator[None]:
    """What a test says in the session is unsaid."""
    yield
    await owner.execute("RESET redflag.secret")


async def salts(owner: Any, ids: list[uuid.UUID]) -> list[bytes]:
    rows = await owner.fetch("SELECT salt FROM update_logs WHERE id = ANY ($1::uuid[])", ids)
    assert len(rows) == len(ids)
    return [row["salt"] for row in rows]


async def noted(owner: Any, count: int = 1) -> list[uuid.UUID]:
    return [row["id"] for row in await owner.fetch(NOTE, count)]


async def test_records_of_one_statement_have_salts_of_their_own(owner: Any) -> None:
    found = await salts(owner, await noted(owner, 200))
    assert len(set(found)) == 200
    assert {len(one) for one in found} == {32}


async def test_transactions_have_secrets_of_their_own_and_leave_none_behind(owner: Any) -> None:
    secrets = []
    for _ in range(3):
        async with owner.transaction():
            await noted(owner)
            secrets.append(await owner.fetchval("SELECT current_setting('redflag.secret')"))
        assert await owner.fetchval("SELECT coalesce(current_setting('redflag.secret', true), '')") == ""
    assert len(set(secrets)) == 3


async def test_a_savepoint_that_is_rolled_back_takes_no_secret_with_it(owner: Any) -> None:
    async with owner.transaction():
        inner = owner.transaction()
        await inner.start()
        await noted(owner)
        taken_back = await owner.fetchval("SELECT current_setting('redflag.secret')")
        await inner.rollback()
        ids = await noted(owner) + await noted(owner)
        assert await owner.fetchval("SELECT current_setting('redflag.secret')") != taken_back
    assert len(set(await salts(owner, ids))) == 2


async def test_what_a_session_says_beforehand_is_no_secret(owner: Any) -> None:
    said = "SELECT set_config('redflag.secret', $1, false)"
    foreseen = f"{await owner.fetchval('SELECT pg_current_xact_id()::text')}:known to somebody"
    for word in ("", "known to somebody", foreseen):
        await owner.fetchval(said, word)
        (record,) = await noted(owner)
        (salt,) = await salts(owner, [record])
        assert salt != await owner.fetchval("SELECT sha256(($1::text || $2::text)::bytea)", word, str(record))
