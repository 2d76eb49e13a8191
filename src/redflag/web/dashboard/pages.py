"""Pages: a template and what is said in it become an answer, whole or the one region that htmx asks for.

Promises
- Whatever a host or a person wrote is text, never markup: templates escape, and a name that is not there is an error.
- A page needs nothing from another host and runs no script that stands in it: its Content-Security-Policy says so.
- A region is a block of its page's template: asked for with `HX-Target`, it is drawn alone, by the same code.
"""

from __future__ import annotations

import datetime
import functools
import json
import uuid
from collections.abc import Iterable
from typing import Any

import jinja2
import markupsafe
from fastapi import Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

import redflag
from redflag import words
from redflag.access.roles import Permission
from redflag.commands import sentences
from redflag.web.dashboard import assets, door, labels
from redflag.web.dashboard.door import Visitor

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # Its own pages need to be told apart from those of others: with no-referrer a form's Origin would be null
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Vary": "HX-Request, HX-Target",
}

# What stands in the menu: path, name, icon, and whom it is for
MENU = (
    ("/", "Overview", "layout-dashboard", Permission.READ_FLEET),
    ("/agents", "Agents", "server-2", Permission.READ_FLEET),
    ("/updates", "Updates", "package", Permission.READ_FLEET),
    ("/commands", "Commands", "terminal-2", Permission.READ_FLEET),
    ("/history", "History", "history", Permission.READ_HISTORY),
    ("/timeouts", "Timeouts", "clock-exclamation", Permission.READ_FLEET),
    ("/settings", "Settings", "settings", Permission.READ_FLEET),
)


@functools.lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates, with what all of them may use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("redflag.web.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": functools.partial(_time, how="ago"),
        "clock": functools.partial(_time, how="clock"),
        "both": functools.partial(_time, how="both"),
        "length": _length,
        "exact": words.exact,
        "size": words.size,
        "number": lambda value: f"{value:,}",
        "pretty": _pretty,
        "actor": sentences.actor,
        "sentence": sentences.what,
        "iso": lambda value: value.isoformat(),
    }
    made.globals |= {
        "static": assets.url,
        "labels": labels,
        "version": redflag.__version__,
        "count": words.count,
        "permissions": Permission,
    }
    # Last: macros use what stands above
    made.globals["ui"] = made.get_template("ui.html").module
    return made


def page(request: Request, visitor: Visitor | None, template: str, status: int = 200, **data: Any) -> Response:
    """A page, or the one block of it that htmx asks for by the id of the region."""
    found = environment().get_template(template)
    said = data | {
        "visitor": visitor,
        "path": request.url.path,
        "query": str(request.url.query),
        "menu": _menu(visitor),
    }
    said |= {"server_time": datetime.datetime.now(datetime.UTC)}
    region = request.headers.get("hx-target", "") if "hx-request" in request.headers else ""
    if region in found.blocks:
        return HTMLResponse(_drawn(found, region, said), status, HEADERS)
    return HTMLResponse(found.render(said), status, HEADERS)


def block(template: str, region: str, visitor: Visitor, **data: Any) -> str:
    """One block of a page's template: a region, for whoever has no request for it."""
    return _drawn(environment().get_template(template), region, data | {"visitor": visitor})


def _drawn(template: jinja2.Template, region: str, said: dict[str, Any]) -> str:
    return "".join(template.blocks[region](template.new_context(said)))


def done(
    request: Request,
    text: str,
    *,
    kind: str = "success",
    subjects: Iterable[str] = (),
    to: str | None = None,
    content: str = "",
) -> Response:
    """The answer to an act: words for the person, and the subjects whose regions are drawn anew. `to` is another page to go on at.

    Without script the person is taken back to the page they came from.
    """
    if "hx-request" not in request.headers:
        back = to or door.local(request.headers.get("referer", "").partition(request.url.netloc)[2])
        return RedirectResponse(back, 303, HEADERS)
    events: dict[str, Any] = {"toast": {"text": text, "kind": kind}} if text else {}
    events |= dict.fromkeys((f"live:{subject}" for subject in subjects), "")
    headers = HEADERS | {"HX-Trigger": json.dumps(events)} | ({"HX-Redirect": to} if to else {})
    if not content:
        headers["HX-Reswap"] = "none"
    return HTMLResponse(content, 200, headers)


def fragment(template: str, visitor: Visitor, **data: Any) -> str:
    """A template of a region alone, for what an act answers with: a token that is shown once, say."""
    return environment().get_template(template).render(data | {"visitor": visitor})


def _menu(visitor: Visitor | None) -> list[tuple[str, str, str]]:
    if visitor is None or visitor.principal.must_change_password:
        return []
    return [(path, name, icon) for path, name, icon, permission in MENU if visitor.may(permission)]


def _time(value: datetime.datetime | str | None, never: str = "never", *, how: str) -> str:
    """A time: in words or by the clock, which the page's script keeps true and tells in the viewer's zone; exact UTC on hover."""
    if value is None or value == "":
        return never
    at = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
    at = at.astimezone(datetime.UTC)
    exact = at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    away = (at - datetime.datetime.now(datetime.UTC)).total_seconds()
    said = words.distance(away) if how == "ago" else exact[:-8] + " UTC"
    return markupsafe.Markup('<time datetime="{}" data-time="{}" title="{}">{}</time>').format(
        at.isoformat(), how, exact, said
    )


def _length(value: datetime.timedelta | float | None, none: str = "-") -> str:
    if value is None:
        return none
    return words.length(value.total_seconds() if isinstance(value, datetime.timedelta) else float(value))


def _pretty(value: Any) -> str:
    """A JSON value as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, uuid.UUID | datetime.timedelta):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
