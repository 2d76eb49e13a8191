"""Keeps the log going: record by record into the tree, and every second or so its head is signed. Every replica does it.

One that fails says so at once, and again every few minutes for as long as it lasts, as a fault that raises an alert; it tries
on meanwhile. Nothing else waits for it: commands and their records go on, and the records wait in the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from redflag.audit import origins, sequencer
from redflag.audit.checkpoint import Signer
from redflag.audit.memory import Memory
from redflag.database import faults
from redflag.errors import Conflict

log = logging.getLogger("redflag.audit")

# An event is in a signed checkpoint at most two of these after its commit
PAUSE_SECONDS = 0.7
# So often every step is taken though nothing is new: the log is held against what this server remembers, and what another
# replica signed is remembered
ANYWAY_SECONDS = 60.0
# The alert looks at the last five minutes
SAY_AGAIN_SECONDS = 240.0
STEPS = ("sequence", "integrate", "publish")


class Keeper:
    """Takes the steps of the log in turn. `failed` hears the name of a step (of STEPS) each time that it failed."""

    def __init__(self, pool: Any, signer: Signer, memory: Memory, failed: Callable[[str], None]) -> None:
        self.pool = pool
        self.signer = signer
        self.memory = memory
        self._failed = failed
        self._step = STEPS[0]
        self._whole_at = self._published_at = float("-inf")
        self._said, self._said_at = "", float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            began = time.monotonic()
            if not await self.go():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), max(0.0, began + PAUSE_SECONDS - time.monotonic()))

    async def go(self) -> bool:
        """Every step once, as far as there is something to do. Returns whether there is more right now. Never raises."""
        try:
            more = await self._steps()
        except Exception as error:  # whatever it was, the next round tries again
            self._failed(self._step)
            self._say(error)
            return False
        self._said = ""
        return more

    async def _steps(self) -> bool:
        self._step = "sequence"
        now = time.monotonic()
        async with self.pool.acquire() as connection:
            seen = await sequencer.look(connection)
            if seen.origin is not None:
                await origins.follow(connection, self.signer, seen.origin)
            if seen.idle and now - self._whole_at < ANYWAY_SECONDS:
                return False
            more = await sequencer.sequence(connection, memory=self.memory) == sequencer.BATCH
            self._step = "integrate"
            await sequencer.integrate(connection, memory=self.memory)
            # What is under way in bulk is signed all the same now and then
            if not more or now - self._published_at >= PAUSE_SECONDS:
                self._step = "publish"
                await sequencer.publish(connection, self.signer, self.memory)
                self._published_at = now
            if not more:
                self._whole_at = now
        return more

    def _say(self, error: Exception) -> None:
        told, now = str(error), time.monotonic()
        if told == self._said and now - self._said_at < SAY_AGAIN_SECONDS:
            return
        self._said, self._said_at = told, now
        log.critical(
            "the log does not go on (%s): %s: %s",
            self._step, type(error).__name__, told, exc_info=not isinstance(error, Conflict),
        )  # fmt: skip
        faults.note("log_stopped", told)
