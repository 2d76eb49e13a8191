"""What needs a person is said, the most urgent first, with the page where one acts, and to nobody who may not read it."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from redflag.access.roles import PERMISSIONS, Permission, Role
from redflag.alerts import rules
from redflag.updates import listing
from redflag.updates.states import Severity, Status
from redflag.web.dashboard import attention
from redflag.web.dashboard.attention import Urgency
from redflag.web.dashboard.summary import Audit, Seen, Service, Trouble

NOW = datetime.datetime(2030, 1, 31, 12, tzinfo=datetime.UTC)
REPLICA = {"seconds_since_success": 2.0}
STATUS: dict[str, Any] = {"replicas": [REPLICA], "lag_seconds": 0.0, "overdue": 0}
LOG: dict[str, Any] = {"lag_seconds": 0.0, "pending": 3}
CALM = Seen(
    agents={"online": 5, "late": 1, "lost": 0},
    updates=listing.Open({(Status.INSTALLED, Severity.CRITICAL): 7, (Status.REJECTED, Severity.LOW): 1}, 0),
    commands=({"pending": 1}, None),
    day=None,
    service=Service(STATUS, 0, [], []),
    audit=Audit(LOG, [], 12, {"result": "success", "message": "whole", "executed_at": NOW}),
    trouble=Trouble([], [], []),
    at=NOW,
)


def may(role: Role = Role.ADMIN) -> attention.May:
    return lambda permission: Permission(permission) in PERMISSIONS[role]


def told(role: Role = Role.ADMIN, **changed: Any) -> list[attention.Need]:
    return attention.needs(dataclasses.replace(CALM, **changed), may(role))


def firing(name: str) -> rules.Firing:
    return rules.Firing(next(rule for rule in rules.RULES if rule.name == name), 5, "detail")


def updates(to_confirm: int = 0, **counted: int) -> listing.Open:
    pairs = (name.split("__") for name in counted)
    return listing.Open(
        {(Status(one), Severity(two)): many for (one, two), many in zip(pairs, counted.values(), strict=True)}, to_confirm
    )  # fmt: skip


def test_where_all_is_well_nothing_needs_anybody() -> None:
    assert told() == []


def test_what_is_not_known_yet_has_nothing_to_say() -> None:
    nothing = Seen(None, None, None, None, None, None, None, None)
    assert attention.needs(nothing, may()) == []
    assert not nothing.whole


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_every_alert_is_told_with_its_next_step(rule: rules.Rule) -> None:
    (need,) = told(trouble=Trouble([rules.Firing(rule, 9, "")], [], []))
    assert need.title == rule.summary
    assert rule.next_step in need.text
    assert need.urgency == (Urgency.NOW if rule.severity == "critical" else Urgency.SOON)
    assert need.to


def test_a_link_leads_only_to_what_one_may_read() -> None:
    (need,) = told(Role.VIEWER, trouble=Trouble([firing("RedFlagConstraintViolation")], [], []))
    assert (need.to, need.link) == ("", "")
    (need,) = told(Role.OPERATOR, trouble=Trouble([firing("RedFlagConstraintViolation")], [], []))
    assert need.to == "/history?kind=service"


def test_a_sweep_that_stands_still_is_urgent() -> None:
    status = STATUS | {"replicas": [{"seconds_since_success": 200.0}, {"seconds_since_success": None}]}
    (need,) = told(service=Service(status, 0, [], []))
    assert need == attention.Need(
        Urgency.NOW,
        "Nobody has swept for 3 min",
        "Commands past their deadline are not ended. See the server's log.",
        "/timeouts",
        "See the sweeps",
    )
    status = STATUS | {"lag_seconds": 90.0, "overdue": 12}
    (need,) = told(service=Service(status, 0, [], []))
    assert (need.urgency, need.title) == (Urgency.SOON, "12 commands past their deadline")


def test_a_log_that_stands_still_is_urgent() -> None:
    (need,) = told(audit=dataclasses.replace(CALM.audit, log=LOG | {"lag_seconds": 700.0}))
    assert (need.urgency, need.title) == (Urgency.NOW, "Records have waited 11 min for their position in the log")
    (need,) = told(audit=dataclasses.replace(CALM.audit, passed_over=[{"id": "x", "seconds": 90, "why": "too large"}]))
    assert (need.title, need.text) == ("1 record cannot be taken into the log", "too large")


def test_a_failed_fsck_is_told_to_whoever_may_read_the_history() -> None:
    bad = dataclasses.replace(CALM.audit, fsck={"result": "failed", "message": "leaf 7 differs", "executed_at": NOW})
    (need,) = told(audit=bad)
    assert (need.urgency, need.text) == (Urgency.NOW, "leaf 7 differs")
    assert told(Role.VIEWER, audit=bad) == []


def test_few_months_ahead_are_told() -> None:
    (need,) = told(audit=dataclasses.replace(CALM.audit, months_ahead=1))
    assert need.title == "Partitions of the record wait for 1 month only"


def test_places_that_take_nothing_are_told_to_whoever_may_read_them() -> None:
    target = {"kind": "witness", "name": "north", "enabled": True, "failures_in_a_row": 7, "last_error": "refused"}
    calm = target | {"name": "south", "failures_in_a_row": 1}
    off = target | {"name": "east", "enabled": False}
    receiver = {"name": "siem", "enabled": True, "failing_since": NOW, "lag": 40, "last_error": None}
    trouble = Trouble([], [target, calm, off], [receiver, receiver | {"failing_since": None}])
    assert [need.title for need in told(Role.AUDITOR, trouble=trouble)] == [
        "Checkpoints do not reach witness north",
        "Records do not reach siem",
    ]
    assert told(Role.OPERATOR, trouble=trouble) == []


def test_lost_agents_and_failed_installations_lead_to_their_lists() -> None:
    one, other = told(agents={"online": 0, "late": 0, "lost": 1}, updates=updates(failed__low=2))
    assert (one.title, one.to) == ("1 agent is lost", "/agents?presence=lost")
    assert (other.title, other.to) == ("2 updates failed to install", "/updates?status=failed")


def test_decisions_are_told_by_severity_the_worst_first() -> None:
    (need,) = told(updates=updates(pending__low=3, pending__critical=1, pending__unknown=2, approved__critical=9))
    assert need.title == "6 updates wait for a decision"
    assert need.text == "1 critical, 3 low, 2 of unknown severity."
    assert (need.urgency, need.to) == (Urgency.SOON, "/updates?status=pending&severity=critical")
    (need,) = told(updates=updates(pending__low=1))
    assert (need.urgency, need.title, need.to) == (
        Urgency.WAITS,
        "1 update waits for a decision",
        "/updates?status=pending",
    )


@pytest.mark.parametrize(
    ("many", "said"), [(1, "1 update waits"), (7, "7 updates wait"), (1000, "1,000 or more updates wait")]
)
def test_dependencies_wait_for_a_yes(many: int, said: str) -> None:
    (need,) = told(updates=updates(many))
    assert need.title == f"{said} for a yes to their dependencies"


def test_the_most_urgent_comes_first() -> None:
    urgencies = [
        need.urgency
        for need in told(
            agents={"online": 0, "late": 0, "lost": 3},
            updates=updates(4, pending__moderate=1),
            trouble=Trouble([firing("RedFlagLogStopped"), firing("RedFlagTimeoutServiceFails")], [], []),
        )
    ]
    assert urgencies == sorted(urgencies)
    assert urgencies[0] == Urgency.NOW
