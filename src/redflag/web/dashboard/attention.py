"""What needs a person now, the most urgent first: each with what happened and the page where one acts.

Made of what the summary knows, by rules that need no database; what is still being gathered has nothing to say yet. What a
visitor may not read is not told to them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from redflag import words
from redflag.access.roles import Permission
from redflag.publishing.sender import UNREACHABLE_AFTER
from redflag.updates import listing
from redflag.updates.states import Severity, Status
from redflag.web.background import MONTHS_AHEAD_AT_LEAST
from redflag.web.dashboard.summary import Seen

May = Callable[[str], bool]

# The sweep and the log never stand still for so long while they work, in seconds
SWEEP_SILENT = 60.0
LOG_WAITS = 60.0


class Urgency(enum.IntEnum):
    """How soon: what is broken, what is going wrong, and what waits for a decision."""

    NOW = 0
    SOON = 1
    WAITS = 2


@dataclass(frozen=True)
class Need:
    """One thing: what is the matter, what it means, and where to act: a path of the dashboard with the link's words, or none."""

    urgency: Urgency
    title: str
    text: str = ""
    to: str = ""
    link: str = ""


def needs(seen: Seen, may: May) -> list[Need]:
    """Everything that needs a person, the most urgent first."""
    found = [
        *_alerts(seen, may),
        *_service(seen),
        *_audit(seen, may),
        *_places(seen, may),
        *_fleet(seen),
        *_updates(seen),
    ]
    return sorted(found, key=lambda need: need.urgency)


def _alerts(seen: Seen, may: May) -> Iterator[Need]:
    for one in seen.trouble.alerts if seen.trouble else []:
        urgency = Urgency.NOW if one.rule.severity == "critical" else Urgency.SOON
        to, link = _WHERE.get(one.rule.kind, ("/history?kind=service", "See the history"))
        allowed = may(_READS.get(to.partition("?")[0], Permission.READ_FLEET))
        yield Need(urgency, one.rule.summary, f"{one.rule.next_step}.", to if allowed else "", link if allowed else "")


_WHERE = {
    "sweep_failed": ("/timeouts", "See the sweeps"),
    "log_target_failed": ("/settings/targets", "See the targets"),
    "forwarder_failed": ("/settings/forwarders", "See the receivers"),
}
_READS = {
    "/history": Permission.READ_HISTORY,
    "/settings/targets": Permission.READ_AUDIT,
    "/settings/forwarders": Permission.READ_AUDIT,
}


def _service(seen: Seen) -> Iterator[Need]:
    if seen.service is None:
        return
    status = seen.service.status
    since = [one["seconds_since_success"] for one in status["replicas"] if one["seconds_since_success"] is not None]
    if since and min(since) > SWEEP_SILENT:
        yield Need(
            Urgency.NOW,
            f"Nobody has swept for {words.rough(min(since))}",
            "Commands past their deadline are not ended. See the server's log.",
            "/timeouts",
            "See the sweeps",
        )
    elif status["lag_seconds"] > SWEEP_SILENT:
        yield Need(
            Urgency.SOON,
            f"{words.count(status['overdue'], 'command')} past their deadline",
            f"The sweep is {words.length(status['lag_seconds'])} behind.",
            "/timeouts",
            "See the sweeps",
        )


def _audit(seen: Seen, may: May) -> Iterator[Need]:
    if seen.audit is None:
        return
    log, examined = seen.audit.log, seen.audit.fsck
    if examined and examined["result"] != "success" and may(Permission.READ_HISTORY):
        yield Need(
            Urgency.NOW,
            "The last fsck found the audit trail not whole",
            examined["message"] or "",
            "/history?action=fsck",
            "See the record",
        )
    if seen.audit.passed_over:
        yield Need(
            Urgency.NOW,
            f"{words.count(len(seen.audit.passed_over), 'record')} cannot be taken into the log",
            seen.audit.passed_over[0]["why"] or "Run `redflag doctor`: it says which, and why.",
        )
    elif log["lag_seconds"] > LOG_WAITS:
        yield Need(
            Urgency.NOW,
            f"Records have waited {words.rough(log['lag_seconds'])} for their position in the log",
            "The log does not go on. Run `redflag doctor`, and see the server's log.",
        )
    if seen.audit.months_ahead < MONTHS_AHEAD_AT_LEAST:
        yield Need(
            Urgency.SOON,
            f"Partitions of the record wait for {words.count(seen.audit.months_ahead, 'month')} only",
            "Records of later months go to the default partition. Run `redflag doctor`.",
        )


def _places(seen: Seen, may: May) -> Iterator[Need]:
    """What the alerts do not say because it has lasted: each place that takes nothing."""
    if seen.trouble is None or not may(Permission.READ_AUDIT):
        return
    for one in seen.trouble.targets:
        if one["enabled"] and one["failures_in_a_row"] >= UNREACHABLE_AFTER:
            yield Need(
                Urgency.SOON,
                f"Checkpoints do not reach {one['kind']} {one['name']}",
                f"{words.count(one['failures_in_a_row'], 'try', 'tries')} in a row failed: {one['last_error'] or 'no answer'}",
                "/settings/targets",
                "See the targets",
            )
    for one in seen.trouble.forwarders:
        if one["enabled"] and one["failing_since"]:
            yield Need(
                Urgency.SOON,
                f"Records do not reach {one['name']}",
                f"{words.count(one['lag'], 'record')} wait to be sent: {one['last_error'] or 'no answer'}",
                "/settings/forwarders",
                "See the receivers",
            )


def _fleet(seen: Seen) -> Iterator[Need]:
    if seen.agents and (lost := seen.agents["lost"]):
        yield Need(
            Urgency.SOON,
            f"{words.count(lost, 'agent')} {'is' if lost == 1 else 'are'} lost",
            "Not heard of for a day or longer. See whether the host is there, or remove the agent.",
            "/agents?presence=lost",
            "See which",
        )


def _updates(seen: Seen) -> Iterator[Need]:
    if seen.updates is None:
        return
    if failed := sum(seen.updates.of(Status.FAILED).values()):
        yield Need(
            Urgency.SOON,
            f"{words.count(failed, 'update')} failed to install",
            "See why, then try again or reject.",
            f"/updates?status={Status.FAILED}",
            "See which",
        )
    if many := seen.updates.to_confirm:
        counted = f"{many:,} or more updates wait" if many >= listing.MOST_TO_CONFIRM else _wait(many)
        yield Need(
            Urgency.WAITS,
            f"{counted} for a yes to their dependencies",
            "The dry run says what would be installed with them.",
            f"/updates?status={Status.DEPENDENCIES}",
            "See what comes with them",
        )
    waiting = {severity: many for severity, many in seen.updates.of(Status.PENDING).items() if many}
    if waiting:
        grave = waiting.keys() & {Severity.CRITICAL, Severity.IMPORTANT}
        worst = next(iter(waiting))
        yield Need(
            Urgency.SOON if Severity.CRITICAL in waiting else Urgency.WAITS,
            f"{_wait(sum(waiting.values()))} for a decision",
            ", ".join(f"{many:,} {_SPOKEN.get(severity, severity)}" for severity, many in waiting.items()) + ".",
            f"/updates?status={Status.PENDING}" + (f"&severity={worst}" if grave else ""),
            f"Decide on the {worst} ones" if grave else "Decide",
        )


_SPOKEN = {Severity.UNKNOWN: "of unknown severity"}


def _wait(many: int) -> str:
    return f"{words.count(many, 'update')} {'waits' if many == 1 else 'wait'}"
