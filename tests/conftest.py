"""What every test may use: a real PostgreSQL of its own, migrated, and the connections of its three roles.

The record is append-only, so tests do not clean up: each makes agents and commands of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import connection, connections
from redflag.database import migrate as migrations
from redflag.database.embedded import EmbeddedDatabase


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedDatabase]:
    """A PostgreSQL that lives as long as the tests; what it loses in a crash nobody misses."""
    database = EmbeddedDatabase(
        tmp_path_factory.mktemp("postgres") / "db",
        extra_settings={"fsync": "off", "full_page_writes": "off", "max_connections": "200", "shared_buffers": "128MB"},
    )
    database.init()
    database.start()
    database.create_roles()
    yield database
    database.stop("immediate")


@pytest.fixture(scope="session")
def dsn_owner(postgres: EmbeddedDatabase) -> str:
    """The owner's address: no superuser, made the tables."""
    return postgres.url("redflag_owner")


@pytest.fixture(scope="session")
def dsn_server(postgres: EmbeddedDatabase) -> str:
    """The server's address."""
    return postgres.url("redflag_server")


@pytest.fixture(scope="session")
def dsn_superuser(postgres: EmbeddedDatabase) -> str:
    """The superuser's address, in the same database."""
    return postgres.url("postgres", "redflag")


@pytest_asyncio.fixture(scope="session")
async def migrated(dsn_owner: str) -> None:
    """The schema, as the migrations make it."""
    await migrations.migrate(dsn_owner, "redflag_server")


@pytest_asyncio.fixture(scope="session")
async def owner(migrated: None, dsn_owner: str) -> AsyncIterator[Any]:
    """A connection of the owner."""
    async for opened in connection(dsn_owner):
        yield opened


@pytest_asyncio.fixture(scope="session")
async def server(migrated: None, dsn_server: str) -> AsyncIterator[Any]:
    """A connection of the server's role."""
    async for opened in connection(dsn_server):
        yield opened


@pytest_asyncio.fixture(scope="session")
async def superuser(migrated: None, dsn_superuser: str) -> AsyncIterator[Any]:
    """A connection of a superuser."""
    async for opened in connection(dsn_superuser):
        yield opened


@pytest_asyncio.fixture(scope="session")
async def pool(migrated: None, dsn_server: str) -> AsyncIterator[Any]:
    """The server's connections."""
    async for opened in connections(dsn_server, 24):
        yield opened


@pytest_asyncio.fixture
async def agent_id(owner: Any) -> uuid.UUID:
    """An agent that nobody else uses."""
    return await owner.fetchval(
        "INSERT INTO agents (hostname, protocol) VALUES ($1, 1) RETURNING id", f"host-{uuid.uuid4()}"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The seed and the recorded traffic, beside the checkout; without them the tests that read them are skipped."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the seed's folder is not beside this checkout")
    return folder
