"""How a host becomes an agent: one command to paste, and the hosts as they arrive."""

from __future__ import annotations

import ipaddress
import urllib.parse
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from redflag.access import enrolment
from redflag.access.roles import Permission
from redflag.commands import queue
from redflag.errors import InvalidInput
from redflag.fleet import finding
from redflag.web.dashboard.agents import with_work
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, fragment, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/agents/enrol", route_class=GuardedRoute, include_in_schema=False)

# For how long a command can be good: hours, and the words
LASTS = ((1, "1 hour"), (24, "1 day"), (168, "7 days"), (720, "30 days"))
MOST_SEATS = 100_000
LONGEST_LABEL = 255


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.MANAGE_ENROLMENT)) -> Response:
    """The form, and the tokens that are open."""
    async with visitor.pool.acquire() as connection:
        tokens = await enrolment.list_open(connection)
    return page(request, visitor, "enrol.html", tokens=tokens, made=None, **_form(visitor))


@router.post("")
async def make(request: Request, visitor: Visitor = enter(Permission.MANAGE_ENROLMENT)) -> Response:
    """Makes an enrolment token, and shows the command with it this once."""
    form = await request.form()
    label = str(form.get("label", "")).strip() or "enrolment"
    seats, hours = _whole(form.get("seats"), "seats", MOST_SEATS), _whole(form.get("hours"), "hours", 8760)
    if len(label) > LONGEST_LABEL or "\x00" in label:
        raise InvalidInput(f"A label has 1 to {LONGEST_LABEL} characters", "Choose a shorter one")
    async with visitor.pool.acquire() as connection:
        token, row = await enrolment.create(
            connection, visitor.actor, label, seats, hours, first_scan=form.get("first_scan") == "yes"
        )
        made = row | {"command": enrolment.pasted(visitor.context.settings.url, token)}
        if "hx-request" not in request.headers:
            # Without script: a token that is shown once cannot wait for another page
            tokens = await enrolment.list_open(connection)
            return page(request, visitor, "enrol.html", tokens=tokens, made=made, **_form(visitor))
    content = fragment("enrol_made.html", visitor, made=made)
    return done(request, "", subjects={"settings"}, content=content)


@router.get("/{token_id}")
async def show_token(
    token_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.MANAGE_ENROLMENT)
) -> Response:
    """One token: who came with it, and how each fares."""
    async with visitor.pool.acquire() as connection:
        token = await enrolment.show(connection, token_id)
        hosts = await finding.enrolled_with(connection, token_id)
        hosts = await with_work(connection, hosts, visitor.context.settings.check_in_interval)
        scans = await queue.newest_of_agents(connection, [host["id"] for host in hosts], "scan_updates")
    return page(request, visitor, "enrol_token.html", token=token, hosts=hosts, scans=scans)


@router.post("/{token_id}/revoke")
async def revoke(
    token_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.MANAGE_ENROLMENT)
) -> Response:
    """Ends a token; who came with it stays."""
    async with visitor.pool.acquire() as connection:
        row = await enrolment.revoke(connection, visitor.actor, token_id)
    return done(request, f"Nobody enrols with {row['label']} any more", subjects={"settings", "agents"})


def _form(visitor: Visitor) -> dict[str, Any]:
    url = visitor.context.settings.url
    return {"lasts": LASTS, "most_seats": MOST_SEATS, "url": url, "reach": reach(url)}


def reach(url: str) -> str:
    """What is to be said of the address that hosts are given: `here`: no other host reaches it; `plain`: without TLS."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    return "here" if local else "plain" if parts.scheme == "http" else ""


def _whole(value: Any, what: str, most: int) -> int:
    """A whole number from 1 on. Raises InvalidInput."""
    told = str(value or "")
    if not (told.isascii() and told.isdigit() and len(told) < 10 and 1 <= int(told) <= most):
        raise InvalidInput(f"{what}: {told[:20]!r} is not from 1 to {most}", f"Give a whole number from 1 to {most}")
    return int(told)
