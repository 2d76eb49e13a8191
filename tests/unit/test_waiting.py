"""Why a command waits, case by case, as the sentence that people read."""

from __future__ import annotations

import dataclasses
import itertools
import uuid

import pytest

from redflag.commands.states import LIVE, Status
from redflag.commands.waiting import Facts, why

OTHER = uuid.UUID("0198f3a2-0000-7000-8000-000000000001")
PENDING = Facts(Status.PENDING, remaining=1700.0, seen=20.0)
SENT = Facts(Status.SENT, remaining=40.0, seen=20.0, deliveries=1, sent=20.0, acknowledges=True)
RECEIVED = dataclasses.replace(SENT, acknowledged=15.0)
SILENT = Facts(Status.SENT, remaining=7000.0, seen=190.0, deliveries=1, sent=200.0, protocol=0)
RUNNING = Facts(
    Status.RUNNING, remaining=7000.0, seen=3.0, deliveries=1, sent=60.0, acknowledges=True, acknowledged=59.0
)

CASES = [
    (PENDING, {}, "waits for its agent to come by, within 4 min"),
    (PENDING, {"seen": 310.0}, "waits for its agent to come by, which is due"),
    (PENDING, {"seen": None}, "its agent has never come by"),
    (PENDING, {"seen": 3 * 3600.0 + 5}, "agent offline for 3 h"),
    (PENDING, {"seen": 931.0}, "agent offline for 15 min"),
    (PENDING, {"seen": 929.0}, "waits for its agent to come by, which is due"),
    (PENDING, {"removed": True}, "its agent was removed: only the deadline ends it"),
    (PENDING, {"ahead": 9}, "waits for its agent to come by, within 4 min"),
    (PENDING, {"ahead": 14}, "behind 14 other commands of the same agent, which takes 10 at a check-in"),
    (PENDING, {"ahead": 100}, "behind more than 100 other commands of the same agent, which takes 10 at a check-in"),
    (PENDING, {"deliveries": 1}, "handed out once and not acknowledged: it is handed out again when its agent comes by"),
    (PENDING, {"deliveries": 3}, "handed out 3 times and not acknowledged: it is handed out again when its agent comes by"),
    (
        PENDING,
        {"protocol": 0, "busy_id": OTHER, "busy_type": "install_updates"},
        "behind install_updates 0198f3a2 on the same agent, which comes by again when that is done",
    ),
    (PENDING, {"busy_id": OTHER, "busy_type": "install_updates"}, "waits for its agent to come by, within 4 min"),
    (PENDING, {"remaining": -12.0}, "its time was over 12 s ago: the next sweep ends it"),
    (PENDING, {"remaining": -0.3}, "waits for its agent to come by, within 4 min"),
    (SENT, {}, "handed out 20 s ago, not acknowledged yet"),
    (SENT, {"deliveries": 2}, "handed out 20 s ago, for the 2nd time, not acknowledged yet"),
    (SENT, {"deliveries": 11}, "handed out 20 s ago, for the 11th time, not acknowledged yet"),
    (SENT, {"seen": 7200.0, "sent": 7190.0}, "handed out 1 h ago; agent offline for 2 h"),
    (RECEIVED, {}, "received by its agent 15 s ago, not started yet"),
    (
        RECEIVED,
        {"busy_id": OTHER, "busy_type": "scan_updates", "busy_running": True},
        "received by its agent, behind scan_updates 0198f3a2 that runs there",
    ),
    (RECEIVED, {"busy_id": OTHER, "busy_type": "scan_updates"}, "received by its agent 15 s ago, not started yet"),
    (SILENT, {}, "handed out 3 min ago; this agent says nothing more until it is done"),
    (SILENT, {"reported_on": False}, "handed out 3 min ago; this agent reports nothing of this type: only the deadline ends it"),
    (RUNNING, {}, "running, its agent has not said how far it is"),
    (RUNNING, {"progressed": 5.0}, "running, its agent has not said how far it is"),
    (RUNNING, {"progressed": 400.0}, "running, its agent has not said how far it is; last heard of 6 min ago"),
    (RUNNING, {"progress": "42 % [Working]", "progressed": 5.0}, "running: 42 % [Working] (last progress 5 s ago)"),
    (RUNNING, {"seen": 3 * 3600.0}, "was started; agent offline for 3 h"),
    (RUNNING, {"remaining": -90.0}, "its time was over 1 min ago: the next sweep ends it"),
    (
        RUNNING,
        {
            "progress": "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (apt-get)...",
            "progressed": 2.0,
        },
        "dpkg lock held by pid 812 (apt-get) (last progress 2 s ago)",
    ),
    (RUNNING, {"progress": "Waiting for process with pid 77 to finish."}, "dpkg lock held by pid 77"),
    (RUNNING, {"progress": "unlocking doors"}, "running: unlocking doors"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "more", "sentence"), CASES, ids=[case[2] for case in CASES])
def test_it_says(facts, more, sentence):
    assert why(dataclasses.replace(facts, **more)).text == sentence


def test_the_command_that_stands_before_is_named():
    facts = dataclasses.replace(RECEIVED, busy_id=OTHER, busy_type="scan_updates", busy_running=True)
    assert why(facts).behind == OTHER
    assert why(PENDING).behind is None


def test_somebody_should_look_at_what_bars_it_and_at_nothing_ordinary():
    assert not why(PENDING).held_up
    assert not why(SENT).held_up
    assert not why(RUNNING).held_up
    assert why(dataclasses.replace(PENDING, seen=None)).held_up
    assert why(dataclasses.replace(RUNNING, remaining=-5.0)).held_up


def test_every_live_command_has_a_sentence():
    choices = {
        "status": sorted(LIVE), "seen": [None, 1.0, 1e6], "sent": [None, 5.0], "acknowledged": [None, 5.0], "progressed": [None, 5.0],
        "acknowledges": [True, False], "protocol": [0, 1], "removed": [True, False], "reported_on": [True, False], "ahead": [0, 50],
        "remaining": [-100.0, 100.0], "deliveries": [0, 2], "progress": ["", "5 %"],
    }  # fmt: skip
    for values in itertools.product(*choices.values()):
        assert why(Facts(**dict(zip(choices, values, strict=True)))).text
