"""Roles and what each may do. THE table; it has no other home.

A role is a set of permissions, and nothing is asked but permissions: no code compares the names of roles. The CHECK
constraints of the database hold the same names; a test holds the two together.
"""

from __future__ import annotations

import enum

from redflag.errors import InvalidInput, NotPermitted


class Role(enum.StrEnum):
    """What somebody is to this installation."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    VIEWER = "viewer"


class Permission(enum.StrEnum):
    """What a route can ask for."""

    READ_FLEET = "read_fleet"  # agents, their state, their updates, live commands
    READ_HISTORY = "read_history"  # what happened, command by command
    READ_AUDIT = "read_audit"  # the audit trail as a whole: export, report, proofs
    READ_METRICS = "read_metrics"
    ENQUEUE = "enqueue"  # commands: enqueue, cancel, retry
    DECIDE = "decide"  # updates: approve, reject, install
    RUN_TIMEOUTS = "run_timeouts"
    MANAGE_AGENTS = "manage_agents"
    MANAGE_ENROLMENT = "manage_enrolment"
    MANAGE_POLICIES = "manage_policies"
    MANAGE_USERS = "manage_users"
    MANAGE_TOKENS = "manage_tokens"
    MANAGE_LOG = "manage_log"  # witnesses, where checkpoints and records are sent, retention, legal holds, erasure


_VIEWER = frozenset({Permission.READ_FLEET})

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.AUDITOR: _VIEWER | {Permission.READ_HISTORY, Permission.READ_AUDIT, Permission.READ_METRICS},
    Role.OPERATOR: _VIEWER
    | {
        Permission.READ_HISTORY,
        Permission.READ_METRICS,
        Permission.ENQUEUE,
        Permission.DECIDE,
        Permission.RUN_TIMEOUTS,
        Permission.MANAGE_AGENTS,
        Permission.MANAGE_ENROLMENT,
    },
    Role.ADMIN: frozenset(Permission),
}


def role_of(text: str) -> Role:
    """The role of this name. Raises InvalidInput."""
    try:
        return Role(text)
    except ValueError:
        raise InvalidInput(f"{text[:50]!r} is no role", f"Use one of {', '.join(Role)}") from None


def require_ceiling(giver: Role, given: Role) -> None:
    """Nobody gives more than they have. Raises NotPermitted when `given` may do something that `giver` may not."""
    if not PERMISSIONS[given] <= PERMISSIONS[giver]:
        raise NotPermitted(f"The role {giver} cannot give the role {given}, which may do more", "Ask an administrator")
