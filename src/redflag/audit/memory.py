"""What a server remembers: the newest checkpoint that it saw or signed, in a file of its own folder, outside the database.

A database that was restored or rewritten cannot take it back, so it shows that (`origins`). Processes that share the folder
share the file: each reads it anew when another one has written it. It is written and set aside in steps of the log only,
under the lock that lets one replica do a step.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from redflag.audit.checkpoint import Checkpoint, Signer, open_own
from redflag.errors import Conflict, InvalidInput


class Memory:
    """The newest checkpoint that this server knows, and those of the logs that were closed (`closed-N-checkpoint`)."""

    def __init__(self, file: Path, signer: Signer) -> None:
        self._file = file
        self._public = signer.verifier.public
        self._newest: Checkpoint | None = None
        self._seen: tuple[int, int, int] | None = None

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint. Raises Conflict when the file holds none that the log's key has signed."""
        try:
            told = self._file.stat()
        except FileNotFoundError:
            # A file that somebody removed makes no server forget that runs
            return self._newest
        if self._seen != (seen := (told.st_ino, told.st_mtime_ns, told.st_size)):
            found = read(self._file, self._public)
            if self._newest is None or found.origin != self._newest.origin or found.size > self._newest.size:
                self._newest = found
            self._seen = seen
        return self._newest

    def remember(self, checkpoint: Checkpoint) -> None:
        """Keeps it, if it is of a larger tree than the one that is known; on the disk when this returns."""
        known = self.newest
        if known is not None and known.origin == checkpoint.origin and checkpoint.size <= known.size:
            return
        fresh = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as opened:
            opened.write(checkpoint.note)
            opened.flush()
            os.fsync(opened.fileno())
            told = os.fstat(opened.fileno())
        fresh.replace(self._file)
        self._sync_folder()
        self._newest, self._seen = checkpoint, (told.st_ino, told.st_mtime_ns, told.st_size)

    def set_aside(self) -> Path | None:
        """Forgets it, as its log was closed; the file stays under another name, which is returned. None: there was no file."""
        kept = None
        with contextlib.suppress(FileNotFoundError):
            kept = self._file.rename(self._free_name())
            self._sync_folder()
        self._newest = self._seen = None
        return kept

    def _free_name(self) -> Path:
        number = 1
        while (name := self._file.with_name(f"closed-{number}-checkpoint")).exists():
            number += 1
        return name

    def _sync_folder(self) -> None:
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(file: Path, public: bytes) -> Checkpoint:
    """The checkpoint in a file, if this key signed it, for whatever log. Raises Conflict."""
    try:
        return open_own(file.read_text(encoding="utf-8"), public)
    except (InvalidInput, ValueError) as error:
        what = error.what if isinstance(error, InvalidInput) else "it is no text"
        raise Conflict(
            f"{file} holds no checkpoint that this log's key has signed: {what}",
            "Put back the key that signed it, or the file; see docs/howto/back-up-and-restore.md",
        ) from None


def closed_names(folder: Path) -> set[str]:
    """What the logs were called whose checkpoints were set aside in this folder."""
    return {file.read_text(errors="replace").partition("\n")[0] for file in folder.glob("closed-*-checkpoint")}
