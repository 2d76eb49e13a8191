"""Commands: enqueue, list, show, cancel, retry."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from redflag.access.roles import Permission
from redflag.commands import history, queue
from redflag.commands.states import Status
from redflag.updates import outcomes
from redflag.web.api.fields import Body, Cursor, Limit, Word, page, position, span
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/commands", tags=["commands"], route_class=GuardedRoute)

Seconds = Annotated[float, Field(gt=0, le=366 * 86400)]


class NewCommand(Body):
    """A command for some agents. Timeouts in seconds; absent: as the policy of the type says."""

    agent_ids: list[uuid.UUID] = Field(min_length=1, max_length=10_000)
    command_type: str = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)
    delivery_timeout: Seconds | None = None
    execution_timeout: Seconds | None = None


class Reason(Body):
    """Why."""

    reason: str = Field("", max_length=500)


@router.post("", status_code=201)
async def enqueue(body: NewCommand, caller: Caller = allow(Permission.ENQUEUE)) -> dict[str, Any]:
    """Enqueues a command for each of the agents, or for none if one of them is not there."""
    async with caller.pool.acquire() as connection:
        rows = await queue.enqueue(
            connection,
            caller.actor,
            body.agent_ids,
            body.command_type,
            body.params,
            delivery_timeout=span(body.delivery_timeout),
            execution_timeout=span(body.execution_timeout),
        )
    return {"commands": rows}


@router.get("")
async def list_commands(
    caller: Caller = allow(Permission.READ_FLEET),
    agent: uuid.UUID | None = None,
    status: Status | None = None,
    command_type: Word = None,
    live: bool = False,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """Commands, the newest first."""
    async with caller.pool.acquire() as connection:
        rows = await queue.list_commands(
            connection,
            agent_id=agent,
            status=status,
            command_type=command_type,
            live=live,
            before=position(cursor),
            limit=limit + 1,
        )
    return page("commands", rows, limit)


@router.get("/{command_id}")
async def show(command_id: uuid.UUID, caller: Caller = allow(Permission.READ_HISTORY)) -> dict[str, Any]:
    """One command with all its events in order."""
    async with caller.pool.acquire() as connection:
        command = await queue.show(connection, command_id)
        events = await history.of_command(connection, command_id)
    for name in ("act", "late_reports"):
        command.pop(name, None)
    return {"command": command, "events": events}


@router.post("/{command_id}/cancel")
async def cancel(command_id: uuid.UUID, body: Reason, caller: Caller = allow(Permission.ENQUEUE)) -> dict[str, Any]:
    """Ends a live command; the updates it worked on go back to where they were."""
    async with caller.pool.acquire() as connection, connection.transaction():
        command = await queue.cancel(connection, caller.actor, command_id, body.reason)
        await outcomes.command_cancelled(connection, caller.actor, [command_id])
    return {"command": command}


@router.post("/{command_id}/retry", status_code=201)
async def retry(command_id: uuid.UUID, caller: Caller = allow(Permission.ENQUEUE)) -> dict[str, Any]:
    """Enqueues a new command like one that has ended."""
    async with caller.pool.acquire() as connection:
        return {"command": await queue.retry(connection, caller.actor, command_id)}
