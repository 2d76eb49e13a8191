"""How states and results are shown: word, colour and icon. A test holds every table here against the vocabulary it stands for.

A colour is never alone: its word stands beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from redflag.access.roles import Role
from redflag.commands.states import DeadlineKind, Kind, Result
from redflag.commands.states import Status as CommandStatus
from redflag.fleet.agents import Presence
from redflag.updates.states import Severity
from redflag.updates.states import Status as UpdateStatus


class Label(NamedTuple):
    """A word, and the colour of its badge in the kit's names."""

    word: str
    colour: str


COMMANDS: dict[CommandStatus, Label] = {
    CommandStatus.PENDING: Label("waiting", "secondary"),
    CommandStatus.SENT: Label("handed out", "azure"),
    CommandStatus.RUNNING: Label("running", "blue"),
    CommandStatus.COMPLETED: Label("completed", "green"),
    CommandStatus.FAILED: Label("failed", "red"),
    CommandStatus.TIMED_OUT: Label("timed out", "orange"),
    CommandStatus.CANCELLED: Label("cancelled", "secondary"),
}
RESULTS: dict[Result, Label] = {
    Result.SUCCESS: Label("success", "green"),
    Result.FAILED: Label("failed", "red"),
    Result.ERROR: Label("error", "red"),
    Result.PENDING: Label("enqueued", "secondary"),
    Result.TIMED_OUT: Label("timed out", "orange"),
    Result.SENT: Label("handed out", "azure"),
    Result.RUNNING: Label("started", "blue"),
    Result.PARTIAL: Label("in part", "yellow"),
    Result.CANCELLED: Label("cancelled", "secondary"),
    Result.DENIED: Label("refused", "red"),
}
KINDS: dict[Kind, Label] = {
    Kind.TRANSITION: Label("command", "blue"),
    Kind.LATE_RESULT: Label("late result", "orange"),
    Kind.NOTE: Label("note", "secondary"),
    Kind.CHANGE: Label("change", "purple"),
    Kind.ACCESS: Label("access", "cyan"),
    Kind.SERVICE: Label("service", "secondary"),
    Kind.IMPORT: Label("import", "secondary"),
    Kind.ERASURE: Label("erasure", "red"),
    Kind.SNAPSHOT: Label("snapshot", "secondary"),
}
DEADLINES: dict[DeadlineKind, str] = {
    DeadlineKind.DELIVERY: "to be handed out",
    DeadlineKind.START: "to be acknowledged",
    DeadlineKind.EXECUTION: "to finish",
    DeadlineKind.IDLE: "to show progress",
}
PRESENCE: dict[Presence, Label] = {
    Presence.ONLINE: Label("online", "green"),
    Presence.LATE: Label("late", "orange"),
    Presence.LOST: Label("lost", "red"),
}
UPDATES: dict[UpdateStatus, Label] = {
    UpdateStatus.PENDING: Label("to decide", "secondary"),
    UpdateStatus.DEPENDENCIES: Label("dependencies", "azure"),
    UpdateStatus.APPROVED: Label("approved", "blue"),
    UpdateStatus.REJECTED: Label("rejected", "secondary"),
    UpdateStatus.INSTALLING: Label("installing", "blue"),
    UpdateStatus.INSTALLED: Label("installed", "green"),
    UpdateStatus.UNCONFIRMED: Label("to be confirmed", "yellow"),
    UpdateStatus.FAILED: Label("failed", "red"),
}
SEVERITIES: dict[Severity, Label] = {
    Severity.CRITICAL: Label("critical", "red"),
    Severity.IMPORTANT: Label("important", "orange"),
    Severity.MODERATE: Label("moderate", "yellow"),
    Severity.LOW: Label("low", "azure"),
    Severity.UNKNOWN: Label("unknown", "secondary"),
}
ROLES: dict[Role, str] = {
    Role.ADMIN: "may do everything",
    Role.OPERATOR: "runs the fleet: commands, updates, agents",
    Role.AUDITOR: "reads everything, changes nothing",
    Role.VIEWER: "sees the fleet, not its history",
}
