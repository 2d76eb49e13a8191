"""What never enters the record: the patterns of secrets, and a place to try them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from redflag.access.roles import Permission
from redflag.audit import redaction
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/redaction", route_class=GuardedRoute, include_in_schema=False)
LONGEST = 20_000


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """The patterns that hold here."""
    return _page(request, visitor, "")


@router.post("")
async def try_out(
    request: Request,
    text: Annotated[str, Form(max_length=LONGEST)] = "",
    visitor: Visitor = enter(Permission.READ_AUDIT),
) -> Response:
    """What would be left of a text. Nothing of it is kept."""
    return _page(request, visitor, text)


def _page(request: Request, visitor: Visitor, text: str) -> Response:
    return settings_page(
        request, visitor, "redaction.html", names=sorted(redaction.PATTERNS), own=visitor.context.settings.redact,
        text=text, left=redaction.text(text) if text else "", mark=redaction.MARK,
    )  # fmt: skip
