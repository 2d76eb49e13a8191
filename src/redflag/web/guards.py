"""Who may call what: default deny.

Every admin route names its permission with `allow(...)`; a route without one cannot be added to the app. What is refused is
recorded: by name for whoever is known, counted by address for whoever is not.

Forms come as browsers send them, in UTF-8; in no other encoding is one read, known caller or not. A form that names its own
encoding chooses the decoder, and some of Python's take minutes for a megabyte.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from redflag.access.principals import Principal
from redflag.access.roles import Permission
from redflag.audit import events
from redflag.audit.actor import Actor
from redflag.errors import InvalidInput, NotAuthenticated, NotPermitted, RedFlagError
from redflag.web.context import Context, address, context


@dataclass(frozen=True)
class Caller:
    """Who makes a request that was let in."""

    principal: Principal
    actor: Actor
    address: str
    context: Context

    @property
    def pool(self) -> Any:
        """The server's connections."""
        return self.context.pool


class GuardedRoute(APIRoute):
    """A route that cannot exist without saying whom it lets in."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.permission = _declared(endpoint, "permission")
        # A page of the dashboard, for people with a session; else a route for whoever has a token
        self.page = bool(_declared(endpoint, "page"))
        if self.permission is None:
            raise TypeError(f"{path} does not say who may call it: give it a caller of allow(...) or mark it @public")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's, which reads the body before any guard is asked: what must not be read is refused here."""
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            _refuse_parts(request)
            return await answer(request)

        return handler


def allow(permission: Permission, *, while_password_is_temporary: bool = False) -> Any:
    """The default of a route's `caller`: lets in whoever has the permission, and tells who that is."""

    async def guard(request: Request) -> Caller:
        return await let_in(request, permission, while_password_is_temporary=while_password_is_temporary)

    guard.permission = permission  # type: ignore[attr-defined]
    return Depends(guard)


def public(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a route that everybody may call."""
    endpoint.permission = "public"  # type: ignore[attr-defined]
    return endpoint


def _refuse_parts(request: Request) -> None:
    """Raises InvalidInput for a form in parts (RFC 7578): none of our pages sends one."""
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise InvalidInput(
            "A form in parts (multipart) is not read here", "Send application/x-www-form-urlencoded, or JSON on the API"
        )


def _declared(endpoint: Callable[..., Any], what: str) -> Any:
    if found := getattr(endpoint, what, None):
        return found
    for parameter in inspect.signature(endpoint).parameters.values():
        if found := getattr(getattr(parameter.default, "dependency", None), what, None):
            return found
    return None


def bearer(request: Request) -> str:
    """The token of a request. Raises NotAuthenticated. Tokens are read from the header only, never from an address."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated(
            "This needs a token", "Send Authorization: Bearer <token>; `redflag tokens create` makes one"
        )
    return token.strip()


async def let_in(request: Request, permission: Permission, *, while_password_is_temporary: bool = False) -> Caller:
    """The caller with this request's token. Raises NotAuthenticated or NotPermitted, and records it."""
    try:
        token = bearer(request)
    except NotAuthenticated:
        await _count_refusal(request)
        raise
    return await admit(request, token, permission, while_password_is_temporary=while_password_is_temporary)


async def admit(
    request: Request, token: str, permission: Permission, *, while_password_is_temporary: bool = False
) -> Caller:
    """The caller, if the token is one and may do this. Raises NotAuthenticated or NotPermitted, and records it."""
    here = context(request)
    where = address(request)
    try:
        principal = await here.authenticator.authenticate(token)
    except NotAuthenticated:
        await _count_refusal(request)
        raise
    actor = principal.actor(where)
    refusal: RedFlagError | None = None
    if permission not in principal.permissions:
        refusal = NotPermitted(
            f"{principal.name} may not do this: it needs the permission {permission}", "Ask an administrator"
        )
    elif principal.must_change_password and not while_password_is_temporary:
        refusal = NotPermitted("The generated password must be changed first", "POST /api/v1/auth/password")
    if refusal:
        async with here.pool.acquire() as connection:
            await events.record_refusal(connection, actor, action="access_refused", message=_asked(request))
        raise refusal
    return Caller(principal, actor, where, here)


async def _count_refusal(request: Request) -> None:
    async with context(request).pool.acquire() as connection:
        await events.count_refusal(connection, address(request), action=_asked(request))


def _asked(request: Request) -> str:
    return f"{request.method} {request.scope['route'].path}"
