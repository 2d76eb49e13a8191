"""The record as a timeline: what happened, who did it, in sentences, the newest first."""

from __future__ import annotations

import datetime
import itertools
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from redflag.access.roles import Permission
from redflag.audit import events
from redflag.commands import history
from redflag.commands.history import encode_cursor
from redflag.errors import InvalidInput
from redflag.web.dashboard import history_filter
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.history_filter import PRESETS, Asked
from redflag.web.dashboard.pages import HEADERS, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/history", route_class=GuardedRoute, include_in_schema=False)

PATH = "/history"
EVENTS = 50
# More new records than that are many
MOST_NEW = 50


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """The timeline, or the part of it that one filter shows. Who reads is recorded, once an hour for a filter."""
    query = request.query_params
    try:
        return await _timeline(request, visitor, query.get("cursor", ""))
    except InvalidInput as error:
        typed = {name: value[: history_filter.LONGEST] for name in history_filter.FIELDS if (value := query.get(name))}
        asked = Asked(typed, history.Filter())
        return page(
            request, visitor, "history.html", 422, asked=asked, presets=PRESETS, names={}, days=[], newest="", older="", first=True,
            error=str(error),
        )  # fmt: skip


async def _timeline(request: Request, visitor: Visitor, cursor: str) -> Response:
    async with visitor.pool.acquire() as connection:
        asked = await history_filter.read(connection, request.query_params)
        if asked.filter.agent_id and asked.typed["agent_id"] != str(asked.filter.agent_id):
            return RedirectResponse(history_filter.without_name(asked).address(PATH), 303, HEADERS)
        found = await history.page(connection, asked.filter, cursor=cursor or None, limit=EVENTS)
        await events.record_read(
            connection, visitor.actor, action="history_read", session=visitor.principal.session, query=asked.filter.told()
        )  # fmt: skip
        names = await history_filter.names_of(connection, found.events, asked.filter.agent_id)
    return page(
        request,
        visitor,
        "history.html",
        asked=asked,
        presets=PRESETS,
        names=names,
        days=_by_day(found.events),
        newest=_newest(found.events),
        older=asked.address(PATH, cursor=found.next_cursor) if found.next_cursor else "",
        first=not cursor,
        error="",
    )


@router.get("/new")
async def show_new(request: Request, visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """How many records came since the newest that a page shows. Nothing of them is told, so that no reading is recorded."""
    after = request.query_params.get("after", "")
    async with visitor.pool.acquire() as connection:
        asked = await history_filter.read(connection, request.query_params)
        count = await history.newer(connection, asked.filter, after, MOST_NEW)
    if not count:
        # What stands there stays as it is
        return Response(status_code=204, headers=HEADERS)
    return page(request, visitor, "history_new.html", number=count, most=MOST_NEW, to=asked.address(PATH))


def _by_day(found: list[dict[str, Any]]) -> list[tuple[datetime.date, list[dict[str, Any]]]]:
    """Records day by day, in UTC; the page's script groups them by the days of whoever looks."""
    grouped = itertools.groupby(found, lambda event: event["executed_at"].astimezone(datetime.UTC).date())
    return [(day, list(some)) for day, some in grouped]


def _newest(found: list[dict[str, Any]]) -> str:
    """The position after which a record is new."""
    if found:
        return encode_cursor(found[0]["executed_at"], found[0]["id"])
    return encode_cursor(datetime.datetime.now(datetime.UTC), uuid.UUID(int=0))
