"""What is handed to an auditor: evidence bundles, and the compliance report. Each is recorded as an export."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import re
import tempfile
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from redflag.access.roles import Permission
from redflag.audit import bundle, events, report, report_pages, report_pdf
from redflag.audit.export.reading import Selection
from redflag.commands.states import Kind, Result
from redflag.errors import InvalidInput, RateLimited
from redflag.web.api.fields import Word, utc
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)

PIECE = 256 * 1024
# Each is written by a process of this server one at a time: it takes a core for as long as it takes
_writing = asyncio.Lock()

Since = Annotated[
    datetime.datetime | None, Query(description="recorded at this time or later; without a zone it is UTC")
]
Until = Annotated[datetime.datetime | None, Query(description="recorded before this time; absent: until now")]


class Format(enum.StrEnum):
    """How a report is given."""

    HTML = "html"
    PDF = "pdf"
    JSON = "json"


MEDIA = {Format.HTML: "text/html; charset=utf-8", Format.PDF: "application/pdf", Format.JSON: "application/json"}


@router.get("/bundle", response_class=StreamingResponse)
async def write_bundle(
    caller: Caller = allow(Permission.READ_AUDIT),
    since: Since = None,
    until: Until = None,
    agent: uuid.UUID | None = None,
    command: uuid.UUID | None = None,
    command_type: Word = None,
    kind: Kind | None = None,
    result: Result | None = None,
    actor: Word = None,
    consistency_from: Annotated[
        int | None, Query(ge=0, description="prove that the log goes on from the checkpoint of this size")
    ] = None,
) -> Response:
    """An evidence bundle: the events of a period, or of all time, with proofs, checkpoint, report and verifier in one signed zip.

    The answer begins when the bundle is whole, which takes about a minute for a million events. One at a time is written.
    """
    selection = Selection(
        since=utc(since), until=utc(until), agent_id=agent, command_id=command, command_type=command_type, kind=kind,
        result=result, actor=actor,
    )  # fmt: skip
    return await hand_out_bundle(caller, selection, consistency_from)


async def hand_out_bundle(caller: Caller, selection: Selection, consistency_from: int | None = None) -> Response:
    """Writes a bundle, records that, and answers with it. Raises InvalidInput, or RateLimited while another is written."""
    here = caller.context
    if selection.since and selection.until and not selection.since < selection.until:
        raise InvalidInput("The period ends before it begins", "Give since before until")
    if _writing.locked():
        raise RateLimited("Another bundle is being written", 30)
    async with _writing:
        file: BinaryIO = await asyncio.to_thread(tempfile.TemporaryFile, dir=here.settings.folder)
        try:
            written = await bundle.write(caller.pool, here.signer, file, selection, consistency_from=consistency_from)
            async with caller.pool.acquire() as connection:
                await events.record(
                    connection, caller.actor, kind="access", action="audit_exported",
                    message=f"evidence bundle of {written.count} events", format="bundle", query=_told(selection),
                    session=caller.principal.session, first_position=written.first, last_position=written.last,
                    count=written.count, tree_size=written.size, sha256=written.sha256,
                )  # fmt: skip
            length = await asyncio.to_thread(file.seek, 0, 2)
            await asyncio.to_thread(file.seek, 0)
        except BaseException:
            file.close()
            raise
    headers = {
        "Content-Disposition": f'attachment; filename="{_name(here.signer.verifier.name, selection)}.zip"',
        "Content-Length": str(length),
    }
    return StreamingResponse(_pieces(file), media_type="application/zip", headers=headers)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


@router.get("/report", response_class=Response)
async def read_report(
    since: Annotated[datetime.datetime, Query(description="recorded at this time or later; without a zone it is UTC")],
    caller: Caller = allow(Permission.READ_AUDIT),
    until: Until = None,
    format: Annotated[Format, Query()] = Format.JSON,  # noqa: A002 - its name in the address
) -> Response:
    """The compliance report of a period of up to 400 days, as JSON, as HTML, or as PDF."""
    return await hand_out_report(caller, Selection(since=utc(since), until=utc(until)), format)


async def hand_out_report(caller: Caller, selection: Selection, form: Format) -> Response:
    """Makes the report of a period, until now if it has no end, records that, and answers with it. Raises InvalidInput."""
    if selection.until is None:
        selection = dataclasses.replace(selection, until=datetime.datetime.now(datetime.UTC))
    report.require_period(selection)
    async with caller.pool.acquire() as connection:
        made = await report.gather(connection, caller.context.signer.verifier, selection)
        await events.record_read(
            connection, caller.actor, action="audit_exported", session=caller.principal.session,
            query=f"report {_told(selection)}",
        )  # fmt: skip
    content: bytes | str
    if form == Format.JSON:
        content = made.json()
    elif form == Format.HTML:
        content = await asyncio.to_thread(report_pages.html, made)
    else:
        content = await asyncio.to_thread(report_pdf.pdf, made)
    name = _name(caller.context.signer.verifier.name, selection, "report")
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
    return Response(content, media_type=MEDIA[form], headers=headers)


def _told(selection: Selection) -> str:
    """What is handed out, in words, for the record of it."""
    given: dict[str, Any] = {
        name: moment.isoformat() for name in ("since", "until") if (moment := getattr(selection, name)) is not None
    }
    return " ".join(f"{name}={value}" for name, value in (given | selection.filters).items())


def _name(origin: str, selection: Selection, what: str = "evidence") -> str:
    """A file's name: evidence-example.com-log-2030-01-01-2030-02-01."""
    days = [moment.strftime("%Y-%m-%d") for moment in (selection.since, selection.until) if moment is not None]
    return "-".join([what, re.sub(r"[^A-Za-z0-9.]+", "-", origin).strip("-")[:60], *days])
