"""The check-in: an agent says that it is there, and is handed what waits for it.

Presence is a statement that tells whether anything waits; a delivery follows only if something does, and an acknowledgement
only if the agent holds commands. Each kind is gathered by itself: what arrives together goes to the database together, and
whoever is handed nothing does not wait for the disk that a delivery waits for.
"""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass, field
from typing import Any

from redflag.audit.actor import Actor
from redflag.commands import queue
from redflag.database import queries
from redflag.database.courtesy import Courtesy
from redflag.database.gathering import Gathering

sql = queries.load(__file__, "presence.sql")

BATCH = 256
# So many calls are worth a second statement beside one that runs
WORTH = 64
WORTH_DELIVERING = 16
# Several processes share the check-ins and the cores: each would answer every few that come with a statement of their own, and the
# more processes there are, the more each check-in would cost. Seconds
PACE_OF_SEVERAL = 0.002


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
    """The check-ins of one server process, gathered into statements. `in_flight`: how many of each kind may run at once; `processes`:
    how many there are beside this one and with it; `courtesy`: who works in bulk sees there how long check-ins wait."""

    def __init__(self, pool: Any, *, in_flight: int = 2, processes: int = 1) -> None:
        pace = PACE_OF_SEVERAL if processes > 1 else 0.0
        self.courtesy = Courtesy()
        self._presence = Gathering(pool, _note, _agent, most=BATCH, in_flight=in_flight, worth=WORTH, pace=pace)
        self._deliveries = Gathering(pool, _hand_out, _agent, most=BATCH, in_flight=in_flight, worth=WORTH_DELIVERING)
        self._held = Gathering(pool, _acknowledge, _agent, most=BATCH, in_flight=1)

    async def check_in(self, one: CheckIn) -> Answer:
        """Takes a check-in in the next statements. Raises what these raised."""
        seen = await self.courtesy.watch(self._presence.ask(one))
        commands = await self._deliveries.ask(one) if seen["waiting"] and not one.throw_away else []
        ended = await self._held.ask(one) if one.held else []
        return Answer(commands, ended, seen["rapid_until"])


def _agent(one: CheckIn) -> uuid.UUID:
    return one.agent_id


async def _note(connection: Any, batch: list[CheckIn]) -> list[Any]:
    rows = await sql.seen.all(
        connection,
        agents=[one.agent_id for one in batch],
        addresses=[one.actor.address for one in batch],
        metrics=[one.metrics for one in batch],
        protocols=[one.protocol for one in batch],
    )
    seen = {row["agent_id"]: row for row in rows}
    return [seen[one.agent_id] for one in batch]


async def _hand_out(connection: Any, batch: list[CheckIn]) -> list[list[dict[str, Any]]]:
    asking = [queue.Asking(one.agent_id, one.actor, one.protocol, one.held) for one in batch]
    handed_out = await queue.deliver(connection, asking)
    return [handed_out[one.agent_id] for one in batch]


async def _acknowledge(connection: Any, batch: list[CheckIn]) -> list[list[uuid.UUID]]:
    live = await queue.received(connection, [(one.agent_id, command) for one in batch for command in one.held])
    return [[command for command in one.held if command not in live] for one in batch]
