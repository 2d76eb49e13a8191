"""Sums over the whole fleet, asked of the database for all open pages of a process together.

Promises: a sum that is quick is as fresh as a second; one that takes long is asked anew in the background, so that no page waits
for it, and never takes more than a fiftieth of the database's time. Whoever shows it is told how old it is. If the database
refuses, the last sum stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("redflag.web")

FRESH_SECONDS = 1.0
# A sum that took so long is not waited for by a page that has an older one
QUICK_SECONDS = 0.05
SHARE = 50


class Gathered(Generic[T]):
    """One sum. `ask` gets the pool."""

    def __init__(self, ask: Callable[[Any], Awaitable[T]]) -> None:
        self._ask = ask
        self._known: T | None = None
        self._at = float("-inf")
        self._took = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def value(self, pool: Any) -> tuple[T | None, float]:
        """The sum, and its age in seconds; None where it is being asked for the first time and takes long."""
        if time.monotonic() - self._at > max(FRESH_SECONDS, SHARE * self._took):
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._gather(pool))
            if self._known is None or self._took < QUICK_SECONDS:
                # Not cancelled when the time is over, nor with the page: others wait for the same answer
                await asyncio.wait([self._asking], timeout=QUICK_SECONDS)
        return self._known, time.monotonic() - self._at if self._known is not None else 0.0

    async def _gather(self, pool: Any) -> None:
        began = time.monotonic()
        try:
            self._known = await self._ask(pool)
        except Exception as error:  # the pages say what they know, and the next one asks again
            log.warning("a sum stays as it was: %s: %s", type(error).__name__, error)
        self._at = time.monotonic()
        self._took = self._at - began


def on(state: Any, name: str, ask: Callable[[Any], Awaitable[Any]]) -> Gathered[Any]:
    """The sum of this name of an app, which is made at the first use. `state` is the app's."""
    found: Gathered[Any] | None = getattr(state, name, None)
    if found is None:
        found = Gathered(ask)
        setattr(state, name, found)
    return found
