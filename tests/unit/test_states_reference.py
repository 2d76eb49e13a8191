"""The page about states says what the vocabulary says."""

from __future__ import annotations

import re
from pathlib import Path

from redflag.commands.states import RESULTS, TERMINAL, TRANSITIONS, DeadlineKind, Kind, Result, Status, outcome_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "states.md").read_text()


def _table(header: str) -> dict[str, list[str]]:
    rows = PAGE.split(header, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {
        (cells := re.split(r"\s*\|\s*", row.strip("| ")))[0].strip("`"): re.findall(r"`(\w+)`", cells[1])
        for row in rows
    }


def test_the_page_has_the_transition_table():
    table = _table("| from | may become |")
    assert {Status(old): {Status(new) for new in news} for old, news in table.items()} == TRANSITIONS


def test_the_page_has_the_results():
    table = _table("| status | results that its record can have |")
    assert {Status(status): tuple(map(Result, results)) for status, results in table.items()} == RESULTS


def test_the_page_has_every_kind_of_deadline_and_of_record():
    assert set(_table("| kind | from | default | when it passes |")) == set(DeadlineKind)
    assert set(_table("| kind | written by |")) == set(Kind)


def test_terminal_states_lead_nowhere_and_every_result_belongs_to_one_status():
    assert {status for status, news in TRANSITIONS.items() if not news} == TERMINAL
    told = [result for results in RESULTS.values() for result in results]
    assert len(told) == len(set(told))
    assert set(Result) - set(told) == {Result.DENIED}


def test_an_unknown_word_of_an_agent_is_no_success():
    assert outcome_of("success") == (Status.COMPLETED, Result.SUCCESS)
    assert outcome_of(" Failure ") == (Status.FAILED, Result.FAILED)
    assert outcome_of("exploded") == (Status.FAILED, Result.ERROR)
