"""The way in and out: log in, log out, change the password."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from starlette.responses import RedirectResponse

from redflag.access import sessions
from redflag.access.roles import Permission
from redflag.errors import InvalidInput, NotAuthenticated, NotPermitted, RateLimited
from redflag.web.context import address, context
from redflag.web.dashboard import door
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import HEADERS, page
from redflag.web.guards import GuardedRoute, public
from redflag.web.problems import headers_of, status_of

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)

Next = Annotated[str, Form(alias="next", max_length=2000)]
Secret = Annotated[str, Form(max_length=1024)]


@router.get(door.LOGIN)
@public
async def show_login(request: Request, next: str = "/") -> Response:  # noqa: A002 - its name in the address
    """The form to log in with."""
    return page(request, None, "login.html", next=door.local(next), error="", username="")


@router.post(door.LOGIN)
@public
async def log_in(
    request: Request,
    username: Annotated[str, Form(max_length=255)],
    password: Secret,
    next: Next = "/",  # noqa: A002 - its name in the form
) -> Response:
    """Begins a session, in a cookie."""
    here = context(request)
    try:
        door.require_same_site(request)
        session = await sessions.log_in(
            here.pool,
            username,
            password,
            address(request),
            hours=here.settings.session_hours,
            tries=here.settings.login_tries,
        )
    except (NotAuthenticated, NotPermitted, RateLimited) as error:
        answer = page(
            request, None, "login.html", status_of(error), next=door.local(next), error=str(error), username=username
        )
        if isinstance(error, RateLimited):
            answer.headers.update(headers_of(error, 429))
        return answer
    answer = RedirectResponse(door.PASSWORD if session.must_change_password else door.local(next), 303, HEADERS)
    door.remember(request, answer, session.token, here.settings.session_hours * 3600)
    return answer


@router.post("/logout")
async def log_out(
    request: Request, visitor: Visitor = enter(Permission.READ_FLEET, while_password_is_temporary=True)
) -> Response:
    """Ends this session."""
    async with visitor.pool.acquire() as connection:
        await sessions.log_out(connection, visitor.principal, visitor.address)
    visitor.context.authenticator.forget(door.session_token(request))
    answer = RedirectResponse(door.LOGIN, 303, HEADERS)
    door.forget(answer)
    return answer


@router.get(door.PASSWORD)
async def show_password(
    request: Request, visitor: Visitor = enter(Permission.READ_FLEET, while_password_is_temporary=True)
) -> Response:
    """The form to change one's own password; the first page for whoever has a generated one."""
    return page(request, visitor, "password.html", error="")


@router.post(door.PASSWORD)
async def change_password(
    request: Request,
    old_password: Secret,
    new_password: Secret,
    again: Secret,
    visitor: Visitor = enter(Permission.READ_FLEET, while_password_is_temporary=True),
) -> Response:
    """Changes one's own password; every other session of the person ends."""
    try:
        if new_password != again:
            raise InvalidInput("The two new passwords differ", "Type the new password twice")
        await sessions.change_password(
            visitor.pool, visitor.principal, old_password, new_password, visitor.address,
            tries=visitor.context.settings.login_tries,
        )  # fmt: skip
    except (InvalidInput, NotAuthenticated, RateLimited) as error:
        # 401 would send the browser to log in
        status = 422 if isinstance(error, NotAuthenticated) else status_of(error)
        return page(request, visitor, "password.html", status, error=str(error))
    visitor.context.authenticator.forget_all()
    return RedirectResponse("/", 303, HEADERS)
