"""What went wrong, as a page; and the way on for whoever is sent elsewhere."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from redflag.web.dashboard import door
from redflag.web.dashboard.door import Elsewhere
from redflag.web.dashboard.pages import HEADERS, page
from redflag.web.problems import problem

_NOT_OURS = ("/api/", "/log/", "/metrics", "/healthz", "/agent/", "/static/", "/live")


def as_page(request: Request, status: int, title: str, detail: str) -> Response | None:
    """An error as a page for a person's browser; None for programs, and for a part of a page, which get a problem document."""
    if "hx-request" in request.headers or "text/html" not in request.headers.get("accept", ""):
        return None
    if request.url.path.startswith(_NOT_OURS):
        return None
    return page(request, None, "error.html", status, status_code=status, title=title, detail=detail)


def install(app: FastAPI) -> None:
    """Makes the app send visitors where a page says."""

    @app.exception_handler(Elsewhere)
    async def elsewhere(request: Request, sent: Elsewhere) -> Response:
        answer: Response
        if "hx-request" in request.headers:
            answer = Response(status_code=204, headers=HEADERS | {"HX-Redirect": sent.location})
        elif request.url.path.startswith("/live"):
            answer = problem(401, "Not authenticated", "The session is over. Log in again.")
        else:
            answer = RedirectResponse(sent.location, 303, HEADERS)
        if sent.forget:
            door.forget(answer)
        return answer
