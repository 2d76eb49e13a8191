"""Log-ins: a name and a password become a session token, for a number of hours.

Promises
- A session and the record of its log-in are one transaction: there is none without the other.
- A refused log-in is recorded under the name if somebody has it, once a minute, the rest counted; else it is counted by
  address. Tries are limited by address and by name, before any password is looked at. Refusals all sound the same.
- No connection is held while a password is being checked, and the session is begun only if the user is still enabled
  and the password still the one that was checked.
- A password that was stored by bcrypt is written anew as Argon2id at the first log-in (with its record).
- Who changes their password ends their other sessions, those included that begin in the same moment.
"""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass, field
from typing import Any

from redflag.access import passwords, rate, users
from redflag.access.principals import Kind, Principal
from redflag.access.roles import Role
from redflag.access.tokens import digest, make_token
from redflag.audit import actor as actors
from redflag.audit import events
from redflag.database import queries
from redflag.errors import InvalidInput, NotAuthenticated, NotPermitted, RateLimited

sql = queries.load(__file__, "sessions.sql")

HOURS = 12
TRIES = 10
WINDOW_SECONDS = 300
# A name may be tried this many times as often as from one address
NAME_FACTOR = 10


@dataclass(frozen=True)
class Session:
    """A log-in that succeeded. `token` is shown this once."""

    token: str = field(repr=False)
    id: uuid.UUID
    expires_at: datetime.datetime
    user_id: uuid.UUID
    username: str
    role: Role
    must_change_password: bool


async def log_in(
    pool: Any, username: str, password: str, address: str | None, *, hours: float = HOURS, tries: int = TRIES
) -> Session:
    """Begins a session. Raises NotAuthenticated, or RateLimited after `tries` in five minutes by address or by name."""
    name = username if 1 <= len(username) <= 255 and username.isprintable() else None
    async with pool.acquire() as connection:
        await _limit(connection, name, address, tries)
    # Once more for whoever's hash was written anew by another log-in at the same time
    for _ in range(2):
        user = await sql.user.one(pool, username=name) if name else None
        correct = await passwords.verify(password, user["password_hash"] if user else None)
        if not user or not correct or user["disabled_at"]:
            break
        if session := await _begin(pool, user, password, address, hours):
            return session
    async with pool.acquire() as connection:
        if user:
            why = "the user is disabled" if user["disabled_at"] else "wrong password"
            await events.record_refusal(
                connection, actors.user(user["username"], address), action="login", message=f"log-in refused: {why}"
            )
        else:
            await events.count_refusal(connection, address or "unknown", action="login")
    raise NotAuthenticated("The user name or the password is wrong", "Try again; an admin can set a new password")


async def log_out(connection: Any, principal: Principal, address: str | None) -> None:
    """Ends the session of this very log-in. One that has ended is left alone. Raises NotPermitted without a session."""
    session_id = _session_of(principal)
    async with connection.transaction():
        if await sql.end.run(connection, id=session_id):
            await events.record(
                connection, principal.actor(address), kind="access", action="logout", session=str(session_id)
            )


async def change_password(
    pool: Any, principal: Principal, old: str, new: str, address: str | None, *, tries: int = TRIES
) -> int:
    """Changes one's own password and ends one's other sessions. Returns how many.

    Raises NotAuthenticated when `old` is wrong, InvalidInput when `new` will not do, RateLimited, or NotPermitted for a
    principal that has no session.
    """
    session_id = _session_of(principal)
    actor = principal.actor(address)
    async with pool.acquire() as connection:
        await rate.allow(connection, f"password:user:{principal.name.lower()}", tries, WINDOW_SECONDS)
        user = await sql.user.one(connection, username=principal.name)
    passwords.require_acceptable(new)
    if new == old:
        raise InvalidInput("The new password is the old one", "Choose another")
    if user and await passwords.verify(old, user["password_hash"]):
        hashed = await passwords.hash_password(new)
        async with pool.acquire() as connection, connection.transaction():
            await users.sql.lock.run(connection, id=user["id"])
            row = await sql.change_password.one(
                connection,
                id=user["id"],
                checked_hash=user["password_hash"],
                password_hash=hashed,
                keep=session_id,
                act=actor.act("user_password_changed"),
            )
        if row["changed"]:
            return int(row["ended"])
    async with pool.acquire() as connection:
        await events.record_refusal(
            connection, actor, action="password_change", message="change of password refused: wrong old password"
        )
    raise NotAuthenticated("The old password is wrong", "Try again; an admin can set a new password")


async def purge(connection: Any) -> int:
    """Deletes sessions that are over. Returns how many."""
    return await sql.purge.run(connection)


async def _limit(connection: Any, name: str | None, address: str | None, tries: int) -> None:
    try:
        await rate.allow(connection, f"login:address:{rate.place(address)}", tries, WINDOW_SECONDS)
        if name:
            # Many addresses against one name; more than one address may try, or anybody could keep the admin out
            await rate.allow(connection, f"login:user:{name.lower()}", NAME_FACTOR * tries, WINDOW_SECONDS)
    except RateLimited:
        await events.count_refusal(connection, address or "unknown", action="login")
        raise


async def _begin(pool: Any, user: Any, password: str, address: str | None, hours: float) -> Session | None:
    """The session with its record; None when the user has changed since the password was checked."""
    checked = user["password_hash"]
    anew = await passwords.hash_password(password) if passwords.outdated(checked) else None
    token = make_token()
    actor = actors.user(user["username"], address)
    async with pool.acquire() as connection, connection.transaction():
        row = await sql.begin.one(
            connection,
            user_id=user["id"],
            checked_hash=checked,
            new_hash=anew,
            token_hash=digest(token),
            lasts=datetime.timedelta(hours=hours),
            act=actor.act("user_password_rehashed"),
        )
        if row is None:
            return None
        await events.record(connection, actor, kind="access", action="login", session=str(row["id"]))
    return Session(
        token=token,
        id=row["id"],
        expires_at=row["expires_at"],
        user_id=user["id"],
        username=user["username"],
        role=Role(row["role"]),
        must_change_password=row["must_change_password"],
    )


def _session_of(principal: Principal) -> uuid.UUID:
    if principal.kind != Kind.USER:
        raise NotPermitted(f"{principal.name} has no session and no password", "Log in with a user name")
    return uuid.UUID(principal.session.removeprefix("user:"))
