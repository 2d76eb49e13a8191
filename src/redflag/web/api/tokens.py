"""API tokens: for programs. Stored hashed, scoped to a role, shown once."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from redflag.access import tokens
from redflag.access.roles import Permission, Role
from redflag.web.api.fields import Body
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/tokens", tags=["access"], route_class=GuardedRoute)


class NewToken(Body):
    """What the token is called, what it may do, and for how long."""

    name: str = Field(min_length=1, max_length=255)
    role: Role = Role.VIEWER
    hours: int | None = Field(None, ge=1, le=87_600)


@router.get("")
async def list_tokens(caller: Caller = allow(Permission.MANAGE_TOKENS)) -> dict[str, Any]:
    """API tokens, without the tokens themselves."""
    async with caller.pool.acquire() as connection:
        return {"tokens": await tokens.list_tokens(connection)}


@router.post("", status_code=201)
async def make_token(body: NewToken, caller: Caller = allow(Permission.MANAGE_TOKENS)) -> dict[str, Any]:
    """Makes an API token of a role that is not above one's own. It is shown this once."""
    async with caller.pool.acquire() as connection:
        token, row = await tokens.create(
            connection,
            caller.actor,
            body.name,
            body.role,
            giver=caller.principal.role or Role.VIEWER,
            hours=body.hours,
            user_id=caller.principal.user_id,
        )
    return row | {"token": token}


@router.delete("/{token_id}")
async def revoke_token(token_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_TOKENS)) -> dict[str, Any]:
    """Ends a token, within 5 s on every server process."""
    async with caller.pool.acquire() as connection:
        await tokens.revoke(connection, caller.actor, token_id)
    caller.context.authenticator.forget_all()
    return {"message": "token revoked"}
