"""One command: where it is in its life, why it waits, what it put out, and all that is recorded of it."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from redflag.access.roles import Permission
from redflag.audit import events
from redflag.commands import catalogue, history, life, listing, output, queue
from redflag.commands.states import Kind
from redflag.errors import NotFound
from redflag.updates import outcomes
from redflag.web.dashboard.commands import explain, reason_of
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import HEADERS, done, fragment, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/commands", route_class=GuardedRoute, include_in_schema=False)


@router.get("/{command_id}")
async def show(
    request: Request,
    command_id: uuid.UUID,
    visitor: Visitor = enter(Permission.READ_FLEET),
    seen: Annotated[str, Query(max_length=30)] = "",
) -> Response:
    """The page. `seen` is what the page showed last: when there is more, its record is asked for as well."""
    region = request.headers.get("hx-target", "")
    reads = visitor.may("read_history")
    told: list[dict[str, Any]] = []
    back: list[dict[str, Any]] = []
    forth: list[dict[str, Any]] = []
    async with visitor.pool.acquire() as connection:
        command = await listing.one(connection, command_id, who=reads)
        if reads:
            told = await history.of_command(connection, command_id)
        if region != "now":
            back, forth = await listing.retries(connection, command_id)
        if reads:
            # Whatever region was asked for: that is for the browser to say. Once an hour it is a record
            await _record_read(connection, visitor, command_id)
    explain(visitor, [command])
    mark = f"{command['version']}.{command['late_reports']}"
    answer = page(
        request,
        visitor,
        "command_detail.html",
        command=command,
        mark=mark,
        word=catalogue.word(command["command_type"]),
        known=catalogue.CATALOGUE.get(command["command_type"]),
        parameters=catalogue.in_words(command["command_type"], command["params"]),
        steps=life.steps(command, told),
        events=told,
        outputs=_outputs(told),
        why_none=output.why_none(command, told) if reads else "",
        late=[one for one in told if one["kind"] == Kind.LATE_RESULT],
        back=back,
        forth=forth,
    )
    if region == "now" and seen not in {"", mark}:
        answer.headers["HX-Trigger-After-Settle"] = "command-changed"
    return answer


@router.get("/{command_id}/output/{record_id}/{stream}")
async def download(
    command_id: uuid.UUID, record_id: uuid.UUID, stream: str, visitor: Visitor = enter(Permission.READ_HISTORY)
) -> Response:
    """What a record holds of a stream, as a file. Who reads is recorded, as for the page."""
    async with visitor.pool.acquire() as connection:
        found = [one for one in await history.of_command(connection, command_id) if one["id"] == record_id]
        await _record_read(connection, visitor, command_id)
    text = found[0][stream] if found and stream in {"stdout", "stderr"} else None
    if text is None:
        raise NotFound("There is no such output", "See the command's page")
    name = f"{found[0]['command_type']}-{command_id}-{stream}.txt"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return Response(text.encode(), headers=HEADERS | headers, media_type="text/plain; charset=utf-8")


@router.post("/{command_id}/cancel")
async def cancel(request: Request, command_id: uuid.UUID, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Ends a live command."""
    reason = reason_of((await request.form()).get("reason"))
    async with visitor.pool.acquire() as connection, connection.transaction():
        await queue.cancel(connection, visitor.actor, command_id, reason)
        await outcomes.command_cancelled(connection, visitor.actor, [command_id])
    return done(request, "The command is cancelled.", subjects={"commands", "updates"})


@router.post("/{command_id}/retry")
async def retry(request: Request, command_id: uuid.UUID, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Enqueues a new command like one that has ended, and tells which."""
    async with visitor.pool.acquire() as connection:
        new = await queue.retry(connection, visitor.actor, command_id)
    told = fragment("command_retried.html", visitor, new=new, word=catalogue.word(new["command_type"]))
    return done(
        request,
        "",
        subjects={"commands"},
        content=told,
        to=None if "hx-request" in request.headers else f"/commands/{new['id']}",
    )


async def _record_read(connection: Any, visitor: Visitor, command_id: uuid.UUID) -> None:
    await events.record_read(
        connection, visitor.actor, action="history_read", session=visitor.principal.session, query=f"command_id={command_id}"
    )  # fmt: skip


def _outputs(told: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[output.Stream]]]:
    """The records that hold output, each with its streams: the end, and what came after it."""
    kinds = {Kind.TRANSITION, Kind.LATE_RESULT, Kind.IMPORT}
    with_streams = [(one, output.streams(one)) for one in told if one["kind"] in kinds]
    return [(one, streams) for one, streams in with_streams if streams]
