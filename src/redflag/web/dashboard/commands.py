"""Commands as they run, and why each waits."""

from __future__ import annotations

import datetime
import urllib.parse
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from redflag import words
from redflag.access.roles import Permission
from redflag.commands import catalogue, listing, queue, waiting
from redflag.commands.states import LIVE, TERMINAL, Status
from redflag.errors import Conflict, InvalidInput, NotFound
from redflag.fleet import agents
from redflag.timeouts import sweeper
from redflag.updates import outcomes
from redflag.web.dashboard import gathered
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/commands", route_class=GuardedRoute, include_in_schema=False)

MOST_CANCELLED = 500
# Each of them is an act of its own
MOST_RETRIED = 100
REASON_LIMIT = 500
# What expires next: the nearest so many within this time
EXPIRING = 6
EXPIRING_WITHIN = datetime.timedelta(hours=6)
# So many agents are offered where a name fits several
MOST_NAMESAKES = 20

Word = Annotated[str, Query(max_length=300)]


@router.get("")
async def show(
    request: Request,
    visitor: Visitor = enter(Permission.READ_FLEET),
    show: Annotated[str, Query(max_length=20)] = "live",
    status: Annotated[str, Query(max_length=20)] = "",
    type: Annotated[str, Query(max_length=100)] = "",  # noqa: A002 - its name in the address
    agent: Word = "",
    cursor: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Live commands, or those that have ended, as the address says."""
    live = show != "ended"
    async with visitor.pool.acquire() as connection:
        chosen, namesakes = await _agent(connection, agent.strip())
        shown = listing.Filter(
            live=live, status=_status(status), command_type=type.strip() or None, agent_id=chosen["id"] if chosen else None
        )  # fmt: skip
        sums, age = await gathered.on(request.app.state, "live_commands", _counts).value(visitor.pool)
        total = None if sums is None else sum(sums.values())
        # Until they are counted they may be many
        many = total is None or total > listing.FEW_LIVE
        if agent.strip() and not chosen:
            found = listing.Page([], None)
        else:
            found = await listing.page(
                connection, shown, cursor=cursor or None, who=visitor.may("read_history"), many_live=many
            )  # fmt: skip
        expiring = await sweeper.preview(connection, within=EXPIRING_WITHIN, limit=EXPIRING)
    explain(visitor, found.commands)
    keep = {"show": show if not live else "", "status": status, "type": type.strip(), "agent": agent.strip()}
    return page(
        request,
        visitor,
        "commands.html",
        live=live,
        shown=shown,
        found=found,
        sums=sums,
        sums_age=age,
        total=total,
        expiring=expiring,
        agent=chosen,
        asked_agent=agent.strip(),
        namesakes=namesakes,
        filtered=bool(status or type.strip() or agent.strip()),
        statuses=[one for one in Status if one in (LIVE if live else TERMINAL)],
        catalogue=catalogue.CATALOGUE,
        more=_address(keep | {"cursor": found.next_cursor}) if found.next_cursor else "",
        first=_address(keep) if cursor else "",
        word=catalogue.word,
        looked_at=listing.MOST_LOOKED_AT,
    )


@router.post("/bulk")
async def bulk(request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Cancels, or retries, the commands that were chosen."""
    form = await request.form()
    act = request.query_params.get("act")
    ids = list(dict.fromkeys(identifier(value) for value in form.getlist("command")))
    if not ids:
        raise InvalidInput("No command is chosen", "Tick some in the list")
    if act == "cancel":
        return await _cancel(request, visitor, ids, reason_of(form.get("reason")))
    if act == "retry":
        return await _retry(request, visitor, ids)
    raise InvalidInput("Nothing is to be done with them", "Cancel or retry them")


def explain(visitor: Visitor, rows: list[dict[str, Any]]) -> None:
    """Says of each command why it waits, as its `why`; None for one that has ended."""
    interval = visitor.context.settings.check_in_interval
    for row in rows:
        row["why"] = waiting.of_row(row, interval=interval, late_after=agents.online_seconds(interval))


def identifier(value: Any) -> uuid.UUID:
    """An id as a form says it. Raises InvalidInput."""
    try:
        return uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput("That is no id", "Load the page again, and choose once more") from None


def reason_of(value: Any) -> str:
    """Why, as it was typed. Raises InvalidInput for one that is too long."""
    text = value.strip().replace("\x00", "") if isinstance(value, str) else ""
    if len(text) > REASON_LIMIT:
        raise InvalidInput(f"The reason is longer than {REASON_LIMIT} characters", "Say it in fewer")
    return text


async def _cancel(request: Request, visitor: Visitor, ids: list[uuid.UUID], reason: str) -> Response:
    if len(ids) > MOST_CANCELLED:
        raise InvalidInput(f"More than {MOST_CANCELLED} commands are chosen", "Choose fewer")
    async with visitor.pool.acquire() as connection, connection.transaction():
        ended = await queue.cancel_many(connection, visitor.actor, ids, reason)
        await outcomes.command_cancelled(connection, visitor.actor, [row["id"] for row in ended])
    text = f"{words.count(len(ended), 'command')} cancelled."
    if left := len(ids) - len(ended):
        text += f" {words.count(left, 'other')} had ended already."
    return done(request, text, kind="success" if ended else "warning", subjects={"commands", "updates"})


async def _retry(request: Request, visitor: Visitor, ids: list[uuid.UUID]) -> Response:
    if len(ids) > MOST_RETRIED:
        raise InvalidInput(f"More than {MOST_RETRIED} commands are chosen", "Choose fewer")
    enqueued, refused = 0, ""
    async with visitor.pool.acquire() as connection:
        for one in ids:
            try:
                await queue.retry(connection, visitor.principal.actor(visitor.address), one)
                enqueued += 1
            except (Conflict, NotFound, InvalidInput) as error:
                refused = refused or str(error)
    text = f"{words.count(enqueued, 'new command')} enqueued."
    if refused:
        text += f" {len(ids) - enqueued} could not be retried: {refused}"
    return done(request, text, kind="warning" if refused else "success", subjects={"commands"})


async def _counts(pool: Any) -> dict[str, int]:
    return {row["status"]: row["commands"] for row in await queue.sql.counts.all(pool)}


async def _agent(connection: Any, asked: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The agent that somebody names by its id or name; or those among which they have to choose."""
    if not asked:
        return None, []
    try:
        return await agents.show(connection, uuid.UUID(asked)), []
    except (ValueError, NotFound):
        found = await agents.list_agents(connection, text=asked.replace("\x00", ""), removed=True, limit=MOST_NAMESAKES)
    same = [one for one in found if asked.lower() in {one["hostname"].lower(), (one["name"] or "").lower()}]
    if len(same) == 1 or len(found) == 1:
        return (same or found)[0], []
    return None, found


def _status(text: str) -> Status | None:
    if not text:
        return None
    try:
        return Status(text)
    except ValueError:
        raise InvalidInput(f"{text[:50]!r} is no state", f"Use one of {', '.join(Status)}") from None


def _address(query: dict[str, str]) -> str:
    return "/commands?" + urllib.parse.urlencode({name: value for name, value in query.items() if value})
