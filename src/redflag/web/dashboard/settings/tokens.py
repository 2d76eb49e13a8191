"""API tokens: for programs."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from redflag import words
from redflag.access import tokens
from redflag.access.roles import Permission, Role, role_of
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, fragment
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/tokens", route_class=GuardedRoute, include_in_schema=False)
MANAGER = enter(Permission.MANAGE_TOKENS)
LONGEST_SECONDS = 87_600 * 3600.0


@router.get("")
async def show(request: Request, visitor: Visitor = MANAGER) -> Response:
    """Every token, without the tokens themselves."""
    async with visitor.pool.acquire() as connection:
        rows = await tokens.list_tokens(connection)
    return settings_page(request, visitor, "tokens.html", tokens=rows, roles=list(Role))


@router.post("")
async def create(
    request: Request,
    name: Annotated[str, Form(max_length=255)] = "",
    role: Annotated[str, Form(max_length=50)] = Role.VIEWER,
    lasts: Annotated[str, Form(max_length=50)] = "",
    visitor: Visitor = MANAGER,
) -> Response:
    """Makes a token, which is shown this once."""
    hours = words.duration(lasts, LONGEST_SECONDS) / 3600 if lasts.strip() else None
    async with visitor.pool.acquire() as connection:
        token, row = await tokens.create(
            connection, visitor.actor, name, role_of(role), giver=visitor.principal.role or Role.VIEWER, hours=hours,
            user_id=visitor.principal.user_id,
        )  # fmt: skip
    shown = fragment(
        "settings/once.html", visitor, title=f"The token {row['name']}",
        text="It is shown this once. Send it as Authorization: Bearer …", secret=token,
    )  # fmt: skip
    return done(request, "", subjects={"settings"}, content=shown)


@router.post("/{token_id}/revoke")
async def revoke(request: Request, token_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Ends a token."""
    async with visitor.pool.acquire() as connection:
        row = await tokens.revoke(connection, visitor.actor, token_id)
    visitor.context.authenticator.forget_all()
    return done(request, f"The token {row['name']} opens nothing any more", subjects={"settings"})
