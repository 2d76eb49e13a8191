"""People: who may log in, and as what.

Promises
- There is always an enabled admin: the last one can be neither disabled nor demoted, also not by two admins at once.
- Whoever is disabled, or given a new password by somebody else, has their sessions ended with it, those included
  that begin in the same moment. The API tokens of a disabled person do not work until they are enabled again.
- Each change leaves its record, written by the database in the same transaction, and no record holds a password.

A user is never deleted, because the record speaks of them. Names differ in more than capitals.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from redflag.access import passwords
from redflag.access.roles import Role
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound

sql = queries.load(__file__, "users.sql")

FIRST_ADMIN = "admin"
# What a record shows must not look like something else
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,254}")


async def create(
    connection: Any, actor: Actor, username: str, role: Role, password: str, *, must_change_password: bool = True
) -> dict[str, Any]:
    """Makes a user. Raises InvalidInput, or Conflict when the name is taken."""
    if not USERNAME.fullmatch(username):
        raise InvalidInput(
            f"{username[:50]!r} is no user name",
            "Use letters, digits and . _ @ + -, beginning with a letter or a digit",
        )
    passwords.require_acceptable(password)
    row = await sql.create.one(
        connection,
        username=username,
        role=role,
        password_hash=await passwords.hash_password(password),
        must_change_password=must_change_password,
        act=actor.act("user_created"),
    )
    if row is None:
        raise Conflict(f"There is a user {username} already", "Choose another name")
    return dict(row)


async def bootstrap_admin(connection: Any, actor: Actor) -> str | None:
    """Makes the first admin of an installation and returns the generated password, this once.

    None when there is an admin already, whatever became of them, or somebody else has the name `admin`.
    """
    if await sql.has_admin.value(connection):
        return None
    password = passwords.generate_password()
    password_hash = await passwords.hash_password(password)
    async with connection.transaction():
        await sql.lock_admins.run(connection)
        made = await sql.create_first_admin.one(
            connection, username=FIRST_ADMIN, password_hash=password_hash, act=actor.act("user_created")
        )
    return password if made else None


async def show(connection: Any, username: str) -> dict[str, Any]:
    """The user of this name, in whichever capitals. Raises NotFound."""
    row = await sql.user.one(connection, username=username) if username.isprintable() else None
    if row is None:
        raise NotFound(f"No user {username[:255]!r}", "See `redflag users list`")
    return dict(row)


async def list_users(connection: Any) -> list[dict[str, Any]]:
    """Every user by name, without the hash of the password."""
    return [dict(row) for row in await sql.list_users.all(connection)]


async def set_role(connection: Any, actor: Actor, user_id: uuid.UUID, role: Role) -> dict[str, Any]:
    """Gives a user another role; a user who has it already is left alone. Raises NotFound, or Conflict for the last admin."""
    async with connection.transaction():
        await sql.lock_admins.run(connection)
        row = await sql.set_role.one(connection, id=user_id, role=role, act=actor.act("user_role_changed"))
        return await _changed(connection, row, user_id, demotes=role != Role.ADMIN)


async def disable(connection: Any, actor: Actor, user_id: uuid.UUID) -> dict[str, Any]:
    """Lets a user in no more, and ends their sessions. Raises NotFound, or Conflict for the last admin."""
    async with connection.transaction():
        await sql.lock_admins.run(connection)
        await sql.lock.run(connection, id=user_id)
        row = await sql.disable.one(connection, id=user_id, act=actor.act("user_disabled"))
        return await _changed(connection, row, user_id, demotes=True)


async def enable(connection: Any, actor: Actor, user_id: uuid.UUID) -> dict[str, Any]:
    """Lets a user in again; their sessions stay ended. Raises NotFound."""
    row = await sql.enable.one(connection, id=user_id, act=actor.act("user_enabled"))
    return await _changed(connection, row, user_id, demotes=False)


async def set_password(
    connection: Any, actor: Actor, user_id: uuid.UUID, password: str, *, must_change_password: bool = True
) -> dict[str, Any]:
    """Gives a user a password that somebody else chose, and ends their sessions. Raises InvalidInput or NotFound."""
    passwords.require_acceptable(password)
    password_hash = await passwords.hash_password(password)
    async with connection.transaction():
        await sql.lock.run(connection, id=user_id)
        row = await sql.set_password.one(
            connection,
            id=user_id,
            password_hash=password_hash,
            must_change_password=must_change_password,
            act=actor.act("user_password_set"),
        )
    return await _changed(connection, row, user_id, demotes=False)


async def _changed(connection: Any, row: Any, user_id: uuid.UUID, *, demotes: bool) -> dict[str, Any]:
    """The row that was changed, or that needed no change; else why it was not."""
    if row is not None:
        return dict(row)
    there = await sql.user_by_id.one(connection, id=user_id)
    if there is None:
        raise NotFound(f"No user {user_id}", "See `redflag users list`")
    if demotes and there["role"] == Role.ADMIN and there["disabled_at"] is None:
        raise Conflict(f"{there['username']} is the last admin who can log in", "Make somebody else an admin first")
    return dict(there)
