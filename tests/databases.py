"""Databases of their own, for tests whose server sweeps and would get in the way of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from redflag.database import migrate, pool
from redflag.database.embedded import EmbeddedDatabase


async def make_database(postgres: EmbeddedDatabase, name: str) -> None:
    """A migrated database of the owner's."""
    postgres.run_tool(
        "psql", "-qc", f"CREATE DATABASE {name} OWNER redflag_owner", role="postgres", database="postgres"
    )
    await migrate.migrate(postgres.url("redflag_owner", name), "redflag_server")


async def connection(dsn: str) -> AsyncIterator[Any]:
    """One connection, closed at the end."""
    opened = await pool.connect(dsn)
    yield opened
    await opened.close()


async def connections(dsn: str, size: int) -> AsyncIterator[Any]:
    """A pool, closed at the end."""
    opened = await pool.open_pool(dsn, size=size)
    yield opened
    await opened.close()


def own_database(name: str) -> tuple[Any, ...]:
    """Fixtures for a conftest of a folder whose tests have a database of their own:

    migrated, dsn_owner, dsn_server, owner, server, pool = own_database("name")
    """

    @pytest_asyncio.fixture(scope="session")
    async def migrated(postgres: EmbeddedDatabase) -> None:
        await make_database(postgres, name)

    @pytest.fixture(scope="session")
    def dsn_owner(postgres: EmbeddedDatabase) -> str:
        return postgres.url("redflag_owner", name)

    @pytest.fixture(scope="session")
    def dsn_server(postgres: EmbeddedDatabase) -> str:
        return postgres.url("redflag_server", name)

    @pytest_asyncio.fixture(scope="session")
    async def owner(migrated: None, dsn_owner: str) -> AsyncIterator[Any]:
        async for opened in connection(dsn_owner):
            yield opened

    @pytest_asyncio.fixture(scope="session")
    async def server(migrated: None, dsn_server: str) -> AsyncIterator[Any]:
        async for opened in connection(dsn_server):
            yield opened

    @pytest_asyncio.fixture(scope="session")
    async def pool(migrated: None, dsn_server: str) -> AsyncIterator[Any]:
        async for opened in connections(dsn_server, 8):
            yield opened

    return migrated, dsn_owner, dsn_server, owner, server, pool
