"""Every page of the dashboard, added to the admin app."""

from __future__ import annotations

from fastapi import FastAPI

from redflag.web.dashboard import (
    agents,
    assets,
    commands,
    entrance,
    errors,
    history,
    live,
    overview,
    timeouts,
    update_batches,
    update_one,
    updates,
)
from redflag.web.dashboard.settings import about, enrolment, forwarders, people, redaction, retention, targets, tokens

SETTINGS = (about, people, tokens, enrolment, targets, forwarders, retention, redaction)
ROOMS = (
    overview,
    agents,
    updates,
    update_batches,
    update_one,
    commands,
    history,
    timeouts,
    *SETTINGS,
    entrance,
    live,
    assets,
)


def add_to(admin: FastAPI) -> None:
    """The pages, each of which says whom it lets in."""
    for room in ROOMS:
        admin.include_router(room.router)
    errors.install(admin)
