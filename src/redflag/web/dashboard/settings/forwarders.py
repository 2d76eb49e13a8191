"""Receivers of the audit trail: every record as syslog, as it comes."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from redflag.access.roles import Permission
from redflag.audit.export import forwarding, syslog
from redflag.errors import InvalidInput
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/forwarders", route_class=GuardedRoute, include_in_schema=False)
MANAGER = enter(Permission.MANAGE_LOG)
TRANSPORTS = {"tls": "TLS, checked against a certificate", "tcp": "plain TCP, which anybody on the way can read"}
BODIES = {syslog.Body.CLOUDEVENTS: "CloudEvents", syslog.Body.OCSF: "OCSF"}


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """Every receiver, and how far behind it is."""
    async with visitor.pool.acquire() as connection:
        rows = await forwarding.listed(connection)
    return settings_page(
        request, visitor, "forwarders.html", forwarders=rows, transports=TRANSPORTS.items(), bodies=BODIES.items()
    )


@router.post("")
async def add(
    request: Request,
    name: Annotated[str, Form(max_length=100)] = "",
    host: Annotated[str, Form(max_length=255)] = "",
    port: Annotated[str, Form(max_length=5)] = "6514",
    transport: Annotated[str, Form(max_length=10)] = "tls",
    body: Annotated[str, Form(max_length=20)] = syslog.Body.CLOUDEVENTS,
    ca: Annotated[str, Form(max_length=forwarding.LONGEST_CA)] = "",
    from_first: Annotated[bool, Form()] = False,
    visitor: Visitor = MANAGER,
) -> Response:
    """Adds a receiver: from what comes on, or from the first record."""
    if not (port.isascii() and port.isdigit() and transport in TRANSPORTS and body in set(syslog.Body)):
        raise InvalidInput("The port, the transport or the form is none", "Choose each from the page")
    wanted = forwarding.Wanted(
        name=name.strip(), host=host.strip(), port=int(port), transport=transport, body=syslog.Body(body),
        ca=ca.strip() or None, position=0 if from_first else None,
    )  # fmt: skip
    async with visitor.pool.acquire() as connection:
        row = await forwarding.add(connection, visitor.actor, wanted)
    return done(request, f"Records go to {row['name']}", subjects={"settings"})


@router.post("/{forwarder_id}/switch")
async def switch(
    request: Request, forwarder_id: uuid.UUID, enabled: Annotated[bool, Form()] = False, visitor: Visitor = MANAGER
) -> Response:
    """Pauses a receiver, or resumes it where it stands."""
    async with visitor.pool.acquire() as connection:
        row = await forwarding.change(connection, visitor.actor, forwarder_id, forwarding.Wanted(enabled=enabled))
    said = f"Records go to {row['name']} again, from where it stands" if enabled else f"{row['name']} is paused"
    return done(request, said, subjects={"settings"})


@router.post("/{forwarder_id}/remove")
async def remove(request: Request, forwarder_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Removes a receiver: nothing more is sent to it."""
    async with visitor.pool.acquire() as connection:
        await forwarding.remove(connection, visitor.actor, forwarder_id)
    return done(request, "Nothing more is sent there", subjects={"settings"})
