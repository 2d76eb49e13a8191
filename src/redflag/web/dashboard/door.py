"""Who is let in to the pages: whoever has a session, whose token a cookie carries.

Promises
- The cookie is HttpOnly and SameSite=Lax, and behind TLS also Secure and bound to this host (`__Host-`, RFC 6265bis §4.1.3.2).
- An act (anything but GET) needs a word besides the cookie that only our own pages know; it follows from the session's token,
  so that every server process knows it and none has to keep it.
- Whoever has no session is sent to log in and comes back to where they were; whoever has a generated password is sent to
  change it. Whoever may not do a thing is told so, and the refusal is recorded, as on the API.
- An API token in the cookie opens nothing: pages are for people.
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request, Response
from starlette.datastructures import FormData

from redflag.access.principals import Kind
from redflag.access.roles import Permission
from redflag.errors import NotAuthenticated, NotPermitted
from redflag.web.context import context, trusted_peer
from redflag.web.guards import Caller, admit

COOKIE = "redflag_session"
HOST_COOKIE = "__Host-redflag_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
LOGIN, PASSWORD = "/login", "/password"
_LONGEST_NEXT = 2000


@dataclass(frozen=True)
class Visitor(Caller):
    """A person at a page, and the word that their acts carry."""

    csrf: str

    def may(self, permission: str) -> bool:
        """Whether they may do this. For what a page offers; the guard of the act decides again."""
        return Permission(permission) in self.principal.permissions


class Elsewhere(Exception):
    """The visitor is sent to another page."""

    def __init__(self, location: str, *, forget: bool = False) -> None:
        self.location = location
        self.forget = forget
        super().__init__(location)


def enter(permission: Permission, *, while_password_is_temporary: bool = False) -> Any:
    """The default of a page's `visitor`: lets in whoever has a session and the permission, and tells who that is."""

    async def guard(request: Request) -> Visitor:
        token = session_token(request)
        if not token:
            raise Elsewhere(_login(request))
        try:
            caller = await admit(request, token, permission, while_password_is_temporary=True)
        except NotAuthenticated:
            raise Elsewhere(_login(request), forget=True) from None
        if caller.principal.kind != Kind.USER:
            raise Elsewhere(_login(request), forget=True)
        if caller.principal.must_change_password and not while_password_is_temporary:
            raise Elsewhere(PASSWORD)
        visitor = Visitor(caller.principal, caller.actor, caller.address, caller.context, csrf_of(token))
        if request.method not in {"GET", "HEAD"}:
            require_same_site(request)
            await _require_word(request, visitor.csrf)
        return visitor

    guard.permission = permission  # type: ignore[attr-defined]
    guard.page = True  # type: ignore[attr-defined]
    return Depends(guard)


def session_token(request: Request) -> str:
    """The token in the cookie, or an empty text."""
    return request.cookies.get(HOST_COOKIE if secure(request) else COOKIE, "")


def csrf_of(token: str) -> str:
    """The word of a session's acts. From it nobody finds the token."""
    return hmac.new(token.encode(), b"redflag dashboard: an act", hashlib.sha256).hexdigest()


def require_same_site(request: Request) -> None:
    """Refuses what another site's page sends. Raises NotPermitted. What a browser does not say (old ones) is not held against it."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise NotPermitted("Another site's page sent this", "Open this server's own page, and do it there")
    origin = request.headers.get("origin")
    if origin is None:
        return
    known = {request.headers.get("host", ""), _split(context(request).settings.url).netloc} - {""}
    if _split(origin).netloc not in known:
        raise NotPermitted(
            "This came from another address than this server's", "If a proxy is in front, set REDFLAG_PUBLIC_URL"
        )


async def _require_word(request: Request, word: str) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    if not given:
        form: FormData = await request.form()
        found = form.get(CSRF_FIELD, "")
        given = found if isinstance(found, str) else ""
    if not hmac.compare_digest(given.encode(), word.encode()):
        raise NotPermitted("The page that sent this is from another log-in", "Load the page again, and do it there")


def secure(request: Request) -> bool:
    """Whether the browser came by TLS: to us, or to a proxy that we trust to say so."""
    if request.url.scheme == "https":
        return True
    return trusted_peer(request) and request.headers.get("x-forwarded-proto", "").lower() == "https"


def remember(request: Request, response: Response, token: str, seconds: int) -> None:
    """Gives the browser the session's token."""
    tls = secure(request)
    response.set_cookie(
        HOST_COOKIE if tls else COOKIE, token, max_age=seconds, path="/", secure=tls, httponly=True, samesite="lax"
    )


def forget(response: Response) -> None:
    """Takes the session's token from the browser, under either name."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    response.delete_cookie(HOST_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def local(path: str | None) -> str:
    """A path of this server, to go back to; anything else is the first page."""
    if not path or len(path) > _LONGEST_NEXT or not path.isprintable():
        return "/"
    if not path.startswith("/") or path.startswith(("//", "/\\", LOGIN)):
        return "/"
    return path


def _split(address: str) -> urllib.parse.SplitResult:
    """The parts of an address that somebody gave; of one that is none, empty ones."""
    try:
        return urllib.parse.urlsplit(address)
    except ValueError:
        return urllib.parse.urlsplit("")


def _login(request: Request) -> str:
    """Where to log in, and from there back: to the page, or for a part of a page to the page that asked for it."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if "hx-request" in request.headers or request.method not in {"GET", "HEAD"}:
        on = _split(request.headers.get("hx-current-url", request.headers.get("referer", "")))
        asked = on.path + (f"?{on.query}" if on.query else "")
    back = local(asked)
    return LOGIN if back == "/" else f"{LOGIN}?{urllib.parse.urlencode({'next': back})}"
