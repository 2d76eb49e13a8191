"""What becomes of old records: erasure of what is personal, legal holds, and how long records are kept."""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated, Any, Literal, Self

import pydantic
from fastapi import APIRouter, Query
from pydantic import Field

from redflag.access.roles import Permission
from redflag.audit import erasure, holds, retention
from redflag.errors import InvalidInput
from redflag.web.api.fields import Body, span
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)

ARCHIVES = 100
Name = Annotated[str, Field(min_length=1, max_length=700)]
Keep = Annotated[float, Field(ge=retention.SHORTEST.total_seconds(), le=retention.LONGEST.total_seconds())]
ErasedField = Literal["actor", "address", "message", "params", "stdout", "stderr", "metadata"]


class Erasure(Body):
    """Fields of one record, or actor and address of all records under a name. The reason stays in the log: name nobody in it."""

    record_id: uuid.UUID | None = None
    fields: list[ErasedField] = Field([], max_length=len(erasure.FIELDS))
    actor: Name | None = Field(None, description="as the history shows it, such as user:alice")
    reason: str = Field(min_length=1, max_length=erasure.REASON_LIMIT)
    dry_run: bool = Field(False, description="of a name: only count")

    @pydantic.model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.record_id is None) == (self.actor is None) or bool(self.fields) != (self.record_id is not None):
            raise ValueError("give record_id and fields, or actor")
        return self


class Hold(Body):
    """Covers the records to which everything applies that is given; nothing: every record. since ≤ recorded < until."""

    name: str = Field(min_length=1, max_length=100)
    reason: str = Field(min_length=1, max_length=1000)
    since: pydantic.AwareDatetime | None = None
    until: pydantic.AwareDatetime | None = None
    agent_id: uuid.UUID | None = None
    command_id: uuid.UUID | None = None
    actor: Name | None = None


class Policy(Body):
    """How long records are kept, in seconds; null: for ever."""

    keep: Keep | None


@router.post("/erasures")
async def erase(body: Erasure, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Erases what is personal from records; each erasure is recorded. It cannot be taken back.

    Of a name, up to 2,000 records are erased at once: `left` says what there still is, and asking again goes on.
    """
    async with caller.pool.acquire() as connection:
        if body.record_id is not None:
            if body.dry_run:
                raise InvalidInput("A dry run counts the records under a name", "Leave dry_run out for one record")
            done = await erasure.erase(connection, caller.actor, body.record_id, body.fields, body.reason)
            return {"erased": 1, "erasures": [vars(done)]}
        name = body.actor or ""
        erased = 0
        if not body.dry_run:
            erased = await erasure.erase_actor(connection, caller.actor, name, body.reason)
        return {"erased": erased, "left": vars(await erasure.survey(connection, name))}


@router.get("/holds")
async def list_holds(
    caller: Caller = allow(Permission.READ_AUDIT),
    released: Annotated[bool, Query(description="also those that are in force no more")] = False,
) -> dict[str, Any]:
    """The legal holds: what they cover is neither erased nor pruned."""
    async with caller.pool.acquire() as connection:
        return {"holds": await holds.list_holds(connection, released=released)}


@router.post("/holds", status_code=201)
async def place_hold(body: Hold, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Places a legal hold. It stands until it is released, whatever the retention is."""
    async with caller.pool.acquire() as connection:
        return await holds.place(
            connection, caller.actor, body.name, body.reason, since=body.since, until=body.until, agent_id=body.agent_id,
            command_id=body.command_id, held_actor=body.actor,
        )  # fmt: skip


@router.post("/holds/{hold_id}/release")
async def release_hold(hold_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Ends a legal hold."""
    async with caller.pool.acquire() as connection:
        return await holds.release(connection, caller.actor, hold_id)


@router.get("/retention")
async def show_retention(caller: Caller = allow(Permission.READ_AUDIT)) -> dict[str, Any]:
    """How long records are kept, in seconds (null: for ever), where the log begins, and the bundles of what was pruned."""
    async with caller.pool.acquire() as connection:
        archives = await retention.sql.archives.all(connection, most=ARCHIVES)
        return _told(await retention.policy(connection)) | {"archives": [dict(row) for row in archives]}


@router.put("/retention")
async def set_retention(body: Policy, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Sets how long records are kept. What is past it is archived as evidence bundles and pruned, within a day."""
    async with caller.pool.acquire() as connection:
        return _told(await retention.set_policy(connection, caller.actor, span(body.keep)))


def _told(row: dict[str, Any]) -> dict[str, Any]:
    oldest: datetime.datetime | None = row["oldest"]
    return {
        "keep": row["keep_seconds"],
        "pruned": row["pruned"],
        "oldest": oldest,
        "pruning": bool(row["pruning"]),
        "looked_at": row["looked_at"],
        "last_error": row["last_error"],
        "last_error_at": row["last_error_at"],
    }
