"""Presence: whether an agent was asked to come by rapidly."""

from __future__ import annotations

import uuid
from typing import Any

from redflag.database import queries

sql = queries.load(__file__, "presence.sql")


async def set_rapid(connection: Any, agent_id: uuid.UUID, minutes: int | None) -> None:
    """An agent that took a heartbeat command comes by every few seconds for so many minutes; None: no longer."""
    await sql.set_rapid.run(connection, agent_id=agent_id, minutes=minutes)
