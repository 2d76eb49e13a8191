"""Every page of the dashboard, added to the admin app."""

from __future__ import annotations

from fastapi import FastAPI

from redflag.web.dashboard import (
    agent,
    agents,
    assets,
    command_detail,
    command_new,
    commands,
    enrol,
    entrance,
    errors,
    history,
    history_audit,
    history_record,
    live,
    overview,
    timeouts,
    update_batches,
    update_one,
    updates,
)
from redflag.web.dashboard.settings import about, enrolment, forwarders, people, redaction, retention, targets, tokens

AGENTS = (enrol, agents, agent)
COMMANDS = (commands, command_new, command_detail)
SETTINGS = (about, people, tokens, enrolment, targets, forwarders, retention, redaction)
UPDATES = (updates, update_batches, update_one)
HISTORY = (history, history_audit, history_record)
ROOMS = (overview, *AGENTS, *UPDATES, *COMMANDS, *HISTORY, timeouts, *SETTINGS, entrance, live, assets)


def add_to(admin: FastAPI) -> None:
    """The pages, each of which says whom it lets in."""
    for room in ROOMS:
        admin.include_router(room.router)
    errors.install(admin)
