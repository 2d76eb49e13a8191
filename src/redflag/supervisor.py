"""Background processes: started detached, found again by their pid file, stopped for certain.

Owns the pid files: `Daemon` starts a process in a session of its own (it outlives the terminal, `make`, Ctrl-C), says
whether it runs, and stops it.

Promises
- A process is named by its pid *and* the moment it started, so a pid that the machine has used again is never taken for
  ours and never signalled.
- A process that has ended is never reported as running, even while it waits as a zombie for its parent.
- As long as the starter lives it reaps what it started; afterwards the machine's init does.

On failure `Daemon` raises ProcessError, with the last lines of the process's log where there is one. Nothing here knows
what the processes do.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redflag.errors import ProcessError

POLL_SECONDS = 0.05
KILL_SECONDS = 10.0  # after SIGKILL only the kernel stands between the process and its end


class Stopped(enum.Enum):
    """How `Daemon.stop` came to its end."""

    NOT_RUNNING = "was not running"
    TERMINATED = "stopped"
    KILLED = "did not stop in time and was killed"


@dataclass(frozen=True)
class Process:
    """One run of one program: a pid together with the moment it started."""

    pid: int
    started: str

    def alive(self) -> bool:
        """True while this very process runs; False for a zombie and for another process with the same pid."""
        return started_at(self.pid) == self.started

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` for the process to end; True when it has. Where pidfds exist it wakes at once."""
        deadline = time.monotonic() + seconds
        with _pidfd(self) as handle:
            if handle is not None:
                poller = select.poll()
                poller.register(handle, select.POLLIN)
                poller.poll(max(0.0, seconds * 1000))
                return not self.alive()
        while self.alive():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(POLL_SECONDS, remaining))
        return True

    def send(self, number: signal.Signals) -> None:
        """Signal this very process; nobody when it has ended. Raises PermissionError when it is another user's."""
        with _pidfd(self) as handle, contextlib.suppress(ProcessLookupError):
            if handle is not None:
                signal.pidfd_send_signal(handle, number)  # type: ignore[attr-defined,unused-ignore]  # Linux only
            elif self.alive():
                os.kill(self.pid, number)


class Daemon:
    """One background process, known by its pid file.

    `pid_file` and `log_file` are made with mode 0600, their folders with 0700 when missing. Commands that start or
    stop the same daemon at the same time wait for one another (a lock beside the pid file).
    """

    def __init__(self, name: str, pid_file: Path, log_file: Path) -> None:
        self.name = name
        self.pid_file = pid_file
        self.log_file = log_file
        self._log_start = 0
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> int:
        """Start the process in the background and return its pid.

        It gets exactly the environment `env`, no input, no terminal; its output is appended to the log. Raises
        ProcessError when the daemon runs already, when the program cannot be started, or when it ends at once.
        """
        with exclusive_lock(self._lock_file):
            if (running := self.status()) is not None:
                raise ProcessError(f"{self.name} is already running (pid {running})", "Stop it first")
            log = self._open_log()
            try:
                child = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessError(
                    f"{self.name} could not be started: {argv[0]}: {error.strerror}", "Check that it is installed"
                ) from error
            finally:
                os.close(log)
            self._child = child
            started = started_at(child.pid)
            # Waiting in a thread reaps the child the moment it ends, and keeps its exit code. The thread dies with the
            # starter; from then on the process belongs to init.
            threading.Thread(target=child.wait, name=f"reap {self.name}", daemon=True).start()
            if started is None:
                raise self._ended("starting")
            write_private(self.pid_file, f"{child.pid}\n{started}\n")
            return child.pid

    def status(self) -> int | None:
        """The pid while the daemon runs, else None. Changes nothing on disk."""
        process = self._process()
        return process.pid if process is not None and process.alive() else None

    def stop(self, timeout: float) -> Stopped:
        """Send SIGTERM, and after `timeout` seconds SIGKILL, to the process and to the children in its group.

        Returns which of them ended it, once it has ended and its pid file is gone. Raises ProcessError when the process
        belongs to another user or survives even SIGKILL.
        """
        with exclusive_lock(self._lock_file):
            process = self._process()
            if process is None or not process.alive():
                self.pid_file.unlink(missing_ok=True)
                return Stopped.NOT_RUNNING
            outcome = Stopped.TERMINATED
            try:
                process.send(signal.SIGTERM)
                if not process.wait(timeout):
                    outcome = Stopped.KILLED
                    self._kill_group(process)
            except PermissionError as error:
                raise ProcessError(
                    f"{self.name} (pid {process.pid}) belongs to another user", "Stop it as the user who started it"
                ) from error
            if not process.wait(KILL_SECONDS):
                raise ProcessError(
                    f"{self.name} (pid {process.pid}) is still there after SIGKILL",
                    "It waits for the kernel, usually for a disk; look at the machine's own log",
                )
            self.pid_file.unlink(missing_ok=True)
            return outcome

    def wait_until(self, check: Callable[[], bool], timeout: float, what: str) -> None:
        """Return as soon as `check()` is true. `what` names the awaited state, as in "answering on port 8080".

        Raises ProcessError with the last lines of the log: at once when the process ends first, and after `timeout`
        seconds when it still runs (it is left running). What `check` raises goes through.
        """
        deadline = time.monotonic() + timeout
        while not check():
            process = self._process()
            if process is None or process.wait(POLL_SECONDS):
                raise self._ended(f"waiting for it to be {what}")
            if time.monotonic() >= deadline:
                raise ProcessError(
                    f"{self.name} is not {what} after {timeout:g} s{self._log_excerpt()}",
                    f"It is still running; see {self.log_file}",
                )

    @property
    def _lock_file(self) -> Path:
        return self.pid_file.with_name(self.pid_file.name + ".lock")

    def _process(self) -> Process | None:
        """What the pid file names; None when there is no file or it is not one of ours."""
        try:
            pid, started = self.pid_file.read_text().splitlines()
            return Process(int(pid), started)
        except (FileNotFoundError, ValueError):
            return None

    def _kill_group(self, process: Process) -> None:
        # The daemon leads its own group, and a program that does not obey SIGTERM will not end its workers either.
        with contextlib.suppress(ProcessLookupError):
            if process.alive() and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
        process.send(signal.SIGKILL)

    def _open_log(self) -> int:
        make_private_folder(self.log_file.parent)
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.fchmod(log, 0o600)
        self._log_start = os.fstat(log).st_size
        return log

    def _ended(self, doing: str) -> ProcessError:
        code = ""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = f" ({_exit(self._child.wait(timeout=1))})"
        return ProcessError(f"{self.name} ended while {doing}{code}{self._log_excerpt()}", f"See {self.log_file}")

    def _log_excerpt(self) -> str:
        lines = last_lines(self.log_file, since=self._log_start)
        return ":\n" + "\n".join(f"    {line}" for line in lines) if lines else " and wrote nothing to its log"


def started_at(pid: int) -> str | None:
    """When a process started, as text that is only ever compared; None when it has ended (a zombie has ended)."""
    return _started_by_proc(pid) if Path("/proc/self/stat").exists() else _started_by_ps(pid)


def _started_by_proc(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name (field 2) stands in parentheses and may hold any character, so fields count from the last ')'.
    fields = text.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    # Ticks count from the machine's start, and two starts of one machine look much alike: hence the boot's own id.
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if state in {"Z", "X"} else f"{boot} {ticks}"


def _started_by_ps(pid: int) -> str | None:
    listed = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, moment = listed.stdout.strip().partition(" ")
    return None if not moment or state.startswith("Z") else " ".join(moment.split())


def last_lines(path: Path, since: int = 0, count: int = 20) -> list[str]:
    """The last `count` lines that a file got after byte `since`; none when there is no file. Reads 64 KiB at most."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since if since <= size else 0, size - 65536))  # smaller than `since`: it was rotated
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def make_private_folder(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0700; one that exists stays as it is."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step: readers see the old text or the new, also after a power failure."""
    make_private_folder(path.parent)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; another process waits. The kernel lets go when the holder dies."""
    make_private_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    """A handle on this very process; None where there are no pidfds (macOS, old kernels) or the process has ended."""
    handle: int | None = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
    try:
        # Asked after opening: only then is it certain that the handle is of our process and not of a successor.
        yield handle if process.alive() else None
    finally:
        if handle is not None:
            os.close(handle)


def _exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
