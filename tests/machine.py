"""What a machine has one of, or few: tests that run beside one another share it out here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

_random = random.SystemRandom()


@contextlib.contextmanager
def to_itself(what: str) -> Iterator[None]:
    """Waits until no other test on this machine, of this run or another, uses the thing, and keeps them waiting."""
    path = Path(tempfile.gettempdir()) / f"redflag-tests-{os.geteuid()}-{what}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A port for a server that opens it later. Not one of those that the kernel hands out, or a socket of another test
    might have it by then."""
    while True:
        port = _random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
