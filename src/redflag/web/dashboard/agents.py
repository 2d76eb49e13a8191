"""Agents: who is there, found among many; and what is done to several of them at once."""

from __future__ import annotations

import urllib.parse
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from redflag import words
from redflag.access.roles import Permission
from redflag.commands import queue
from redflag.errors import InvalidInput
from redflag.fleet import agents, finding
from redflag.updates import listing, outcomes
from redflag.web.api.fields import Cursor, Text, Word
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/agents", route_class=GuardedRoute, include_in_schema=False)

# So many at once, and no more: a page has fewer
MOST_CHOSEN = 500
# What the version of one of RedFlag's own agents begins with in an address
_THEIRS = "redflag "


@router.get("")
async def show(
    request: Request,
    visitor: Visitor = enter(Permission.READ_FLEET),
    text: Text = None,
    presence: Word = None,
    tag: Word = None,
    system: Word = None,
    version: Word = None,
    removed: Word = None,
    sort: Word = None,
    cursor: Cursor = None,
) -> Response:
    """A page of the agents that fit. An empty filter is none, as forms send it."""
    protocol, number = _version(version)
    shown = finding.Filter(
        text=(text or "").strip() or None,
        tag=tag or None,
        presence=_word(agents.Presence, presence, "presence"),
        system=system or None,
        protocol=protocol,
        version=number,
        removed=bool(removed),
    )
    order = _word(finding.Sort, sort, "order") or finding.Sort.NAME
    asked = {
        "text": shown.text, "presence": shown.presence, "tag": shown.tag, "system": shown.system, "version": version,
        "removed": "1" if shown.removed else None,
    }  # fmt: skip
    interval = visitor.context.settings.check_in_interval
    async with visitor.pool.acquire() as connection:
        found = await finding.find(connection, shown, interval, sort=order, cursor=cursor)
        rows = await with_work(connection, found.agents, interval)
    answer = page(
        request,
        visitor,
        "agents.html",
        rows=rows,
        asked=asked,
        filtered=[(name, value) for name, value in asked.items() if value],
        order=finding.Sort.REMOVED if shown.removed else order,
        address=_address(asked, order),
        link=lambda **more: _address(asked | {"cursor": None} | more, more.get("sort", order)),
        next_page=_address(asked | {"cursor": found.next_cursor}, order) if found.next_cursor else "",
        first=cursor is None,
        offered=await visitor.context.facets.read(),
        version_word=version_word,
    )
    if "hx-request" in request.headers:
        # The address says what is shown, also when a filter was changed without leaving the page
        answer.headers["HX-Replace-Url"] = _address(asked | {"cursor": cursor}, order)
    return answer


async def with_work(connection: Any, rows: list[dict[str, Any]], interval: int) -> list[dict[str, Any]]:
    """Agents with what is known of each besides: presence, open updates by severity, how many commands are live."""
    ids = [row["id"] for row in rows]
    updates = await listing.open_of_agents(connection, ids) if ids else {}
    live = await queue.live_of_agents(connection, ids) if ids else {}
    return [
        row
        | {
            "presence": agents.presence(row["seconds_since_seen"], interval),
            "updates": updates.get(row["id"], {}),
            "live": live.get(row["id"], 0),
        }
        for row in rows
    ]


@router.post("/scan")
async def scan(request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Looks for updates on the chosen agents."""
    return await _enqueue(request, visitor, "scan_updates", "{} will be scanned for updates")


@router.post("/reboot")
async def reboot(request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Restarts the chosen hosts. The page asked twice."""
    return await _enqueue(request, visitor, "reboot", "{} will restart")


async def _enqueue(request: Request, visitor: Visitor, command_type: str, told: str) -> Response:
    ids = await chosen(request)
    async with visitor.pool.acquire() as connection:
        await queue.enqueue(connection, visitor.actor, ids, command_type, {})
    return done(request, told.format(words.count(len(ids), "host")), subjects={"commands"})


@router.post("/tags")
async def tag_many(request: Request, visitor: Visitor = enter(Permission.MANAGE_AGENTS)) -> Response:
    """Gives the chosen agents a tag, or takes it from them."""
    ids = await chosen(request)
    form = await request.form()
    name, how = str(form.get("tag_name", "")).strip(), form.get("how", "add")
    if "\x00" in name or how not in {"add", "take"}:
        raise InvalidInput("This is no tag, or neither to be given nor taken", "Load the page again")
    async with visitor.pool.acquire() as connection:
        changed = await agents.tag(
            connection,
            visitor.actor,
            ids,
            add=[name] if how == "add" else [],
            take=[name] if how == "take" else [],
        )
    if not changed:
        told = f"Every one of them has the tag {name} already" if how == "add" else f"None of them has the tag {name}"
    else:
        told = f"{words.count(changed, 'agent')} " + (
            f"now tagged {name}" if how == "add" else f"no longer tagged {name}"
        )
    return done(request, told, kind="success" if changed else "info", subjects={"agents"})


@router.post("/remove")
async def remove_many(request: Request, visitor: Visitor = enter(Permission.MANAGE_AGENTS)) -> Response:
    """Removes the chosen agents, all or none."""
    ids = await chosen(request)
    cancelled = await remove(visitor, ids)
    told = f"{words.count(len(ids), 'agent')} removed, and {words.count(cancelled, 'live command')} cancelled"
    return done(request, told, subjects={"agents", "commands"})


async def remove(visitor: Visitor, ids: list[uuid.UUID]) -> int:
    """Removes agents, all or none. Returns how many live commands were cancelled."""
    count = 0
    async with visitor.pool.acquire() as connection, connection.transaction():
        # In the order of their ids, so that two who do this never wait for each other in a ring
        for one in sorted(ids):
            actor = visitor.principal.actor(visitor.address)
            cancelled = await agents.remove(connection, actor, one)
            await outcomes.command_cancelled(connection, actor, cancelled)
            count += len(cancelled)
    visitor.context.authenticator.forget_all()
    return count


async def chosen(request: Request) -> list[uuid.UUID]:
    """The agents that a form names. Raises InvalidInput for none, too many, or what is no id."""
    form = await request.form()
    try:
        ids = list(dict.fromkeys(uuid.UUID(str(one)) for one in form.getlist("agent")))
    except ValueError:
        raise InvalidInput("This names an agent that cannot be", "Load the page again, and choose there") from None
    if not 1 <= len(ids) <= MOST_CHOSEN:
        raise InvalidInput(f"1 to {MOST_CHOSEN} agents can be chosen at once", "Choose some in the list")
    return ids


def version_word(protocol: int, version: str) -> str:
    """A version as people and addresses name it: RedFlag's own agents are told apart."""
    return (_THEIRS if protocol == 0 else "") + version


def _version(word: str | None) -> tuple[int | None, str | None]:
    if not word:
        return None, None
    theirs = word.startswith(_THEIRS)
    return (0 if theirs else 1), word.removeprefix(_THEIRS)


def _word(kind: Any, word: str | None, what: str) -> Any:
    """A word of a vocabulary; none for an empty one. Raises InvalidInput."""
    if not word:
        return None
    try:
        return kind(word)
    except ValueError:
        raise InvalidInput(f"{word[:50]!r} is no {what}", f"Use one of {', '.join(kind)}") from None


def _address(asked: dict[str, Any], order: str) -> str:
    """The address of this list, with nothing in it that need not be."""
    said = {
        name: value
        for name, value in (asked | {"sort": None if order == finding.Sort.NAME else order}).items()
        if value
    }
    return "/agents" + (f"?{urllib.parse.urlencode(said)}" if said else "")
