"""Enrolment: a host becomes an agent. The seat, the agent's row and its tokens are one transaction, and leave one record each.

So is the first scan, if the token asks for one.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from redflag.access import agent_tokens, enrolment
from redflag.audit import actor as actors
from redflag.audit import redaction
from redflag.commands import queue
from redflag.database import queries
from redflag.errors import InvalidInput

sql = queries.load(__file__, "agents.sql")


@dataclass(frozen=True)
class Host:
    """What a host says of itself as it enrols. `protocol` 0: one of RedFlag's own agents."""

    hostname: str
    os_type: str = ""
    os_version: str = ""
    os_architecture: str = ""
    agent_version: str = ""
    protocol: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Enrolled:
    """The agent, and its tokens: shown this once."""

    agent_id: uuid.UUID
    access_token: str
    refresh_token: str


async def enrol(connection: Any, token: str, host: Host, address: str | None) -> Enrolled:
    """Enrols a host with an enrolment token. Raises NotAuthenticated for a token that is wrong, over or used up, InvalidInput."""
    hostname = redaction.short(host.hostname.strip(), 255).strip()
    if not hostname:
        raise InvalidInput("The host name is empty", "Send hostname")
    # Measured before it is searched: whoever sends it has not shown a valid token yet
    if len(redaction.encode(host.metadata)) > 64 * 1024:
        raise InvalidInput("The metadata is larger than 64 KiB", "Send less of it")
    agent_id = uuid.uuid4()
    actor = actors.agent(agent_id, address)
    async with connection.transaction():
        seat = await enrolment.take_seat(connection, token, actor)
        scanned = await sql.enrol.value(
            connection,
            id=agent_id,
            hostname=hostname,
            os_type=redaction.short(host.os_type, 50),
            os_version=redaction.short(host.os_version, 200),
            os_architecture=redaction.short(host.os_architecture, 50),
            agent_version=redaction.short(host.agent_version, 100),
            protocol=host.protocol,
            metadata=redaction.clean(host.metadata),
            enrolled_with=seat,
            act=actor.act("agent_enrolled"),
        )
        if scanned:
            await queue.enqueue(
                connection, actors.agent(agent_id, address), [agent_id], "scan_updates", source="automatic"
            )
        access, refresh = await agent_tokens.issue(connection, agent_id)
    return Enrolled(agent_id, access, refresh)
