"""What `redflag doctor` thinks of what it found: one pure function for each thing that is examined.

Each takes facts and returns a Check; none of them asks the machine or a clock, so all can be tried without one. What
could not be examined is said as well, as `not checked` with the reason.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redflag import words
from redflag.alerts.rules import RULES

CLOCK_SKEW_SECONDS = 2.0
SILENT_SECONDS = 60.0
LAG_SECONDS = 5.0
LOG_SECONDS = 60.0
MONTHS_AHEAD_AT_LEAST = 3
DISK_WARN, DISK_FAIL = 0.10, 0.02
DESCRIPTORS_AT_LEAST = 4096
DESCRIPTORS_BESIDE_AGENTS = 512


class Verdict(enum.StrEnum):
    """How something stands, the best first."""

    OK = "ok"
    NOT_CHECKED = "not checked"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One thing that was examined: what was found, and what to do if it needs attention."""

    name: str
    verdict: Verdict
    found: str
    next_step: str = ""

    def as_json(self) -> dict[str, str]:
        """As --json prints it."""
        return {key: str(value) for key, value in asdict(self).items()}


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, found)


def warning(name: str, found: str, next_step: str) -> Check:
    """Something to look at, while all still works."""
    return Check(name, Verdict.WARNING, found, next_step)


def failed(name: str, found: str, next_step: str) -> Check:
    """Something does not work, or is not safe."""
    return Check(name, Verdict.FAILED, found, next_step)


def not_checked(name: str, why: str, next_step: str = "") -> Check:
    """It could not be examined."""
    return Check(name, Verdict.NOT_CHECKED, why, next_step)


def worst(checks: Sequence[Check]) -> Verdict:
    """The whole: failed or warning if one of the checks is, else ok. What was not checked is no fault."""
    found = {check.verdict for check in checks}
    return next((one for one in (Verdict.FAILED, Verdict.WARNING) if one in found), Verdict.OK)


def version(number: int) -> Check:
    """PostgreSQL 18 or newer; `number` is that of SHOW server_version_num."""
    told = f"PostgreSQL {number // 10_000}.{number % 10_000}"
    if number < 180_000:
        return failed("database version", told, "RedFlag needs PostgreSQL 18 or newer: upgrade it")
    return ok("database version", told)


def migrations(states: Sequence[dict[str, Any]]) -> Check:
    """The schema is whole, and this release's."""
    by_state: dict[str, list[str]] = {}
    for one in states:
        by_state.setdefault(one["state"], []).append(f"{one['version']:04} {one['name']}")
    if changed := by_state.get("changed"):
        return failed(
            "migrations", f"changed since they were applied: {', '.join(changed)}", "Restore the release's files"
        )
    if unknown := by_state.get("unknown"):
        return failed(
            "migrations", f"the database is newer than this release: {', '.join(unknown)}", "Start the newer release"
        )
    if pending := by_state.get("pending"):
        return failed("migrations", f"not applied: {', '.join(pending)}", "Run `redflag db migrate`")
    return ok("migrations", f"all {len(states)} applied")


def clock(skew_seconds: float, uncertainty_seconds: float) -> Check:
    """This host's clock against the database's; positive: this host is ahead. What the question itself took is no skew."""
    skew = max(0.0, abs(skew_seconds) - uncertainty_seconds)
    told = (
        f"{words.length(skew)} {'ahead of' if skew_seconds > 0 else 'behind'} the database" if skew >= 0.1 else "agrees"
    )
    if skew > CLOCK_SKEW_SECONDS:
        return warning(
            "clock",
            f"this host's clock is {told}",
            "Set it by NTP. Deadlines keep to the database's clock and are right; times on this host's screen are not",
        )
    return ok("clock", f"this host's clock {'is ' if told != 'agrees' else ''}{told}")


def sweeper(timeouts: dict[str, Any], seconds_since_success: float | None) -> list[Check]:
    """The timeout service: when it last succeeded, and how much is overdue."""
    name = "timeout service"
    start = "Start the server (`redflag up`); if it runs, see its log for the cause"
    if seconds_since_success is None:
        success = failed(name, "no sweep has ever succeeded", start)
    elif seconds_since_success > SILENT_SECONDS:
        error = next((one["last_error"] for one in timeouts["replicas"] if one["last_error"]), "")
        because = f"; the last error: {error}" if error else ""
        success = failed(name, f"the last sweep succeeded {words.length(seconds_since_success)} ago{because}", start)
    else:
        success = ok(name, f"the last sweep succeeded {words.length(seconds_since_success)} ago")
    lag, overdue = float(timeouts["lag_seconds"]), int(timeouts["overdue"])
    if lag > LAG_SECONDS:
        late = warning(
            "timeout lag",
            f"{words.count(overdue, 'command')} overdue, the longest by {words.length(lag)}",
            "It should go down by itself; if it does not, see the server's log and `redflag timeouts status`",
        )
    else:
        late = ok(
            "timeout lag", "nothing is overdue" if not overdue else f"{words.count(overdue, 'command')} due just now"
        )
    failures = int(timeouts["recent_failures"])
    if failures:
        tried = warning(
            "failed sweeps",
            f"{words.count(failures, 'sweep')} failed in the last 5 minutes",
            "See the server's log; each was tried again",
        )
    else:
        tried = ok("failed sweeps", "none in the last 5 minutes")
    return [success, late, tried]


def alerts(firing: Sequence[dict[str, Any]]) -> list[Check]:
    """The alerts of alerts/rules.py, each whether it fires."""
    by_name = {one["name"]: one for one in firing}
    checks = []
    for rule in RULES:
        title = f"alert {rule.name}"
        if one := by_name.get(rule.name):
            make = failed if rule.severity == "critical" else warning
            times = f"{words.count(int(one['faults']), 'fault')} in {words.length(rule.within.total_seconds())}"
            checks.append(make(title, f"{rule.summary} ({times}; the last: {one['last_detail']})", rule.next_step))
        else:
            checks.append(ok(title, "does not fire"))
    return checks


def stopped(alerts: Sequence[dict[str, Any]]) -> str | None:
    """What the server said when the log did not go on, if that alert fires."""
    return next((one["last_detail"] for one in alerts if one["name"] == "RedFlagLogStopped"), None)


def audit_log(state: dict[str, Any], said: str | None) -> Check:
    """The log: whether it goes on, how far it is behind, and which records it cannot take.

    `state` is what the database says of it, and in `why` what makes it another log than this server remembers. `said` is
    what the server said when it last did not go on, some minutes ago at the most; it may go on by now.
    """
    name = "audit log"
    waiting, unpublished = int(state["pending"]), float(state["unpublished_seconds"])
    far = f"{words.count(int(state['size']), 'record')} in the newest checkpoint"
    if waiting or unpublished:
        far += f", {waiting:,} waiting" + (f", the oldest for {words.length(unpublished)}" if unpublished else "")
    if why := state.get("why"):
        way_on = "Close the log and go on: `redflag audit reopen`; see docs/howto/back-up-and-restore.md"
        return failed(name, f"it does not go on: {why.rstrip('.')} ({far})", way_on)
    if passed_over := state.get("passed_over"):
        told = "; ".join(
            f"{one['id']} for {words.length(one['seconds'])}" + (f" ({one['why'].rstrip('.')})" if one["why"] else "")
            for one in passed_over
        )
        step = "They are in update_logs as they were written, and are tried again when the server starts; report them as a fault of RedFlag"
        return failed(name, f"records wait though later ones have a position: {told} ({far})", step)
    if said and unpublished > LAG_SECONDS:
        step = "The server tries on; see its log, and `redflag audit fsck`"
        return failed(name, f"it does not go on: {said.rstrip('.')} ({far})", step)
    if unpublished > LOG_SECONDS:
        step = "It should go down by itself; if it does not, start the server, or see its log"
        return warning(name, f"it is behind: {far}", step)
    return ok(name, far)


def refused_records(total: int) -> Check:
    """Records that the database refused, ever."""
    if total:
        return warning(
            "refused records",
            f"{words.count(total, 'record')} could not be written since the installation was made, nor the changes with them",
            "See `service_faults` in the database for when and why; none of these changes took place",
        )
    return ok("refused records", "none was ever refused")


def partitions(months_ahead: int) -> Check:
    """Months of update_logs that have a partition waiting."""
    told = f"{words.count(months_ahead, 'month')} of the record prepared ahead"
    if months_ahead < MONTHS_AHEAD_AT_LEAST:
        return warning("partitions", told, "A running server makes them every 6 hours: start it, or see its log")
    return ok("partitions", told)


def subscriptions(names: Sequence[str]) -> Check:
    """Logical replication into this database."""
    if names:
        return warning(
            "replication",
            f"this database subscribes to {', '.join(names)}, so that records are written twice",
            "Drop the subscription; use physical replication for a standby",
        )
    return ok("replication", "no logical subscription")


def role(user: str, *, superuser: bool, owner: bool, is_server: bool) -> Check:
    """The server's role may not be able to change what it has recorded."""
    fix = "Point REDFLAG_DATABASE_URL at the server's own role and run `redflag db migrate`"
    if superuser:
        return failed("server role", f"{user} is a superuser, who may alter the record", fix)
    if owner:
        return failed("server role", f"{user} owns the tables, and may alter the record", fix)
    if not is_server:
        return failed("server role", f"{user} is not the role that migrations ran for", fix)
    return ok("server role", f"{user} may add to the record and not change it")


def disk(free: int, total: int, folder: str) -> Check:
    """Space where the data folder is."""
    share = free / total if total else 0.0
    told = f"{words.size(free)} free of {words.size(total)} ({share:.0%}) for {folder}"
    step = "Make room: a full disk stops the database, and every command with it"
    if share < DISK_FAIL:
        return failed("disk", told, step)
    if share < DISK_WARN:
        return warning("disk", told, step)
    return ok("disk", told)


def descriptors(limit: int | None, agents: int, whose: str) -> Check:
    """File descriptors: one for each agent that waits for commands, and some besides. `limit` None: unlimited."""
    needed = max(DESCRIPTORS_AT_LEAST, agents + DESCRIPTORS_BESIDE_AGENTS)
    told = f"{whose} may open {'any number of' if limit is None else f'{limit:,}'} files at once"
    if limit is not None and limit < needed:
        return warning(
            "file descriptors", f"{told}, and {needed:,} are needed", f"Raise it: `ulimit -n {needed}`, or LimitNOFILE"
        )
    return ok("file descriptors", told)


def permissions(open_to_others: Sequence[tuple[str, int, int]], examined: int) -> Check:
    """The data folder and its secrets; each finding is a path, its mode, and the mode that it should have."""
    if open_to_others:
        told = ", ".join(f"{path} has {mode:04o}" for path, mode, _ in open_to_others[:5])
        more = f" and {len(open_to_others) - 5} more" if len(open_to_others) > 5 else ""
        step = "; ".join(f"chmod {wanted:04o} {path}" for path, _, wanted in open_to_others[:5])
        return failed("permissions", f"others may read secrets: {told}{more}", step)
    return ok("permissions", f"the data folder and {words.count(examined, 'secret file')} are the owner's alone")
