"""Enrolment tokens: with which hosts become agents. They are made on the page where a host is enrolled."""

from __future__ import annotations

import uuid

from fastapi import APIRouter, Request, Response

from redflag.access import enrolment
from redflag.access.roles import Permission
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/enrolment", route_class=GuardedRoute, include_in_schema=False)
MANAGER = enter(Permission.MANAGE_ENROLMENT)


@router.get("")
async def show(request: Request, visitor: Visitor = MANAGER) -> Response:
    """Every enrolment token, without the tokens themselves."""
    async with visitor.pool.acquire() as connection:
        rows = await enrolment.list_tokens(connection)
    return settings_page(request, visitor, "enrolment.html", tokens=rows)


@router.post("/{token_id}/revoke")
async def revoke(request: Request, token_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Ends an enrolment token; who enrolled with it stays."""
    async with visitor.pool.acquire() as connection:
        row = await enrolment.revoke(connection, visitor.actor, token_id)
    return done(request, f"Nobody enrols with {row['label']} any more", subjects={"settings"})
