"""The settings' pages, and whom each is for."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from redflag.access.roles import Permission
from redflag.web.dashboard.door import Visitor
from redflag.web.dashboard.pages import page

PAGES = (
    ("/settings", "About", "info-circle", Permission.READ_FLEET),
    ("/settings/people", "People", "users", Permission.MANAGE_USERS),
    ("/settings/tokens", "API tokens", "key", Permission.MANAGE_TOKENS),
    ("/settings/enrolment", "Enrolment", "ticket", Permission.MANAGE_ENROLMENT),
    ("/settings/targets", "Checkpoints", "eye-check", Permission.READ_AUDIT),
    ("/settings/forwarders", "Forwarding", "send", Permission.READ_AUDIT),
    ("/settings/retention", "Retention", "archive", Permission.READ_AUDIT),
    ("/settings/redaction", "Redaction", "eraser", Permission.READ_AUDIT),
)


def settings_page(request: Request, visitor: Visitor, template: str, **data: Any) -> Response:
    """A page of the settings, with the menu of those that its reader may see."""
    pages = [(path, name, icon) for path, name, icon, permission in PAGES if visitor.may(permission)]
    return page(request, visitor, f"settings/{template}", pages=pages, **data)
