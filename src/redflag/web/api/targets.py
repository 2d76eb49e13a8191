"""Where checkpoints are sent: witnesses, files, git repositories, webhooks."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from redflag.access.roles import Permission
from redflag.audit import events, sequencer
from redflag.publishing import targets
from redflag.publishing.sender import Outcome
from redflag.publishing.targets import Kind
from redflag.web.api.fields import Body, span
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/audit/targets", tags=["audit"], route_class=GuardedRoute)

Every = Annotated[float, Field(ge=1, le=31 * 86400, description="at the most one checkpoint in so many seconds")]
Secret = Annotated[str, Field(max_length=200, description="of a webhook: whsec_ and 24 to 64 bytes in base64")]


class NewTarget(Body):
    """A target. `vkey` is a witness's, `secret` a webhook's; without one it is made, and shown this once."""

    kind: Kind
    name: str = Field(min_length=1, max_length=100)
    address: str = Field(
        min_length=1, max_length=1000, description="a URL, or of a file or git repository its name in the folder"
    )
    vkey: str | None = Field(None, max_length=500)
    secret: Secret | None = None
    every: Every | None = None


class Change(Body):
    """What is to be another; absent: as it is."""

    name: str | None = Field(None, min_length=1, max_length=100)
    address: str | None = Field(None, min_length=1, max_length=1000)
    secret: Secret | None = None
    every: Every | None = None
    enabled: bool | None = None


def _told(row: dict[str, Any], size: int) -> dict[str, Any]:
    return row | {"every": row["every"].total_seconds(), "behind": max(0, size - row["acknowledged_size"])}


async def _size(connection: Any) -> int:
    newest = await sequencer.sql.newest_checkpoint.one(connection)
    return newest["size"] if newest else 0


@router.get("")
async def list_targets(caller: Caller = allow(Permission.READ_AUDIT)) -> dict[str, Any]:
    """Every target: how far it is behind the newest checkpoint, in records, and what went wrong last. Never a secret."""
    async with caller.pool.acquire() as connection:
        size = await _size(connection)
        return {"size": size, "targets": [_told(row, size) for row in await targets.list_targets(connection)]}


@router.post("", status_code=201)
async def add_target(body: NewTarget, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Adds a target; the newest checkpoint is sent to it at once."""
    async with caller.pool.acquire() as connection:
        row, secret = await targets.add(
            connection, caller.actor, kind=body.kind, name=body.name, address=body.address, vkey=body.vkey,
            secret=body.secret, every=span(body.every),
        )  # fmt: skip
        told = _told(row, await _size(connection))
    return told | ({"secret": secret} if secret else {})


@router.patch("/{target_id}")
async def change_target(
    target_id: uuid.UUID, body: Change, caller: Caller = allow(Permission.MANAGE_LOG)
) -> dict[str, Any]:
    """Changes a target. Its kind and key stay."""
    async with caller.pool.acquire() as connection:
        row = await targets.change(
            connection, caller.actor, target_id, name=body.name, address=body.address, secret=body.secret,
            every=span(body.every), enabled=body.enabled,
        )  # fmt: skip
        return _told(row, await _size(connection))


@router.delete("/{target_id}")
async def remove_target(target_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Removes a target. The cosignatures that it gave stay."""
    async with caller.pool.acquire() as connection:
        await targets.remove(connection, caller.actor, target_id)
    return {"message": "target removed"}


@router.post("/{target_id}/try")
async def try_target(target_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Sends it the newest checkpoint now, and says what became of it. Recorded with the name of who asked."""
    outcome = await record_try(caller, target_id)
    async with caller.pool.acquire() as connection:
        row = await targets.show(connection, target_id)
        return {"ok": not outcome.error, "error": outcome.error or None, "target": _told(row, await _size(connection))}


async def record_try(caller: Caller, target_id: uuid.UUID) -> Outcome:
    """Sends a target the newest checkpoint now, and records who asked and what became of it. Raises NotFound."""
    async with caller.pool.acquire() as connection:
        await targets.show(connection, target_id)
    outcome = await caller.context.sender.try_now(target_id)
    async with caller.pool.acquire() as connection:
        await events.record(
            connection, caller.actor, kind="service", action="log_target_tried",
            result="failed" if outcome.error else "success",
            message=f"log target {outcome.name}: " + (outcome.error or f"has the checkpoint of {outcome.size} records"),
        )  # fmt: skip
    return outcome
