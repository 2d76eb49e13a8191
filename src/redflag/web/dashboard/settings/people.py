"""Users and their roles."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from redflag.access import passwords, users
from redflag.access.roles import Permission, Role, role_of
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, fragment
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/people", route_class=GuardedRoute, include_in_schema=False)
MANAGER = enter(Permission.MANAGE_USERS)


@router.get("")
async def show(request: Request, visitor: Visitor = MANAGER) -> Response:
    """Everybody who may log in, or once might."""
    async with visitor.pool.acquire() as connection:
        rows = await users.list_users(connection)
    return settings_page(request, visitor, "people.html", users=rows, roles=list(Role))


@router.post("")
async def create(
    request: Request,
    username: Annotated[str, Form(max_length=255)] = "",
    role: Annotated[str, Form(max_length=50)] = Role.VIEWER,
    visitor: Visitor = MANAGER,
) -> Response:
    """Makes a user with a generated password, which is shown this once and changed at the first log-in."""
    password = passwords.generate_password()
    async with visitor.pool.acquire() as connection:
        row = await users.create(connection, visitor.actor, username.strip(), role_of(role), password)
    shown = fragment(
        "settings/once.html", visitor, title=f"{row['username']} can log in",
        text="With this password, which is shown this once and has to be changed at the first log-in.", secret=password,
    )  # fmt: skip
    return done(request, "", subjects={"settings"}, content=shown)


@router.post("/{user_id}/role")
async def set_role(
    request: Request,
    user_id: uuid.UUID,
    role: Annotated[str, Form(max_length=50)] = "",
    visitor: Visitor = MANAGER,
) -> Response:
    """Gives a user another role."""
    async with visitor.pool.acquire() as connection:
        row = await users.set_role(connection, visitor.actor, user_id, role_of(role))
    return _changed(request, visitor, f"{row['username']} is now {row['role']}")


@router.post("/{user_id}/disable")
async def disable(request: Request, user_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Lets a user in no more; their sessions end."""
    async with visitor.pool.acquire() as connection:
        row = await users.disable(connection, visitor.actor, user_id)
    return _changed(request, visitor, f"{row['username']} cannot log in any more")


@router.post("/{user_id}/enable")
async def enable(request: Request, user_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Lets a user in again."""
    async with visitor.pool.acquire() as connection:
        row = await users.enable(connection, visitor.actor, user_id)
    return _changed(request, visitor, f"{row['username']} can log in again")


@router.post("/{user_id}/password")
async def reset_password(request: Request, user_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Gives a user a new generated password; their sessions end."""
    password = passwords.generate_password()
    async with visitor.pool.acquire() as connection:
        row = await users.set_password(connection, visitor.actor, user_id, password)
    visitor.context.authenticator.forget_all()
    shown = fragment(
        "settings/once.html", visitor, title=f"A new password for {row['username']}",
        text="Their log-ins have ended. It is shown this once, and has to be changed at the next log-in.", secret=password,
    )  # fmt: skip
    return done(request, "", subjects={"settings"}, content=shown)


def _changed(request: Request, visitor: Visitor, text: str) -> Response:
    visitor.context.authenticator.forget_all()
    return done(request, text, subjects={"settings"})
