"""The agent as a witness of the log: what it keeps, what it refuses, and that it says so."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redflag_agent import config
from redflag_agent.api import Api
from redflag_agent.errors import ConfigError
from redflag_agent.task import Handler, Outcome, Task
from redflag_agent.witness import STATE_NAME, Witness, read_memory
from unit.agent.conftest import Running
from unit.agent.fake_log import FakeLog
from unit.agent.fake_server import FakeServer

Start = Callable[..., Running]
LOG = FakeLog()
NEW_NAME = FakeLog("redflag.example/log-2")


def _pin(state: Path, log: FakeLog = LOG) -> None:
    settings = config.load(state)
    settings.log_key = log.key
    config.save(state, settings)


def _witness(state: Path, every: float = 0.0) -> Witness:
    return Witness(state, Api(state, config.load(state)), every=every)


def _at(state: Path, size: int) -> Witness:
    """A witness that holds the checkpoint of that size."""
    _pin(state)
    witness = _witness(state)
    witness.take(LOG.answer(0, size))
    assert witness.question() == {"origin": "redflag.example/log", "size": size}
    return witness


def _reasons(state: Path) -> list[str]:
    return [one["reason"] for one in read_memory(state).unreported]


def test_the_first_checkpoint_is_kept_privately_and_named_at_the_next_look(state: Path) -> None:
    _pin(state)
    witness = _witness(state)
    assert witness.question() == {"size": 0}
    witness.take(LOG.answer(0, 100))

    assert witness.question() == {"origin": "redflag.example/log", "size": 100}
    assert read_memory(state).note == LOG.note(100)
    assert stat.S_IMODE((state / STATE_NAME).stat().st_mode) == 0o600
    assert _witness(state).question() == {"origin": "redflag.example/log", "size": 100}


def test_it_looks_once_an_hour_and_a_restart_does_not_change_that(state: Path) -> None:
    _pin(state)
    witness = _witness(state, 3600.0)
    assert witness.question() is not None
    assert witness.question() is not None, "no answer came yet"
    witness.take(LOG.answer(0, 100))
    assert witness.question() is None
    assert _witness(state, 3600.0).question() is None
    told = json.loads((state / STATE_NAME).read_text())
    for looked_at, is_due in (
        (told["looked_at"] - 3601, True),
        (told["looked_at"] + 999, True),
        (told["looked_at"] - 3500, False),
    ):
        (state / STATE_NAME).write_text(json.dumps({**told, "looked_at": looked_at}))
        assert (_witness(state, 3600.0).question() is not None) == is_due


def test_a_server_that_says_nothing_of_the_log_is_asked_again_in_a_few_minutes(state: Path) -> None:
    witness = _witness(state, 3600.0)
    witness.take(None)
    assert witness.question() is None
    assert not (state / STATE_NAME).exists()


def test_a_server_that_says_nothing_of_the_log_for_a_day_is_told_of_in_the_agents_log(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    witness = _at(state, 100)
    witness.take(None)
    assert caplog.text == ""
    monkeypatch.setattr("redflag_agent.witness.SILENT_AFTER", -1.0)
    witness.take(LOG.answer(100, 110))
    witness.take(None)
    assert "has shown no checkpoint of its log since" in caplog.text


@pytest.mark.parametrize(("old", "new"), [(1, 2), (7, 8), (64, 200), (100, 100), (255, 255)])
def test_a_log_that_goes_on_from_what_is_held_is_held_from_then_on(state: Path, old: int, new: int) -> None:
    witness = _at(state, old)
    witness.take(LOG.answer(old, new))
    assert read_memory(state).note == LOG.note(new)
    assert read_memory(state).unreported == []


FORKED = FakeLog(word="another record")
STRANGE_KEY = FakeLog(key="somebody else's")
TAMPERED = {**LOG.answer(100, 150), "checkpoint": LOG.note(150).replace("\n150\n", "\n151\n")}
REFUSED: dict[str, tuple[str, Any]] = {
    "another key": ("bad_signature", STRANGE_KEY.answer(100, 150)),
    "a changed size": ("bad_signature", TAMPERED),
    "no checkpoint": ("bad_signature", {"consistency": []}),
    "nonsense": ("bad_signature", {"checkpoint": "\x00\n\n\u2014 a b\n", "consistency": 7}),
    "a name that is no text": ("bad_signature", {"checkpoint": "\ud800" + LOG.note(150), "key": "\ud800"}),
    "a checkpoint that never ends": ("bad_signature", {**LOG.answer(100, 150), "checkpoint": LOG.note(150) + "x" * 70_000}),
    "another log": ("other_origin", FakeLog("redflag.example/other").answer(100, 150)),
    "a smaller log": ("smaller_tree", LOG.answer(100, 99)),
    "an empty log": ("smaller_tree", LOG.answer(0, 0)),
    "another tree of the same size": ("different_root", FORKED.answer(100, 100)),
    "a larger tree that begins otherwise": ("bad_proof", FORKED.answer(100, 150)),
    "the proof of another tree": ("bad_proof", {**LOG.answer(100, 150), "consistency": FORKED.proof(100, 150)}),
    "no proof": ("bad_proof", {**LOG.answer(100, 150), "consistency": []}),
    "a proof that is none": ("bad_proof", {**LOG.answer(100, 150), "consistency": ["x", None, {}]}),
    "a proof without end": ("bad_proof", {**LOG.answer(100, 150), "consistency": LOG.proof(100, 150) * 1000}),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_continue_the_log_is_refused_and_the_old_checkpoint_is_kept(
    state: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    reason, answer = REFUSED[what]
    witness = _at(state, 100)
    with caplog.at_level(logging.ERROR, "redflag_agent"):
        for _ in range(2):
            witness.take(answer)

    memory = read_memory(state)
    assert (memory.note, memory.doubted) == (LOG.note(100), True)
    assert len(caplog.records) == 2, "the agent's log says so each time"
    assert reason in caplog.text
    (alarm,) = memory.unreported
    assert (alarm["reason"], alarm["held"]) == (reason, LOG.note(100))
    assert len(alarm["given"]) <= 65536
    assert witness.question() == {"origin": "redflag.example/log", "size": 100}


def test_a_log_that_continues_again_is_no_longer_doubted_and_the_alarm_is_remembered(state: Path) -> None:
    witness = _at(state, 100)
    witness.take(LOG.answer(100, 50))
    witness.take(LOG.answer(100, 150))

    memory = read_memory(state)
    assert (memory.note, memory.doubted) == (LOG.note(150), False)
    assert memory.alarm is not None
    assert memory.alarm["reason"] == "smaller_tree"


@pytest.mark.parametrize(("held", "closed", "new"), [(100, 100, 101), (100, 120, 150), (100, 100, 100), (90, 100, 100)])
def test_a_log_that_was_closed_goes_on_under_its_new_name(state: Path, held: int, closed: int, new: int) -> None:
    witness = _at(state, held)
    witness.take(NEW_NAME.answer(held, new, previous=(LOG, closed)))

    assert witness.question() == {"origin": "redflag.example/log-2", "size": new}
    assert _reasons(state) == ["log_renamed"]
    assert not read_memory(state).doubted
    # And goes on from there under that name, also after a restart, with the old key's name still pinned
    again = _witness(state)
    again.take(NEW_NAME.answer(new, 200, previous=(LOG, closed)))
    assert again.question() == {"origin": "redflag.example/log-2", "size": 200}
    assert _reasons(state) == ["log_renamed"]


def test_a_rollback_that_was_declared_by_closing_the_log_is_accepted_and_told_with_both_sizes(state: Path) -> None:
    witness = _at(state, 100)
    # The log was restored to its first 80 records, and other ones followed
    restored = FakeLog("redflag.example/log-2")
    restored._hashes = restored._hashes[:80] + FORKED._hashes[80:]
    witness.take(restored.answer(80, 130, previous=(LOG, 80)))

    assert witness.question() == {"origin": "redflag.example/log-2", "size": 130}
    (told,) = read_memory(state).unreported
    assert told["reason"] == "log_renamed"
    assert "closed with 80 records" in told["message"]
    assert "holds a checkpoint of 100: the last 20 were given up" in told["message"]


def test_a_log_that_grew_anew_after_a_rollback_is_accepted_once_the_old_one_was_given_up(state: Path) -> None:
    witness = _at(state, 100)
    regrown = FakeLog("redflag.example/log-2")
    regrown._hashes = regrown._hashes[:80] + FORKED._hashes[80:]
    witness.take(regrown.answer(100, 150, previous=(regrown, 120), more=""))
    assert _reasons(state) == ["other_origin"]
    # Closed with 120 records, of which the first 80 are those that this host saw; nobody says that others were given up
    closed = regrown.line("previous", 120).replace("log-2", "log")
    witness.take(regrown.answer(100, 150, more=closed))
    assert _reasons(state) == ["other_origin", "bad_proof"]
    witness.take(regrown.answer(100, 150, more=closed + LOG.line("abandoned", 110)))

    assert witness.question() == {"origin": "redflag.example/log-2", "size": 150}
    assert _reasons(state) == ["other_origin", "bad_proof", "log_renamed"]
    assert "with which it does not begin" in read_memory(state).unreported[-1]["message"]


def test_a_host_that_was_away_while_the_log_was_closed_twice_goes_on(state: Path) -> None:
    third = FakeLog("redflag.example/log-3")
    history = NEW_NAME.line("previous", 120) + LOG.line("previous", 100)
    witness = _at(state, 90)
    witness.take(third.answer(90, 150, more=history))
    assert witness.question() == {"origin": "redflag.example/log-3", "size": 150}


def test_of_a_log_that_was_closed_twice_the_least_that_is_left_counts(state: Path) -> None:
    # After the first time it was restored to 80 records, fewer than this host has seen
    third = FakeLog("redflag.example/log-3")
    third._hashes = third._hashes[:80] + FORKED._hashes[80:]
    history = NEW_NAME.line("previous", 80) + NEW_NAME.line("abandoned", 120) + LOG.line("previous", 100)
    witness = _at(state, 90)
    witness.take(third.answer(80, 150, more=history))
    assert witness.question() == {"origin": "redflag.example/log-3", "size": 150}
    assert "closed with 80 records" in read_memory(state).unreported[0]["message"]


CLOSED_ELSEWHERE: dict[str, tuple[str, Any]] = {
    "by another key": ("bad_signature", FakeLog("redflag.example/log-2", key="x").answer(100, 150, previous=(LOG, 120))),
    "of a log that is not held": ("other_origin", NEW_NAME.answer(100, 150, previous=(FakeLog("example/x"), 120))),
    "with fewer records than were closed": ("smaller_tree", NEW_NAME.answer(100, 110, previous=(LOG, 120))),
    "with another tree of the size held": ("different_root", NEW_NAME.answer(100, 150, previous=(FORKED, 100))),
    "without what was held": ("bad_proof", FakeLog("redflag.example/log-2", word="x").answer(100, 150, previous=(LOG, 120))),
    "without what it says it was closed with": ("bad_proof", NEW_NAME.answer(90, 150, previous=(FORKED, 90))),
}  # fmt: skip


@pytest.mark.parametrize("what", CLOSED_ELSEWHERE)
def test_a_new_name_is_refused_unless_the_closed_log_was_the_one_that_is_held(state: Path, what: str) -> None:
    reason, answer = CLOSED_ELSEWHERE[what]
    witness = _at(state, 100)
    witness.take(answer)

    assert _reasons(state) == [reason]
    assert witness.question() == {"origin": "redflag.example/log", "size": 100}


def test_an_agent_without_a_key_pins_the_first_that_signed_what_it_is_shown(state: Path) -> None:
    witness = _witness(state)
    witness.take({**LOG.answer(0, 10), "key": STRANGE_KEY.key})
    witness.take({**LOG.answer(0, 10), "key": None})
    assert config.load(state).log_key is None
    assert read_memory(state).note == ""
    witness.take(LOG.answer(0, 10))
    assert config.load(state).log_key == LOG.key
    witness.take(STRANGE_KEY.answer(10, 20))
    assert config.load(state).log_key == LOG.key
    assert _reasons(state) == ["bad_signature"]


def test_a_checkpoint_that_the_pinned_key_did_not_sign_is_not_held(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _at(state, 100)
    _pin(state, STRANGE_KEY)
    assert _witness(state).question() == {"size": 0}
    assert "not signed by the log's key" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"note": 5}', '{"unreported": [1]}', '{"alarm": 1}', '{"more": 1}'])
def test_a_damaged_memory_does_not_stop_the_agent(state: Path, text: str) -> None:
    _pin(state)
    (state / STATE_NAME).write_text(text)
    witness = _witness(state)
    assert witness.question() == {"size": 0}
    witness.take(LOG.answer(0, 10))
    assert read_memory(state).note == LOG.note(10)


def test_a_key_that_is_none_is_refused_as_any_damaged_setting(state: Path) -> None:
    path = state / "config.json"
    for key in ("x", 7, LOG.key[:-4]):
        path.write_text(json.dumps({**json.loads(path.read_text()), "log_key": key}))
        with pytest.raises(ConfigError, match="is damaged"):
            config.load(state)


def _done(task: Task) -> Outcome:
    return Outcome("success", "done")


HANDLERS: dict[str, Handler] = {"do": _done}


def test_a_rollback_is_reported_once_with_both_notes_while_commands_go_on(
    server: FakeServer, start: Start, state: Path
) -> None:
    _pin(state)
    server.log = lambda asked: LOG.answer(asked["size"], 100) if asked["size"] < 100 else LOG.answer(100, 40)
    server.answer_next("log-alarm", 503)
    running = start(handlers=HANDLERS, look_every=0.0)
    server.wait_for(lambda: len(server.alarms) == 0 and len(_calls(server, "log-alarm")) == 1, "the first try")
    assert server.wait_for_result(server.add("do"))["result"] == "success"
    running.stop()
    # What the server did not take is told after a restart
    again = start(handlers=HANDLERS, look_every=3600.0)
    server.wait_for(lambda: server.alarms, "it is reported")
    assert server.alarms[0]["reason"] == "smaller_tree"
    assert (server.alarms[0]["held"], server.alarms[0]["given"]) == (LOG.note(100), LOG.note(40))
    again.stop()
    assert read_memory(state).unreported == []
    assert read_memory(state).doubted


def test_a_server_that_does_not_know_the_report_is_told_no_more(server: FakeServer, start: Start, state: Path) -> None:
    _pin(state)
    server.log = lambda asked: LOG.answer(0, 100) if asked["size"] == 0 else LOG.answer(100, 40)
    server.answer_next("log-alarm", 404)
    running = start(handlers=HANDLERS, look_every=0.0)
    server.wait_for(lambda: _calls(server, "log-alarm"), "it is told")
    server.log = lambda asked: None
    server.wait_for_result(server.add("do"))
    running.stop()
    assert server.alarms == []
    assert read_memory(state).unreported == []


def test_a_disk_that_keeps_nothing_and_a_fault_in_here_stop_no_command(
    server: FakeServer, start: Start, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _pin(state)
    (state / f"{STATE_NAME}.new" / "in the way").mkdir(parents=True)
    server.log = lambda asked: LOG.answer(asked["size"], 100)
    running = start(handlers=HANDLERS, look_every=0.0)
    assert server.wait_for_result(server.add("do"))["result"] == "success"

    def fails(*_: object) -> None:
        raise RecursionError("a fault")

    monkeypatch.setattr("redflag_agent.witness.examine", fails)
    for _ in range(2):
        assert server.wait_for_result(server.add("do"))["result"] == "success"
    running.stop()
    assert "could not be kept" in caplog.text


def _calls(server: FakeServer, name: str) -> list[Any]:
    return [call for call in server.calls if call.name == name]
