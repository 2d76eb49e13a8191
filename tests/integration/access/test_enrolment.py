"""Enrolment tokens, on a real database: seats are never used more often than there are."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from redflag.access import enrolment, tokens
from redflag.access.principals import Authenticator
from redflag.audit.actor import agent, user
from redflag.errors import InvalidInput, NotAuthenticated, NotFound


async def test_a_token_is_made_used_and_revoked_with_one_record_each(
    server: Any, owner: Any, records: Any, boss: Any, name: str
) -> None:
    token, row = await enrolment.create(server, boss, name, 3, 24)
    assert len(token) == 64
    assert (row["label"], row["seats"], row["seats_used"], row["created_by"]) == (name, 3, 0, boss.name)
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 24 * 3600
    new_agent = agent(uuid.uuid4(), "192.0.2.9")
    assert await enrolment.take_seat(server, token, new_agent) == row["id"]
    await enrolment.revoke(server, user(boss.name.removeprefix("user:")), row["id"])
    assert [record["action"] for record in await records(boss.name)] == [
        "enrolment_token_created",
        "enrolment_token_revoked",
    ]
    (used,) = await records(new_agent.name)
    assert (used["kind"], used["action"], used["result"]) == ("change", "enrolment_token_used", "success")
    assert (used["metadata"]["old"], used["metadata"]["new"]) == ({"seats_used": 0}, {"seats_used": 1})
    assert used["metadata"]["address"] == "192.0.2.9"
    every = await owner.fetch("SELECT * FROM update_logs WHERE metadata ->> 'subject_id' = $1", str(row["id"]))
    assert len(every) == 3
    assert token not in str(every)
    assert tokens.digest(token).hex() not in str(every)


async def test_20_hosts_at_once_take_5_seats_and_no_more(
    pool: Any, server: Any, owner: Any, boss: Any, name: str
) -> None:
    token, row = await enrolment.create(server, boss, name, 5, 1)
    agents = [agent(uuid.uuid4()) for _ in range(20)]

    async def enrol(one: Any) -> bool:
        async with pool.acquire() as connection:
            try:
                async with connection.transaction():
                    await enrolment.take_seat(connection, token, one)
                    await asyncio.sleep(0)
            except NotAuthenticated:
                return False
            return True

    taken = await asyncio.gather(*(enrol(one) for one in agents))
    assert sum(taken) == 5
    assert await server.fetchval("SELECT seats_used FROM enrolment_tokens WHERE id = $1", row["id"]) == 5
    actors = await owner.fetch(
        "SELECT actor FROM update_logs WHERE action = 'enrolment_token_used' AND metadata ->> 'subject_id' = $1",
        str(row["id"]),
    )
    assert sorted(record["actor"] for record in actors) == sorted(
        one.name for one, sat in zip(agents, taken, strict=True) if sat
    )


async def test_a_seat_is_given_back_when_the_agent_cannot_be_made(
    server: Any, records: Any, boss: Any, name: str
) -> None:
    token, _ = await enrolment.create(server, boss, name, 1, 1)
    failed = agent(uuid.uuid4())
    transaction = server.transaction()
    await transaction.start()
    await enrolment.take_seat(server, token, failed)
    await transaction.rollback()
    assert await records(failed.name) == []
    await enrolment.take_seat(server, token, agent(uuid.uuid4()))
    with pytest.raises(NotAuthenticated):
        await enrolment.take_seat(server, token, agent(uuid.uuid4()))


async def test_a_token_that_is_wrong_over_or_revoked_gives_no_seat_and_no_record(
    server: Any, owner: Any, records: Any, boss: Any, name: str
) -> None:
    revoked, row = await enrolment.create(server, boss, name, 5, 1)
    await enrolment.revoke(server, user("setup"), row["id"])
    over, row = await enrolment.create(server, user("setup"), name, 5, 1)
    await owner.execute("UPDATE enrolment_tokens SET expires_at = now() WHERE id = $1", row["id"])
    nobody = agent(uuid.uuid4())
    for token in (revoked, over, tokens.make_token(), "", "\x00", "\udc80"):
        with pytest.raises(NotAuthenticated) as refused:
            await enrolment.take_seat(server, token, nobody)
        assert not token or token not in str(refused.value)
    assert await records(nobody.name) == []


async def test_an_enrolment_token_opens_neither_door(pool: Any, server: Any, boss: Any, name: str) -> None:
    token, _ = await enrolment.create(server, boss, name, 1, 1)
    door = Authenticator(pool)
    with pytest.raises(NotAuthenticated):
        await door.authenticate(token)
    with pytest.raises(NotAuthenticated):
        await door.authenticate_agent(token)


async def test_the_list_says_what_works_and_never_shows_a_hash(server: Any, boss: Any, name: str) -> None:
    _, revoked = await enrolment.create(server, boss, name, 1, 1)
    await enrolment.revoke(server, user("setup"), revoked["id"])
    token, used_up = await enrolment.create(server, user("setup"), name, 1, 1)
    await enrolment.take_seat(server, token, agent(uuid.uuid4()))
    _, open_ = await enrolment.create(server, user("setup"), name, 1, 1)
    mine = [row for row in await enrolment.list_tokens(server) if row["label"] == name]
    assert [(row["id"], row["works"]) for row in mine] == [
        (open_["id"], True),
        (used_up["id"], False),
        (revoked["id"], False),
    ]
    assert "token_hash" not in mine[0]


async def test_a_token_is_revoked_once(server: Any, boss: Any, name: str) -> None:
    _, row = await enrolment.create(server, boss, name, 1, 1)
    await enrolment.revoke(server, user("setup"), row["id"])
    with pytest.raises(NotFound):
        await enrolment.revoke(server, user("setup"), row["id"])


@pytest.mark.parametrize(
    ("label", "seats", "hours"),
    [("", 1, 1), ("two\nlines", 1, 1), ("ok", 0, 1), ("ok", 2**31, 1), ("ok", 1, 0), ("ok", 1, 1e9)],
)
async def test_a_token_that_makes_no_sense_is_refused(
    server: Any, boss: Any, label: str, seats: int, hours: float
) -> None:
    with pytest.raises(InvalidInput):
        await enrolment.create(server, boss, label, seats, hours)
