"""Databases of their own, for tests whose server sweeps and would get in the way of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

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
