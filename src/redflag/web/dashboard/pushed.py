"""Regions that are drawn once for everybody who looks, and sent down the streams of their pages.

A region that many keep open costs the server a request for each page and beat if each page asks for it anew. One that says the same
to all who may see the same is drawn once a beat for each set of permissions, and the very same bytes go to every stream. A page to
which no stream comes through asks for it as for any other region.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from redflag.access.roles import Permission
from redflag.web.dashboard.door import Visitor

Draw = Callable[[Visitor], Awaitable[str]]

# What is drawn is good for the pages of one beat
GOOD_SECONDS = 0.8


class Pushed:
    """What was drawn last of each region, for each set of permissions. `regions`: by the id that the region has on its page."""

    def __init__(self, regions: dict[str, Draw]) -> None:
        self._regions = regions
        self._drawn: dict[tuple[str, frozenset[Permission]], tuple[float, asyncio.Future[bytes]]] = {}

    def __contains__(self, region: str) -> bool:
        return region in self._regions

    async def event(self, region: str, visitor: Visitor) -> bytes:
        """The event that draws a region anew. Whoever comes while it is drawn waits for the same. Raises what drawing it raised."""
        key = (region, visitor.principal.permissions)
        at, drawn = self._drawn.get(key, (0.0, None))
        if drawn is None or time.monotonic() - at > GOOD_SECONDS:
            drawn = asyncio.ensure_future(self._draw(region, visitor))
            self._drawn[key] = (time.monotonic(), drawn)
        return await asyncio.shield(drawn)

    async def _draw(self, region: str, visitor: Visitor) -> bytes:
        told = json.dumps({"id": region, "html": await self._regions[region](visitor)}, separators=(",", ":"))
        return f"event: region\ndata: {told}\n\n".encode()
