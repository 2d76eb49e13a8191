"""Waiting for what a page will say: sums over the fleet are a few seconds old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(look: Callable[[], Awaitable[str]], *said: str) -> str:
    """What the page says once it says all of it: sums are a few seconds old."""
    async with asyncio.timeout(30):
        while True:
            text = await look()
            if all(one in text for one in said):
                return text
            await asyncio.sleep(0.1)
