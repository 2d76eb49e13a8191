"""Streams a query's rows from one database into a table of another: binary COPY to binary COPY, nothing kept in between.

Promises: a few chunks wait at the most, whichever side is slower; when either side fails the other is stopped, and the
failure that came first is the one that is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from redflag.database import queries

sql = queries.load(__file__, "staging.sql")

WAITING_CHUNKS = 64


async def copy(
    source: Any, query: str, arguments: list[Any], target: Any, table: str, tell: Callable[[int], None]
) -> int:
    """Copies what the query gives into a staging table, all but its `fate`. Returns how many rows; tells bytes as they go by."""
    names = await sql.columns_before_fate.value(target, table=table)
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_CHUNKS)

    async def read() -> str:
        try:
            said: str = await source.copy_from_query(
                query.strip().rstrip(";"), *arguments, output=waiting.put, format="binary"
            )
            return said
        finally:
            await waiting.put(None)

    reading = asyncio.create_task(read())

    async def chunks() -> AsyncIterator[bytes]:
        passed = 0
        while (chunk := await waiting.get()) is not None:
            yield chunk
            passed += len(chunk)
            tell(passed)
        await reading  # if it failed, the copy fails with it

    try:
        written: str = await target.copy_to_table(
            table, schema_name="pg_temp", source=chunks(), columns=names, format="binary"
        )
    except BaseException:
        if not reading.done():
            reading.cancel()
            while not waiting.empty():  # lets the reader's last word in
                waiting.get_nowait()
        with contextlib.suppress(BaseException):
            await reading
        raise
    return int(written.rsplit(" ", 1)[-1])
