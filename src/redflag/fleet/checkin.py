"""The check-in: an agent says that it is there, and is handed what waits for it.

Two statements at the most: presence, which tells whether anything waits; and the delivery only if something does. What
arrives together goes to the database together: a batch is what queued while the last one ran, so that nobody waits
for a window to fill.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from redflag.audit.actor import Actor
from redflag.commands import queue
from redflag.database import queries
from redflag.database.courtesy import Courtesy
from redflag.database.gathering import Gathering

sql = queries.load(__file__, "presence.sql")

BATCH = 256


@dataclass(frozen=True)
class CheckIn:
    """An agent that comes by. `throw_away`: it will not read the commands of this answer, so none is handed out."""

    agent_id: uuid.UUID
    actor: Actor
    protocol: int = 0
    held: tuple[uuid.UUID, ...] = ()
    metrics: dict[str, Any] | None = None
    throw_away: bool = False


@dataclass(frozen=True)
class Answer:
    """What it is told: its commands, which of those it holds have ended, and until when it is to come by rapidly."""

    commands: list[dict[str, Any]] = field(default_factory=list)
    ended: list[uuid.UUID] = field(default_factory=list)
    rapid_until: datetime.datetime | None = None


class CheckIns:
    """The check-ins of one server process, gathered into statements. `courtesy`: who works in bulk sees there how long they wait."""

    def __init__(self, pool: Any, *, in_flight: int = 2) -> None:
        self.courtesy = Courtesy()
        self._gathering = Gathering(pool, _answer, lambda one: one.agent_id, most=BATCH, in_flight=in_flight)

    def check_in(self, one: CheckIn) -> Awaitable[Answer]:
        """Queues a check-in for the next statement. The answer raises what that statement raised."""
        return self.courtesy.watch(self._gathering.ask(one))


async def _answer(connection: Any, batch: list[CheckIn]) -> list[Answer]:
    rows = await sql.seen.all(
        connection,
        agents=[one.agent_id for one in batch],
        addresses=[one.actor.address for one in batch],
        metrics=[one.metrics for one in batch],
        protocols=[one.protocol for one in batch],
    )
    seen = {row["agent_id"]: row for row in rows}
    asking = [
        queue.Asking(one.agent_id, one.actor, one.protocol, one.held)
        for one in sorted(batch, key=lambda one: one.agent_id)
        if seen[one.agent_id]["waiting"] and not one.throw_away
    ]
    handed_out = await queue.deliver(connection, asking) if asking else {}
    ended: dict[uuid.UUID, list[uuid.UUID]] = {}
    for one in batch:
        if one.held:
            _, gone = await queue.acknowledge(connection, one.actor, one.agent_id, queue.Progress(received=one.held))
            ended[one.agent_id] = gone
    return [
        Answer(handed_out.get(one.agent_id, []), ended.get(one.agent_id, []), seen[one.agent_id]["rapid_until"])
        for one in batch
    ]
