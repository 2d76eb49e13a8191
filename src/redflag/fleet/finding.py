"""Agents found among many: filters, orders, pages, and what can be filtered by.

Promises: with 100,000 agents a page costs tens of milliseconds whatever is asked. Pages go on from a position, never by counting.
The order by when an agent was last heard of has no index, because check-ins must touch none: the narrow table of presence is
read for the nearest candidates, and all that fits is sorted only where those do not fill the page, as with filters that few fit.
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from redflag.commands.history import decode_cursor, encode_cursor
from redflag.database import queries
from redflag.fleet.agents import LOST_AFTER, Presence, like, online_seconds

log = logging.getLogger("redflag.fleet")
sql = queries.load(__file__, "finding.sql")

PAGE_LIMIT = 200
# Of those that were heard of longest ago, or last, so many are looked at before all are
CANDIDATES = 1_000
# What is offered to filter by is read anew after so many seconds, and holds so many values of a kind
FACETS_SECONDS = 60.0
MOST_FACETS = 200
ARRIVED_LIMIT = 100

# Where those that were never heard of stand: behind all others
_NEVER = {
    "seen": datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC),
    "-seen": datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
}


class Sort(enum.StrEnum):
    """The orders. With a minus it is the other way round; `removed` is the only one of those that were removed."""

    NAME = "name"
    NAME_BACK = "-name"
    ENROLLED = "enrolled"
    ENROLLED_BACK = "-enrolled"
    SEEN = "seen"
    SEEN_BACK = "-seen"
    REMOVED = "removed"


@dataclass(frozen=True)
class Filter:
    """Which agents. `text`: a part of the name or the host name; `system`: as the host names it; `version` with its `protocol`."""

    text: str | None = None
    tag: str | None = None
    presence: Presence | None = None
    system: str | None = None
    protocol: int | None = None
    version: str | None = None
    removed: bool = False

    def parameters(self, check_in_interval: int) -> dict[str, Any]:
        """The filter as the statement takes it."""
        online = datetime.timedelta(seconds=online_seconds(check_in_interval))
        within = {Presence.ONLINE: online, Presence.LATE: LOST_AFTER}
        silent = {Presence.LATE: online, Presence.LOST: LOST_AFTER}
        return {
            "text": like(self.text),
            "tag": self.tag,
            "system": self.system,
            "protocol": self.protocol,
            "version": self.version,
            "removed": self.removed,
            "heard_within": within.get(self.presence) if self.presence else None,
            "silent_for": silent.get(self.presence) if self.presence else None,
        }


@dataclass(frozen=True)
class Page:
    """Some agents, and the cursor of the next page if there may be one."""

    agents: list[dict[str, Any]]
    next_cursor: str | None


async def find(
    connection: Any,
    shown: Filter,
    check_in_interval: int,
    *,
    sort: Sort = Sort.NAME,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """A page of the agents that fit. Those that were removed come in the order of their removal. Raises InvalidInput for a cursor that
    is none of ours."""
    if shown.removed or sort == Sort.REMOVED:
        sort = Sort.REMOVED if shown.removed else Sort.NAME
    limit = max(1, min(limit, PAGE_LIMIT))
    at, one = decode_cursor(cursor) if cursor else (None, None)
    parameters = shown.parameters(check_in_interval) | {
        "sort": sort, "after_at": at, "after_id": one, "never": _NEVER.get(sort), "limit": limit + 1,
    }  # fmt: skip
    async with connection.transaction(readonly=True):
        await sql.plan_for_these_values.value(connection)
        rows: list[Any] = []
        if sort in _NEVER and at != _NEVER[sort]:
            among = await _candidates(connection, sort, parameters)
            rows = await sql.find.all(connection, **parameters, among=among)
        if len(rows) <= limit:
            # The candidates, if there were any, did not fill the page
            rows = await sql.find.all(connection, **parameters, among=None)
    agents = [dict(row) for row in rows[:limit]]
    return Page(agents, _position(agents[-1], sort) if len(rows) > limit else None)


async def _candidates(connection: Any, sort: Sort, parameters: dict[str, Any]) -> list[uuid.UUID]:
    query = sql.longest_silent if sort == Sort.SEEN else sql.last_heard
    asked = {name: parameters[name] for name in ("after_at", "after_id", "heard_within", "silent_for")}
    return [row["agent_id"] for row in await query.all(connection, **asked, limit=CANDIDATES)]


def _position(agent: dict[str, Any], sort: Sort) -> str:
    if sort in _NEVER:
        return encode_cursor(agent["last_seen"] or _NEVER[sort], agent["id"])
    return encode_cursor(agent["removed_at"] if sort == Sort.REMOVED else agent["created_at"], agent["id"])


async def enrolled_with(connection: Any, token_id: uuid.UUID) -> list[dict[str, Any]]:
    """The agents that came with an enrolment token, the last one first, and not more than a page of them."""
    return [dict(row) for row in await sql.enrolled_with.all(connection, token_id=token_id, limit=ARRIVED_LIMIT)]


@dataclass(frozen=True)
class Offered:
    """What agents can be filtered by: each value with how many agents have it. Of a version the protocol as well."""

    tags: list[tuple[str, int]] = field(default_factory=list)
    systems: list[tuple[str, int]] = field(default_factory=list)
    versions: list[tuple[int, str, int]] = field(default_factory=list)


class Facets:
    """What agents can be filtered by, read for the whole process and not for each who asks.

    Nobody waits for it longer than `patience`: what is old is given while it is read anew, and at the very first nothing. A reading
    that fails is logged, and tried again when somebody asks.
    """

    def __init__(self, pool: Any, *, seconds: float = FACETS_SECONDS) -> None:
        self._pool = pool
        self._seconds = seconds
        self._held: Offered | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def read(self, patience: float = 0.05) -> Offered:
        """What there is to filter by, at most about a minute old."""
        if time.monotonic() - self._read_at > self._seconds and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read())
        if self._held is None and self._reading is not None:
            await asyncio.wait({self._reading}, timeout=patience)
        return self._held or Offered()

    async def _read(self) -> None:
        try:
            rows = await sql.facets.all(self._pool, most=MOST_FACETS)
        except Exception:  # a page without these lists is still a page
            log.exception("could not read what agents can be filtered by, and will try again")
            return
        self._held = Offered(
            tags=[(row["value"], row["agents"]) for row in rows if row["what"] == "tag"],
            systems=[(row["value"], row["agents"]) for row in rows if row["what"] == "system"],
            versions=[(row["protocol"], row["value"], row["agents"]) for row in rows if row["what"] == "version"],
        )
        self._read_at = time.monotonic()
