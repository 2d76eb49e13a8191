"""The tokens of agents: an access token for a day, and a refresh token that brings a new one.

Promises
- A refresh token stays the same, and lives 90 days from its last use: RedFlag's agents store it once.
- A refresh token opens nothing but its own renewal, and only for its own agent.
- Only the SHA-256 of a token is stored. An agent that is removed has all of its tokens revoked (`revoke_all`), and even
  a token left over would not let it in (`principals`).
"""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from redflag.access.tokens import digest, make_token
from redflag.database import queries
from redflag.errors import NotAuthenticated, NotFound

sql = queries.load(__file__, "agent_tokens.sql")

ACCESS_LASTS = datetime.timedelta(hours=24)
REFRESH_LASTS = datetime.timedelta(days=90)


async def issue(connection: Any, agent_id: uuid.UUID) -> tuple[str, str]:
    """A new access token and a new refresh token, in this order. Raises NotFound for an agent that is not there."""
    access, refresh = make_token(), make_token()
    issued = await sql.issue.run(
        connection,
        agent_id=agent_id,
        access_hash=digest(access),
        refresh_hash=digest(refresh),
        access_lasts=ACCESS_LASTS,
        refresh_lasts=REFRESH_LASTS,
    )
    if not issued:
        raise NotFound(f"No agent {agent_id}", "Enrol it again")
    return access, refresh


async def renew(connection: Any, agent_id: uuid.UUID, refresh_token: str) -> str:
    """A new access token; the refresh token lives on for another 90 days.

    Raises NotFound for an agent that never was, NotAuthenticated for a token that is wrong, over, revoked or another's.
    """
    access = make_token()
    row = await sql.renew.one(
        connection,
        agent_id=agent_id,
        refresh_hash=digest(refresh_token),
        access_hash=digest(access),
        access_lasts=ACCESS_LASTS,
        refresh_lasts=REFRESH_LASTS,
    )
    if not row["known"]:
        raise NotFound(f"No agent {agent_id}", "Enrol it again")
    if not row["renewed"]:
        raise NotAuthenticated("The refresh token is not valid (any more)", "Enrol the agent again")
    return access


async def revoke_all(connection: Any, agent_id: uuid.UUID) -> int:
    """Ends every token of an agent; within 5 s no server lets it in. Returns how many."""
    return await sql.revoke_all.run(connection, agent_id=agent_id)


async def purge(connection: Any) -> int:
    """Deletes tokens that ended. Returns how many."""
    return await sql.purge.run(connection)
