"""A log of their own whose steps the tests do themselves, and senders as several servers have them."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import connection, own_database
from integration.publishing.log import Log
from redflag.audit import actor as actors
from redflag.audit.checkpoint import load_key
from redflag.audit.memory import Memory
from redflag.database.embedded import EmbeddedDatabase
from redflag.publishing import targets
from redflag.publishing.sender import Sender

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("publishing")


@pytest_asyncio.fixture(scope="session")
async def log(owner: Any, pool: Any, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """A log with a few records."""
    folder = tmp_path_factory.mktemp("log")
    signer = load_key("publishing.example/log", folder / "key")
    one = Log(owner, pool, signer, Memory(folder / "newest-checkpoint", signer))
    await one.grow(3)
    return one


@pytest_asyncio.fixture(autouse=True)
async def nobody_is_sent_to(owner: Any) -> AsyncIterator[None]:
    """Each test has targets of its own only."""
    yield
    await owner.execute("UPDATE log_targets SET removed_at = now() WHERE removed_at IS NULL")


Add = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def add(pool: Any) -> Add:
    """Adds a target."""

    async def add(
        kind: str, address: str, *, name: str = "", every: float | None = None, **more: Any
    ) -> dict[str, Any]:
        async with pool.acquire() as connection:
            row, secret = await targets.add(
                connection,
                actors.user("ada"),
                kind=targets.Kind(kind),
                name=name or f"{kind} {uuid.uuid4().hex[:8]}",
                address=address,
                every=None if every is None else datetime.timedelta(seconds=every),
                **more,
            )
        return row | {"secret": secret}

    return add


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of checkpoints."""
    return tmp_path / "checkpoints"


@pytest_asyncio.fixture
async def make_sender(pool: Any, log: Log, folder: Path) -> AsyncIterator[Callable[..., Sender]]:
    """Makes senders, as each server process has one."""
    made: list[Sender] = []

    def make(patience: float = 5, folder: Path = folder) -> Sender:
        made.append(Sender(pool, log.signer, folder, patience=patience))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def sender(make_sender: Callable[..., Sender]) -> Sender:
    """One server's sender."""
    return make_sender()


@pytest.fixture
def state(owner: Any) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """How a target stands."""

    async def state(target: dict[str, Any]) -> Any:
        return await owner.fetchrow("SELECT * FROM log_targets WHERE id = $1", target["id"])

    return state


@pytest.fixture
def due(owner: Any) -> Callable[[], Awaitable[None]]:
    """The time of every target has come."""

    async def due() -> None:
        await owner.execute("UPDATE log_targets SET next_attempt_at = now(), claimed_until = NULL")

    return due


@pytest_asyncio.fixture(scope="session")
async def superuser_of_publishing(migrated: None, postgres: EmbeddedDatabase) -> AsyncIterator[Any]:
    """A superuser in the database of these tests."""
    async for opened in connection(postgres.url("postgres", "publishing")):
        yield opened
