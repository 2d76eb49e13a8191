"""The vocabulary of commands: states, results, and which state may follow which. THE table; it has no other home.

The CHECK constraints, the transition function in SQL, the API's enums, the dashboard's labels and the table in the
documentation are held against this module by tests, pair by pair, on a real database.
"""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """Where a command is in its life."""

    PENDING = "pending"
    SENT = "sent"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class Result(enum.StrEnum):
    """What a record says came of it: the status it led to, and for an end what was reported."""

    SUCCESS = "success"
    FAILED = "failed"
    ERROR = "error"
    PENDING = "pending"
    TIMED_OUT = "timed_out"
    SENT = "sent"
    RUNNING = "running"
    PARTIAL = "partial"
    CANCELLED = "cancelled"
    DENIED = "denied"


class Kind(enum.StrEnum):
    """Where a record comes from. Only transitions are replayed."""

    TRANSITION = "transition"
    LATE_RESULT = "late_result"
    NOTE = "note"
    CHANGE = "change"
    ACCESS = "access"
    SERVICE = "service"
    IMPORT = "import"
    ERASURE = "erasure"
    SNAPSHOT = "snapshot"


class DeadlineKind(enum.StrEnum):
    """Which of a command's deadlines is the nearest."""

    DELIVERY = "delivery"
    START = "start"
    EXECUTION = "execution"
    IDLE = "idle"


LIVE = frozenset({Status.PENDING, Status.SENT, Status.RUNNING})
TERMINAL = frozenset(Status) - LIVE

# old: the states that the server may lead it to. A state that leads to itself: sent is handed out again, pending has its
# parameters changed, running has its times corrected. pending → running/completed/failed only of what was handed out once
# and taken back: its agent had it after all.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(Status),
    Status.SENT: frozenset(Status),
    Status.RUNNING: frozenset({Status.RUNNING, Status.COMPLETED, Status.FAILED, Status.TIMED_OUT, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.TIMED_OUT: frozenset(),
    Status.CANCELLED: frozenset(),
}
# These need that the command was handed out before
AFTER_DELIVERY = frozenset({Status.RUNNING, Status.COMPLETED, Status.FAILED})

# What a record of a transition to the status may say; the first is what it says when nothing else was reported
RESULTS: dict[Status, tuple[Result, ...]] = {
    Status.PENDING: (Result.PENDING,),
    Status.SENT: (Result.SENT,),
    Status.RUNNING: (Result.RUNNING,),
    Status.COMPLETED: (Result.SUCCESS, Result.PARTIAL),
    Status.FAILED: (Result.FAILED, Result.ERROR),
    Status.TIMED_OUT: (Result.TIMED_OUT,),
    Status.CANCELLED: (Result.CANCELLED,),
}

# What agents say of a command's end, RedFlag's own included, and what it means here. Whatever else they say is kept
# verbatim in the record and taken for an error: an unknown word is no success.
REPORTED: dict[str, Result] = {
    "success": Result.SUCCESS,
    "completed": Result.SUCCESS,
    "installed": Result.SUCCESS,
    "partial": Result.PARTIAL,
    "failed": Result.FAILED,
    "failure": Result.FAILED,
    "error": Result.ERROR,
    "timed_out": Result.FAILED,
    "cancelled": Result.FAILED,
}


def outcome_of(reported: str) -> tuple[Status, Result]:
    """The end that an agent's word stands for: status and result. Unknown words are (failed, error)."""
    result = REPORTED.get(reported.strip().lower(), Result.ERROR)
    ended = Status.COMPLETED if result in RESULTS[Status.COMPLETED] else Status.FAILED
    return ended, result
