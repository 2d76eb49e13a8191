"""What the tests of access share: names that nobody else uses, their records, and an installation of one's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import argon2
import bcrypt
import pytest
import pytest_asyncio

from databases import make_database
from redflag.access import passwords, users
from redflag.access.roles import Role
from redflag.audit.actor import Actor, user
from redflag.database import pool
from redflag.database.embedded import EmbeddedDatabase

PASSWORD = "correct horse battery"

Records = Callable[[str], Awaitable[list[Any]]]


@dataclass(frozen=True)
class Person:
    """A user of the test's own, with the password they have."""

    id: uuid.UUID
    username: str
    password: str


@pytest.fixture
def real_hashes() -> None:
    """For tests of what happens beside one another, which takes as long as it does where people log in."""


@pytest.fixture(autouse=True)
def quick_hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 at its least cost. What a hash costs, and that every check costs one, is held by tests/unit/access."""
    if "real_hashes" in request.fixturenames:
        return
    least = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", least)
    monkeypatch.setattr(passwords, "_DUMMY", least.hash("nobody's"))


@pytest.fixture
def name() -> str:
    """A name that nobody else uses."""
    return f"n{uuid.uuid4().hex[:12]}"


@pytest.fixture
def boss() -> Actor:
    """Somebody who acts in this test only, so that their records are this test's."""
    return user(f"boss-{uuid.uuid4().hex[:12]}", "192.0.2.7")


@pytest.fixture
def records(owner: Any) -> Records:
    """The records of an actor, oldest first."""

    async def of(actor: str) -> list[Any]:
        found: list[Any] = await owner.fetch(
            "SELECT kind, action, result, message, metadata FROM update_logs WHERE actor = $1 ORDER BY created_at, id",
            actor,
        )
        return found

    return of


@pytest_asyncio.fixture
async def bob(server: Any, name: str) -> Person:
    """An operator with a password of their own."""
    row = await users.create(server, user("setup"), name, Role.OPERATOR, PASSWORD, must_change_password=False)
    return Person(row["id"], name, PASSWORD)


@pytest_asyncio.fixture
async def imported(owner: Any) -> Person:
    """A user as brought over from RedFlag: the password is kept by bcrypt."""
    name = f"old{uuid.uuid4().hex[:12]}"
    stored = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2a$", 1)
    made = await owner.fetchval(
        "INSERT INTO users (username, password_hash, role) VALUES ($1, $2, 'operator') RETURNING id", name, stored
    )
    assert passwords.outdated(stored)
    return Person(made, name, PASSWORD)


@pytest_asyncio.fixture
async def fresh(postgres: EmbeddedDatabase, dsn_superuser: str) -> AsyncIterator[Any]:
    """The server's connections to an installation in which there is nobody yet."""
    database = f"access_{uuid.uuid4().hex[:12]}"
    await make_database(postgres, database)
    superuser = await pool.connect(dsn_superuser)
    connections = await pool.open_pool(postgres.url("redflag_server", database), size=10)
    yield connections
    await connections.close()
    await superuser.execute(f"DROP DATABASE {database} WITH (FORCE)")
    await superuser.close()
