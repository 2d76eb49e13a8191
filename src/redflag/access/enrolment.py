"""Enrolment tokens: each lets a number of hosts become agents, for a time.

Promises
- Seats are never used more often than there are, however many hosts come at once: a seat is taken by one statement that
  counts and checks under the row's lock.
- A seat is taken in the caller's transaction, so that it is given back when the agent cannot be made.
- A token is shown once; only its SHA-256 is stored. Each change, each seat included, leaves its record.
"""

from __future__ import annotations

import uuid
from typing import Any

from redflag.access.tokens import digest, make_token, require_hours, require_name
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import InvalidInput, NotAuthenticated, NotFound

sql = queries.load(__file__, "enrolment.sql")

MOST_SEATS = 1_000_000
LONGEST_HOURS = 366 * 24


async def create(
    connection: Any, actor: Actor, label: str, seats: int, hours: float, *, first_scan: bool = False
) -> tuple[str, dict[str, Any]]:
    """Makes a token for `seats` hosts within `hours`; with `first_scan` each is scanned as it comes.

    Returns it, this once, and its row. Raises InvalidInput.
    """
    clean = require_name(label, "The label of an enrolment token")
    if not 1 <= seats <= MOST_SEATS:
        raise InvalidInput(f"An enrolment token has 1 to {MOST_SEATS} seats", "Give another number of seats")
    lasts = require_hours(hours, LONGEST_HOURS)
    token = make_token()
    row = await sql.create.one(
        connection,
        label=clean,
        token_hash=digest(token),
        seats=seats,
        created_by=actor.name,
        lasts=lasts,
        first_scan=first_scan,
        act=actor.act("enrolment_token_created"),
    )
    return token, dict(row)


async def take_seat(connection: Any, token: str, actor: Actor) -> uuid.UUID:
    """Takes one seat for `actor`, the agent to be, and returns the token's id. Call it in the transaction of the agent.

    Raises NotAuthenticated when the token is wrong, over, revoked or used up.
    """
    found: uuid.UUID | None = await sql.take_seat.value(
        connection, token_hash=digest(token), act=actor.act("enrolment_token_used")
    )
    if found is None:
        raise NotAuthenticated(
            "The enrolment token is wrong, over, revoked or used up", "Make one with `redflag agents invite`"
        )
    return found


async def revoke(connection: Any, actor: Actor, token_id: uuid.UUID) -> dict[str, Any]:
    """Ends a token at once; the agents that it let in stay. Raises NotFound when there is none that is not revoked."""
    row = await sql.revoke.one(connection, id=token_id, act=actor.act("enrolment_token_revoked"))
    if row is None:
        raise NotFound(f"No enrolment token {token_id} that is not revoked", "See `redflag agents invitations`")
    return dict(row)


async def list_tokens(connection: Any) -> list[dict[str, Any]]:
    """Every token, the newest first, and whether it works. Never the token itself, nor its hash."""
    return [dict(row) for row in await sql.list_tokens.all(connection)]


async def list_open(connection: Any, limit: int = 100) -> list[dict[str, Any]]:
    """The tokens that work, the newest first."""
    return [dict(row) for row in await sql.list_open.all(connection, limit=limit)]


async def show(connection: Any, token_id: uuid.UUID) -> dict[str, Any]:
    """One token, and whether it works. Raises NotFound."""
    row = await sql.token.one(connection, id=token_id)
    if row is None:
        raise NotFound(f"No enrolment token {token_id}", "See `redflag agents invitations`")
    return dict(row)


def pasted(url: str, token: str) -> str:
    """The one command to paste on a host, which enrols it with the server at this address."""
    return f"curl -fsS {url}/agent/install.sh | sudo sh -s -- {token}"
