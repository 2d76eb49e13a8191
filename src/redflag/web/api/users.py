"""Users and their roles."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from redflag.access import passwords, users
from redflag.access.roles import Permission, Role
from redflag.web.api.fields import Body
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/users", tags=["access"], route_class=GuardedRoute)


class NewUser(Body):
    """A person. Without a password one is generated, shown this once, and to be changed at the first log-in."""

    username: str = Field(min_length=1, max_length=255)
    role: Role = Role.VIEWER
    password: str | None = Field(None, max_length=1024)


class UserChange(Body):
    """Absent: as it is."""

    role: Role | None = None
    disabled: bool | None = None
    password: str | None = Field(None, max_length=1024)


@router.get("")
async def list_users(caller: Caller = allow(Permission.MANAGE_USERS)) -> dict[str, Any]:
    """Every user."""
    async with caller.pool.acquire() as connection:
        return {"users": await users.list_users(connection)}


@router.post("", status_code=201)
async def make_user(body: NewUser, caller: Caller = allow(Permission.MANAGE_USERS)) -> dict[str, Any]:
    """Makes a user. Whoever did not choose their password changes it at the first log-in."""
    password = body.password or passwords.generate_password()
    async with caller.pool.acquire() as connection:
        row = await users.create(connection, caller.actor, body.username, body.role, password)
    return row | ({} if body.password else {"password": password})


@router.patch("/{user_id}")
async def change_user(
    user_id: uuid.UUID, body: UserChange, caller: Caller = allow(Permission.MANAGE_USERS)
) -> dict[str, Any]:
    """Changes a user's role, password, or whether they may come in. The last administrator stays one."""
    row: dict[str, Any] = {}
    async with caller.pool.acquire() as connection, connection.transaction():
        # Each is a change of its own, with an act of its own
        if body.role is not None:
            row = await users.set_role(connection, caller.principal.actor(caller.address), user_id, body.role)
        if body.disabled is not None:
            change = users.disable if body.disabled else users.enable
            row = await change(connection, caller.principal.actor(caller.address), user_id)
        if body.password is not None:
            row = await users.set_password(connection, caller.principal.actor(caller.address), user_id, body.password)
    caller.context.authenticator.forget_all()
    return {"user": row}
