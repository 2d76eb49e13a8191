"""Legal holds: records that are neither erased nor pruned, whatever a policy says, until the hold is released.

A hold covers the records to which everything that it names applies: a period of recording, an agent, a command, an actor. One
that names nothing covers every record. Placing and releasing are recorded; a hold is never changed and never removed.
"""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound

sql = queries.load(__file__, "holds.sql")


async def place(
    connection: Any,
    actor: Actor,
    name: str,
    reason: str,
    *,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
    agent_id: uuid.UUID | None = None,
    command_id: uuid.UUID | None = None,
    held_actor: str | None = None,
) -> dict[str, Any]:
    """Places a hold on what was recorded at since ≤ created_at < until. Raises InvalidInput, or Conflict for a name in force."""
    if not 1 <= len(name.strip()) <= 100 or not 1 <= len(reason.strip()) <= 1000:
        raise InvalidInput(
            "A hold has a name of up to 100 characters and a reason of up to 1000", "Give both, such as a case number"
        )
    if since and until and since >= until:
        raise InvalidInput("The hold's period ends before it begins", "Exchange the two, or leave one out")
    async with connection.transaction():
        if await sql.in_force.value(connection, name=name.strip()):
            raise Conflict(f"A hold named {name.strip()!r} is in force already", "Give it another name")
        row = await sql.place.one(
            connection,
            name=name.strip(),
            reason=reason.strip(),
            since=since,
            until=until,
            agent_id=agent_id,
            command_id=command_id,
            actor=held_actor,
            act=actor.act(),
        )
    return dict(row)


async def release(connection: Any, actor: Actor, hold_id: uuid.UUID) -> dict[str, Any]:
    """Ends a hold. Raises NotFound, or Conflict if it has been released already."""
    row = await sql.release.one(connection, id=hold_id, act=actor.act())
    if row is None:
        if await sql.hold.one(connection, id=hold_id):
            raise Conflict(f"The hold {hold_id} has been released already", "See `redflag audit hold list --all`")
        raise NotFound(f"No hold {hold_id}", "See `redflag audit hold list`")
    return dict(row)


async def list_holds(connection: Any, *, released: bool = False) -> list[dict[str, Any]]:
    """The holds in force, with `released` also those that were."""
    return [dict(row) for row in await sql.holds.all(connection, released=released)]
