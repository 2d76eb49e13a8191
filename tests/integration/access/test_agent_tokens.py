"""The tokens of agents, on a real database."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest

from redflag.access import agent_tokens, tokens
from redflag.access.principals import Authenticator
from redflag.errors import NotAuthenticated, NotFound


async def test_an_agent_gets_a_day_of_access_and_90_days_to_renew_it(
    server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    access, refresh = await agent_tokens.issue(server, agent_id)
    rows = await owner.fetch(
        "SELECT token_hash, purpose, expires_at - created_at AS lasts FROM agent_tokens WHERE agent_id = $1 ORDER BY purpose",
        agent_id,
    )
    assert [(row["purpose"], row["token_hash"], row["lasts"].days) for row in rows] == [
        ("access", tokens.digest(access), 1),
        ("refresh", tokens.digest(refresh), 90),
    ]


async def test_a_renewal_brings_an_access_token_and_moves_the_end_of_the_refresh_token(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    first, refresh = await agent_tokens.issue(server, agent_id)
    await owner.execute(
        "UPDATE agent_tokens SET expires_at = now() + interval '1 day' WHERE token_hash = $1", tokens.digest(refresh)
    )
    second = await agent_tokens.renew(server, agent_id, refresh)
    third = await agent_tokens.renew(server, agent_id, refresh)
    assert len({first, second, third, refresh}) == 4
    door = Authenticator(pool)
    for token in (first, second, third):
        assert await door.authenticate_agent(token) == agent_id
    left = await owner.fetchval(
        "SELECT expires_at - now() FROM agent_tokens WHERE token_hash = $1", tokens.digest(refresh)
    )
    assert 89 <= left.days <= 90


async def test_only_its_own_live_refresh_token_renews_an_agents_access(
    server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    other = await owner.fetchval("INSERT INTO agents (hostname) VALUES ('other') RETURNING id")
    access, refresh = await agent_tokens.issue(server, agent_id)
    _, of_other = await agent_tokens.issue(server, other)
    for token in (access, of_other, tokens.make_token(), "", "\x00", "\udc80"):
        with pytest.raises(NotAuthenticated):
            await agent_tokens.renew(server, agent_id, token)
    with pytest.raises(NotFound):
        await agent_tokens.renew(server, uuid.uuid4(), refresh)
    await owner.execute("UPDATE agent_tokens SET expires_at = now() WHERE token_hash = $1", tokens.digest(refresh))
    with pytest.raises(NotAuthenticated):
        await agent_tokens.renew(server, agent_id, refresh)
    assert await agent_tokens.revoke_all(server, other) == 2
    with pytest.raises(NotAuthenticated):
        await agent_tokens.renew(server, other, of_other)
    assert await owner.fetchval("SELECT count(*) FROM agent_tokens WHERE agent_id = $1", agent_id) == 2


async def test_an_access_token_that_ran_out_lets_no_agent_in(
    pool: Any, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    access, _ = await agent_tokens.issue(server, agent_id)
    await owner.execute("UPDATE agent_tokens SET expires_at = now() WHERE token_hash = $1", tokens.digest(access))
    with pytest.raises(NotAuthenticated):
        await Authenticator(pool).authenticate_agent(access)


async def test_nobody_gets_tokens_for_an_agent_that_is_not_there(
    server: Any, owner: Any, agent_id: uuid.UUID, caplog: pytest.LogCaptureFixture
) -> None:
    await owner.execute("UPDATE agents SET removed_at = now() WHERE id = $1", agent_id)
    for missing in (agent_id, uuid.uuid4()):
        with pytest.raises(NotFound):
            await agent_tokens.issue(server, missing)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_tokens_that_ended_are_purged_and_live_ones_stay(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    access, refresh = await agent_tokens.issue(server, agent_id)
    await owner.execute(
        "UPDATE agent_tokens SET expires_at = now() - interval '2 days' WHERE token_hash = $1", tokens.digest(access)
    )
    assert await agent_tokens.purge(server) >= 1
    left = await owner.fetch("SELECT token_hash FROM agent_tokens WHERE agent_id = $1", agent_id)
    assert [row["token_hash"] for row in left] == [tokens.digest(refresh)]
