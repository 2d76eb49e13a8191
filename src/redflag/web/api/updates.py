"""Updates: what can be updated where, and the decisions about it."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from redflag.access.roles import Permission
from redflag.updates import approvals, listing
from redflag.updates.states import Severity, Status
from redflag.web.api.fields import Body, Cursor, Limit, Text, Word
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/updates", tags=["updates"], route_class=GuardedRoute)


class Chosen(Body):
    """The updates to act on, and why."""

    update_ids: list[uuid.UUID] = Field(min_length=1, max_length=10_000)
    reason: str = Field("", max_length=500)


@router.get("")
async def list_updates(
    caller: Caller = allow(Permission.READ_FLEET),
    agent: uuid.UUID | None = None,
    text: Text = None,
    package_type: Word = None,
    status: Status | None = None,
    severity: Severity | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Updates by agent and package."""
    async with caller.pool.acquire() as connection:
        return await listing.list_updates(
            connection,
            agent_id=agent,
            text=text,
            package_type=package_type,
            status=status,
            severity=severity,
            cursor=cursor,
            limit=limit,
        )


@router.get("/packages")
async def list_packages(
    caller: Caller = allow(Permission.READ_FLEET), text: Text = None, limit: Limit = 100
) -> dict[str, Any]:
    """Packages across the fleet: how many agents have an update of each, by state."""
    async with caller.pool.acquire() as connection:
        return {"packages": await listing.list_packages(connection, text=text, limit=limit)}


@router.get("/{update_id}")
async def show(update_id: uuid.UUID, caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """One update with its versions."""
    async with caller.pool.acquire() as connection:
        return await listing.show(connection, update_id)


@router.post("/approve")
async def approve(body: Chosen, caller: Caller = allow(Permission.DECIDE)) -> dict[str, Any]:
    """Approves updates, for the version that is offered now."""
    return await _act(caller, approvals.approve, body.update_ids)


@router.post("/reject")
async def reject(body: Chosen, caller: Caller = allow(Permission.DECIDE)) -> dict[str, Any]:
    """Rejects updates, with the reason."""
    return await _act(caller, approvals.reject, body.update_ids, reason=body.reason)


@router.post("/dry-run")
async def dry_run(body: Chosen, caller: Caller = allow(Permission.DECIDE)) -> dict[str, Any]:
    """Has the agents work out what each update would change."""
    return await _act(caller, approvals.dry_run, body.update_ids)


@router.post("/install")
async def install(body: Chosen, caller: Caller = allow(Permission.DECIDE)) -> dict[str, Any]:
    """Installs approved updates, after their dependencies were examined."""
    return await _act(caller, approvals.install, body.update_ids)


@router.post("/confirm")
async def confirm(body: Chosen, caller: Caller = allow(Permission.DECIDE)) -> dict[str, Any]:
    """Installs updates together with the dependencies that were found."""
    return await _act(caller, approvals.confirm, body.update_ids)


async def _act(caller: Caller, act: Any, update_ids: list[uuid.UUID], **more: Any) -> dict[str, Any]:
    async with caller.pool.acquire() as connection:
        done = await act(connection, caller.actor, update_ids, **more)
    return {"done": done.done, "refused": done.refused}
