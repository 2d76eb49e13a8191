"""Files in the state directory: private, replaced atomically, and one agent at a time.

Promises: what `write_private` replaced is, after a crash at any moment, either wholly the old or wholly the new
content, readable by its owner only. A failure raises OSError (ConfigError for a directory that is not ours) and leaves
the old content in place.
"""

from __future__ import annotations

import fcntl
import os
import stat
from datetime import datetime, timezone
from pathlib import Path

from redflag_agent.errors import ConfigError, StateLocked

CONFIG_NAME = "config.json"


def utc_now() -> str:
    """The time as RFC 3339 in UTC, to the microsecond."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def sync_directory(directory: Path) -> None:
    """Make a rename or a new file in `directory` survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: os.write may take only some of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` atomically and durably with `data`, mode 0600."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)


def private_directory(directory: Path) -> None:
    """Create the state directory with mode 0700, or check that it is ours and close it to others.

    Only a directory that is empty or already holds an enrolment has its mode changed: `--state-dir /tmp` must not
    close /tmp.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.stat()
        if facts.st_uid != os.geteuid():
            raise ConfigError(
                f"The state directory {directory} belongs to uid {facts.st_uid}; "
                "run the agent as that user, or name another by --state-dir."
            )
        if stat.S_IMODE(facts.st_mode) & 0o077:
            if any(directory.iterdir()) and not (directory / CONFIG_NAME).exists():
                raise ConfigError(
                    f"{directory} is open to other users and holds other files; name an empty folder by --state-dir."
                )
            directory.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"The state directory {directory} cannot be used: {error.strerror}; "
            "run as root, or name another by --state-dir."
        ) from None


class StateLock:
    """Holds the state directory for one agent until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise StateLocked(
                f"Another agent uses {directory}; stop it first (for example: systemctl stop redflag-agent)."
            ) from None

    def release(self) -> None:
        """Let another agent have the directory."""
        os.close(self._descriptor)
