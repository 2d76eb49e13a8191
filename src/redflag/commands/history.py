"""History: the record as people read it. Pages are found by position, never by counting, so that all cost the same."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import re
import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg

from redflag.commands.states import Kind, Result
from redflag.database import queries
from redflag.errors import InvalidInput

sql = queries.load(__file__, "history.sql")

_AGENT = re.compile("agent:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

PAGE_LIMIT = 500
# A text is looked for in every record of an agent, a command, or a period of this length, and not in more
TEXT_PERIOD = datetime.timedelta(days=31)
LONGEST_SECONDS = 5


@dataclass(frozen=True)
class Filter:
    """What to show. Times are half-open: since ≤ executed_at < until. `text` is found anywhere, whatever its case.

    `people`: what people did by themselves, not by a token, an agent or a part of the server.
    """

    agent_id: uuid.UUID | None = None
    command_id: uuid.UUID | None = None
    command_type: str | None = None
    result: Result | None = None
    actor: str | None = None
    kind: Kind | None = None
    action: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    text: str | None = None
    include_timeout: bool = True
    commands_only: bool = False
    people: bool = False

    def told(self) -> str:
        """The filter in words, for the record of who read what."""
        return " ".join(
            f"{name}={value}"
            for name, value in vars(self).items()
            if value not in (None, False) and (name, value) != ("include_timeout", True)
        )


@dataclass(frozen=True)
class Page:
    """Some events, and the cursor of the next page if there may be one."""

    events: list[dict[str, Any]]
    next_cursor: str | None


async def page(connection: Any, shown: Filter, *, cursor: str | None = None, limit: int = 50) -> Page:
    """A page of the history, the newest first. Raises InvalidInput for a cursor that is none of ours, or for a search that would read
    too much."""
    at, one = decode_cursor(cursor) if cursor else (None, None)
    limit = max(1, min(limit, PAGE_LIMIT))
    if shown.text is not None and not (shown.agent_id or shown.command_id):
        shown = _within_period(shown)
    parameters = vars(shown) | {"text": None if shown.text is None else queries.containing(shown.text)}
    if shown.agent_id is None and shown.actor and (acting := _AGENT.fullmatch(shown.actor)):
        parameters["agent_id"] = uuid.UUID(acting[1])
    try:
        async with connection.transaction(readonly=True):
            await sql.plan_for_these_values.value(connection, longest_ms=str(LONGEST_SECONDS * 1000))
            rows = await sql.page.all(connection, **parameters, before_at=at, before_id=one, limit=limit + 1)
    except asyncpg.QueryCanceledError:
        raise InvalidInput(
            f"This search takes longer than {LONGEST_SECONDS} s", "Name an agent, a command or a shorter period"
        ) from None
    events = [dict(row) for row in rows[:limit]]
    last = events[-1] if len(rows) > limit else None
    return Page(events, encode_cursor(last["executed_at"], last["id"]) if last else None)


async def newer(connection: Any, shown: Filter, cursor: str, most: int = 20) -> int:
    """How many events came after a position, up to `most`: what a list that is being read does not show yet. Raises InvalidInput.

    That history was read is no news to who reads it.
    """
    at, one = decode_cursor(cursor)
    since = at if shown.since is None else max(at, shown.since)
    found = await page(connection, dataclasses.replace(shown, since=since), limit=most)
    return sum(
        (event["executed_at"], event["id"]) > (at, one) and event["action"] != "history_read" for event in found.events
    )


async def of_command(connection: Any, command_id: uuid.UUID) -> list[dict[str, Any]]:
    """All events of one command, in order."""
    return [dict(row) for row in await sql.events_of_command.all(connection, command_id=command_id)]


def encode_cursor(at: datetime.datetime, one: uuid.UUID) -> str:
    """A position in a list, opaque to who keeps it: microseconds since the epoch and an id."""
    microseconds = int(at.timestamp()) * 1_000_000 + at.microsecond
    return base64.urlsafe_b64encode(microseconds.to_bytes(8, "big", signed=True) + one.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime.datetime, uuid.UUID]:
    """The position that a cursor stands for. Raises InvalidInput."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if len(data) != 24:
            raise ValueError(len(data))
        seconds, microseconds = divmod(int.from_bytes(data[:8], "big", signed=True), 1_000_000)
        at = datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(microsecond=microseconds)
        return at, uuid.UUID(bytes=data[8:])
    except (ValueError, OverflowError, OSError, binascii.Error):
        raise InvalidInput("The cursor is none of this server's", "Begin again without a cursor") from None


def _within_period(shown: Filter) -> Filter:
    """The filter with a period that a text is looked for in: the last days, if none is given. Raises InvalidInput for a longer one."""
    until = shown.until or datetime.datetime.now(datetime.UTC)
    since = shown.since or until - TEXT_PERIOD
    if until - since > TEXT_PERIOD + datetime.timedelta(hours=1):
        raise InvalidInput(
            f"A text is looked for in {TEXT_PERIOD.days} days at the most",
            "Name an agent or a command, or a period with since and until",
        )
    return dataclasses.replace(shown, since=since)
