"""Every page of the dashboard, added to the admin app."""

from __future__ import annotations

from fastapi import FastAPI

from redflag.web.dashboard import (
    agents,
    assets,
    command_detail,
    command_new,
    commands,
    entrance,
    errors,
    history,
    live,
    overview,
    settings,
    timeouts,
    updates,
)

ROOMS = (
    overview, agents, updates, commands, command_new, command_detail, history, timeouts, settings, entrance, live, assets,
)  # fmt: skip


def add_to(admin: FastAPI) -> None:
    """The pages, each of which says whom it lets in."""
    for room in ROOMS:
        admin.include_router(room.router)
    errors.install(admin)
