"""Daemons start detached, are found again by their pid file, and stop for certain."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from redflag import supervisor
from redflag.errors import ProcessError
from redflag.supervisor import Daemon, Process, Stopped, exclusive_lock, last_lines, started_at

ENV = {"PATH": os.environ["PATH"]}
SLEEPER = "import signal; print('ready', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    one = Daemon("sleeper", tmp_path / "run" / "sleeper.pid", tmp_path / "logs" / "sleeper.log")
    yield one
    one.stop(timeout=0)


def start(daemon: Daemon, program: str, ready: bool = True) -> int:
    pid = daemon.start([sys.executable, "-c", program], ENV, Path("/"))
    if ready:
        daemon.wait_until(lambda: "ready" in daemon.log_file.read_text(), timeout=10, what="ready")
    return pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_started_daemon_is_running_and_stops_on_sigterm(daemon: Daemon) -> None:
    assert daemon.status() is None
    pid = start(daemon, SLEEPER)
    assert daemon.status() == pid
    assert daemon.stop(timeout=10) is Stopped.TERMINATED
    assert daemon.status() is None
    assert not daemon.pid_file.exists()


def test_stopping_what_does_not_run_says_so(daemon: Daemon) -> None:
    assert daemon.stop(timeout=1) is Stopped.NOT_RUNNING


def test_a_daemon_that_ignores_sigterm_is_killed_after_the_timeout_with_its_children(
    daemon: Daemon, tmp_path: Path
) -> None:
    child_file = tmp_path / "child"
    start(
        daemon,
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"pathlib.Path({str(child_file)!r}).write_text(str(child.pid))\n" + DEAF,
    )
    child_pid = int(child_file.read_text())
    child = Process(child_pid, started_at(child_pid) or "")
    assert child.alive()
    assert daemon.stop(timeout=0.2) is Stopped.KILLED
    assert daemon.status() is None
    assert child.wait(10)


def test_the_daemon_lives_in_a_session_of_its_own_with_no_input(daemon: Daemon) -> None:
    start(
        daemon,
        "import os, sys\n"
        "print('session', os.getsid(0) == os.getpid(), 'input', repr(sys.stdin.read()), 'in', os.getcwd())\n" + SLEEPER,
    )
    assert "session True input '' in /" in daemon.log_file.read_text()


def test_the_daemon_gets_exactly_the_given_environment(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_STARTER", "1")
    start(daemon, "import os; print('inherited:', 'OF_THE_STARTER' in os.environ)\n" + SLEEPER)
    assert "inherited: False" in daemon.log_file.read_text()


def test_the_log_grows_and_pid_file_and_log_are_private(daemon: Daemon) -> None:
    daemon.log_file.parent.mkdir()
    daemon.log_file.write_text("from before\n")
    start(daemon, "import sys; print('to stderr', file=sys.stderr, flush=True)\n" + SLEEPER)
    assert daemon.log_file.read_text() == "from before\nto stderr\nready\n"
    assert mode(daemon.log_file) == 0o600
    assert mode(daemon.pid_file) == 0o600
    assert mode(daemon.pid_file.parent) == 0o700


def test_another_daemon_object_finds_the_process_by_its_pid_file(daemon: Daemon) -> None:
    pid = start(daemon, SLEEPER)
    other = Daemon("sleeper", daemon.pid_file, daemon.log_file)
    assert other.status() == pid
    assert other.stop(timeout=10) is Stopped.TERMINATED


def test_a_running_daemon_is_not_started_twice(daemon: Daemon) -> None:
    pid = start(daemon, SLEEPER)
    with pytest.raises(ProcessError, match=f"sleeper is already running \\(pid {pid}\\). Stop it first"):
        start(daemon, SLEEPER)


def test_a_reused_pid_is_neither_reported_nor_signalled(daemon: Daemon) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger:
        daemon.pid_file.parent.mkdir(parents=True)
        daemon.pid_file.write_text(f"{stranger.pid}\nanother boot 12345\n")
        assert daemon.status() is None
        assert daemon.stop(timeout=1) is Stopped.NOT_RUNNING
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("content", ["", "12", "not a pid\nat no time\n", "1\n2\n3\n"])
def test_a_damaged_pid_file_means_not_running(daemon: Daemon, content: str) -> None:
    daemon.pid_file.parent.mkdir(parents=True)
    daemon.pid_file.write_text(content)
    assert daemon.status() is None


def test_a_zombie_does_not_count_as_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    process = Process(child.pid, started_at(child.pid) or "")
    assert process.alive()
    child.stdin.close()
    assert process.wait(10)  # ended, though nobody has reaped it
    assert Path("/proc").exists() is False or Path(f"/proc/{child.pid}").exists()
    child.wait()
    assert started_at(child.pid) is None


def test_a_daemon_that_ends_is_reaped_by_its_starter(daemon: Daemon) -> None:
    pid = start(daemon, SLEEPER)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:  # a zombie still takes signal 0; a reaped process does not exist
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "still a zombie"
    assert daemon.status() is None


def test_waiting_fails_at_once_with_the_log_when_the_process_ends(daemon: Daemon, tmp_path: Path) -> None:
    # It ends only after it was seen to run
    seen = tmp_path / "seen"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(seen)!r}).exists(): time.sleep(0.01)\n"
    start(daemon, wait + "print('cannot open the port'); raise SystemExit(3)", ready=False)
    seen.touch()
    before = time.monotonic()
    with pytest.raises(ProcessError, match=r"(?s)sleeper ended while waiting .*exit code 3.*cannot open the port"):
        daemon.wait_until(lambda: False, timeout=60, what="answering")
    assert time.monotonic() - before < 30


def test_waiting_gives_up_after_the_timeout_and_leaves_the_process_running(daemon: Daemon) -> None:
    pid = start(daemon, SLEEPER)
    with pytest.raises(ProcessError, match=r"(?s)sleeper is not answering after 0.1 s:.*ready"):
        daemon.wait_until(lambda: False, timeout=0.1, what="answering")
    assert daemon.status() == pid


def test_a_program_that_does_not_exist_is_named(daemon: Daemon) -> None:
    with pytest.raises(ProcessError, match="could not be started: /no/such/program: No such file"):
        daemon.start(["/no/such/program"], ENV, Path("/"))
    assert daemon.status() is None


def test_the_daemon_outlives_its_starter_and_holds_none_of_its_pipes(daemon: Daemon) -> None:
    """As under `make | tee`: the starter ends, its output ends, the daemon goes on."""
    program = (
        "import sys; from pathlib import Path; from redflag.supervisor import Daemon\n"
        "d = Daemon('sleeper', Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(d.start([sys.executable, '-c', sys.argv[3]], {}, Path('/')))"
    )
    arguments = [sys.executable, "-W", "error", "-c", program, str(daemon.pid_file), str(daemon.log_file), SLEEPER]
    source = str(Path(__file__).parents[2] / "src")
    starter = subprocess.run(
        arguments, capture_output=True, text=True, timeout=30, check=True, env=ENV | {"PYTHONPATH": source}
    )
    assert daemon.status() == int(starter.stdout)
    assert starter.stderr == ""
    assert daemon.stop(timeout=10) is Stopped.TERMINATED


def test_the_lock_keeps_a_second_process_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    attempt = f"import fcntl; fcntl.flock(open({str(lock)!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with exclusive_lock(lock):
        blocked = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
    assert "BlockingIOError" in blocked.stderr
    assert subprocess.run([sys.executable, "-c", attempt], check=False).returncode == 0


def test_last_lines_reads_only_what_came_after(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\nnew 1\nnew 2\n")
    assert last_lines(log, since=4) == ["new 1", "new 2"]
    assert last_lines(log, since=4, count=1) == ["new 2"]
    assert last_lines(log, since=10_000) == ["old", "new 1", "new 2"]
    assert last_lines(tmp_path / "missing") == []


def test_where_there_is_no_proc_ps_tells_when_a_process_started() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        started = supervisor._started_by_ps(child.pid)
        assert started is not None
        assert abs(datetime.strptime(f"{started} +0000", "%a %b %d %H:%M:%S %Y %z") - datetime.now(UTC)) < timedelta(
            minutes=2
        )
        assert supervisor._started_by_ps(child.pid) == started
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but not reaped
        assert supervisor._started_by_ps(child.pid) is None
    assert supervisor._started_by_ps(child.pid) is None
