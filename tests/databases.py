"""Migrated databases: the one that most tests share, and others for tests whose server sweeps and would get in their way.

Each is a copy of one to which the migrations were applied, once for each PostgreSQL: to migrate takes longer than to copy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from redflag.database import migrate, pool
from redflag.database.embedded import EmbeddedDatabase

TEMPLATE = "migrated_template"
_have_template: set[Path] = set()


async def make_database(postgres: EmbeddedDatabase, name: str) -> None:
    """A migrated database of the owner's."""
    if postgres.folder not in _have_template:
        run_as_superuser(postgres, f"CREATE DATABASE {TEMPLATE} OWNER redflag_owner")
        try:
            await migrate.migrate(postgres.url("redflag_owner", TEMPLATE), "redflag_server")
        except BaseException:
            # The next test that asks shall be told the same reason
            run_as_superuser(postgres, f"DROP DATABASE {TEMPLATE} WITH (FORCE)")
            raise
        _have_template.add(postgres.folder)
    run_as_superuser(postgres, f"CREATE DATABASE {name} OWNER redflag_owner TEMPLATE {TEMPLATE}")
    # As the embedded database has it: a copy does not bring the rights on the database along
    run_as_superuser(postgres, f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    run_as_superuser(postgres, f"GRANT CONNECT ON DATABASE {name} TO redflag_server")


def run_as_superuser(postgres: EmbeddedDatabase, statement: str) -> None:
    """A statement that concerns databases as a whole."""
    postgres.run_tool("psql", "-qc", statement, role="postgres", database="postgres")


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


def own_database(name: str, size: int = 8) -> tuple[Any, ...]:
    """Fixtures for a conftest of a folder whose tests have a database of their own; `size` is that of the pool:

    migrated, dsn_owner, dsn_server, owner, server, pool = own_database("name")
    """

    @pytest_asyncio.fixture(scope="session")
    async def migrated(postgres: EmbeddedDatabase) -> None:
        """The schema, as the migrations make it."""
        await make_database(postgres, name)

    @pytest.fixture(scope="session")
    def dsn_owner(postgres: EmbeddedDatabase) -> str:
        """The owner's address: no superuser, made the tables."""
        return postgres.url("redflag_owner", name)

    @pytest.fixture(scope="session")
    def dsn_server(postgres: EmbeddedDatabase) -> str:
        """The server's address."""
        return postgres.url("redflag_server", name)

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
    async def pool(migrated: None, dsn_server: str) -> AsyncIterator[Any]:
        """The server's connections."""
        async for opened in connections(dsn_server, size):
            yield opened

    return migrated, dsn_owner, dsn_server, owner, server, pool
