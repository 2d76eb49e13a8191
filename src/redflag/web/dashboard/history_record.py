"""One record: all of it in words, where it stands in the log, and its proof, which the browser verifies."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from pathlib import Path
from typing import Annotated, Any

import markupsafe
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import HTMLResponse

import redflag_verify
from redflag.access.roles import Permission
from redflag.audit import canonical, events, places, proofs
from redflag.audit.places import Place
from redflag.web.dashboard import history_filter
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import HEADERS, fragment, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/history", route_class=GuardedRoute, include_in_schema=False)

# Columns that stand on the page to the letter, where its script reads them
TO_THE_LETTER = ("actor", "message", "stdout", "stderr")


@router.get("/consistency")
async def show_consistency(
    old: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    size: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    visitor: Visitor = enter(Permission.READ_HISTORY),
) -> Response:
    """The proof that the log begins with that of an older checkpoint, which a browser kept. It says nothing of any record."""
    async with visitor.pool.acquire() as connection:
        text = await proofs.consistency(connection, old, size)
    return Response(text, media_type="text/plain; charset=utf-8", headers=HEADERS)


@router.get("/redflag_verify.py")
async def show_verifier(_visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """The verifier that needs no server, as this release has it."""
    content = await asyncio.to_thread(Path(redflag_verify.__file__).read_bytes)
    return _file(content, "redflag_verify.py", "text/x-python; charset=utf-8")


@router.get("/{event_id}")
async def show(event_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """A record on a page of its own."""
    return page(request, visitor, "history_record.html", **await _shown(event_id, visitor))


@router.get("/{event_id}/brief")
async def show_brief(event_id: uuid.UUID, visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """The same in its place in the timeline."""
    return HTMLResponse(fragment("history_brief.html", visitor, **await _shown(event_id, visitor)), headers=HEADERS)


@router.get("/{event_id}/proof")
async def show_proof(event_id: uuid.UUID, visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """Its proof, as a C2SP tlog-proof file with the record's values in it."""
    async with visitor.pool.acquire() as connection:
        proof = await proofs.of_record(connection, event_id)
        await _record_read(connection, visitor, event_id)
    return _file(proof.text(), f"{event_id}.tlog-proof", "text/plain; charset=utf-8")


async def _shown(event_id: uuid.UUID, visitor: Visitor) -> dict[str, Any]:
    async with visitor.pool.acquire() as connection:
        place = await places.of_record(connection, event_id)
        await _record_read(connection, visitor, event_id)
        names = await history_filter.names_of(connection, [place.record])
    signer = visitor.context.signer
    return {
        "event": place.record,
        "place": place,
        "names": names,
        "fields": flat(place.record["metadata"]),
        "params": flat(place.record["params"]),
        "unseen": _unseen(place),
        "erased": {name: erasure for erasure in place.erased for name in erasure.fields},
        "exact": exact,
        "moment": moment,
        "log": {"key": signer.verifier.vkey(), "origin": signer.verifier.name, "fingerprint": signer.fingerprint},
    }


async def _record_read(connection: Any, visitor: Visitor, event_id: uuid.UUID) -> None:
    await events.record_read(
        connection,
        visitor.actor,
        action="history_read",
        session=visitor.principal.session,
        query=f"event_id={event_id}",
    )


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """What JSON says, line by line: the way to each value, and the value as text. Empty for no value."""
    if value is None and not name:
        return []
    items: Any = ()
    if isinstance(value, dict):
        items = [(f"{name} \N{RIGHTWARDS ARROW} {key}" if name else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = [(f"{name} {number}".strip(), item) for number, item in enumerate(value, 1)]
    if items:
        return [line for key, item in items for line in flat(item, key)]
    if isinstance(value, list):
        return [(name or "value", ", ".join(_plain(item) for item in value) or "none")]
    return [(name or "value", "none" if value == {} else _plain(value))]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return (
        {None: "nothing", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _unseen(place: Place) -> str:
    """What of a record the page's script can not read from the page itself: its leaf's plain members, and what is JSON."""
    elsewhere = {*TO_THE_LETTER, *(name for erasure in place.erased for name in erasure.fields)}
    values = {name: value for name, value in place.values.items() if name not in elsewhere}
    return canonical.encode({"plain": place.plain, "values": values}).decode()


def exact(text: str) -> markupsafe.Markup:
    """A text as HTML gives it back to the letter: a browser would read carriage returns as newlines."""
    return markupsafe.Markup(str(markupsafe.escape(text)).replace("\r", "&#13;"))  # noqa: S704 - it was escaped just now


def moment(value: str) -> datetime.datetime | None:
    """A time, if a text is one as records have it."""
    try:
        return datetime.datetime.fromisoformat(value) if len(value) >= 20 and value[4:5] == "-" else None
    except ValueError:
        return None


def _file(content: str | bytes, name: str, kind: str) -> Response:
    return Response(
        content, media_type=kind, headers=HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    )
