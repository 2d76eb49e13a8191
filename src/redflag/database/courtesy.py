"""Work in bulk gives way to those who wait for an answer.

Both want the same processors, and whoever works in bulk can wait. How long answers take is measured by the answers themselves: one
call at a time is watched, the first that comes after the last one watched was answered. So nobody waits long without being seen,
and to watch costs nothing that could be measured. What holds an answer up does not matter: the database, its disk, or this process.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

T = TypeVar("T")

# Who is answered within this time is not held up, in seconds: half of what a check-in may take while a storm is worked off
CALM_SECONDS = 0.05


class Courtesy:
    """Knows how long the calls wait that it is shown."""

    def __init__(self) -> None:
        self._watched: asyncio.Future[Any] | None = None
        self._since = 0.0
        self._longest = 0.0

    def watch(self, answer: asyncio.Future[T]) -> asyncio.Future[T]:
        """Shows an answer that somebody waits for from now on."""
        if self._watched is None:
            self._watched, self._since = answer, time.monotonic()
            answer.add_done_callback(self._answered)
        return answer

    def held_up(self) -> bool:
        """Whether anybody was, since this was last asked, or is right now."""
        longest, self._longest = max(self._longest, self._waiting()), 0.0
        return longest > CALM_SECONDS

    async def give_way(self, at_most: float) -> None:
        """Lets those be answered who are held up right now, for so many seconds at the most."""
        until = time.monotonic() + at_most
        while self._watched is not None and self._waiting() > CALM_SECONDS and (left := until - time.monotonic()) > 0:
            await asyncio.wait({self._watched}, timeout=left)

    def _waiting(self) -> float:
        return time.monotonic() - self._since if self._watched is not None else 0.0

    def _answered(self, _: asyncio.Future[Any]) -> None:
        self._longest = max(self._longest, self._waiting())
        self._watched = None
