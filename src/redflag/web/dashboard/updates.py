"""Updates: what can be updated where: by package across the fleet, a package on its agents, and single updates."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from redflag.access.roles import Permission
from redflag.errors import NotFound
from redflag.fleet import agents
from redflag.updates import acts, listing, packages
from redflag.updates.states import Severity, Status
from redflag.web.dashboard import update_words as said
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/updates", route_class=GuardedRoute, include_in_schema=False)

PACKAGES, ROWS = 25, 50


@router.get("")
async def by_package(request: Request, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """Packages that have updates; those of one agent stand in the list."""
    view = said.read(request.query_params)
    if view.agent:
        return await _single(request, visitor, view)
    name = said.word(request.query_params, "after_name", said.NAME_LIMIT)
    kind = said.word(request.query_params, "after_type", 50)
    async with visitor.pool.acquire() as connection, connection.transaction(readonly=True):
        found = await packages.find(connection, view.filter, after=(name, kind) if name else None, limit=PACKAGES + 1)
        rows = await packages.summaries(
            connection,
            found[:PACKAGES],
            statuses=view.filter.statuses,
            most=packages.COUNTED,
            sample=packages.SAMPLE,
        )
        scanned = None if rows else await listing.last_scan(connection)
    more = found[PACKAGES - 1] if len(found) > PACKAGES else None
    return page(
        request,
        visitor,
        "updates.html",
        rows=[_drawn(row, view) for row in rows],
        more="/updates" + view.query(after_name=more[0], after_type=more[1]) if more else "",
        began=bool(name),
        scanned=scanned,
        **_shared(view),
    )


@router.get("/list")
async def by_update(request: Request, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """Single updates."""
    return await _single(request, visitor, said.read(request.query_params))


@router.get("/package")
async def one_package(request: Request, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """A package, and each agent that has an update of it. Its name and type stand in the query: names hold slashes and colons."""
    name = said.word(request.query_params, "name", said.NAME_LIMIT)
    kind = said.word(request.query_params, "type", 50)
    view = said.read({"status": request.query_params.get("status", "") or "all"} | _severity(request))
    shown = packages.Filter(statuses=view.filter.statuses, severities=view.filter.severities)
    after = said.word(request.query_params, "after", 50)
    later = said.identifier(after, "agent") if after else None
    async with visitor.pool.acquire() as connection, connection.transaction(readonly=True):
        # Of one package all are counted: that is one walk along the index
        summary = (await packages.summaries(connection, [(name, kind)], sample=200))[0]
        if not summary["agents"]:
            raise NotFound(f"No agent has an update of {kind} package {name[:100]!r}", "See the page of updates")
        found = await packages.updates_of(connection, [(name, kind)], shown, after=later, limit=ROWS + 1)
    here = view.query(name=name, type=kind)
    return page(
        request,
        visitor,
        "updates_package.html",
        package=_drawn(summary, view),
        rows=found[:ROWS],
        more=f"/updates/package{here}&after={found[ROWS - 1]['agent_id']}" if len(found) > ROWS else "",
        began=bool(after),
        **_shared(view),
    )


async def _single(request: Request, visitor: Visitor, view: said.View) -> Response:
    cursor = said.word(request.query_params, "cursor", 64)
    async with visitor.pool.acquire() as connection:
        found = await listing.page(connection, view.filter, cursor=cursor or None, limit=ROWS)
        agent = await agents.show(connection, view.filter.agent_id) if view.filter.agent_id else None
    return page(
        request,
        visitor,
        "updates_list.html",
        rows=found["updates"],
        agent=agent,
        more="/updates/list" + view.query(cursor=found["next_cursor"]) if found["next_cursor"] else "",
        began=bool(cursor),
        **_shared(view),
    )


def _severity(request: Request) -> dict[str, str]:
    return {"severity": request.query_params.get("severity", "")}


def _drawn(row: dict[str, Any], view: said.View) -> dict[str, Any]:
    """A package with its bar, and how many of its updates in the states that are shown each act is for."""
    among = {status: number for status, number in row["by_status"].items() if Status(status) in view.filter.statuses}
    key = (row["package_name"], row["package_type"])
    return row | {"bar": said.bar(row["by_status"]), "acts": acts.tally(among), "value": said.key_value(key)}


def _shared(view: said.View) -> dict[str, Any]:
    return {
        "view": view,
        "acts": said.ACTS,
        "questions": said.QUESTIONS,
        "possible": acts.possible,
        "next_step": said.next_step,
        "severities": list(reversed(Severity)),
        "statuses": list(Status),
    }
