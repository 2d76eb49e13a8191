"""Records that no trigger writes: what happened without a row being changed (a log-in, a refusal, a read).

Promises: a record is written in the transaction that it is given, under the actor's name; the volume is bounded
(`once`, `count_refusal`). A transition can not be written here: the database refuses it.
"""

from __future__ import annotations

import datetime
import hashlib
import uuid
from typing import Any

from redflag.audit.actor import Actor
from redflag.database import queries

sql = queries.load(__file__, "events.sql")

# Of the addresses that were refused without a name in one minute, this many get a record of their own
ANONYMOUS_ADDRESSES = 100
# A counter's row is kept for this long after its time
THROTTLE_KEPT = datetime.timedelta(days=2)


async def record(
    connection: Any,
    actor: Actor,
    *,
    kind: str,
    action: str,
    result: str = "success",
    message: str | None = None,
    agent_id: uuid.UUID | None = None,
    command_id: uuid.UUID | None = None,
    **metadata: Any,
) -> None:
    """Writes one record of kind access or service. Raises what the database says if it cannot: the caller's act then fails too."""
    await sql.record.run(
        connection,
        kind=kind,
        actor=actor.name,
        action=action,
        result=result,
        message=message,
        agent_id=agent_id,
        command_id=command_id,
        metadata=_details(actor, **metadata),
    )


async def record_read(connection: Any, actor: Actor, *, action: str, session: str, query: str) -> None:
    """That history was read or exported: one record per session and filter in an hour."""
    key = f"read:{session}:{hashlib.sha256(query.encode()).hexdigest()[:32]}"
    await sql.record_once_an_hour.run(
        connection,
        key=key,
        actor=actor.name,
        action=action,
        message=query[:500] or "everything",
        metadata=_details(actor, query=query[:2000]),
    )


async def record_refusal(connection: Any, actor: Actor, *, action: str, message: str) -> None:
    """That somebody known was refused: one record per name and action, and the rest of that minute are counted."""
    await sql.record_refusal.run(
        connection,
        key=f"refused:{actor.name}:{action}",
        actor=actor.name,
        action=action,
        message=message[:500],
        metadata=_details(actor),
    )


async def count_refusal(connection: Any, address: str, *, action: str) -> None:
    """That somebody unknown was refused: counted by address; `record_counted_refusals` writes the record when the minute is over."""
    await sql.count_refusal.run(connection, address=address, action=action, most=ANONYMOUS_ADDRESSES)


async def record_counted_refusals(connection: Any, replica: str) -> int:
    """Writes the records of the minutes that are over, and forgets old counters. Returns how many records."""
    await sql.forget_counters.run(connection, kept=THROTTLE_KEPT)
    return await sql.record_counted_refusals.run(connection, actor=f"service:guard@{replica}")


async def last_examination(connection: Any) -> dict[str, Any] | None:
    """The last fsck whose outcome was recorded: `executed_at`, `result`, `message`; None: there was none."""
    row = await sql.last_examination.one(connection)
    return dict(row) if row else None


def _details(actor: Actor, **more: Any) -> dict[str, Any]:
    act = actor.act(**more)
    del act["actor"]
    return act
