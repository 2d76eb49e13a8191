"""The runner with real child processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from redflag_agent.runner import KEEP, Deadline, Stop, run


def _alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_output_and_exit_code_are_those_of_the_program() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], Deadline(30), Stop())

    assert (done.exit_code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert (done.stdout_bytes, done.stderr_bytes, done.ended_by) == (None, None, "")
    assert not done.ok


def test_a_program_that_does_not_exist_is_a_result() -> None:
    done = run(["/nonexistent/program"], Deadline(30), Stop())

    assert done.exit_code == 127
    assert "cannot be started" in done.stderr


def test_arguments_never_reach_a_shell(tmp_path: Path) -> None:
    done = run(["echo", f"$(touch {tmp_path}/x); `id`", "&"], Deadline(30), Stop())

    assert done.stdout == f"$(touch {tmp_path}/x); `id` &\n"
    assert list(tmp_path.iterdir()) == []


def test_a_child_gets_a_session_of_its_own_no_input_no_questions_and_no_agent_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDFLAG_AGENT_STATE", "/secret")
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    script = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', os.environ['LC_ALL'], "
    script += "os.environ['DEBIAN_FRONTEND'], 'REDFLAG_AGENT_STATE' in os.environ, 'LC_MESSAGES' in os.environ)"

    done = run([sys.executable, "-c", script], Deadline(30), Stop())

    assert done.stdout.split() == ["True", "True", "C.UTF-8", "noninteractive", "False", "False"]


def test_the_deadline_ends_the_whole_process_group() -> None:
    begin = time.monotonic()
    done = run(["sh", "-c", "sleep 300 & echo $!; sleep 301 & echo $!; wait"], Deadline(1), Stop())

    assert done.ended_by == "deadline"
    assert done.exit_code == -15
    assert time.monotonic() - begin < 8
    pids = [int(line) for line in done.stdout.split()]
    assert len(pids) == 2
    assert not any(_alive(pid) for pid in pids)


def test_grandchildren_that_ignore_sigterm_are_killed_after_the_grace_although_their_parent_is_gone() -> None:
    script = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait"
    begin = time.monotonic()
    done = run(["sh", "-c", script], Deadline(1), Stop(), grace=1)

    assert done.ended_by == "deadline"
    assert 2 <= time.monotonic() - begin < 10
    (pid,) = (int(line) for line in done.stdout.split())
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _alive(pid)


def test_a_deadline_can_be_moved_while_the_program_runs() -> None:
    deadline = Deadline(1)

    def extend(data: bytes) -> None:
        deadline.set(30)

    done = run(["sh", "-c", "echo now; sleep 2; echo done"], deadline, Stop(), on_output=extend)

    assert done.ok
    assert done.stdout == "now\ndone\n"


def test_another_thread_can_stop_a_program() -> None:
    stop = Stop()
    started = threading.Event()
    stopper = threading.Thread(target=lambda: (started.wait(20), stop.set("ended")))
    stopper.start()

    done = run(["sh", "-c", "echo up; exec sleep 300"], Deadline(60), stop, on_output=lambda _: started.set())

    stopper.join()
    assert (done.ended_by, done.exit_code, done.stdout) == ("ended", -15, "up\n")


def test_nothing_is_started_after_the_deadline(tmp_path: Path) -> None:
    done = run(["touch", str(tmp_path / "x")], Deadline(0), Stop())

    assert done.ended_by == "deadline"
    assert list(tmp_path.iterdir()) == []


def test_of_long_output_the_beginning_and_the_end_are_kept_and_the_cut_is_told() -> None:
    size = 5 * KEEP
    script = f"import sys; sys.stdout.write('<' + 'x' * {size} + '>'); sys.stderr.write('fine')"
    done = run([sys.executable, "-c", script], Deadline(30), Stop())

    assert done.stdout_bytes == size + 2
    assert done.stderr_bytes is None
    assert done.stdout.startswith("<xxx")
    assert done.stdout.endswith("xxx>")
    assert f"[... {size + 2 - 2 * KEEP} bytes cut ...]" in done.stdout
    assert len(done.stdout) < 2 * KEEP + 100


def test_output_just_at_the_limit_is_whole() -> None:
    done = run(["sh", "-c", "printf 0123456789"], Deadline(30), Stop(), keep=5)

    assert (done.stdout, done.stdout_bytes) == ("0123456789", None)


def test_output_that_is_no_utf_8_is_replaced_not_refused() -> None:
    done = run(["printf", r"a\377b"], Deadline(30), Stop())

    assert done.stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_a_daemon_left_behind_does_not_hold_the_command_and_is_not_killed() -> None:
    begin = time.monotonic()
    done = run(["sh", "-c", "sleep 20 & echo $!"], Deadline(60), Stop())

    assert done.ok
    assert time.monotonic() - begin < 10
    pid = int(done.stdout)
    assert _alive(pid)
    os.kill(pid, 9)
