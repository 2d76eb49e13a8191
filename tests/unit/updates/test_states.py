"""The updates' vocabulary by itself."""

from __future__ import annotations

import pytest

from redflag.updates import states
from redflag.updates.states import TRANSITIONS, Severity, Status, severity_of


def test_every_state_has_a_place_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert all(old not in after for old, after in TRANSITIONS.items())


@pytest.mark.parametrize(
    ("allowed", "becomes"),
    [
        (states.APPROVABLE, Status.APPROVED),
        (states.REJECTABLE, Status.REJECTED),
        (states.EXAMINABLE - {Status.DEPENDENCIES}, Status.DEPENDENCIES),
    ],
)
def test_what_a_person_may_decide_is_legal(allowed: frozenset[Status], becomes: Status) -> None:
    assert all(becomes in TRANSITIONS[old] for old in allowed)


@pytest.mark.parametrize(
    ("reported", "severity", "word"),
    [
        ("critical", Severity.CRITICAL, None),
        (" Important ", Severity.IMPORTANT, None),
        ("unknown", Severity.UNKNOWN, None),
        ("", Severity.UNKNOWN, None),
        ("Medium", Severity.UNKNOWN, "Medium"),
        ("sehr dringend", Severity.UNKNOWN, "sehr dringend"),
    ],
)
def test_a_severity_is_one_of_ours_or_kept_verbatim(reported: str, severity: Severity, word: str | None) -> None:
    assert severity_of(reported) == (severity, word)
