"""What `redflag doctor` thinks of what it finds."""

from __future__ import annotations

from typing import Any

import pytest

from redflag.alerts.rules import RULES
from redflag.cli import checks
from redflag.cli.checks import Verdict

GIB = 1024**3
QUIET: dict[str, Any] = {"replicas": [], "overdue": 0, "lag_seconds": 0.0, "recent_failures": 0}


def test_the_whole_is_as_bad_as_its_worst_check_and_what_was_not_checked_is_no_fault() -> None:
    good, unknown = checks.ok("a", "b"), checks.not_checked("a", "no access")
    bad, worse = checks.warning("a", "b", "c"), checks.failed("a", "b", "c")
    assert checks.worst([good, unknown]) == Verdict.OK
    assert checks.worst([good, bad, unknown]) == Verdict.WARNING
    assert checks.worst([bad, worse, good]) == Verdict.FAILED


@pytest.mark.parametrize(
    ("number", "verdict"), [(170_009, Verdict.FAILED), (180_000, Verdict.OK), (190_002, Verdict.OK)]
)
def test_a_postgresql_older_than_18_fails(number: int, verdict: Verdict) -> None:
    assert checks.version(number).verdict == verdict


@pytest.mark.parametrize(
    ("state", "verdict", "said"),
    [
        ("applied", Verdict.OK, "all 1 applied"),
        ("pending", Verdict.FAILED, "not applied: 0001 record"),
        ("changed", Verdict.FAILED, "changed"),
        ("unknown", Verdict.FAILED, "newer"),
    ],
)
def test_migrations_must_be_those_of_this_release(state: str, verdict: Verdict, said: str) -> None:
    found = checks.migrations([{"version": 1, "name": "record", "state": state}])
    assert found.verdict == verdict
    assert said in found.found


@pytest.mark.parametrize(
    ("skew", "uncertainty", "verdict"),
    [
        (0.0, 0.01, Verdict.OK),
        (1.9, 0.0, Verdict.OK),
        (2.5, 0.1, Verdict.WARNING),
        (-9.0, 0.1, Verdict.WARNING),
        (2.5, 1.0, Verdict.OK),
    ],
)
def test_a_clock_that_is_more_than_two_seconds_off_is_warned_of(
    skew: float, uncertainty: float, verdict: Verdict
) -> None:
    assert checks.clock(skew, uncertainty).verdict == verdict


def test_a_clock_is_said_to_be_ahead_or_behind() -> None:
    assert checks.clock(5, 0).found == "this host's clock is 5 s ahead of the database"
    assert checks.clock(-5, 0).found == "this host's clock is 5 s behind the database"
    assert checks.clock(0, 0).found == "this host's clock agrees"


def test_a_timeout_service_that_swept_just_now_is_well() -> None:
    assert [one.verdict for one in checks.sweeper(QUIET, 3.0)] == [Verdict.OK] * 3


@pytest.mark.parametrize("seconds", [None, 61.0])
def test_a_timeout_service_that_is_silent_fails(seconds: float | None) -> None:
    assert checks.sweeper(QUIET, seconds)[0].verdict == Verdict.FAILED


def test_a_silent_timeout_service_is_told_with_its_last_error() -> None:
    state = QUIET | {"replicas": [{"last_error": "OSError: disk"}]}
    assert "OSError: disk" in checks.sweeper(state, 100.0)[0].found


def test_overdue_commands_and_failed_sweeps_are_warned_of() -> None:
    _, lag, failures = checks.sweeper(QUIET | {"overdue": 3, "lag_seconds": 30.0, "recent_failures": 2}, 1.0)
    assert (lag.verdict, lag.found) == (Verdict.WARNING, "3 commands overdue, the longest by 30 s")
    assert (failures.verdict, failures.found) == (Verdict.WARNING, "2 sweeps failed in the last 5 minutes")


def test_each_alert_is_shown_whether_it_fires_or_not() -> None:
    firing = {
        "name": RULES[1].name,
        "severity": "critical",
        "summary": "",
        "faults": 1,
        "last_detail": "agents_pkey",
        "next_step": "",
    }
    found = checks.alerts([firing])
    assert [one.verdict for one in found] == [Verdict.FAILED if rule is RULES[1] else Verdict.OK for rule in RULES]
    assert found[1].found == f"{RULES[1].summary} (1 fault in 5 min; the last: agents_pkey)"
    assert found[1].next_step == RULES[1].next_step


LOG: dict[str, Any] = {"pending": 0, "unpublished_seconds": 0.0, "size": 1200, "passed_over": [], "why": ""}


def test_a_log_in_which_all_is_signed_is_well_and_one_that_is_behind_is_warned_of() -> None:
    well = checks.audit_log(LOG, None)
    assert (well.verdict, well.found) == (Verdict.OK, "1,200 records in the newest checkpoint")
    busy = checks.audit_log(LOG | {"pending": 3, "unpublished_seconds": 0.5}, None)
    assert (busy.verdict, busy.found) == (
        Verdict.OK,
        "1,200 records in the newest checkpoint, 3 waiting, the oldest for 0.5 s",
    )
    assert checks.audit_log(LOG | {"pending": 3, "unpublished_seconds": 61.0}, None).verdict == Verdict.WARNING


def test_a_log_that_does_not_go_on_fails_with_the_reason_and_the_way_on() -> None:
    stopped = LOG | {"pending": 9, "unpublished_seconds": 20.0}
    said = checks.audit_log(stopped, "The key is another.")
    assert said.verdict == Verdict.FAILED
    assert "it does not go on: The key is another (1,200 records" in said.found
    rolled_back = checks.audit_log(stopped | {"why": "the database was rolled back"}, "something")
    assert rolled_back.verdict == Verdict.FAILED
    assert "rolled back" in rolled_back.found
    assert "redflag audit reopen" in rolled_back.next_step
    # It was stopped some minutes ago, and goes on
    assert checks.audit_log(LOG, "The key is another.").verdict == Verdict.OK


def test_what_the_server_said_of_the_log_is_that_of_its_alert() -> None:
    assert checks.stopped([]) is None
    assert checks.stopped([{"name": "RedFlagLogStopped", "last_detail": "x"}]) == "x"


@pytest.mark.parametrize(("months", "verdict"), [(0, Verdict.WARNING), (2, Verdict.WARNING), (3, Verdict.OK)])
def test_fewer_than_three_months_ahead_are_warned_of(months: int, verdict: Verdict) -> None:
    assert checks.partitions(months).verdict == verdict


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(50 * GIB, Verdict.OK), (10 * GIB, Verdict.OK), (9 * GIB, Verdict.WARNING), (GIB, Verdict.FAILED)],
)
def test_a_disk_below_a_tenth_is_warned_of_and_below_a_fiftieth_fails(free: int, verdict: Verdict) -> None:
    assert checks.disk(free, 100 * GIB, "var").verdict == verdict


@pytest.mark.parametrize(
    ("limit", "agents", "verdict"),
    [(1024, 0, Verdict.WARNING), (4096, 0, Verdict.OK), (4096, 4000, Verdict.WARNING), (None, 10**6, Verdict.OK)],
)
def test_file_descriptors_must_be_enough_for_the_agents(limit: int | None, agents: int, verdict: Verdict) -> None:
    assert checks.descriptors(limit, agents, "the server").verdict == verdict


def test_secrets_that_others_may_read_fail_and_are_named() -> None:
    found = checks.permissions([("var/keys/log", 0o644, 0o600)], 1)
    assert found.verdict == Verdict.FAILED
    assert "var/keys/log has 0644" in found.found
    assert found.next_step == "chmod 0600 var/keys/log"
    assert checks.permissions([], 4).verdict == Verdict.OK


def test_a_subscription_is_warned_of() -> None:
    assert checks.subscriptions([]).verdict == Verdict.OK
    assert checks.subscriptions(["copy"]).verdict == Verdict.WARNING


@pytest.mark.parametrize(
    ("superuser", "owner", "is_server", "verdict"),
    [
        (True, True, False, Verdict.FAILED),
        (False, True, False, Verdict.FAILED),
        (False, False, False, Verdict.FAILED),
        (False, False, True, Verdict.OK),
    ],
)
def test_a_server_role_that_may_alter_the_record_fails(
    superuser: bool, owner: bool, is_server: bool, verdict: Verdict
) -> None:
    assert checks.role("redflag", superuser=superuser, owner=owner, is_server=is_server).verdict == verdict


def test_whatever_needs_attention_says_what_to_do() -> None:
    for one in (
        checks.version(170_000),
        checks.partitions(0),
        checks.disk(0, 1, "x"),
        checks.refused_records(1),
        checks.subscriptions(["x"]),
    ):
        assert one.next_step
