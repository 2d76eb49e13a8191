"""The record, as people and programs read it."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from fastapi import APIRouter

from redflag.access.roles import Permission
from redflag.audit import events, sequencer
from redflag.commands import history
from redflag.commands.states import Kind, Result
from redflag.web.api.fields import Cursor, Limit, Text, Word, utc
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/commands", tags=["history"], route_class=GuardedRoute)


@router.get("/history")
async def read_history(
    caller: Caller = allow(Permission.READ_HISTORY),
    agent: uuid.UUID | None = None,
    command: uuid.UUID | None = None,
    agent_id: uuid.UUID | None = None,
    command_id: uuid.UUID | None = None,
    command_type: Word = None,
    result: Result | None = None,
    actor: Word = None,
    kind: Kind | None = None,
    action: Word = None,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
    text: Text = None,
    include_timeout: bool = True,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """Events, the newest first, each with its metadata. Times without a zone are UTC. Who reads is recorded, once an hour for a filter."""
    shown = history.Filter(
        agent_id=agent or agent_id,
        command_id=command or command_id,
        command_type=command_type,
        result=result,
        actor=actor,
        kind=kind,
        action=action,
        since=utc(since),
        until=utc(until),
        text=text,
        include_timeout=include_timeout,
    )
    async with caller.pool.acquire() as connection:
        page = await history.page(connection, shown, cursor=cursor, limit=limit)
        await events.record_read(
            connection, caller.actor, action="history_read", session=caller.principal.session, query=shown.told()
        )
        places = await sequencer.sql.positions.all(connection, records=[event["id"] for event in page.events])
    positions = {place["record_id"]: place["position"] for place in places}
    for event in page.events:
        event["position"] = positions.get(event["id"])
    return {"events": page.events, "next_cursor": page.next_cursor}
