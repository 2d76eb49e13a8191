"""Checkpoints as commits of a git repository in the folder of checkpoints, pushed if it has a remote.

Commits are made without a working copy, an index or hooks, on top of what the remote has: so several servers may push to one
remote, and what was killed in the middle leaves nothing in the way. Nothing is ever forced: a remote that holds a checkpoint
which the log does not continue is told of, and left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import re
import signal
from pathlib import Path

from redflag.publishing.files import LIMIT, Continues, Disk
from redflag.publishing.targets import TargetFailed

FILE = "checkpoint"
WHO = {"NAME": "RedFlag", "EMAIL": "checkpoints@redflag.invalid"}
TERM_SECONDS = 2.0
# Nobody is there to be asked for a password
_ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
_OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false")
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


async def put(
    disk: Disk,
    folder: Path,
    note: str,
    size: int,
    continues: Continues,
    *,
    now: datetime.datetime,
    every: datetime.timedelta,
    patience: float,
) -> int:
    """Commits the note of the checkpoint of `size`, unless the last commit is younger than `every`, and pushes if there is a remote.

    Returns the size of the checkpoint that stands there then: a commit whose push failed waits, and is pushed without another
    beside it. `now` is the database's clock, `patience` seconds for all of it. Raises TargetFailed.
    """
    repository = Repository(disk, folder)
    try:
        async with asyncio.timeout(patience):
            await repository.make()
            remote = await repository.remote()
            head = await repository.head(remote)
            before = await repository.note(head) if head else None
            known = await continues(before) if before is not None else None
            if (
                head is None
                or known is None
                or (known.size < size and not datetime.timedelta() <= now - await repository.made_at(head) < every)
            ):
                head = await repository.commit(head, note, f"Checkpoint of {size} records", now)
            else:
                size = known.size
            if remote:
                await repository.push(remote, head)
    except TimeoutError:
        raise TargetFailed(
            f"git took more than {patience:g} s", f"Try `git -C {repository.folder} fetch` by hand"
        ) from None
    return size


class Repository:
    """A repository of this folder, bare or not. Every method may raise TargetFailed, with the last that git said."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self.folder = folder
        self._inside: Path | None = None

    async def make(self) -> None:
        """Makes a bare one, if nothing is there."""
        beside = self.folder / ".git"
        if not await self._disk.do(self.folder, self.folder.exists):
            await self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.folder))
        self._inside = beside if await self._disk.do(self.folder, beside.exists) else self.folder

    async def remote(self) -> str:
        """The first of its remotes, or nothing."""
        return (await self._git("remote")).partition("\n")[0]

    async def head(self, remote: str) -> str | None:
        """The commit to go on from: the remote's, unless ours is it or continues it; None before the first."""
        branch = await self._branch()
        ours = await self._git("rev-parse", "--verify", "--quiet", branch, may_fail=True)
        if not remote or not await self._git("ls-remote", remote, branch):
            return ours or None
        await self._git("fetch", "--quiet", "--no-tags", remote, branch)
        theirs = await self._git("rev-parse", "--verify", "FETCH_HEAD")
        if ours and theirs == await self._git("merge-base", ours, theirs, may_fail=True):
            return ours
        return theirs

    async def note(self, commit: str) -> str | None:
        """The checkpoint in a commit, or None if it has none."""
        blob = await self._git("rev-parse", "--verify", "--quiet", f"{commit}:{FILE}", may_fail=True)
        if not blob:
            return None
        if int(await self._git("cat-file", "-s", blob)) > LIMIT:
            raise TargetFailed(f"{FILE} in {self.folder} is no checkpoint", "Move it away, or name another target")
        return await self._git("cat-file", "blob", blob) + "\n"

    async def made_at(self, commit: str) -> datetime.datetime:
        """When a commit was made, by the clock of whoever made it."""
        return datetime.datetime.fromtimestamp(
            int(await self._git("show", "--no-patch", "--format=%ct", commit)), datetime.UTC
        )

    async def commit(self, parent: str | None, note: str, message: str, now: datetime.datetime) -> str:
        """Makes a commit in which the note stands in the place of the older one; all other files stay."""
        blob = await self._git("hash-object", "-w", "--stdin", given=note)
        entries = (await self._git("ls-tree", "-z", parent)).split("\0") if parent else []
        kept = [entry for entry in entries if entry and entry.partition("\t")[2] != FILE]
        tree = await self._git(
            "mktree", "-z", given="".join(f"{one}\0" for one in [*kept, f"100644 blob {blob}\t{FILE}"])
        )
        dates = {f"GIT_{who}_DATE": f"{int(now.timestamp())} +0000" for who in ("AUTHOR", "COMMITTER")}
        above = ("-p", parent) if parent else ()
        made = await self._git("commit-tree", tree, *above, given=message + "\n", more=dates)
        await self._git("update-ref", await self._branch(), made)
        await self._git("gc", "--auto", "--quiet", may_fail=True)
        return made

    async def push(self, remote: str, commit: str) -> None:
        """Pushes a commit as the head of our branch; a remote that has gone on otherwise refuses it."""
        await self._git("push", "--quiet", remote, f"{commit}:{await self._branch()}")

    async def _branch(self) -> str:
        return await self._git("symbolic-ref", "HEAD")

    async def _git(
        self,
        *arguments: str,
        given: str = "",
        more: dict[str, str] | None = None,
        may_fail: bool = False,
    ) -> str:
        """What git prints, without its last newline; nothing, if it fails and may."""
        # Named, so that no repository further up is taken for it
        named = ("--git-dir", str(self._inside)) if self._inside else ()
        # Nor does anything of our own surroundings say which repository it is
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        identity = {f"GIT_{who}_{name}": value for who in ("AUTHOR", "COMMITTER") for name, value in WHO.items()}
        try:
            process = await asyncio.create_subprocess_exec(
                "git", *_OPTIONS, *named, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=surroundings | _ENVIRONMENT | identity | (more or {}), start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            raise TargetFailed("There is no git on this host", "Install git") from None
        try:
            out, err = await process.communicate(given.encode())
        finally:
            if process.returncode is None:
                await _end(process)
        if process.returncode and not may_fail:
            said = _CREDENTIALS.sub("://", err.decode(errors="replace")).strip().replace("\n", "; ")
            raise TargetFailed(f"git {arguments[0]} failed in {self.folder}: {said[-300:]}", "Try it by hand")
        return "" if process.returncode else out.decode(errors="replace").removesuffix("\n")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends git and whatever it started: told first, so that it takes its locks away."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), TERM_SECONDS)
            return
