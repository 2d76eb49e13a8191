"""Lists of commands for people: live ones, ended ones, each with what is to be known about it.

Promises: a page costs the same however many commands there are. Ended commands, and live ones when they are many, are looked for
among the newest so many; where fewer than a page were found among these, the cursor leads on from where the look ended. No filter
has an index of its own, because an index over states would make every delivery and every sweep dearer.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from redflag.commands import waiting
from redflag.commands.history import decode_cursor, encode_cursor
from redflag.commands.queue import COMMAND_TYPE
from redflag.commands.states import LIVE, Status
from redflag.database import queries
from redflag.errors import InvalidInput, NotFound

sql = queries.load(__file__, "listing.sql")

PAGE = 50
# One look goes over so many commands at the most
MOST_LOOKED_AT = 10_000
# Up to so many live commands are looked at all at once; twice as many if they came to be more just now
FEW_LIVE = 10_000


@dataclass(frozen=True)
class Filter:
    """Which commands: live or ended, in which state, of which type and agent."""

    live: bool = True
    status: Status | None = None
    command_type: str | None = None
    agent_id: uuid.UUID | None = None

    def check(self) -> None:
        """Raises InvalidInput for what no command can be."""
        if self.status is not None and (self.status in LIVE) != self.live:
            kind = "live" if self.live else "ended"
            raise InvalidInput(f"No {kind} command is {self.status}", "Choose a state of those, or leave it out")
        if self.command_type is not None and not COMMAND_TYPE.fullmatch(self.command_type):
            raise InvalidInput(f"{self.command_type[:100]!r} is no command type", "Use one such as scan_updates")


@dataclass(frozen=True)
class Page:
    """Some commands, the newest first. `next_cursor`: there may be more. `cut`: the look ended before the page was full."""

    commands: list[dict[str, Any]]
    next_cursor: str | None
    cut: bool = False


async def page(
    connection: Any, shown: Filter, *, cursor: str | None = None, who: bool, many_live: bool = False, limit: int = PAGE
) -> Page:
    """A page of commands. `who`: tell who enqueued them. `many_live`: more are live than can all be looked at.

    Raises InvalidInput for a filter that fits no command, and for a cursor that is none of ours.
    """
    shown.check()
    before_at, before_id = decode_cursor(cursor) if cursor else (None, None)
    position = {"before_at": before_at, "before_id": before_id}
    of_agent = {} if shown.agent_id is None else {"agent_id": shown.agent_id}
    kind = {"status": shown.status, "command_type": shown.command_type, "limit": limit + 1}
    looks = not shown.live or (many_live and not of_agent)
    if looks:
        query = sql.among_newest_of_agent if of_agent else sql.among_newest
        found = await query.all(connection, live=shown.live, most=MOST_LOOKED_AT, **position, **kind, **of_agent)
    else:
        query = sql.live_of_agent if of_agent else sql.live
        found = await query.all(connection, most=2 * FEW_LIVE, **position, **kind, **of_agent)
    last = found[limit - 1] if len(found) > limit else None
    cut = False
    if looks and last is None:
        until = sql.looked_until_of_agent if of_agent else sql.looked_until
        last = await until.one(connection, most=MOST_LOOKED_AT, **position, **of_agent)
        cut = last is not None
    commands = await described(connection, [row["id"] for row in found[:limit]], who=who)
    return Page(commands, encode_cursor(last["created_at"], last["id"]) if last else None, cut)


async def described(connection: Any, ids: list[uuid.UUID], *, who: bool) -> list[dict[str, Any]]:
    """Some commands as they are now, with what `waiting.of_row` asks for."""
    if not ids:
        return []
    rows = await sql.described.all(connection, ids=ids, who=who, most_ahead=waiting.MOST_AHEAD)
    return [dict(row) for row in rows]


async def one(connection: Any, command_id: uuid.UUID, *, who: bool) -> dict[str, Any]:
    """One command as it is now. Raises NotFound."""
    found = await described(connection, [command_id], who=who)
    if not found:
        raise NotFound(
            f"No command {command_id}", "It may have been archived: see its records, and `redflag commands list`"
        )
    return found[0]


async def retries(connection: Any, command_id: uuid.UUID) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The commands of which this is a retry, the first one first; and the retries of it, as far as they came soon after."""
    rows = [dict(row) for row in await sql.chain.all(connection, id=command_id, most=5_000)]
    return [row for row in rows if row["step"] < 0], [row for row in rows if row["step"] > 0]
