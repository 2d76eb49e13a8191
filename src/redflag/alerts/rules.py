"""The alerts, the seed's two first, in one place: the file for Prometheus and `redflag doctor` are held against it by a test.

- more than 3 failed sweeps in 5 minutes: the timeout service fails
- any constraint violation: critical
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from redflag.alerts.faults import sql


@dataclass(frozen=True)
class Rule:
    """An alert: fires when there were more than `more_than` faults of a kind within the time."""

    name: str
    kind: str
    more_than: int
    within: datetime.timedelta
    severity: str
    summary: str
    next_step: str


RULES = (
    Rule(
        "RedFlagTimeoutServiceFails",
        "sweep_failed",
        3,
        datetime.timedelta(minutes=5),
        "warning",
        "Timeout service experiencing failures",
        "Commands may be ended late. See the server's log for the cause; `redflag timeouts status` shows the lag",
    ),
    Rule(
        "RedFlagConstraintViolation",
        "constraint_violation",
        0,
        datetime.timedelta(minutes=5),
        "critical",
        "Database constraint violation detected!",
        "A change or its record was refused by the database. See the server's log, and report it as a fault of RedFlag",
    ),
    Rule(
        "RedFlagAuditWriteRefused",
        "audit_write_refused",
        0,
        datetime.timedelta(minutes=5),
        "critical",
        "An audit record was refused, and the change with it",
        "See the server's log for the table and the reason",
    ),
    Rule(
        "RedFlagLogStopped",
        "log_stopped",
        0,
        datetime.timedelta(minutes=5),
        "critical",
        "The log of the audit trail does not go on",
        "The database was rolled back or changed, or the log's key is another. `redflag doctor` says which; "
        "after a restored backup see docs/howto/back-up-and-restore.md, else run `redflag audit fsck`",
    ),
    Rule(
        "RedFlagLogRollbackSeen",
        "log_rollback_seen",
        0,
        datetime.timedelta(minutes=5),
        "critical",
        "An agent holds a checkpoint that the log does not continue",
        "Records were changed or removed, or it is shown another. Run `redflag audit fsck`, and see docs/howto/verify-the-audit-trail.md",
    ),
    Rule(
        "RedFlagLogTargetUnreachable",
        "log_target_failed",
        0,
        # A target that stays away is tried every five minutes at the least
        datetime.timedelta(minutes=10),
        "warning",
        "Checkpoints do not reach a witness or another target",
        "An alteration could go unseen for longer. See `redflag audit targets list` for which, and why",
    ),
    Rule(
        "RedFlagForwarderStuck",
        "forwarder_failed",
        0,
        datetime.timedelta(minutes=5),
        "warning",
        "A receiver of the audit trail takes no records",
        "Nothing is lost: records wait, and are sent when it takes them. See `redflag audit forward list` for which, and why",
    ),
)


@dataclass(frozen=True)
class Firing:
    """An alert that fires now."""

    rule: Rule
    faults: int
    last_detail: str


async def firing(connection: Any) -> list[Firing]:
    """The alerts that fire now."""
    recent = {
        within: {row["kind"]: row for row in await sql.recent.all(connection, within=within)}
        for within in sorted({rule.within for rule in RULES})
    }
    found = []
    for rule in RULES:
        row = recent[rule.within].get(rule.kind)
        if row and row["faults"] > rule.more_than:
            found.append(Firing(rule, row["faults"], row["last_detail"]))
    return found
