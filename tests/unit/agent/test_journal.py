"""The journal on a real disk."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from redflag_agent import journal as module
from redflag_agent.errors import JournalError, StateLocked
from redflag_agent.files import StateLock
from redflag_agent.journal import JOURNAL_NAME, Journal, read

A, B, C = (f"0198c0de-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


def _posts(command_id: str, stdout: str = "") -> list[tuple[str, dict[str, object]]]:
    return [("logs", {"command_id": command_id, "result": "success", "stdout": stdout, "stderr": ""})]


def _life(journal: Journal, command_id: str, status: int = 200, stdout: str = "") -> None:
    journal.received(command_id, "scan_updates", {})
    journal.started(command_id, "boot")
    journal.finished(command_id, _posts(command_id, stdout))
    journal.reported(command_id, status, "recorded")


def test_a_command_goes_through_its_states_and_survives_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.received(A, "scan_updates", {"refresh": True})
    assert journal.received(B, "reboot", {})
    journal.started(A, "boot-1")
    journal.close()

    journal = Journal(tmp_path)
    assert journal.held() == [A, B]
    (started,) = journal.in_state("started")
    assert (started.id, started.type, started.params, started.boot_id) == (
        A,
        "scan_updates",
        {"refresh": True},
        "boot-1",
    )
    journal.finished(A, _posts(A))
    assert journal.in_state("finished")[0].posts == _posts(A)
    journal.reported(A, 200, "recorded")
    assert journal.held() == [B]
    journal.close()


def test_the_journal_is_private(tmp_path: Path) -> None:
    Journal(tmp_path).close()

    assert stat.S_IMODE((tmp_path / JOURNAL_NAME).stat().st_mode) == 0o600


def test_a_command_that_is_known_is_not_received_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    _life(journal, A)
    journal.received(B, "scan_updates", {})
    journal.ended(B, "cancelled")
    journal.compact()
    journal.close()

    journal = Journal(tmp_path)
    assert not journal.received(A, "scan_updates", {})
    assert not journal.received(B, "scan_updates", {})
    journal.close()


def test_a_line_cut_short_anywhere_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.received(A, "scan_updates", {})
    whole = (tmp_path / JOURNAL_NAME).read_bytes()
    journal.started(A, "boot")
    journal.close()
    both = (tmp_path / JOURNAL_NAME).read_bytes()

    for size in range(len(whole), len(both)):
        for tail in (b"", b"\0\0\0"):
            (tmp_path / JOURNAL_NAME).write_bytes(both[:size] + tail)
            journal = Journal(tmp_path)
            entry = journal.get(A)
            assert entry is not None
            assert entry.state == "received"
            journal.started(A, "boot")
            journal.close()
            assert read(tmp_path / JOURNAL_NAME)[0][A].state == "started"


def test_damage_in_the_middle_is_refused_for_it_may_hide_a_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for command_id in (A, B, C):
        journal.received(command_id, "scan_updates", {})
    journal.close()
    path = tmp_path / JOURNAL_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"#" + lines[1] + lines[2])

    with pytest.raises(JournalError, match=r"Line 2 .* is damaged"):
        Journal(tmp_path)


def test_compaction_keeps_what_is_open_and_forgets_the_bulk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 100_000)
    journal = Journal(tmp_path)
    _life(journal, A, stdout="x" * 90_000)
    journal.received(B, "install_updates", {"package_type": "apt"})
    journal.started(B, "boot")
    _life(journal, C, stdout="y" * 90_000)
    before = {key: vars(entry) for key, entry in journal._entries.items()}
    journal.close()

    assert (tmp_path / JOURNAL_NAME).stat().st_size < 2_000
    after = {key: vars(entry) for key, entry in read(tmp_path / JOURNAL_NAME)[0].items()}
    assert after[B] == before[B]
    assert (after[A]["state"], after[A]["at"]) == ("reported", before[A]["at"])


def test_a_refused_report_is_kept_with_the_answer_and_the_end_of_its_output(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    _life(journal, A, status=403, stdout="x" * 90_000 + "the end")
    journal.compact()
    journal.close()

    entry = read(tmp_path / JOURNAL_NAME)[0][A]
    assert (entry.state, entry.status, entry.answer) == ("reported", 403, "recorded")
    assert entry.posts[0][1]["stdout"].endswith("the end")
    assert (tmp_path / JOURNAL_NAME).stat().st_size < 10_000


def test_ids_are_forgotten_only_when_they_are_old_and_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBER_COUNT", 1)
    journal = Journal(tmp_path)
    old = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    for command_id in (A, B, C):
        _life(journal, command_id)
    for command_id in (A, B):
        journal._entries[command_id].at = old
    journal.compact()
    assert list(journal._entries) == [C]

    journal._entries[C].at = old
    journal.compact()
    assert list(journal._entries) == [C]
    journal.close()


def test_a_write_that_fails_closes_the_journal_for_good(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from redflag_agent.errors import JournalError
from redflag_agent.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.received("a", "scan_updates", {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
for attempt in range(2):
    try:
        journal.finished("a", [("logs", {"stdout": "x" * 1000})])
    except JournalError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True, env={"PYTHONPATH": "src"}
    )

    first, second = done.stdout.splitlines()
    assert "cannot be written: File too large" in first
    assert "journal is closed" in second
    journal = Journal(tmp_path)
    assert journal.held() == ["a"]
    assert journal.in_state("received")
    journal.close()


def test_two_agents_cannot_share_a_state_directory(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(StateLocked, match="Another agent uses"):
        StateLock(tmp_path)

    lock.release()
    StateLock(tmp_path).release()
