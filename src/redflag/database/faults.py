"""What the database refused to the server's own connections: violated constraints and records that could not be written.

Both should never happen. Each is logged at once, and kept in memory until `alerts` has stored it, so that a fault
that comes with a database which is away is not lost with it.
"""

from __future__ import annotations

import collections
import datetime
import logging
from dataclasses import dataclass

import asyncpg

log = logging.getLogger("redflag.database")


@dataclass(frozen=True)
class Fault:
    """One fault: `kind` as service_faults has it, when (UTC, this host's clock) and what."""

    kind: str
    occurred_at: datetime.datetime
    detail: str


# Bounded: in a storm the newest matter, and the count of what was dropped is not kept silent (see `alerts.faults`)
waiting: collections.deque[Fault] = collections.deque(maxlen=10_000)


def note(kind: str, detail: str) -> None:
    """Keeps a fault for storing. Says nothing in the log: the caller does."""
    waiting.append(Fault(kind, datetime.datetime.now(datetime.UTC), detail[:1000]))


def examine(error: asyncpg.PostgresError) -> None:
    """Called with every error of a statement of the server's own."""
    table = getattr(error, "table_name", None) or ""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        log.critical(
            "database constraint violation: %s (table %s, %s)",
            error.args[0],
            table,
            getattr(error, "constraint_name", ""),
        )
        note("constraint_violation", str(error.args[0]))
    if table.startswith("update_logs") or error.sqlstate in {"RF002", "RF004"}:
        log.critical("an audit record was refused: %s", error.args[0])
        note("audit_write_refused", str(error.args[0]))
