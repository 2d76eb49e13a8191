"""A sum that is dear to make, made at most every few seconds for a whole process, however many people look at it.

Promises
- It is never gathered twice at once, and not at all while nobody looks.
- Gathering takes about a tenth of the time at the most: what takes long is gathered less often, up to every ten seconds.
- Whoever looks waits for no longer than they say: until then they get what was gathered last, if that is not too old, or nothing.
- One that fails says so in the log and is tried again after a pause; what was gathered before is shown for as long as it may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger("redflag.web")

# A sum is this old at the least before it is gathered anew, and this old at the most when it is still shown
LEAST_SECONDS = 2.0
MOST_SECONDS = 60.0
# After a gathering nothing is gathered for so many times as long as it took, up to the longest pause
PAUSE = 10
LONGEST_PAUSE_SECONDS = 10.0
FAILURE_PAUSE_SECONDS = 5.0
LONGEST_SECONDS = 30.0

Value = TypeVar("Value")


@dataclass(frozen=True)
class Known(Generic[Value]):
    """A value, and when its gathering began, by this process's clock."""

    value: Value
    at: datetime.datetime


class Cached(Generic[Value]):
    """One sum. `gather` makes it, while it has one of the `slots`; `least` and `most` are seconds."""

    def __init__(
        self,
        name: str,
        gather: Callable[[], Awaitable[Value]],
        *,
        slots: asyncio.Semaphore | None = None,
        least: float = LEAST_SECONDS,
        most: float = MOST_SECONDS,
    ) -> None:
        self.name = name
        self._gather = gather
        self._slots = slots or asyncio.Semaphore()
        self._least = least
        self._most = most
        self._known: Known[Value] | None = None
        self._began = 0.0
        self._due = float("-inf")
        self._task: asyncio.Task[None] | None = None

    @property
    def known(self) -> Known[Value] | None:
        """What was gathered last, unless that is too long ago."""
        if self._known is None or time.monotonic() - self._began > self._most:
            return None
        return self._known

    @property
    def under_way(self) -> bool:
        """Whether it is being gathered now."""
        return self._task is not None and not self._task.done()

    @property
    def due(self) -> float:
        """In how many seconds it may be gathered anew."""
        return max(0.0, self._due - time.monotonic())

    def begin(self) -> asyncio.Task[None] | None:
        """Gathers it anew if it is time; the work that is under way, if any is."""
        if self._task is None and time.monotonic() >= self._due:
            self._task = asyncio.create_task(self._renew(), name=f"gathering {self.name}")
            self._task.add_done_callback(self._ended)
        return self._task

    async def stop(self) -> None:
        """Ends what is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _renew(self) -> None:
        pause = FAILURE_PAUSE_SECONDS
        try:
            async with asyncio.timeout(LONGEST_SECONDS), self._slots:
                began, at = time.monotonic(), datetime.datetime.now(datetime.UTC)
                value = await self._gather()
            self._known, self._began = Known(value, at), began
            pause = max(self._least, min(PAUSE * (time.monotonic() - began), LONGEST_PAUSE_SECONDS))
        except Exception:  # whoever looks is told that it is not known
            log.exception("%s could not be gathered, and will be tried again", self.name)
        finally:
            self._due = time.monotonic() + pause

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._task = None
