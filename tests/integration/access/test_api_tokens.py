"""API tokens, on a real database."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest

from redflag.access import tokens, users
from redflag.access.principals import Authenticator, Kind
from redflag.access.roles import PERMISSIONS, Permission, Role
from redflag.audit.actor import user
from redflag.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, NotPermitted


async def test_a_token_is_made_and_revoked_with_one_record_each(
    pool: Any, server: Any, owner: Any, records: Any, boss: Any, name: str
) -> None:
    token, row = await tokens.create(server, boss, name, Role.AUDITOR, giver=Role.ADMIN, hours=1)
    assert (row["name"], row["role"], row["created_by"]) == (name, "auditor", boss.name)
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 3600
    assert await owner.fetchval("SELECT token_hash FROM api_tokens WHERE id = $1", row["id"]) == tokens.digest(token)
    principal = await Authenticator(pool).authenticate(token)
    assert (principal.kind, principal.name, principal.role) == (Kind.TOKEN, name, Role.AUDITOR)
    assert principal.permissions == PERMISSIONS[Role.AUDITOR]
    assert principal.actor().name == f"token:{name}"
    await tokens.revoke(server, user(boss.name.removeprefix("user:")), row["id"])
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(token)
    found = await records(boss.name)
    assert [(record["kind"], record["action"], record["result"]) for record in found] == [
        ("change", "token_created", "success"),
        ("change", "token_revoked", "success"),
    ]
    for record in found:
        assert record["metadata"]["subject_id"] == str(row["id"])
        assert token not in str(dict(record))
        assert tokens.digest(token).hex() not in str(dict(record))


async def test_nobody_makes_a_token_that_may_do_more_than_they_may(
    server: Any, owner: Any, records: Any, boss: Any, name: str
) -> None:
    for giver in Role:
        for given in Role:
            if not PERMISSIONS[given] <= PERMISSIONS[giver]:
                with pytest.raises(NotPermitted):
                    await tokens.create(server, boss, name, given, giver=giver)
    assert await records(boss.name) == []
    assert await owner.fetchval("SELECT count(*) FROM api_tokens WHERE name = $1", name) == 0


async def test_a_token_that_ran_out_lets_nobody_in(pool: Any, server: Any, owner: Any, boss: Any, name: str) -> None:
    token, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN, hours=1)
    await owner.execute("UPDATE api_tokens SET expires_at = now() WHERE id = $1", row["id"])
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(token)


async def test_a_token_without_an_end_works_until_it_is_revoked(pool: Any, server: Any, boss: Any, name: str) -> None:
    token, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.VIEWER)
    assert row["expires_at"] is None
    assert (await Authenticator(pool).authenticate(token)).name == name


async def test_a_persons_token_never_may_more_than_the_person(
    pool: Any, server: Any, boss: Any, bob: Any, name: str
) -> None:
    token, _ = await tokens.create(server, boss, name, Role.ADMIN, giver=Role.ADMIN, user_id=bob.id)
    assert (await Authenticator(pool).authenticate(token)).permissions == PERMISSIONS[Role.OPERATOR]
    await users.set_role(server, user("setup"), bob.id, Role.VIEWER)
    assert (await Authenticator(pool).authenticate(token)).permissions == {Permission.READ_FLEET}
    await users.disable(server, user("setup"), bob.id)
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(token)


async def test_a_token_for_nobody_is_not_found_and_no_fault(
    server: Any, boss: Any, bob: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(NotFound):
        await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN, user_id=uuid.uuid4())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await users.disable(server, user("setup"), bob.id)
    with pytest.raises(NotFound):
        await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN, user_id=bob.id)


async def test_of_two_tokens_made_at_once_with_one_name_one_is_a_conflict(pool: Any, server: Any, name: str) -> None:
    async def make(connection: Any) -> None:
        await tokens.create(connection, user(name), name, Role.VIEWER, giver=Role.ADMIN)

    async with pool.acquire() as slow, pool.acquire() as quick:
        async with slow.transaction():
            await make(slow)
            second = asyncio.create_task(make(quick))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1"
            while not second.done() and not await server.fetchval(waiting, quick.get_server_pid()):
                pass  # each look is a round trip
        with pytest.raises(Conflict):
            await second


async def test_a_name_is_free_again_once_its_token_is_revoked(server: Any, name: str) -> None:
    _, row = await tokens.create(server, user(name), name, Role.VIEWER, giver=Role.ADMIN)
    with pytest.raises(Conflict):
        await tokens.create(server, user(name), name.upper(), Role.VIEWER, giver=Role.ADMIN)
    await tokens.revoke(server, user(name), row["id"])
    await tokens.create(server, user(name), name, Role.VIEWER, giver=Role.ADMIN)


async def test_a_token_is_revoked_once(server: Any, boss: Any, name: str) -> None:
    _, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN)
    await tokens.revoke(server, user("setup"), row["id"])
    with pytest.raises(NotFound):
        await tokens.revoke(server, user("setup"), row["id"])
    with pytest.raises(NotFound):
        await tokens.revoke(server, user("setup"), uuid.uuid4())


async def test_the_list_says_what_works_and_never_shows_a_hash(
    server: Any, owner: Any, boss: Any, bob: Any, name: str
) -> None:
    for number, role in enumerate((Role.VIEWER, Role.AUDITOR, Role.VIEWER)):
        _, row = await tokens.create(
            server, user(f"{name}{number}"), f"{name}{number}", role, giver=Role.ADMIN, user_id=bob.id, hours=1
        )
        if number == 1:
            await tokens.revoke(server, boss, row["id"])
        if number == 2:
            await owner.execute("UPDATE api_tokens SET expires_at = now() WHERE id = $1", row["id"])
    mine = [row for row in await tokens.list_tokens(server) if row["name"].startswith(name)]
    assert [(row["name"][-1], row["works"], row["username"]) for row in mine] == [
        ("2", False, name),
        ("1", False, name),
        ("0", True, name),
    ]
    assert "token_hash" not in mine[0]


@pytest.mark.parametrize(("bad", "hours"), [("", 1), ("x" * 256, 1), ("ci\nadmin", 1), ("ci", 0), ("ci", 1e9)])
async def test_a_name_or_an_end_that_will_not_do_is_refused(server: Any, boss: Any, bad: str, hours: float) -> None:
    with pytest.raises(InvalidInput):
        await tokens.create(server, boss, bad, Role.VIEWER, giver=Role.ADMIN, hours=hours)
