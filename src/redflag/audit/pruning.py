"""Pruning once a day, in a process of its own: it reads, hashes and packs for minutes, and no agent shall wait for that.

Every replica looks, and any one of them prunes (`retention` has the lease). The process is told what it needs on its standard
input, because an argument can be read by everybody on the host. Stopped anywhere, it goes on where it was the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from redflag.audit import actor as actors
from redflag.audit import origins, retention
from redflag.audit.checkpoint import load_key
from redflag.audit.memory import Memory
from redflag.database import pool as pools
from redflag.errors import RedFlagError

log = logging.getLogger("redflag.audit")

LOOK_SECONDS = 600.0
FAILED = 1


class Job(msgspec.Struct, frozen=True):
    """What a process that prunes needs: the database as the server's role, where bundles go, and the log's key.

    `origin` is what the log is called if the database does not say.
    """

    database: str
    archive: str
    log_folder: str
    log_key: str
    origin: str
    replica: str

    async def run(self) -> retention.Pruned:
        """Prunes what is past the policy."""
        connection = await pools.connect(self.database, application="redflag retention")
        try:
            told = (await origins.sql.state.one(connection))["origin"]
            folder = Path(self.log_folder)
            signer = load_key(told or self.origin, folder / "key", self.log_key)
            who = actors.service("retention", self.replica)
            memory = Memory(folder / "newest-checkpoint", signer)
            return await retention.Pruner(connection, signer, memory, Path(self.archive), who).prune()
        finally:
            await connection.close()


class Daily:
    """Looks now and then whether it is time, and has a process prune."""

    def __init__(self, pool: Any, job: Job) -> None:
        self._pool = pool
        self._job = job

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; a process that prunes then is ended with it."""
        while not stop.is_set():
            try:
                async with self._pool.acquire() as connection:
                    due = await retention.sql.is_due.value(connection)
                if due:
                    await self.prune(stop)
            except Exception:  # one that fails is tried again, and must not end the others
                log.exception("pruning failed, and will be tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    async def prune(self, stop: asyncio.Event) -> None:
        """One process, to its end or the server's."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "redflag.audit.pruning",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        ended = asyncio.create_task(process.communicate(msgspec.json.encode(self._job)))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not ended.done():
                process.terminate()
        said = (await ended)[0].decode(errors="replace").strip()
        if stop.is_set() and process.returncode:
            log.info("pruning was stopped with the server, and goes on the next time")
        elif process.returncode:
            log.error("pruning failed, and will be tried again in an hour: %s", said[-1000:])
        elif said:
            log.info("%s", said)


def main() -> int:
    """Prunes as the job on standard input says."""
    os.nice(10)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        done = asyncio.run(job.run())
    except RedFlagError as error:
        sys.stdout.write(f"{error}\n")
        return FAILED
    if done.end > done.first:
        files = ", ".join(file.name for file in done.bundles)
        sys.stdout.write(f"pruned positions {done.first} to {done.end - 1} of the log; they are archived in {files}\n")
    if done.held:
        sys.stdout.write(f"what follows is past its retention, and stays because of {done.held}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
