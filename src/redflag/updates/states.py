"""The updates' own vocabulary: states, which may follow which, and severities. It has no other home.

The CHECK constraint and `update_transition_is_legal` in SQL are held against this module by tests, pair by pair, on a real
database.
"""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """What was decided about an update, and how far it is."""

    PENDING = "pending"
    DEPENDENCIES = "dependencies"
    APPROVED = "approved"
    REJECTED = "rejected"
    INSTALLING = "installing"
    INSTALLED = "installed"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"


# old: the states that the server may lead it to. `dependencies`: a dry run is under way, or what it found waits for a person.
# `unconfirmed`: reported as installed, and not yet seen to be by a scan. A failure becomes `unconfirmed` when the report of
# its success comes after the timeout.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(
        {Status.DEPENDENCIES, Status.APPROVED, Status.REJECTED, Status.INSTALLING, Status.INSTALLED}
    ),
    Status.DEPENDENCIES: frozenset(
        {Status.PENDING, Status.APPROVED, Status.REJECTED, Status.INSTALLING, Status.INSTALLED, Status.FAILED}
    ),
    Status.APPROVED: frozenset(
        {Status.PENDING, Status.DEPENDENCIES, Status.REJECTED, Status.INSTALLING, Status.INSTALLED, Status.FAILED}
    ),
    Status.REJECTED: frozenset({Status.PENDING, Status.APPROVED, Status.INSTALLED}),
    Status.INSTALLING: frozenset({Status.INSTALLED, Status.UNCONFIRMED, Status.FAILED, Status.APPROVED}),
    Status.UNCONFIRMED: frozenset({Status.INSTALLED, Status.FAILED, Status.PENDING}),
    Status.FAILED: frozenset(
        {
            Status.PENDING,
            Status.APPROVED,
            Status.REJECTED,
            Status.DEPENDENCIES,
            Status.INSTALLING,
            Status.INSTALLED,
            Status.UNCONFIRMED,
        }
    ),
    Status.INSTALLED: frozenset({Status.PENDING}),
}

# What a person may decide, and from where. Narrower than what is legal: the rest is for reports and scans
APPROVABLE = frozenset({Status.PENDING, Status.DEPENDENCIES, Status.REJECTED, Status.FAILED})
REJECTABLE = frozenset({Status.PENDING, Status.DEPENDENCIES, Status.APPROVED, Status.FAILED})
EXAMINABLE = frozenset({Status.PENDING, Status.DEPENDENCIES, Status.APPROVED, Status.FAILED})

# What still asks for something to be done
OPEN = frozenset(Status) - {Status.INSTALLED, Status.REJECTED}


class Severity(enum.StrEnum):
    """How much an update matters, from least to most; `unknown` where its source does not say."""

    UNKNOWN = "unknown"
    LOW = "low"
    MODERATE = "moderate"
    IMPORTANT = "important"
    CRITICAL = "critical"


def severity_of(reported: str) -> tuple[Severity, str | None]:
    """The severity that an agent's word stands for; and the word itself if it is none of ours."""
    word = reported.strip().lower()
    try:
        return Severity(word), None
    except ValueError:
        return Severity.UNKNOWN, reported.strip() or None
