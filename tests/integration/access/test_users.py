"""People, on a real database: each change with its record, and always an admin who can log in."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest

from redflag.access import passwords, sessions, users
from redflag.access.roles import Role
from redflag.audit.actor import user
from redflag.errors import Conflict, InvalidInput, NotAuthenticated, NotFound

PASSWORD = "correct horse battery"


async def test_the_database_knows_the_same_roles(owner: Any) -> None:
    for table in ("users", "api_tokens"):
        check = await owner.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", f"{table}_role_check"
        )
        assert set(check.split("'")[1::2]) == {role.value for role in Role}


async def test_each_change_of_a_user_leaves_one_record_of_who_made_it(
    server: Any, records: Any, boss: Any, name: str
) -> None:
    def actor() -> Any:
        return user(boss.name.removeprefix("user:"), "192.0.2.7")

    made = await users.create(server, actor(), name, Role.VIEWER, PASSWORD)
    await users.set_role(server, actor(), made["id"], Role.OPERATOR)
    await users.disable(server, actor(), made["id"])
    await users.enable(server, actor(), made["id"])
    await users.set_password(server, actor(), made["id"], PASSWORD + "!")
    found = await records(boss.name)
    assert [record["action"] for record in found] == [
        "user_created",
        "user_role_changed",
        "user_disabled",
        "user_enabled",
        "user_password_set",
    ]
    for record in found:
        assert (record["kind"], record["result"]) == ("change", "success")
        assert record["metadata"]["subject_id"] == str(made["id"])
        assert record["metadata"]["address"] == "192.0.2.7"
        assert "argon2" not in str(dict(record))
        assert PASSWORD not in str(dict(record))
    assert found[1]["metadata"]["old"] == {"role": "viewer"}
    assert found[1]["metadata"]["new"] == {"role": "operator"}


async def test_what_changes_nothing_leaves_no_record(server: Any, records: Any, boss: Any, bob: Any) -> None:
    same = await users.set_role(server, boss, bob.id, Role.OPERATOR)
    assert same["role"] == "operator"
    await users.enable(server, boss, bob.id)
    assert await records(boss.name) == []


async def test_a_name_that_is_taken_is_a_conflict_and_no_fault(
    server: Any, boss: Any, bob: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(Conflict):
        await users.create(server, boss, bob.username.upper(), Role.VIEWER, PASSWORD)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("bad", ["", " bob", "bob smith", "user:bob", "bob\n", "bob\x00", "-bob", "x" * 256, "bоb"])  # noqa: RUF001
async def test_a_name_that_a_record_could_not_show_is_refused(server: Any, boss: Any, bad: str) -> None:
    with pytest.raises(InvalidInput):
        await users.create(server, boss, bad, Role.VIEWER, PASSWORD)


async def test_a_short_password_is_refused(server: Any, boss: Any, bob: Any, name: str) -> None:
    with pytest.raises(InvalidInput):
        await users.create(server, boss, name, Role.VIEWER, "elevenchars")
    with pytest.raises(InvalidInput):
        await users.set_password(server, boss, bob.id, "elevenchars")


async def test_whoever_does_not_exist_is_not_found(server: Any, boss: Any) -> None:
    nobody = uuid.uuid4()
    with pytest.raises(NotFound):
        await users.set_role(server, boss, nobody, Role.VIEWER)
    with pytest.raises(NotFound):
        await users.disable(server, boss, nobody)
    with pytest.raises(NotFound):
        await users.enable(server, boss, nobody)
    with pytest.raises(NotFound):
        await users.set_password(server, boss, nobody, PASSWORD)
    with pytest.raises(NotFound):
        await users.show(server, "nobody\x00")


async def test_users_are_found_in_whichever_capitals_and_never_with_their_hash(server: Any, bob: Any) -> None:
    found = await users.show(server, bob.username.upper())
    assert found["id"] == bob.id
    listed = [row for row in await users.list_users(server) if row["id"] == bob.id]
    assert listed == [found]
    assert "password_hash" not in found


async def test_a_password_that_somebody_else_set_ends_the_sessions_and_must_be_changed(
    pool: Any, server: Any, boss: Any, bob: Any
) -> None:
    session = await sessions.log_in(pool, bob.username, bob.password, "192.0.2.1")
    await users.set_password(server, boss, bob.id, PASSWORD + " anew")
    assert await server.fetchval("SELECT ended_at IS NOT NULL FROM sessions WHERE id = $1", session.id)
    with pytest.raises(NotAuthenticated):
        await sessions.log_in(pool, bob.username, bob.password, "192.0.2.1")
    assert (await sessions.log_in(pool, bob.username, PASSWORD + " anew", "192.0.2.1")).must_change_password


@pytest.mark.usefixtures("real_hashes")
async def test_the_first_admin_is_made_once_however_many_servers_start(fresh: Any) -> None:
    async def start(number: int) -> str | None:
        async with fresh.acquire() as connection:
            return await users.bootstrap_admin(connection, user(f"start-{number}"))

    passwords_made = [password for password in await asyncio.gather(*(start(n) for n in range(8))) if password]
    assert len(passwords_made) == 1
    async with fresh.acquire() as connection:
        assert [row["username"] for row in await users.list_users(connection)] == ["admin"]
        assert await connection.fetchval("SELECT count(*) FROM update_logs WHERE action = 'user_created'") == 1
    passwords.require_acceptable(passwords_made[0])
    session = await sessions.log_in(fresh, "admin", passwords_made[0], None)
    assert session.role is Role.ADMIN
    assert session.must_change_password


async def test_an_installation_that_has_an_admin_of_another_name_gets_no_first_one(fresh: Any, boss: Any) -> None:
    async with fresh.acquire() as connection:
        await users.create(connection, boss, "root", Role.ADMIN, PASSWORD)
        assert await users.bootstrap_admin(connection, boss) is None


async def test_the_last_admin_can_be_neither_disabled_nor_demoted(fresh: Any, boss: Any) -> None:
    async with fresh.acquire() as connection:
        one = await users.create(connection, user("a"), "one", Role.ADMIN, PASSWORD)
        two = await users.create(connection, user("b"), "two", Role.ADMIN, PASSWORD)
        await users.disable(connection, user("c"), two["id"])
        with pytest.raises(Conflict, match="last admin"):
            await users.disable(connection, boss, one["id"])
        with pytest.raises(Conflict, match="last admin"):
            await users.set_role(connection, boss, one["id"], Role.AUDITOR)
        assert await connection.fetchval("SELECT count(*) FROM update_logs WHERE actor = $1", boss.name) == 0
        # One who is disabled does not count, and may be demoted
        assert (await users.set_role(connection, user("d"), two["id"], Role.VIEWER))["role"] == "viewer"


async def test_admins_who_demote_and_disable_each_other_at_once_leave_one(fresh: Any) -> None:
    async with fresh.acquire() as connection:
        admins = [
            (await users.create(connection, user("maker"), f"admin{n}", Role.ADMIN, PASSWORD))["id"] for n in range(6)
        ]

    async def against(number: int, victim: uuid.UUID) -> bool:
        async with fresh.acquire() as connection:
            try:
                if number % 2:
                    await users.disable(connection, user(f"rival-{number}"), victim)
                else:
                    await users.set_role(connection, user(f"rival-{number}"), victim, Role.VIEWER)
            except Conflict:
                return False
            return True

    done = await asyncio.gather(*(against(number, victim) for number, victim in enumerate(admins)))
    assert sorted(done) == [False, True, True, True, True, True]
    async with fresh.acquire() as connection:
        left = await connection.fetchval("SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL")
    assert left == 1
