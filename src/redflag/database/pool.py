"""Connections of the server to PostgreSQL.

Promises: no session state, so that pgbouncer (1.21 or newer, transaction mode) may stand between; nothing is run when a
connection goes back to the pool; every error of a statement is examined once (`faults`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import asyncpg
import asyncpg.pool
import msgspec

from redflag.database import faults
from redflag.database.version import require_version
from redflag.errors import DatabaseUnreachable

T = TypeVar("T")


class Connection(asyncpg.Connection):
    """A connection that has every error of its statements examined."""

    async def _examined(self, statement: Awaitable[T]) -> T:
        try:
            return await statement
        except asyncpg.PostgresError as error:
            faults.examine(error)
            raise
        except asyncpg.InternalClientError as error:
            # What asyncpg says when the server dies between two of its messages: the connection is gone, like any other
            raise asyncpg.ConnectionDoesNotExistError(f"the connection was lost: {error}") from error

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await self._examined(super().execute(*args, **kwargs))

    async def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return await self._examined(super().executemany(*args, **kwargs))

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        return await self._examined(super().fetch(*args, **kwargs))

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:
        return await self._examined(super().fetchrow(*args, **kwargs))

    async def copy_records_to_table(self, *args: Any, **kwargs: Any) -> Any:
        return await self._examined(super().copy_records_to_table(*args, **kwargs))

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        return await self._examined(super().fetchval(*args, **kwargs))


# What PostgreSQL's binary form of a jsonb begins with: the version of that form
_VERSION = b"\x01"


def _to_jsonb(value: Any) -> bytes:
    return _VERSION + msgspec.json.encode(value)


def _from_jsonb(value: bytes) -> Any:
    return msgspec.json.decode(memoryview(value)[1:])


async def prepare(connection: Any) -> None:
    """JSON columns come and go as Python values, in binary form: an array of texts is quoted once more, and taken apart again."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_to_jsonb, decoder=_from_jsonb, format="binary"
    )


async def _no_reset(_connection: Any) -> None:
    """No session state is used, so there is none to reset: saves a round trip at every release."""


async def open_pool(dsn: str, *, size: int, application: str = "redflag") -> asyncpg.Pool[Any]:
    """A pool of `size` connections. Raises DatabaseUnreachable or DatabaseTooOld, each with what to do."""
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            init=prepare,
            reset=_no_reset,
            connection_class=Connection,
            server_settings={"application_name": application},
            command_timeout=60,
            timeout=10,
        )
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        TimeoutError,
    ) as error:
        raise DatabaseUnreachable(
            f"The database does not answer: {error}", "See `redflag doctor`, or `make logs`"
        ) from error
    async with pool.acquire() as connection:
        require_version(number(connection))
    return pool


def number(connection: Any) -> int:
    """The server's version as a number: 180006 for 18.6."""
    version = connection.get_server_version()
    # Since PostgreSQL 10 a version has two parts; asyncpg gives the second as `micro`
    return int(version.major * 10_000 + version.micro)


async def connect(dsn: str, *, application: str = "redflag", patience: float = 10) -> Connection:
    """One connection of its own, outside any pool. Raises DatabaseUnreachable."""
    try:
        connection = await asyncpg.connect(
            dsn, connection_class=Connection, server_settings={"application_name": application}, timeout=patience
        )
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise DatabaseUnreachable(
            f"The database does not answer: {error}", "See `redflag doctor`, or `make logs`"
        ) from error
    await prepare(connection)
    return connection
