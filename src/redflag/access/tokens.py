"""Tokens: how they are made, and the API tokens that let programs in.

Promises
- A token is 256 random bits as 64 hex characters. It is shown once; only its SHA-256 is stored, and it cannot be had
  back. Because it is random, a fast hash without a salt is enough.
- Nobody makes a token that may do more than they may, and no two live tokens share a name: `token:NAME` in a record
  means one of them.
- Each change leaves its record, written by the database in the same transaction; if that fails there is no token.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import uuid
from typing import Any

from redflag.access.roles import Role, require_ceiling
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound

sql = queries.load(__file__, "tokens.sql")

LONGEST_HOURS = 10 * 366 * 24


def make_token() -> str:
    """A new token: 64 hex characters. RedFlag's agents send an enrolment token only if it has more than 40."""
    return secrets.token_hex(32)


def digest(token: str) -> bytes:
    """What is stored of a token, and what it is found by: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def require_name(text: str, what: str) -> str:
    """A name for a record to show: 1 to 255 characters on one line. Raises InvalidInput."""
    name = text.strip()
    if not 1 <= len(name) <= 255 or not name.isprintable():
        raise InvalidInput(f"{what} has 1 to 255 characters on one line", "Choose another")
    return name


def require_hours(hours: float, longest: int) -> datetime.timedelta:
    """How long something is valid. Raises InvalidInput."""
    if not 0 < hours <= longest:
        raise InvalidInput(
            f"A token is valid for more than 0 and at most {longest} hours", "Give another number of hours"
        )
    return datetime.timedelta(hours=hours)


async def create(
    connection: Any,
    actor: Actor,
    name: str,
    role: Role,
    *,
    giver: Role,
    hours: float | None = None,
    user_id: uuid.UUID | None = None,
) -> tuple[str, dict[str, Any]]:
    """Makes an API token; `giver` is the role of who makes it. `hours` None: until it is revoked.

    With `user_id` it is that person's: it may never do more than they may, and ends when they are disabled.
    Raises NotPermitted, InvalidInput, NotFound (no such enabled user) or Conflict (a live token has this name).
    """
    require_ceiling(giver, role)
    clean = require_name(name, "The name of a token")
    lasts = None if hours is None else require_hours(hours, LONGEST_HOURS)
    token = make_token()
    async with connection.transaction():
        await sql.lock_names.run(connection)
        made = await sql.create.one(
            connection,
            name=clean,
            role=role,
            token_hash=digest(token),
            created_by=actor.name,
            user_id=user_id,
            lasts=lasts,
            act=actor.act("token_created"),
        )
        if made is None:
            if await sql.name_is_taken.value(connection, name=clean):
                raise Conflict(f"There is a token {clean} already", "Choose another name, or revoke it first")
            raise NotFound(f"No enabled user {user_id}", "See `redflag users list`")
    return token, dict(made)


async def revoke(connection: Any, actor: Actor, token_id: uuid.UUID) -> dict[str, Any]:
    """Ends a token; within 5 s no server lets it in. Raises NotFound when there is none that still works."""
    row = await sql.revoke.one(connection, id=token_id, act=actor.act("token_revoked"))
    if row is None:
        raise NotFound(f"No token {token_id} that is not revoked", "See `redflag tokens list`")
    return dict(row)


async def list_tokens(connection: Any) -> list[dict[str, Any]]:
    """Every token, the newest first, and whether it works. Never the token itself, nor its hash."""
    return [dict(row) for row in await sql.list_tokens.all(connection)]
