"""Agents, and the tokens with which hosts become agents."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from redflag.access import enrolment
from redflag.access.roles import Permission
from redflag.fleet import agents
from redflag.updates import outcomes
from redflag.web.api.fields import Body, Cursor, Limit, Text, Word, page, position
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1", tags=["fleet"], route_class=GuardedRoute)


class AgentChange(Body):
    """What people call an agent; absent: as it is."""

    name: str | None = Field(None, min_length=1, max_length=255)
    tags: list[str] | None = Field(None, max_length=50)


class NewEnrolmentToken(Body):
    """For how many hosts, for how long, and whether each is scanned as it comes."""

    label: str = Field("enrolment", min_length=1, max_length=255)
    seats: int = Field(1, ge=1, le=100_000)
    hours: int = Field(24, ge=1, le=8760)
    first_scan: bool = False


def _shown(row: dict[str, Any], interval: int) -> dict[str, Any]:
    return row | {"presence": agents.presence(row["seconds_since_seen"], interval)}


@router.get("/agents")
async def list_agents(
    caller: Caller = allow(Permission.READ_FLEET),
    text: Text = None,
    tag: Word = None,
    removed: bool = False,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Agents in the order of their enrolment."""
    async with caller.pool.acquire() as connection:
        rows = await agents.list_agents(
            connection, text=text, tag=tag, removed=removed, after=position(cursor), limit=limit + 1
        )
    interval = caller.context.settings.check_in_interval
    return page("agents", [_shown(row, interval) for row in rows], limit)


@router.get("/agents/{agent_id}")
async def show_agent(agent_id: uuid.UUID, caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """One agent: what it is, whether it is there, what it last said of itself."""
    async with caller.pool.acquire() as connection:
        return _shown(await agents.show(connection, agent_id), caller.context.settings.check_in_interval)


@router.patch("/agents/{agent_id}")
async def change_agent(
    agent_id: uuid.UUID, body: AgentChange, caller: Caller = allow(Permission.MANAGE_AGENTS)
) -> dict[str, Any]:
    """Renames or tags an agent."""
    async with caller.pool.acquire() as connection:
        await agents.rename(connection, caller.actor, agent_id, name=body.name, tags=body.tags)
        return _shown(await agents.show(connection, agent_id), caller.context.settings.check_in_interval)


@router.delete("/agents/{agent_id}")
async def remove_agent(agent_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_AGENTS)) -> dict[str, Any]:
    """Removes an agent: its tokens end, its live commands are cancelled, its history stays."""
    async with caller.pool.acquire() as connection, connection.transaction():
        cancelled = await agents.remove(connection, caller.actor, agent_id)
        await outcomes.command_cancelled(connection, caller.actor, cancelled)
    caller.context.authenticator.forget_all()
    return {"message": "agent removed", "cancelled_commands": len(cancelled)}


@router.get("/enrolment-tokens")
async def list_enrolment_tokens(caller: Caller = allow(Permission.MANAGE_ENROLMENT)) -> dict[str, Any]:
    """Enrolment tokens, without the tokens themselves."""
    async with caller.pool.acquire() as connection:
        return {"enrolment_tokens": await enrolment.list_tokens(connection)}


@router.post("/enrolment-tokens", status_code=201)
async def make_enrolment_token(
    body: NewEnrolmentToken, caller: Caller = allow(Permission.MANAGE_ENROLMENT)
) -> dict[str, Any]:
    """Makes an enrolment token. It is shown this once, with the command to paste on the host."""
    async with caller.pool.acquire() as connection:
        token, row = await enrolment.create(
            connection,
            caller.actor,
            label=body.label,
            seats=body.seats,
            hours=body.hours,
            first_scan=body.first_scan,
        )
    return row | {"token": token, "command": enrolment.pasted(caller.context.settings.url, token)}


@router.delete("/enrolment-tokens/{token_id}")
async def revoke_enrolment_token(
    token_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_ENROLMENT)
) -> dict[str, Any]:
    """Ends an enrolment token; who enrolled with it stays."""
    async with caller.pool.acquire() as connection:
        await enrolment.revoke(connection, caller.actor, token_id)
    return {"message": "enrolment token revoked"}
