"""Reading the log by position: what every export, bundle and report begins with.

Only what a signed checkpoint covers is read, in order of position, page by page, so that the memory needed does not grow
with what is read: a page has a bound in records and one in bytes. A position that was read once is where a later reading
goes on: nothing is skipped or doubled. A page is a transaction of its own, so that nobody holds a connection while whoever
takes the records is slow.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from redflag.audit import sequencer
from redflag.database import queries

sql = queries.load(__file__, "reading.sql")

CHUNK = 1000
# A page ends after the record that brings it here, in bytes of what can be large
PAGE_BYTES = 8 * 1024 * 1024
# Positions that one statement looks at, at the most, while few of them pass the filters
WIDEST = 256 * 1024


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
    """A record and its place: `record` is the row of update_logs, params and metadata decoded as a leaf needs them.

    `json` holds the two as the database writes them, where numbers are numbers.
    """

    position: int
    leaf: bytes
    record: dict[str, Any]
    json: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """Some entries, the position at which to go on, and how many positions the next statement should look at."""

    entries: list[Entry]
    next: int
    width: int


async def bounds(connection: Any, selection: Selection) -> tuple[int, int]:
    """The positions [first, end) within which the period stands, as far as a checkpoint covers it; (n, n) if nothing does."""
    async with connection.transaction():
        await sql.plan_for_these_values.value(connection)
        newest = await sequencer.sql.newest_checkpoint.one(connection)
        size: int = newest["size"] if newest else 0
        first, end = await _first(connection, selection.since, size), await _end(connection, selection.until, size)
    return (first, end) if first < end else (size, size)


async def _first(connection: Any, since: datetime.datetime | None, size: int) -> int:
    if since is None:
        oldest = await sql.oldest.value(connection)
        return size if oldest is None else int(oldest)
    nearest = (await sql.nearest.one(connection, size=size, moment=since))["high"]
    # Positions only nearly follow the times: the index tells where they do not
    await sql.other_ways.one(connection, allowed="off")
    first = await sql.first_since.value(connection, since=since, nearest=nearest)
    await sql.other_ways.one(connection, allowed="on")
    return size if first is None else int(first)


async def _end(connection: Any, until: datetime.datetime | None, size: int) -> int:
    if until is None:
        return size
    nearest: int = (await sql.nearest.one(connection, size=size, moment=until))["low"]
    await sql.other_ways.one(connection, allowed="off")
    last = await sql.last_until.value(connection, until=until, nearest=nearest)
    await sql.other_ways.one(connection, allowed="on")
    return min(size, nearest if last is None else max(nearest, last + 1))


async def page(
    connection: Any, selection: Selection, *, first: int, end: int, most: int = CHUNK, width: int = CHUNK
) -> Page:
    """The next entries at positions first ≤ p < end: at most `most`, from `width` positions, and PAGE_BYTES and one record."""
    stop = min(first + width, end)
    async with connection.transaction():
        await sql.plan_for_these_values.value(connection)
        rows = await sql.page.all(connection, first=first, end=stop, most=most, bytes=PAGE_BYTES, **vars(selection))
    entries = [_entry(row) for row in rows]
    if rows and (len(rows) < rows[0]["found"] or rows[0]["found"] == most):
        return Page(entries, entries[-1].position + 1, max(most, width // 2))
    return Page(entries, stop, min(4 * width, WIDEST) if len(rows) < most // 2 else width)


async def entries(
    connection: Any, selection: Selection, *, first: int, end: int, chunk: int = CHUNK
) -> AsyncIterator[Entry]:
    """The selected records at positions first ≤ p < end, in order, page by page."""
    at, width = first, chunk
    while at < end:
        found = await page(connection, selection, first=at, end=end, most=chunk, width=width)
        for entry in found.entries:
            yield entry
        at, width = found.next, found.width


def _entry(row: Any) -> Entry:
    record = sequencer.decoded(row)
    del record["found"]
    return Entry(
        record.pop("position"), record.pop("leaf"), record, {"params": row["params"], "metadata": row["metadata"]}
    )
