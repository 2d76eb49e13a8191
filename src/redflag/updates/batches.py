"""Batches: updates that somebody decided on together, and how far they are.

Promises: what was done is committed together with the batch that shows it; a batch is a working set and no record, so it may be
forgotten after 30 days without anything being lost. What it costs follows from its updates, 10,000 at the most.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import NotFound
from redflag.updates import acts
from redflag.updates.acts import Act
from redflag.updates.approvals import Decision
from redflag.updates.states import Status

sql = queries.load(__file__, "batches.sql")

# What a person must see first
URGENCY = (
    Status.FAILED, Status.DEPENDENCIES, Status.INSTALLING, Status.UNCONFIRMED, Status.APPROVED, Status.PENDING, Status.INSTALLED,
    Status.REJECTED,
)  # fmt: skip
# Of each reason of a refusal so many updates are named
NAMED = 20


async def begin(
    connection: Any, actor: Actor, act: Act, update_ids: Sequence[uuid.UUID], *, reason: str = ""
) -> tuple[uuid.UUID, Decision]:
    """Does something with updates, and keeps them together as a batch from now on: its id, and what was done."""
    async with connection.transaction():
        decision = await acts.perform(connection, actor, act, update_ids, reason=reason)
        batch_id = await sql.begin.value(connection, ids=list(dict.fromkeys(update_ids)), **_said(actor, act, decision))
    return batch_id, decision


async def go_on(
    connection: Any, actor: Actor, act: Act, batch_id: uuid.UUID, *, of: Status | None = None, reason: str = ""
) -> Decision:
    """Does something with those of a batch that it is offered for, or with those in the state `of` alone. Raises NotFound."""
    among = acts.OFFERED[act] if of is None else acts.OFFERED[act] & {of}
    async with connection.transaction():
        if await sql.batch.one(connection, id=batch_id) is None:
            raise _missing(batch_id)
        rows = await sql.ids.all(connection, id=batch_id, statuses=sorted(among), waiting=act == Act.CONFIRM)
        if not rows:
            return Decision([], [])
        decision = await acts.perform(connection, actor, act, [row["id"] for row in rows], reason=reason)
        await sql.go_on.run(connection, id=batch_id, **_said(actor, act, decision))
    return decision


async def show(
    connection: Any,
    batch_id: uuid.UUID,
    *,
    statuses: Sequence[Status] | None = None,
    limit: int = 50,
    offset: int = 0,
) -> dict[str, Any]:
    """A batch: what was done last and what was refused, how many updates are where, how many wait for a confirmation, what their dry
    runs found, and a page of rows.

    Raises NotFound.
    """
    found = await sql.batch.one(connection, id=batch_id)
    if found is None:
        raise _missing(batch_id)
    by_status: dict[str, int] = {}
    waits = 0
    for row in await sql.standing.all(connection, id=batch_id):
        by_status[row["status"]] = by_status.get(row["status"], 0) + row["updates"]
        waits += row["updates"] if row["waits"] else 0
    rows = await sql.rows.all(
        connection, id=batch_id, statuses=statuses and sorted(statuses), urgency=list(URGENCY), limit=limit + 1,
        offset=offset,
    )  # fmt: skip
    named = [uuid.UUID(one) for group in found["refused"] for one in group["update_ids"]]
    names = {row["id"]: dict(row) for row in await sql.names.all(connection, ids=named)} if named else {}
    refused = [
        {
            "why": group["why"],
            "count": group["count"],
            "updates": [names[key] for one in group["update_ids"] if (key := uuid.UUID(one)) in names],
        }
        for group in found["refused"]
    ]
    return dict(found) | {
        "by_status": by_status,
        "waits": waits,
        "rows": [dict(row) for row in rows[:limit]],
        "more": len(rows) > limit,
        "refused": refused,
        "brought": [dict(row) for row in await sql.brought.all(connection, id=batch_id)],
    }


def _said(actor: Actor, act: Act, decision: Decision) -> dict[str, Any]:
    why: dict[str, list[str]] = {}
    for one in decision.refused:
        why.setdefault(one["why"], []).append(str(one["update_id"]))
    refused = [{"why": words, "count": len(ids), "update_ids": ids[:NAMED]} for words, ids in why.items()]
    return {"actor": actor.name, "act": act, "done": len(decision.done), "refused": refused}


def _missing(batch_id: uuid.UUID) -> NotFound:
    return NotFound(f"No batch {batch_id}", "It is forgotten after 30 days; see the updates themselves")
