"""The fleet at a glance, and what needs a person now.

Everything on the page comes from the summary, which costs the same however many people look: the page itself asks the database
for nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from redflag.access.roles import Permission
from redflag.commands import waiting
from redflag.fleet.agents import online_seconds
from redflag.updates.states import OPEN
from redflag.web.dashboard import attention
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import block, page
from redflag.web.dashboard.summary import Seen
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="", route_class=GuardedRoute, include_in_schema=False)


@router.get("/")
async def show(
    request: Request,
    visitor: Visitor = enter(Permission.READ_FLEET),
    again: Annotated[str, Query(max_length=3)] = "",
) -> Response:
    """The page. `again`: its region asks once more by itself."""
    seen = await visitor.context.summary.look()
    told = "hx-request" in request.headers and not again
    return page(request, visitor, "overview.html", again_ms=seen.again(told=told), **_said(visitor, seen))


async def glance(visitor: Visitor) -> str:
    """The region that changes, as it is sent to all who keep the page open and may see the same."""
    seen = await visitor.context.summary.look()
    if again := seen.again(told=True):
        visitor.context.pulse.echo(again / 1000)
    return block("overview.html", "glance", visitor, again_ms=0, **_said(visitor, seen))


def _said(visitor: Visitor, seen: Seen) -> dict[str, Any]:
    _, oldest = seen.commands or ({}, None)
    interval = visitor.context.settings.check_in_interval
    return {
        "seen": seen,
        "needs": attention.needs(seen, visitor.may),
        "urgency": attention.Urgency,
        "open_updates": seen.updates.of(*OPEN) if seen.updates else None,
        "oldest": oldest,
        "why": waiting.of_row(oldest, interval=interval, late_after=online_seconds(interval)) if oldest else None,
    }
