"""Holds: calls of agents that wait until there is something for them, so that a command arrives at once and no agent
needs an open port.

One statement a round asks for all calls that this process holds; an agent that is not woken comes by again by itself. When
too many calls are held, or the server stops, nobody is held: they are told to come back instead.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from redflag.database import queries

log = logging.getLogger("redflag.fleet")
sql = queries.load(__file__, "presence.sql")

MOST = 20_000
ROUND_SECONDS = 0.5
LONGEST_SECONDS = 30


class Holds:
    """The calls that this process holds."""

    def __init__(self, pool: Any, *, most: int = MOST) -> None:
        self.pool = pool
        self._most = most
        self._held: dict[asyncio.Future[bool], tuple[uuid.UUID, tuple[uuid.UUID, ...]]] = {}
        self._closed = False

    def offer(self) -> int:
        """For how many seconds an agent may ask to be held at its next call. 0: not now."""
        return 0 if self._closed or len(self._held) >= self._most else LONGEST_SECONDS

    async def hold(self, agent_id: uuid.UUID, commands: tuple[uuid.UUID, ...], seconds: float) -> bool:
        """Waits until something is there for the agent, or one of the commands it holds has ended. False: the time is over."""
        if self._closed or len(self._held) >= self._most:
            return False
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._held[woken] = (agent_id, commands)
        try:
            return await asyncio.wait_for(woken, min(seconds, LONGEST_SECONDS))
        except TimeoutError:
            return False
        finally:
            del self._held[woken]

    async def run(self, stop: asyncio.Event) -> None:
        """Looks for work for those who wait, until `stop` is set. What the database refuses is asked again."""
        while not stop.is_set():
            if self._held:
                try:
                    await self._look()
                except Exception:  # the sweep runs beside this, and must not end with it
                    log.exception("could not look for work for held agents, and will look again")
            try:
                await asyncio.wait_for(stop.wait(), ROUND_SECONDS)
            except TimeoutError:
                continue
        self.release()

    def release(self) -> None:
        """Answers all who wait, and holds nobody any more: the server stops."""
        self._closed = True
        for woken in self._held:
            if not woken.done():
                woken.set_result(False)

    async def _look(self) -> None:
        asking = dict(self._held)
        async with self.pool.acquire() as connection:
            rows = await sql.waiting.all(
                connection,
                agents=[agent_id for agent_id, _ in asking.values()],
                held=[one for _, commands in asking.values() for one in commands],
            )
        ready = {row["agent_id"] for row in rows}
        for woken, (agent_id, _) in asking.items():
            if agent_id in ready and not woken.done():
                woken.set_result(True)
