"""Runs one program as a child of the agent, in a session and process group of its own, until it ends, its deadline
comes or it is stopped.

Promises: the program is started from a list, never through a shell; at the deadline, or when `Stop` is set, the whole
group gets SIGTERM and after `grace` seconds SIGKILL, grandchildren included (those that left the group excepted); of
each output stream at most 2 * keep bytes are held in memory, its beginning and its end. A program that cannot be
started is a result with exit code 127, not an exception.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Callable, Deque, Dict, Mapping, Optional, Sequence

KEEP = 512 * 1024
GRACE = 10.0
DRAIN = 1.0  # seconds to wait for output that a background grandchild may keep open after the program itself has ended
TICK = 0.1


class Deadline:
    """A point on the monotonic clock that the server may move while a command runs."""

    def __init__(self, remaining: float) -> None:
        self.set(remaining)

    def set(self, remaining: float) -> None:
        """Let the deadline be `remaining` seconds from now."""
        self._at = time.monotonic() + remaining

    def remaining(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self._at - time.monotonic()


class Stop:
    """Asks a running command to end, with the reason: `ended` (by the server) or `stopping` (the agent)."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def set(self, reason: str) -> None:
        """Ask, once: a later reason changes nothing."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; whether it was asked for."""
        return self._event.wait(max(seconds, 0.0))

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._event.is_set()


@dataclass
class Completed:
    """How a program ended. `stdout_bytes` and `stderr_bytes` are the whole sizes, and None where nothing was cut.

    `ended_by` is "" when the program ended by itself, else `deadline`, `ended` or `stopping`. `exit_code` is negative
    for a signal.
    """

    exit_code: int
    stdout: str
    stderr: str
    stdout_bytes: Optional[int] = None
    stderr_bytes: Optional[int] = None
    ended_by: str = ""

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself, with exit code 0."""
        return self.exit_code == 0 and not self.ended_by


class _Capture:
    """The first and the last `keep` bytes of a stream."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._head = bytearray()
        self._tail: Deque[bytes] = deque()
        self._tail_size = 0
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = self._keep - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_size += len(data)
            while self._tail_size - len(self._tail[0]) >= self._keep:
                self._tail_size -= len(self._tail.popleft())

    @property
    def cut(self) -> Optional[int]:
        """The size of the whole stream, if part of it is missing from `text`."""
        return self.size if self.size > 2 * self._keep else None

    def text(self) -> str:
        tail = b"".join(self._tail)[-self._keep :]
        head = bytes(self._head)
        if self.cut is None:
            return (head + tail).decode("utf-8", "replace")
        missing = self.size - len(head) - len(tail)
        return f"{head.decode('utf-8', 'replace')}\n[... {missing} bytes cut ...]\n{tail.decode('utf-8', 'replace')}"


def environment(extra: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """The environment of a child: the agent's own without its settings, in English and without questions."""
    names = {name: value for name, value in os.environ.items() if not name.startswith(("REDFLAG_", "LC_"))}
    names.update(LC_ALL="C.UTF-8", LANGUAGE="C", DEBIAN_FRONTEND="noninteractive")
    names.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    names.update(extra or {})
    return names


def run(
    argv: Sequence[str],
    deadline: Deadline,
    stop: Stop,
    *,
    env: Optional[Mapping[str, str]] = None,
    keep: int = KEEP,
    grace: float = GRACE,
    on_output: Optional[Callable[[bytes], None]] = None,
) -> Completed:
    """Run a program and wait for its end. `on_output` is called with each piece of its stdout, from this thread."""
    if stop.is_set() or deadline.remaining() <= 0:
        return Completed(-1, "", "", ended_by=stop.reason or "deadline")
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Completed(127, "", f"{argv[0]} cannot be started: {error}")
    with child:
        out, err = _Capture(keep), _Capture(keep)
        ended_by = _watch(child, out, err, deadline=deadline, stop=stop, grace=grace, on_output=on_output)
        return Completed(child.wait(), out.text(), err.text(), out.cut, err.cut, ended_by)


def _watch(
    child: subprocess.Popen[bytes],
    out: _Capture,
    err: _Capture,
    *,
    deadline: Deadline,
    stop: Stop,
    grace: float,
    on_output: Optional[Callable[[bytes], None]],
) -> str:
    ended_by = ""
    give_up: Optional[float] = None  # when to stop reading: set once the program has ended
    kill_at: Optional[float] = None  # when SIGTERM becomes SIGKILL: set once the group is being ended
    with selectors.DefaultSelector() as selector:
        for stream, capture in ((child.stdout, out), (child.stderr, err)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, capture)
        try:
            while True:
                _read_ready(selector, stop, out if on_output else None, on_output)
                now = time.monotonic()
                if kill_at is None:
                    if child.poll() is not None:
                        give_up = now + DRAIN if give_up is None else give_up
                        if not selector.get_map() or now >= give_up:
                            return ended_by
                    elif stop.is_set() or deadline.remaining() <= 0:
                        ended_by = stop.reason or "deadline"
                        _signal_group(child.pid, signal.SIGTERM)
                        kill_at = now + grace
                elif child.poll() is not None and not _signal_group(child.pid, 0):
                    return ended_by
                elif now >= kill_at:
                    _signal_group(child.pid, signal.SIGKILL)
                    child.wait()
                    _read_ready(selector, None, None, None)
                    return ended_by
        except BaseException:
            _signal_group(child.pid, signal.SIGKILL)
            raise


def _read_ready(
    selector: selectors.BaseSelector,
    stop: Optional[Stop],
    first: Optional[_Capture],
    on_output: Optional[Callable[[bytes], None]],
) -> None:
    """Read what is there, waiting for at most one tick (not at all without `stop`)."""
    if not selector.get_map():
        if stop is not None:
            # Once stopped, `stop.wait` would return at once and this would spin.
            time.sleep(TICK) if stop.is_set() else stop.wait(TICK)
        return
    for key, _ in selector.select(TICK if stop is not None else 0):
        stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
        data = os.read(stream.fileno(), 65536)
        if not data:
            selector.unregister(stream)
            continue
        key.data.add(data)
        if on_output is not None and key.data is first:
            on_output(data)


def _signal_group(group: int, number: int) -> bool:
    """Signal a process group (0 only asks); whether it still has members."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
