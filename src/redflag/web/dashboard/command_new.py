"""Enqueue a command: of which type, with what, for whom, and how long it may take."""

from __future__ import annotations

import datetime
import urllib.parse
import uuid
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import FormData

from redflag import words
from redflag.access.roles import Permission
from redflag.commands import catalogue, queue
from redflag.errors import InvalidInput
from redflag.fleet import agents
from redflag.web.dashboard.commands import identifier
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/commands", route_class=GuardedRoute, include_in_schema=False)

# For so many agents at once, as on the API
MOST_AGENTS = 10_000
# So many that were chosen one by one are shown again with each search; they travel in its address
MOST_CHOSEN = 200
MATCHES = 20
# The choice of a type that is not in the catalogue
OTHER = "other"


@router.get("/new")
async def show(
    request: Request,
    visitor: Visitor = enter(Permission.ENQUEUE),
    type: Annotated[str, Query(max_length=100)] = "scan_updates",  # noqa: A002 - its name in the address
    agent: Annotated[list[str] | None, Query(max_length=MOST_CHOSEN)] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    tag: Annotated[str, Query(max_length=100)] = "",
    tagged: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The form. What was chosen in it stays chosen when agents are looked for, or another type is."""
    region = request.headers.get("hx-target", "")
    chosen_ids = [identifier(one) for one in dict.fromkeys(agent or [])]
    tag, q = tag.replace("\x00", "").strip(), q.replace("\x00", "").strip()
    chosen: list[dict[str, Any]] = []
    matches: list[dict[str, Any]] = []
    with_tag = 0
    if region != "what":
        async with visitor.pool.acquire() as connection:
            if chosen_ids:
                chosen = await agents.named(connection, chosen_ids)
            found = await agents.list_agents(
                connection, text=q or None, tag=tag or None, limit=MATCHES + len(chosen_ids)
            )
            if tag:
                with_tag = len(await agents.tagged(connection, tag, limit=MOST_AGENTS + 1))
        matches = [one for one in found if one["id"] not in chosen_ids][:MATCHES]
    interval = visitor.context.settings.check_in_interval
    for one in chosen + matches:
        one["presence"] = agents.presence(one["seconds_since_seen"], interval)
    return page(
        request,
        visitor,
        "command_new.html",
        type=type if type in catalogue.CATALOGUE else OTHER,
        other_type="" if type in {OTHER, *catalogue.CATALOGUE} else type,
        catalogue=catalogue.CATALOGUE,
        known=catalogue.CATALOGUE.get(type),
        chosen=chosen,
        matches=matches,
        most_matches=MATCHES,
        q=q,
        tag=tag,
        tagged=tagged == tag and bool(tag),
        with_tag=with_tag,
        most_agents=MOST_AGENTS,
        OTHER=OTHER,
    )


@router.post("")
async def enqueue(request: Request, visitor: Visitor = enter(Permission.ENQUEUE)) -> Response:
    """Enqueues the command for each of the agents, or for none if one of them is not there."""
    form = await request.form(max_fields=MOST_AGENTS)
    command_type, params = _what(form)
    known = catalogue.CATALOGUE.get(command_type)
    if known and known.grave and not form.get("sure"):
        raise InvalidInput(f"{known.word}: {known.grave}", "Tick that you are sure")
    delivery, execution = _span(form, "delivery"), _span(form, "execution")
    async with visitor.pool.acquire() as connection:
        ids = await _for_whom(connection, form)
        rows = await queue.enqueue(
            connection, visitor.actor, ids, command_type, params, delivery_timeout=delivery, execution_timeout=execution
        )  # fmt: skip
    to = (
        f"/commands/{rows[0]['id']}"
        if len(rows) == 1
        else f"/commands?{urllib.parse.urlencode({'type': command_type})}"
    )
    text = f"{catalogue.word(command_type)}: enqueued for {words.count(len(rows), 'agent')}."
    return done(request, text, subjects={"commands"}, to=to)


def _what(form: FormData) -> tuple[str, dict[str, Any]]:
    """The type and its parameters. Raises InvalidInput."""
    command_type = _text(form, "type")
    if command_type in catalogue.CATALOGUE:
        given = {
            name[6:]: value for name, value in form.items() if name.startswith("param_") and isinstance(value, str)
        }
        return command_type, catalogue.parameters(
            command_type, {name: one.replace("\x00", "") for name, one in given.items()}
        )
    command_type = _text(form, "other_type")
    if not command_type:
        raise InvalidInput("No type is chosen", "Choose one, or type the name of another")
    try:
        params = msgspec.json.decode(_text(form, "params") or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"The parameters are no JSON: {error}", 'Give an object, as {"refresh": true}') from None
    if not isinstance(params, dict):
        raise InvalidInput("The parameters are no JSON object", 'Give one, as {"refresh": true}')
    return command_type, params


async def _for_whom(connection: Any, form: FormData) -> list[uuid.UUID]:
    """The agents: those that were ticked, and those with the tag, each once. Raises InvalidInput."""
    ids = dict.fromkeys(identifier(value) for value in form.getlist("agent"))
    if tag := _text(form, "tagged"):
        ids |= dict.fromkeys(await agents.tagged(connection, tag, limit=MOST_AGENTS + 1))
    if not ids:
        raise InvalidInput("No agent is chosen", "Look for one, and tick it")
    if len(ids) > MOST_AGENTS:
        raise InvalidInput(f"More than {MOST_AGENTS:,} agents are chosen", "Enqueue for fewer at a time")
    return list(ids)


def _span(form: FormData, name: str) -> datetime.timedelta | None:
    text = _text(form, name)
    return datetime.timedelta(seconds=words.duration(text)) if text else None


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.replace("\x00", "").strip() if isinstance(value, str) else ""
