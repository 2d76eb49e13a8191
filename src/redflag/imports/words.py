"""RedFlag v0.1.18's words and ours: one table each, and what happens to a word that is in none of them.

A command with an unknown status and a user with an unknown role are skipped, with the word as the reason; the result of a
history record that is unknown becomes `error`, and an update's status that is unknown becomes `pending`. Whatever became
another word is kept verbatim in the record's metadata or the update's reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from redflag.access.roles import Role
from redflag.commands.states import REPORTED, Result
from redflag.commands.states import Status as CommandStatus
from redflag.updates.states import Status as UpdateStatus

# Commands. Live ones that are past their policy come in as timed_out instead ("expired before import")
COMMANDS: dict[str, CommandStatus] = {
    "pending": CommandStatus.PENDING,
    "sent": CommandStatus.SENT,
    "running": CommandStatus.RUNNING,
    "completed": CommandStatus.COMPLETED,
    "failed": CommandStatus.FAILED,
    "timed_out": CommandStatus.TIMED_OUT,
    "cancelled": CommandStatus.CANCELLED,
    "archived_failed": CommandStatus.FAILED,
}

# What history says came of it: every word of ours, and what agents say
RESULTS: dict[str, Result] = REPORTED | {str(one): one for one in Result}

# Updates, of current_package_state and of update_packages. `installing` stays so, and `checking_dependencies` becomes
# `dependencies`, only while the command that works on it is live; `pending_dependencies` needs to know them
UPDATES: dict[str, UpdateStatus] = {
    "pending": UpdateStatus.PENDING,
    "checking_dependencies": UpdateStatus.PENDING,
    "pending_dependencies": UpdateStatus.DEPENDENCIES,
    "approved": UpdateStatus.APPROVED,
    "scheduled": UpdateStatus.APPROVED,
    "installing": UpdateStatus.FAILED,
    "updated": UpdateStatus.INSTALLED,
    "installed": UpdateStatus.INSTALLED,
    "failed": UpdateStatus.FAILED,
    "ignored": UpdateStatus.REJECTED,
    "rejected": UpdateStatus.REJECTED,
}

# update_version_history.update_status; a rollback is an update that did not stay
VERSIONS: dict[str, str] = {"success": "installed", "failed": "failed", "rollback": "failed"}

# update_events.event_type. `ignored` says nothing of a version and is skipped
EVENTS: dict[str, str] = {"discovered": "available", "updated": "installed", "failed": "failed"}

# RedFlag let every user who was logged in do everything; `user` gets what daily work needs
ROLES: dict[str, Role] = {"admin": Role.ADMIN, "user": Role.OPERATOR, "readonly": Role.VIEWER} | {
    str(one): one for one in Role
}


def columns(table: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """A table of words as two arrays for a statement: theirs, and ours."""
    return list(table), [str(ours) for ours in table.values()]
