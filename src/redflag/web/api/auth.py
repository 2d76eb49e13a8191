"""Log in, log out, change the password, and who am I."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from redflag.access import sessions
from redflag.access.roles import Permission
from redflag.web.api.fields import Body
from redflag.web.context import address, context
from redflag.web.guards import Caller, GuardedRoute, allow, bearer, public

router = APIRouter(prefix="/api/v1/auth", tags=["access"], route_class=GuardedRoute)


class LogIn(Body):
    """User name and password."""

    username: str = Field(min_length=1, max_length=255)
    password: str = Field(min_length=1, max_length=1024)


class NewPassword(Body):
    """The old password and the new one."""

    old_password: str = Field(max_length=1024)
    new_password: str = Field(max_length=1024)


@router.post("/login")
@public
async def log_in(request: Request, body: LogIn) -> dict[str, Any]:
    """A session's token for a user name and a password."""
    here = context(request)
    session = await sessions.log_in(
        here.pool,
        body.username,
        body.password,
        address(request),
        hours=here.settings.session_hours,
        tries=here.settings.login_tries,
    )
    return {
        "token": session.token,
        "username": session.username,
        "role": session.role,
        "expires_at": session.expires_at,
        "must_change_password": session.must_change_password,
    }


@router.post("/logout")
async def log_out(
    request: Request, caller: Caller = allow(Permission.READ_FLEET, while_password_is_temporary=True)
) -> dict[str, Any]:
    """Ends the session of this token."""
    async with caller.pool.acquire() as connection:
        await sessions.log_out(connection, caller.principal, caller.address)
    caller.context.authenticator.forget(bearer(request))
    return {"message": "logged out"}


@router.post("/password")
async def change_password(
    body: NewPassword, caller: Caller = allow(Permission.READ_FLEET, while_password_is_temporary=True)
) -> dict[str, Any]:
    """Changes one's own password; every other session of the user ends."""
    ended = await sessions.change_password(
        caller.pool, caller.principal, body.old_password, body.new_password, caller.address
    )
    caller.context.authenticator.forget_all()
    return {"message": "password changed", "ended_sessions": ended}


@router.get("/me")
async def me(caller: Caller = allow(Permission.READ_FLEET, while_password_is_temporary=True)) -> dict[str, Any]:
    """Who this token is, and what it may do."""
    who = caller.principal
    return {
        "name": who.name,
        "kind": who.kind,
        "role": who.role,
        "permissions": sorted(who.permissions),
        "must_change_password": who.must_change_password,
    }
