"""Every state and result that there is has its word and colour on the pages, pair by pair."""

from __future__ import annotations

import pytest

from redflag.access.roles import Role
from redflag.commands.states import DeadlineKind, Kind, Result
from redflag.commands.states import Status as CommandStatus
from redflag.fleet.agents import Presence
from redflag.updates.states import Severity
from redflag.updates.states import Status as UpdateStatus
from redflag.web.dashboard import labels

COLOURS = {"secondary", "azure", "blue", "green", "red", "orange", "yellow", "purple", "cyan"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (labels.COMMANDS, CommandStatus),
        (labels.RESULTS, Result),
        (labels.KINDS, Kind),
        (labels.DEADLINES, DeadlineKind),
        (labels.PRESENCE, Presence),
        (labels.UPDATES, UpdateStatus),
        (labels.SEVERITIES, Severity),
        (labels.ROLES, Role),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_table_of_labels_names_each_word_of_its_vocabulary_and_no_other(table, words):
    assert set(table) == set(words)
    said = [label if isinstance(label, str) else label.word for label in table.values()]
    assert len(set(said)) == len(said), "two states would look the same"
    assert all(label.colour in COLOURS for label in table.values() if not isinstance(label, str))
