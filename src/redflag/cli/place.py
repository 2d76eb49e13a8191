"""The data folder: which file lies where. Whoever may read it administers this installation.

database/    the embedded PostgreSQL (its own passwords and log inside)
agent/       state of the agent of this very host
log/         server.log, agent.log
run/         process ids, locks, the server's address, metrics of its processes: nothing that must outlive them
cli-token    the API token with which `redflag` speaks to the server of this folder (0600)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redflag.errors import NotPermitted
from redflag.settings import Settings
from redflag.supervisor import Daemon, make_private_folder


@dataclass(frozen=True)
class Place:
    """One data folder; `root` is absolute."""

    root: Path

    def let_pass(self) -> bool:
        """Lets others pass through the folder, though not look around in it; True when they could not before.

        Where the machine allows root no user namespace, PostgreSQL runs as a user of its own, who must reach its folder.
        """
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if os.geteuid() != 0 or mode & 0o011 == 0o011:
            return False
        self.root.chmod(mode | 0o011)
        return True

    @property
    def database(self) -> Path:
        """The embedded PostgreSQL."""
        return self.root / "database"

    @property
    def agent(self) -> Path:
        """State of the agent of this host."""
        return self.root / "agent"

    @property
    def cli_token(self) -> Path:
        """The API token of `redflag` itself."""
        return self.root / "cli-token"

    @property
    def server_log(self) -> Path:
        """The server's log."""
        return self.root / "log" / "server.log"

    @property
    def agent_log(self) -> Path:
        """The log of this host's agent."""
        return self.root / "log" / "agent.log"

    @property
    def run(self) -> Path:
        """What goes with the processes."""
        return self.root / "run"

    @property
    def server_url(self) -> Path:
        """The address of the server that runs on this folder, written when it starts."""
        return self.run / "server.url"

    @property
    def metrics(self) -> Path:
        """Where the server's processes share their metrics."""
        return self.run / "metrics"

    def server_daemon(self) -> Daemon:
        """The server that `redflag up` starts."""
        return Daemon("The server", self.run / "server.pid", self.server_log)

    def agent_daemon(self) -> Daemon:
        """The agent that `redflag up` starts."""
        return Daemon("The agent", self.run / "agent.pid", self.agent_log)

    def server_runs(self) -> bool:
        """Whether any server runs on this folder, be it `redflag up`'s or the machine's init's. True while one starts or drains."""
        try:
            handle = os.open(self.run / "server.lock", os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def read(self, path: Path) -> str:
        """The text of a file of this folder, stripped; empty when it is not there. Raises NotPermitted."""
        try:
            return path.read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except PermissionError:
            raise NotPermitted(
                f"{path} may be read by its owner only", "Run this as that user, or set REDFLAG_URL and REDFLAG_TOKEN"
            ) from None


def place(settings: Settings) -> Place:
    """The data folder that the settings name."""
    return Place(settings.folder)


@contextlib.contextmanager
def lock_now(path: Path, patience: float = 0.0) -> Iterator[bool]:
    """Holds a lock file if nobody else does within `patience` seconds; yields whether it does. The kernel lets go when the holder dies."""
    make_private_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    ends = time.monotonic() + patience
    try:
        while not (held := _locked(handle)) and time.monotonic() < ends:
            time.sleep(0.05)
        yield held
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
