"""Who a token stands for: two doors, remembered for less than 5 s."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

import pytest

from redflag.access import agent_tokens, sessions, tokens, users
from redflag.access.principals import AGENTS_REMEMBERED_SECONDS, REMEMBERED_SECONDS, Authenticator, Kind
from redflag.access.roles import PERMISSIONS, Role
from redflag.audit.actor import user
from redflag.errors import NotAuthenticated


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counted:
    """A pool that counts what it is asked."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.queries = 0

    async def fetchrow(self, *args: Any) -> Any:
        self.queries += 1
        return await self._pool.fetchrow(*args)


async def test_a_session_stands_for_a_person(pool: Any, bob: Any) -> None:
    session = await sessions.log_in(pool, bob.username, bob.password, None)
    principal = await Authenticator(pool).authenticate(session.token)
    assert (principal.kind, principal.name, principal.role) == (Kind.USER, bob.username, Role.OPERATOR)
    assert principal.permissions == PERMISSIONS[Role.OPERATOR]
    assert (principal.user_id, principal.agent_id, principal.must_change_password) == (bob.id, None, False)
    assert principal.session == f"user:{session.id}"


async def test_an_agents_tokens_open_no_other_door_and_no_other_token_opens_theirs(
    pool: Any, server: Any, boss: Any, bob: Any, name: str, agent_id: uuid.UUID
) -> None:
    access, refresh = await agent_tokens.issue(server, agent_id)
    api, _ = await tokens.create(server, boss, name, Role.ADMIN, giver=Role.ADMIN)
    session = (await sessions.log_in(pool, bob.username, bob.password, None)).token
    door = Authenticator(pool)
    assert await door.authenticate_agent(access) == agent_id
    # Twice: also when what is remembered could mix them up
    for _ in range(2):
        for token in (access, refresh):
            with pytest.raises(NotAuthenticated):
                await door.authenticate(token)
        for token in (api, session, refresh):
            with pytest.raises(NotAuthenticated):
                await door.authenticate_agent(token)
        await door.authenticate(api)
        await door.authenticate(session)


@pytest.mark.parametrize("odd", ["", "x", "\x00", "\udc80", "x" * 100_000, "0" * 64, "' OR true --"])
async def test_whatever_else_is_sent_is_refused_the_same_way(pool: Any, odd: str) -> None:
    door = Authenticator(pool)
    with pytest.raises(NotAuthenticated, match=r"The token is not valid \(any more\)\. "):
        await door.authenticate(odd)
    with pytest.raises(NotAuthenticated, match=r"The token is not valid \(any more\)\. "):
        await door.authenticate_agent(odd)


async def test_one_query_finds_a_token_and_none_while_it_is_remembered(
    pool: Any, server: Any, boss: Any, name: str, agent_id: uuid.UUID
) -> None:
    api, _ = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN)
    access, _ = await agent_tokens.issue(server, agent_id)
    counted, clock = Counted(pool), Clock()
    door = Authenticator(counted, clock=clock)
    for _ in range(10):
        await door.authenticate(api)
    assert counted.queries == 1
    for _ in range(10):
        await door.authenticate_agent(access)
    assert counted.queries == 2
    clock.now += REMEMBERED_SECONDS
    await door.authenticate(api)
    await door.authenticate_agent(access)
    assert counted.queries == 4


async def test_an_agent_is_remembered_for_as_long_as_revocations_are_watched(
    pool: Any, server: Any, agent_id: uuid.UUID
) -> None:
    access, _ = await agent_tokens.issue(server, agent_id)
    counted, clock = Counted(pool), Clock()
    door = Authenticator(counted, clock=clock)
    await door.authenticate_agent(access)
    for _ in range(5):
        clock.now += REMEMBERED_SECONDS
        await door.watch(pool)
        clock.now += REMEMBERED_SECONDS - 0.1
        assert await door.authenticate_agent(access) == agent_id
    assert counted.queries == 1
    # Nobody watched for a while: it is asked for again
    clock.now += 0.2
    assert await door.authenticate_agent(access) == agent_id
    assert counted.queries == 2
    await door.watch(pool)
    clock.now += AGENTS_REMEMBERED_SECONDS
    await door.watch(pool)
    assert await door.authenticate_agent(access) == agent_id
    assert counted.queries == 3


@pytest.mark.parametrize("end", ["its tokens are revoked", "the agent is removed"])
async def test_what_another_process_revoked_is_forgotten_with_the_next_look(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID, end: str
) -> None:
    access, _ = await agent_tokens.issue(server, agent_id)
    clock = Clock()
    door = Authenticator(pool, clock=clock)
    await door.watch(pool)
    await door.authenticate_agent(access)
    if end == "the agent is removed":
        await owner.execute("UPDATE agents SET removed_at = now() WHERE id = $1", agent_id)
    else:
        await agent_tokens.revoke_all(server, agent_id)
    await door.watch(pool)
    with pytest.raises(NotAuthenticated):
        await door.authenticate_agent(access)


async def test_a_revoked_token_is_remembered_for_4_seconds_at_most(
    pool: Any, server: Any, boss: Any, name: str, agent_id: uuid.UUID
) -> None:
    api, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN)
    access, _ = await agent_tokens.issue(server, agent_id)
    clock = Clock()
    door = Authenticator(pool, clock=clock)
    await door.authenticate(api)
    await door.authenticate_agent(access)
    await tokens.revoke(server, user("setup"), row["id"])
    assert await agent_tokens.revoke_all(server, agent_id) == 2
    # Being asked for does not make it last
    for _ in range(3):
        clock.now += 1.3
        await door.authenticate(api)
        await door.authenticate_agent(access)
    clock.now += 0.11
    with pytest.raises(NotAuthenticated):
        await door.authenticate(api)
    with pytest.raises(NotAuthenticated):
        await door.authenticate_agent(access)


async def test_a_revocation_holds_within_5_seconds_by_the_clock_on_the_wall(
    pool: Any, server: Any, boss: Any, name: str
) -> None:
    api, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN)
    door = Authenticator(pool)
    await door.authenticate(api)
    await tokens.revoke(server, user("setup"), row["id"])
    began = time.monotonic()

    async def knock() -> None:
        while time.monotonic() - began < 10:
            await door.authenticate(api)
            await asyncio.sleep(0.02)

    with pytest.raises(NotAuthenticated):
        await knock()
    assert time.monotonic() - began < 5


async def test_what_this_process_is_told_to_forget_is_asked_for_at_once(
    pool: Any, server: Any, boss: Any, name: str, agent_id: uuid.UUID
) -> None:
    api, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN)
    access, _ = await agent_tokens.issue(server, agent_id)
    door = Authenticator(pool, clock=Clock())
    await door.authenticate(api)
    await door.authenticate_agent(access)
    await tokens.revoke(server, user("setup"), row["id"])
    await agent_tokens.revoke_all(server, agent_id)
    door.forget(api)
    with pytest.raises(NotAuthenticated):
        await door.authenticate(api)
    door.forget_all()
    with pytest.raises(NotAuthenticated):
        await door.authenticate_agent(access)


async def test_a_refusal_is_not_remembered(pool: Any, server: Any, boss: Any, name: str, owner: Any) -> None:
    token, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN, hours=1)
    door = Authenticator(pool, clock=Clock())
    await owner.execute("UPDATE api_tokens SET expires_at = now() WHERE id = $1", row["id"])
    with pytest.raises(NotAuthenticated):
        await door.authenticate(token)
    await owner.execute("UPDATE api_tokens SET expires_at = now() + interval '1 hour' WHERE id = $1", row["id"])
    assert (await door.authenticate(token)).name == name


async def test_what_is_remembered_does_not_outlive_the_token(
    pool: Any, server: Any, owner: Any, boss: Any, name: str
) -> None:
    token, row = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN, hours=1)
    await owner.execute("UPDATE api_tokens SET expires_at = now() + interval '900 ms' WHERE id = $1", row["id"])
    counted, clock = Counted(pool), Clock()
    door = Authenticator(counted, clock=clock)
    await door.authenticate(token)
    clock.now += 0.95
    await owner.execute("UPDATE api_tokens SET expires_at = now() WHERE id = $1", row["id"])
    with pytest.raises(NotAuthenticated):
        await door.authenticate(token)
    assert counted.queries == 2


async def test_a_session_that_ran_out_lets_nobody_in(pool: Any, owner: Any, bob: Any) -> None:
    session = await sessions.log_in(pool, bob.username, bob.password, None)
    await owner.execute("UPDATE sessions SET expires_at = now() WHERE id = $1", session.id)
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate(session.token)


async def test_a_change_of_role_holds_for_sessions_that_are_open(pool: Any, server: Any, boss: Any, bob: Any) -> None:
    session = await sessions.log_in(pool, bob.username, bob.password, None)
    clock = Clock()
    door = Authenticator(pool, clock=clock)
    assert (await door.authenticate(session.token)).role is Role.OPERATOR
    await users.set_role(server, boss, bob.id, Role.VIEWER)
    clock.now += REMEMBERED_SECONDS
    assert (await door.authenticate(session.token)).permissions == PERMISSIONS[Role.VIEWER]


async def test_a_temporary_password_is_said_until_it_is_changed_and_not_a_moment_longer(
    pool: Any, server: Any, boss: Any, name: str
) -> None:
    await users.create(server, boss, name, Role.VIEWER, "given by the boss")
    session = await sessions.log_in(pool, name, "given by the boss", None)
    door = Authenticator(pool, clock=Clock())
    principal = await door.authenticate(session.token)
    assert principal.must_change_password
    await sessions.change_password(pool, principal, "given by the boss", "chosen by myself", None)
    assert not (await door.authenticate(session.token)).must_change_password


async def test_an_agent_that_was_removed_is_refused_even_with_a_token_left_over(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    access, refresh = await agent_tokens.issue(server, agent_id)
    await owner.execute("UPDATE agents SET removed_at = now() WHERE id = $1", agent_id)
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate_agent(access)
    with pytest.raises(NotAuthenticated):
        await agent_tokens.renew(server, agent_id, refresh)


async def test_no_token_and_no_digest_is_in_the_log(
    pool: Any, server: Any, boss: Any, name: str, agent_id: uuid.UUID, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        api, _ = await tokens.create(server, boss, name, Role.VIEWER, giver=Role.ADMIN)
        access, refresh = await agent_tokens.issue(server, agent_id)
        door = Authenticator(pool)
        await door.authenticate(api)
        await door.authenticate_agent(access)
        said = ""
        for token in (access, refresh):
            with pytest.raises(NotAuthenticated) as refused:
                await door.authenticate(token)
            said += str(refused.value) + repr(refused.value)
    for token in (api, access, refresh):
        assert token not in caplog.text + said
        assert tokens.digest(token).hex() not in caplog.text + said
