"""One agent: what it is, what it has to do, what can be updated on it, what happened to it."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from redflag import words
from redflag.access.roles import Permission
from redflag.audit import events
from redflag.commands import history, queue
from redflag.errors import InvalidInput
from redflag.fleet import agents
from redflag.updates import listing
from redflag.web.api.fields import Cursor
from redflag.web.dashboard import hosts
from redflag.web.dashboard.agents import remove
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/agents/{agent_id}", route_class=GuardedRoute, include_in_schema=False)

EVENTS = 50
# For so many minutes an agent can be asked to come by rapidly
RAPID_MINUTES = (10, 30, 60)


@router.get("")
async def show(agent_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """The page. A region of it reads what it shows, and no more."""
    region = request.headers.get("hx-target", "") if "hx-request" in request.headers else ""
    async with visitor.pool.acquire() as connection:
        agent = await _agent(connection, visitor, agent_id)
        said: dict[str, Any] = {}
        if region not in {"head", "facts"}:
            said["live"], said["ended"] = await queue.of_agent(connection, agent_id)
            said["updates"] = await listing.worst_of_agent(connection, agent_id)
            said["severities_of"] = (await listing.open_of_agents(connection, [agent_id])).get(agent_id, {})
    settings = visitor.context.settings
    return page(
        request,
        visitor,
        "agent.html",
        agent=agent,
        host=hosts.describe(agent["metadata"] or {}, agent["metrics"] or {}),
        interval=settings.check_in_interval,
        late_after=agents.online_seconds(settings.check_in_interval),
        lost_after=agents.LOST_AFTER,
        rapid_minutes=RAPID_MINUTES,
        **said,
    )


@router.get("/timeline")
async def timeline(
    agent_id: uuid.UUID,
    request: Request,
    visitor: Visitor = enter(Permission.READ_HISTORY),
    cursor: Cursor = None,
) -> Response:
    """What happened to it, in sentences. Who reads is recorded, once an hour."""
    shown = history.Filter(agent_id=agent_id)
    async with visitor.pool.acquire() as connection:
        agent = await _agent(connection, visitor, agent_id)
        found = await history.page(connection, shown, cursor=cursor, limit=EVENTS)
        await events.record_read(
            connection, visitor.actor, action="history_read", session=visitor.principal.session, query=shown.told()
        )
    return page(
        request,
        visitor,
        "agent_timeline.html",
        agent=agent,
        events=found.events,
        next_cursor=found.next_cursor,
        first=cursor is None,
        rapid_minutes=RAPID_MINUTES,
    )


async def _agent(connection: Any, visitor: Visitor, agent_id: uuid.UUID) -> dict[str, Any]:
    agent = await agents.show(connection, agent_id)
    presence = agents.presence(agent["seconds_since_seen"], visitor.context.settings.check_in_interval)
    return agent | {"presence": presence}


@router.post("/rename")
async def rename(agent_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.MANAGE_AGENTS)) -> Response:
    """Gives it a name and tags. Without a name it is called by its host name."""
    form = await request.form()
    name, told = str(form.get("name", "")).strip(), str(form.get("tags", ""))
    if "\x00" in name + told:
        raise InvalidInput("A name or a tag holds a NUL byte, which text cannot", "Type it again")
    tags = [tag.strip() for tag in told.splitlines() if tag.strip()]
    async with visitor.pool.acquire() as connection:
        before = await agents.show(connection, agent_id)
        wanted = name or before["hostname"]
        renamed = wanted != before["display_name"]
        await agents.rename(connection, visitor.actor, agent_id, name=wanted if renamed else None, tags=tags)
    return done(request, f"{wanted} is as you said" if not renamed else f"Now called {wanted}", subjects={"agents"})


@router.post("/scan")
async def scan(agent_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Looks for updates on it."""
    return await _enqueue(request, visitor, agent_id, "scan_updates", {}, "It will be scanned for updates")


@router.post("/reboot")
async def reboot(agent_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Restarts the host. The page asked twice."""
    return await _enqueue(request, visitor, agent_id, "reboot", {}, "The host will restart")


@router.post("/rapid")
async def rapid(agent_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Asks one of RedFlag's agents to come by every few seconds for a while; 0 minutes: no longer."""
    told = str((await request.form()).get("minutes", ""))
    if told == "0":
        return await _enqueue(request, visitor, agent_id, "disable_heartbeat", {}, "It will come by as usual again")
    if told not in map(str, RAPID_MINUTES):
        raise InvalidInput("For how long is not clear", f"Give {', '.join(map(str, RAPID_MINUTES))} or 0 minutes")
    params = {"duration_minutes": int(told)}
    text = f"It will come by every few seconds for {words.count(int(told), 'minute')}, once it has fetched this"
    return await _enqueue(request, visitor, agent_id, "enable_heartbeat", params, text)


async def _enqueue(
    request: Request, visitor: Visitor, agent_id: uuid.UUID, command_type: str, params: dict[str, Any], text: str
) -> Response:
    async with visitor.pool.acquire() as connection:
        await queue.enqueue(connection, visitor.actor, [agent_id], command_type, params)
    return done(request, text, subjects={"commands"})


@router.post("/remove")
async def remove_one(
    agent_id: uuid.UUID, request: Request, visitor: Visitor = enter(Permission.MANAGE_AGENTS)
) -> Response:
    """Removes it: its tokens end, what it still has to do is cancelled, its page and its history stay."""
    cancelled = await remove(visitor, [agent_id])
    text = f"The agent is removed, and {words.count(cancelled, 'live command')} cancelled"
    return done(request, text, subjects={"agents", "commands"})
