"""Reading the log by position: what every export, bundle and report begins with.

Only what a signed checkpoint covers is read, in order of position, in chunks, so that the memory needed does not grow with
what is read. A position that was read once is where a later reading goes on: nothing is skipped or doubled.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redflag.audit import sequencer
from redflag.database import queries

sql = queries.load(__file__, "reading.sql")

CHUNK = 1000


@dataclass(frozen=True)
class Selection:
    """What to read. Times are when it was recorded, half-open: since ≤ created_at < until. None: whatever it is."""

    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    agent_id: uuid.UUID | None = None
    command_id: uuid.UUID | None = None
    command_type: str | None = None
    kind: str | None = None
    result: str | None = None
    actor: str | None = None

    @property
    def filters(self) -> dict[str, str]:
        """The filters besides the period that are set, as text, by name."""
        return {
            name: str(value)
            for name, value in vars(self).items()
            if value is not None and name not in {"since", "until"}
        }


@dataclass(frozen=True)
class Entry:
    """A record and its place: `record` is the row of update_logs, params and metadata decoded as a leaf needs them."""

    position: int
    leaf: bytes
    record: dict[str, Any]


async def bounds(connection: Any, selection: Selection) -> tuple[int, int]:
    """The positions [first, end) within which the period stands, as far as a checkpoint covers it; (n, n) if nothing does."""
    newest = await sequencer.sql.newest_checkpoint.one(connection)
    size = newest["size"] if newest else 0
    row = await sql.bounds.one(connection, since=selection.since, until=selection.until)
    if row["first"] is None:
        return size, size
    return min(row["first"], size), min(row["end"], size)


async def entries(
    connection: Any, selection: Selection, *, first: int, end: int, chunk: int = CHUNK
) -> AsyncIterator[Entry]:
    """The selected records at positions first ≤ p < end, in order. Each chunk is a statement of its own."""
    for begin in range(first, end, chunk):
        rows = await sql.chunk.all(connection, first=begin, end=min(begin + chunk, end), **vars(selection))
        for row in rows:
            record = sequencer.decoded(row)
            yield Entry(record.pop("position"), record.pop("leaf"), record)
