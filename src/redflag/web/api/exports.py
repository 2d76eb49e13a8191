"""Records for other systems: the export as a stream, and the receivers to which records are sent as they come."""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from redflag.access.roles import Permission
from redflag.audit import events
from redflag.audit.export import formats, forwarding, reading, syslog
from redflag.audit.export.formats import Format
from redflag.audit.export.reading import Selection
from redflag.commands.states import Kind, Result
from redflag.errors import InvalidInput
from redflag.web.api.fields import Body, Word, utc
from redflag.web.guards import Caller, GuardedRoute, allow

log = logging.getLogger("redflag.web")
router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)

# Records that are in memory at once
PAGE = 250

# Large enough for any log, and PostgreSQL's largest
Position = Annotated[int | None, Query(ge=-1, lt=2**63, description="go on after this position; absent: begin")]
Moment = Annotated[datetime.datetime | None, Query(description="when it was recorded; without a zone it is UTC")]


@router.get("/export", response_class=StreamingResponse)
async def export(
    caller: Caller = allow(Permission.READ_AUDIT),
    format: Annotated[Format, Query()] = Format.CLOUDEVENTS,  # noqa: A002 - its name in the address
    since: Moment = None,
    until: Moment = None,
    agent_id: uuid.UUID | None = None,
    command_id: uuid.UUID | None = None,
    command_type: Word = None,
    kind: Kind | None = None,
    result: Result | None = None,
    actor: Word = None,
    after: Position = None,
) -> Response:
    """Every record that a checkpoint covers and that is selected, in order of position, as a stream that can be resumed.

    Each record carries its position: what broke off goes on with `after`, and the two parts together are what one go would
    have given. A stream that breaks off is cut, never ended: an answer that ends in order is whole. Who exports is recorded,
    once an hour for a selection.
    """
    selection = Selection(
        since=utc(since), until=utc(until), agent_id=agent_id, command_id=command_id, command_type=command_type, kind=kind,
        result=result, actor=actor,
    )  # fmt: skip
    return await hand_out_export(caller, selection, format, after)


async def hand_out_export(
    caller: Caller, selection: Selection, form: Format = Format.CLOUDEVENTS, after: int | None = None
) -> Response:
    """Answers with an export, and records it. Raises InvalidInput."""
    if selection.since and selection.until and not selection.since < selection.until:
        raise InvalidInput("The period ends before it begins", "Give since before until")
    async with caller.pool.acquire() as connection:
        first, end = await reading.bounds(connection, selection)
        await events.record_read(
            connection, caller.actor, action="audit_exported", session=caller.principal.session,
            query=f"{form} {_told(selection)}".strip(),
        )  # fmt: skip
    shape = formats.SHAPES[form]
    first = first if after is None else max(first, after + 1)
    headers = {"Content-Disposition": f'attachment; filename="audit-trail.{shape.suffix}"'}
    header = shape.header if after is None else b""
    return StreamingResponse(
        _pieces(caller, shape, header, selection, first, end), media_type=shape.media_type, headers=headers
    )


async def _pieces(
    caller: Caller, shape: formats.Shape, header: bytes, selection: Selection, first: int, end: int
) -> AsyncIterator[bytes]:
    """The file in pieces. Between two of them no connection is held, however slow whoever reads is."""
    origin = caller.context.signer.verifier.name
    if header:
        yield header
    at, width = first, PAGE
    while at < end:
        try:
            async with caller.pool.acquire() as connection:
                page = await reading.page(connection, selection, first=at, end=end, most=PAGE, width=width)
        except Exception as error:
            # Whoever reads is told by a connection that is cut; what is the matter stands here
            log.error("an export broke off before position %d: %s: %s", at, type(error).__name__, error)
            raise
        at, width = page.next, page.width
        if page.entries:
            # Beside the event loop, which has agents to answer meanwhile
            yield await asyncio.to_thread(formats.written, shape, page.entries, origin)


def _told(selection: Selection) -> str:
    """What is exported, in words, for the record of it."""
    given: dict[str, Any] = {
        name: moment.isoformat() for name in ("since", "until") if (moment := getattr(selection, name)) is not None
    }
    return " ".join(f"{name}={value}" for name, value in (given | selection.filters).items())


class Receiver(Body):
    """A receiver of syslog. Absent: the default, or as it is."""

    model_config = Body.model_config | {"str_max_length": forwarding.LONGEST_CA}

    host: str | None = Field(None, min_length=1, max_length=255, description="a name or an address")
    port: int | None = Field(None, ge=1, le=65535)
    transport: Literal["tcp", "tls"] | None = Field(
        None, description="tls (the default) checks the receiver's certificate"
    )
    ca: str | None = Field(
        None, max_length=forwarding.LONGEST_CA,
        description="the authority (PEM) of its certificate; empty: those that the server's machine trusts",
    )  # fmt: skip
    body: syslog.Body | None = Field(
        None, description="what a message says: a CloudEvent (the default) or an OCSF event"
    )
    facility: int | None = Field(None, ge=0, le=23, description="13 (log audit) if it is not given")
    max_message: int | None = Field(
        None, ge=forwarding.SMALLEST_MAX_MESSAGE, le=forwarding.LARGEST_MAX_MESSAGE,
        description="bytes; of longer ones the long fields are shortened",
    )  # fmt: skip
    position: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="where it begins, or goes on; 0: with the first record. Absent: with what comes",
    )

    def wanted(self, **more: Any) -> forwarding.Wanted:
        """The same, as the room below takes it."""
        return forwarding.Wanted(**(self.model_dump() | more))


class NewReceiver(Receiver):
    """A receiver to add."""

    name: str = Field(min_length=1, max_length=100)
    host: str = Field(min_length=1, max_length=255, description="a name or an address")
    port: int = Field(ge=1, le=65535)


class Change(Receiver):
    """What is to change of a receiver."""

    enabled: bool | None = Field(None, description="false: nothing is sent, and it goes on later where it stands")


@router.get("/forwarders")
async def list_forwarders(caller: Caller = allow(Permission.READ_AUDIT)) -> dict[str, Any]:
    """Every receiver: its cursor, how many records it lacks, when it last took some, and what went wrong last."""
    async with caller.pool.acquire() as connection:
        return {"forwarders": await forwarding.listed(connection)}


@router.post("/forwarders", status_code=201)
async def add_forwarder(body: NewReceiver, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Adds a receiver; records are sent to it from now on, or from the position that is given."""
    async with caller.pool.acquire() as connection:
        return await forwarding.add(connection, caller.actor, body.wanted())


@router.patch("/forwarders/{forwarder_id}")
async def change_forwarder(
    forwarder_id: uuid.UUID, body: Change, caller: Caller = allow(Permission.MANAGE_LOG)
) -> dict[str, Any]:
    """Changes, pauses or resumes a receiver, or moves its cursor. It is tried again at once."""
    async with caller.pool.acquire() as connection:
        return await forwarding.change(connection, caller.actor, forwarder_id, body.wanted())


@router.delete("/forwarders/{forwarder_id}")
async def remove_forwarder(forwarder_id: uuid.UUID, caller: Caller = allow(Permission.MANAGE_LOG)) -> dict[str, Any]:
    """Removes a receiver: nothing more is sent to it."""
    async with caller.pool.acquire() as connection:
        await forwarding.remove(connection, caller.actor, forwarder_id)
    return {"message": "receiver removed"}
