"""What runs here, and what one's own role may do."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from redflag.access.roles import PERMISSIONS, Permission, Role
from redflag.database import migrate
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings", route_class=GuardedRoute, include_in_schema=False)


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """The page."""
    here = visitor.context.settings
    async with visitor.pool.acquire() as connection:
        schema = max(one.version for one in await migrate.status(connection))
        server = await connection.fetchval("SELECT current_setting('server_version')")
    return settings_page(
        request, visitor, "about.html", here=here, schema=schema, server=server,
        fingerprint=visitor.context.signer.fingerprint, origin=visitor.context.signer.verifier.name,
        roles=[(role, sorted(PERMISSIONS[role])) for role in Role], every=sorted(Permission),
    )  # fmt: skip
