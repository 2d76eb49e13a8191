"""Checkpoints as files in the folder of checkpoints: written whole or not at all, and never over what is not an older checkpoint.

A disk may hang (a share whose server is gone). What waits for it does so in a thread of its own, at most one for each target, and the
rest of the server never.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from redflag.audit.checkpoint import Checkpoint
from redflag.publishing.targets import MOST, TargetFailed

T = TypeVar("T")

# A checkpoint with all its cosignatures is a few kilobytes
LIMIT = 64 * 1024

# The checkpoint that this note is; raises TargetFailed unless the log continues it
Continues = Callable[[str], Awaitable[Checkpoint]]


class Disk:
    """Work on files that may hang; `patience` in seconds for each piece of it."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._threads = ThreadPoolExecutor(MOST, thread_name_prefix="checkpoints")
        self._under_way: dict[Path, asyncio.Future[Any]] = {}

    async def do(self, path: Path, work: Callable[..., T], *arguments: Any) -> T:
        """Does something with a path. Raises TargetFailed when the disk refuses it, or takes too long."""
        before = self._under_way.get(path)
        if before is not None and not before.done():
            raise TargetFailed(f"The disk of {path} still does not answer", "Is it there?")
        doing = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        self._under_way[path] = doing
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(doing)
        except TimeoutError:
            raise TargetFailed(
                f"The disk of {path} did not answer within {self._patience:g} s", "Is it there?"
            ) from None
        except OSError as error:
            raise TargetFailed(f"{path} cannot be used: {error.strerror or error}", "Check its rights") from None

    def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False)


async def put(disk: Disk, file: Path, note: str, continues: Continues) -> None:
    """Puts the note in place of the older one. Raises TargetFailed."""
    before = await disk.do(file, read, file)
    if before is not None:
        await continues(before)
    await disk.do(file, write, file, note)


def read(file: Path) -> str | None:
    """What the file holds, as far as a checkpoint can go; None if there is none."""
    try:
        with file.open("rb") as opened:
            return opened.read(LIMIT).decode(errors="replace")
    except FileNotFoundError:
        return None


def write(file: Path, note: str) -> None:
    """Writes the file beside, then puts it in place; on the disk when this returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    with fresh.open("w") as opened:
        opened.write(note)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
