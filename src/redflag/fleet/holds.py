"""Holds: calls of agents that wait until there is something for them, so that a command arrives at once and no agent
needs an open port.

Commands that were just enqueued, by whatever process or person, are looked for every few hundredths of a second: one statement
that costs the same however many calls are held. A round every second or so asks for all held calls whether anything else is there
(a command taken back, one that has ended). An agent that is not woken comes by again by itself. When too many calls are held, or
the server stops, nobody is held: they are told to come back instead.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
import uuid
from typing import Any

from redflag.database import queries

log = logging.getLogger("redflag.fleet")
sql = queries.load(__file__, "presence.sql")

MOST = 20_000
GLANCE_SECONDS = 0.03
ROUND_SECONDS = 1.0
# Of commands enqueued in the last moments some may not be committed yet when later ones are seen
OVERLAP = datetime.timedelta(seconds=0.3)
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
        since: datetime.datetime | None = None
        next_round = 0.0
        while not stop.is_set():
            pause = GLANCE_SECONDS
            try:
                if not self._held:
                    since = None
                elif since is None or time.monotonic() >= next_round:
                    since = since or await sql.database_now.value(self.pool) - OVERLAP
                    await self._look()
                    next_round = time.monotonic() + ROUND_SECONDS
                else:
                    since = await self._glance(since)
            except Exception:  # the sweep runs beside this, and must not end with it
                log.exception("could not look for work for held agents, and will look again")
                pause = ROUND_SECONDS
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue
        self.release()

    def release(self) -> None:
        """Answers all who wait, and holds nobody any more: the server stops."""
        self._closed = True
        for woken in self._held:
            if not woken.done():
                woken.set_result(False)

    async def _glance(self, since: datetime.datetime) -> datetime.datetime:
        """Wakes whom a new command is for. Returns since when to look the next time."""
        rows = await sql.newly_enqueued.all(self.pool, since=since)
        if not rows:
            return since
        agents = {row["agent_id"] for row in rows}
        for woken, (agent_id, _) in self._held.items():
            if agent_id in agents and not woken.done():
                woken.set_result(True)
        newest: datetime.datetime = rows[0]["created_at"]
        return max(since, newest - OVERLAP)

    async def _look(self) -> None:
        asking = dict(self._held)
        rows = await sql.waiting.all(
            self.pool,
            agents=[agent_id for agent_id, _ in asking.values()],
            held=[one for _, commands in asking.values() for one in commands],
        )
        ready = {row["agent_id"] for row in rows}
        for woken, (agent_id, _) in asking.items():
            if agent_id in ready and not woken.done():
                woken.set_result(True)
