"""Log-ins, on a real database."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from typing import Any

import argon2
import pytest

from redflag.access import passwords, sessions, tokens, users
from redflag.access.principals import Authenticator, Principal
from redflag.access.roles import Role
from redflag.audit.actor import user
from redflag.errors import InvalidInput, NotAuthenticated, NotPermitted, RateLimited

NEW = "another good password"


def somewhere() -> str:
    """An address that no other test tries from."""
    return f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1"


async def entered(pool: Any, person: Any, password: str | None = None) -> tuple[sessions.Session, Principal]:
    """The session and the principal of a log-in."""
    session = await sessions.log_in(pool, person.username, password or person.password, somewhere())
    return session, await Authenticator(pool).authenticate(session.token)


async def test_a_log_in_begins_a_session_and_leaves_one_record(pool: Any, server: Any, records: Any, bob: Any) -> None:
    where = somewhere()
    session = await sessions.log_in(pool, bob.username.upper(), bob.password, where, hours=2)
    assert (session.username, session.role, session.must_change_password) == (bob.username, Role.OPERATOR, False)
    row = await server.fetchrow("SELECT *, expires_at - created_at AS lasts FROM sessions WHERE id = $1", session.id)
    assert row["token_hash"] == tokens.digest(session.token)
    assert row["lasts"].total_seconds() == 7200
    assert await server.fetchval("SELECT last_login_at FROM users WHERE id = $1", bob.id) == row["created_at"]
    (record,) = await records(f"user:{bob.username}")
    assert (record["kind"], record["action"], record["result"]) == ("access", "login", "success")
    assert record["metadata"]["address"] == where
    assert record["metadata"]["session"] == str(session.id)


async def test_without_its_record_there_is_no_session(pool: Any, owner: Any, bob: Any) -> None:
    await owner.execute(
        f"""CREATE FUNCTION refuse_{bob.username}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no record today'; END $$;
            CREATE TRIGGER refuse_{bob.username} BEFORE INSERT ON update_logs FOR EACH ROW
            WHEN (NEW.actor = 'user:{bob.username}') EXECUTE FUNCTION refuse_{bob.username}()"""
    )
    try:
        with pytest.raises(Exception, match="no record today"):
            await sessions.log_in(pool, bob.username, bob.password, somewhere())
    finally:
        await owner.execute(f"DROP FUNCTION refuse_{bob.username}() CASCADE")
    assert await owner.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", bob.id) == 0
    assert await owner.fetchval("SELECT last_login_at FROM users WHERE id = $1", bob.id) is None


async def test_neither_a_token_nor_its_digest_is_in_a_repr(pool: Any, bob: Any) -> None:
    session, principal = await entered(pool, bob)
    shown = repr(session) + repr(principal) + repr(Authenticator(pool))
    assert session.token not in shown
    assert tokens.digest(session.token).hex() not in shown
    assert repr(tokens.digest(session.token)) not in shown


async def test_a_wrong_password_leaves_at_most_one_record_a_minute(
    pool: Any, owner: Any, records: Any, bob: Any
) -> None:
    for _ in range(5):
        with pytest.raises(NotAuthenticated) as refused:
            await sessions.log_in(pool, bob.username, "wrong" + bob.password, somewhere())
        assert "wrong" + bob.password not in str(refused.value)
    found = await records(f"user:{bob.username}")
    minutes = await owner.fetchval(
        "SELECT count(*) FROM audit_throttle WHERE key LIKE $1", f"refused:user:{bob.username}%"
    )
    assert 1 <= len(found) == minutes <= 2
    assert {(record["kind"], record["action"], record["result"]) for record in found} == {("access", "login", "denied")}
    assert "wrong password" in found[0]["message"]


async def test_an_unknown_name_is_counted_by_address_and_not_recorded(
    pool: Any, owner: Any, records: Any, name: str
) -> None:
    where = somewhere()
    for unknown in (name, name + "\x00", "x" * 300, ""):
        with pytest.raises(NotAuthenticated):
            await sessions.log_in(pool, unknown, "some password", where)
    assert await records(f"user:{name}") == []
    counted = await owner.fetchval(
        "SELECT sum(times) FROM audit_throttle WHERE key IN ($1, 'anonymous:others')", f"anonymous:{where}"
    )
    assert counted >= 4


async def test_an_unknown_name_costs_the_verification_that_a_known_one_does(
    pool: Any, bob: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    real = argon2.PasswordHasher.verify

    def counting(self: argon2.PasswordHasher, against: str, password: Any) -> Any:
        checked.append(against)
        return real(self, against, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counting)
    answers = []
    for who in (bob.username, name + "unknown"):
        with pytest.raises(NotAuthenticated) as refused:
            await sessions.log_in(pool, who, "a wrong password", somewhere())
        answers.append(str(refused.value))
    assert len(checked) == 2
    assert argon2.extract_parameters(checked[0]) == argon2.extract_parameters(checked[1])
    assert answers[0] == answers[1]


async def test_a_disabled_user_is_refused_as_if_the_password_were_wrong(
    pool: Any, server: Any, records: Any, boss: Any, bob: Any
) -> None:
    session, _ = await entered(pool, bob)
    await users.disable(server, boss, bob.id)
    with pytest.raises(NotAuthenticated, match="user name or the password is wrong"):
        await sessions.log_in(pool, bob.username, bob.password, somewhere())
    assert (await records(f"user:{bob.username}"))[-1]["message"] == "log-in refused: the user is disabled"
    await users.enable(server, user("setup"), bob.id)
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(session.token)


async def test_a_password_of_bcrypt_becomes_argon2_at_the_first_log_in(
    pool: Any, server: Any, records: Any, imported: Any
) -> None:
    with pytest.raises(NotAuthenticated):
        await sessions.log_in(pool, imported.username, "a wrong password", somewhere())
    stored = "SELECT password_hash FROM users WHERE id = $1"
    assert (await server.fetchval(stored, imported.id)).startswith("$2a$")
    await sessions.log_in(pool, imported.username, imported.password, somewhere())
    anew = await server.fetchval(stored, imported.id)
    assert anew.startswith("$argon2id$")
    assert not passwords.outdated(anew)
    await sessions.log_in(pool, imported.username, imported.password, somewhere())
    assert await server.fetchval(stored, imported.id) == anew
    actions = [record["action"] for record in await records(f"user:{imported.username}")]
    assert actions == ["login", "user_password_rehashed", "login", "login"]


@pytest.mark.usefixtures("real_hashes")
async def test_log_ins_at_once_with_a_password_of_bcrypt_all_succeed(pool: Any, records: Any, imported: Any) -> None:
    where = [somewhere() for _ in range(4)]
    begun = await asyncio.gather(*(sessions.log_in(pool, imported.username, imported.password, one) for one in where))
    assert len({session.id for session in begun}) == 4
    actions = [record["action"] for record in await records(f"user:{imported.username}")]
    assert sorted(actions) == ["login"] * 4 + ["user_password_rehashed"]


async def test_tries_are_limited_by_address_and_by_name(pool: Any, bob: Any, name: str) -> None:
    where = somewhere()
    for _ in range(3):
        with pytest.raises(NotAuthenticated):
            await sessions.log_in(pool, f"other{uuid.uuid4().hex}", "a wrong password", where, tries=3)
    with pytest.raises(RateLimited) as limited:
        await sessions.log_in(pool, bob.username, bob.password, where, tries=3)
    assert 1 <= limited.value.retry_after <= sessions.WINDOW_SECONDS
    # One address does not keep bob out from another; many together do, for a while
    for _ in range(3 * sessions.NAME_FACTOR - 1):
        with pytest.raises(NotAuthenticated):
            await sessions.log_in(pool, bob.username, "a wrong password", somewhere(), tries=3)
    await sessions.log_in(pool, bob.username, bob.password, somewhere(), tries=3)
    with pytest.raises(RateLimited):
        await sessions.log_in(pool, bob.username.upper(), bob.password, somewhere(), tries=3)


async def test_a_log_out_ends_the_session_and_leaves_one_record(pool: Any, server: Any, records: Any, bob: Any) -> None:
    session, principal = await entered(pool, bob)
    await sessions.log_out(server, principal, "192.0.2.1")
    await sessions.log_out(server, principal, "192.0.2.1")
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(session.token)
    assert [record["action"] for record in await records(f"user:{bob.username}")] == ["login", "logout"]


async def test_a_change_of_password_ends_the_other_sessions_and_keeps_this_one(
    pool: Any, records: Any, bob: Any
) -> None:
    other, _ = await entered(pool, bob)
    mine, principal = await entered(pool, bob)
    assert await sessions.change_password(pool, principal, bob.password, NEW, "192.0.2.1") == 1
    assert (await Authenticator(pool).authenticate(mine.token)).name == bob.username
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(other.token)
    with pytest.raises(NotAuthenticated):
        await sessions.log_in(pool, bob.username, bob.password, somewhere())
    await entered(pool, bob, NEW)
    actions = [record["action"] for record in await records(f"user:{bob.username}") if record["kind"] == "change"]
    assert actions == ["user_password_changed"]


async def test_a_change_of_password_needs_the_old_one_and_a_good_new_one(pool: Any, records: Any, bob: Any) -> None:
    _, principal = await entered(pool, bob)
    with pytest.raises(NotAuthenticated):
        await sessions.change_password(pool, principal, "a wrong password", NEW, None)
    with pytest.raises(InvalidInput):
        await sessions.change_password(pool, principal, bob.password, "elevenchars", None)
    with pytest.raises(InvalidInput):
        await sessions.change_password(pool, principal, bob.password, bob.password, None)
    with pytest.raises(RateLimited):
        await sessions.change_password(pool, principal, bob.password, NEW, None, tries=3)
    (denied,) = [record for record in await records(f"user:{bob.username}") if record["result"] == "denied"]
    assert denied["action"] == "password_change"


@pytest.mark.usefixtures("real_hashes")
async def test_no_session_of_the_old_password_outlives_its_change(pool: Any, server: Any, bob: Any) -> None:
    mine, principal = await entered(pool, bob)
    log_ins = [sessions.log_in(pool, bob.username, bob.password, somewhere()) for _ in range(6)]
    change = sessions.change_password(pool, principal, bob.password, NEW, None)
    await asyncio.gather(*log_ins[:3], change, *log_ins[3:], return_exceptions=True)
    alive = await server.fetch("SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL", bob.id)
    assert [row["id"] for row in alive] == [mine.id]


async def test_a_session_that_a_log_in_begins_while_the_password_changes_ends_with_the_others(
    pool: Any, server: Any, bob: Any
) -> None:
    mine, principal = await entered(pool, bob)
    checked = await server.fetchval("SELECT password_hash FROM users WHERE id = $1", bob.id)
    async with pool.acquire() as slow:
        log_in = slow.transaction()
        await log_in.start()
        await sessions.sql.begin.one(
            slow,
            user_id=bob.id,
            checked_hash=checked,
            new_hash=None,
            token_hash=tokens.digest(tokens.make_token()),
            lasts=datetime.timedelta(hours=1),
            act={},
        )
        change = asyncio.create_task(sessions.change_password(pool, principal, bob.password, NEW, None))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
        while not await server.fetchval(waiting):
            assert not change.done()
            await asyncio.sleep(0.01)
        await log_in.commit()
    assert await change == 1
    alive = await server.fetch("SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL", bob.id)
    assert [row["id"] for row in alive] == [mine.id]


async def test_whoever_has_no_session_has_no_password_to_change(pool: Any, server: Any) -> None:
    agent = Principal.of_agent(uuid.uuid4())
    with pytest.raises(NotPermitted):
        await sessions.change_password(pool, agent, "old password", NEW, None)
    with pytest.raises(NotPermitted):
        await sessions.log_out(server, agent, None)


async def test_old_sessions_are_purged_and_live_ones_stay(pool: Any, owner: Any, server: Any, bob: Any) -> None:
    old, _ = await entered(pool, bob)
    mine, _ = await entered(pool, bob)
    await owner.execute("UPDATE sessions SET expires_at = now() - interval '2 days' WHERE id = $1", old.id)
    assert await sessions.purge(server) >= 1
    left = await server.fetch("SELECT id FROM sessions WHERE user_id = $1", bob.id)
    assert [row["id"] for row in left] == [mine.id]
