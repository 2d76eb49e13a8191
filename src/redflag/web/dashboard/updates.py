"""Updates: what can be updated where, and the decisions about it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from redflag.access.roles import Permission
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/updates", route_class=GuardedRoute, include_in_schema=False)


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """The page."""
    return page(request, visitor, "updates.html")
