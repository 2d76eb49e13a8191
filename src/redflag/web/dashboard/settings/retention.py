"""What becomes of old records: how long they are kept, legal holds, and the erasure of a person's name."""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from redflag import words
from redflag.access.roles import Permission
from redflag.audit import erasure, holds, retention
from redflag.errors import InvalidInput
from redflag.web.api.fields import NO_NUL
from redflag.web.api.retention import ARCHIVES
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/retention", route_class=GuardedRoute, include_in_schema=False)
MANAGER = enter(Permission.MANAGE_LOG)
FOR_EVER = "for ever"
ERASE = "erase"


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """The policy, the archives, the holds."""
    async with visitor.pool.acquire() as connection:
        policy = await retention.policy(connection)
        archives = await retention.sql.archives.all(connection, most=ARCHIVES)
        held = await holds.list_holds(connection, released=True)
    return settings_page(
        request, visitor, "retention.html", policy=policy, archives=[dict(row) for row in archives], holds=held,
        shortest=retention.SHORTEST,
    )  # fmt: skip


@router.post("")
async def set_policy(
    request: Request, keep: Annotated[str, Form(max_length=50)] = "", visitor: Visitor = MANAGER
) -> Response:
    """Sets how long records are kept."""
    longest = retention.LONGEST.total_seconds()
    wanted = None if keep.strip().lower() == FOR_EVER else datetime.timedelta(seconds=words.duration(keep, longest))
    async with visitor.pool.acquire() as connection:
        await retention.set_policy(connection, visitor.actor, wanted)
    kept = FOR_EVER if wanted is None else words.length(wanted.total_seconds())
    return done(request, f"Records are kept {kept}", subjects={"settings"})


@router.post("/holds")
async def place_hold(
    request: Request,
    name: Annotated[str, Form(max_length=100, pattern=NO_NUL)] = "",
    reason: Annotated[str, Form(max_length=1000, pattern=NO_NUL)] = "",
    since: Annotated[str, Form(max_length=50)] = "",
    until: Annotated[str, Form(max_length=50)] = "",
    agent_id: Annotated[str, Form(max_length=36)] = "",
    actor: Annotated[str, Form(max_length=700, pattern=NO_NUL)] = "",
    visitor: Visitor = MANAGER,
) -> Response:
    """Places a legal hold."""
    if not name.strip() or not reason.strip():
        raise InvalidInput("A hold has a name and a reason", "Say what it is for")
    async with visitor.pool.acquire() as connection:
        row = await holds.place(
            connection, visitor.actor, name.strip(), reason.strip(), since=_moment(since), until=_moment(until),
            agent_id=_id(agent_id), command_id=None, held_actor=actor.strip() or None,
        )  # fmt: skip
    return done(request, f"The hold {row['name']} stands until it is released", subjects={"settings"})


@router.post("/holds/{hold_id}/release")
async def release_hold(request: Request, hold_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Ends a legal hold."""
    async with visitor.pool.acquire() as connection:
        row = await holds.release(connection, visitor.actor, hold_id)
    return done(request, f"The hold {row['name']} is released", subjects={"settings"})


@router.post("/erasures")
async def erase(
    request: Request,
    actor: Annotated[str, Form(max_length=700, pattern=NO_NUL)] = "",
    reason: Annotated[str, Form(max_length=erasure.REASON_LIMIT, pattern=NO_NUL)] = "",
    go: Annotated[str, Form(max_length=10)] = "",
    visitor: Visitor = MANAGER,
) -> Response:
    """Counts the records under a name, or erases name and addresses from them: up to 2,000 at once."""
    name = actor.strip()
    if not name:
        raise InvalidInput("There is no name to look for", "Give it as the history shows it, such as user:alice")
    async with visitor.pool.acquire() as connection:
        if go != ERASE:
            left = await erasure.survey(connection, name)
            return done(request, f"Under {name}: {_told(left)}", kind="info")
        if not reason.strip():
            raise InvalidInput("An erasure has a reason, which stays in the log", "Say why, and name nobody in it")
        erased = await erasure.erase_actor(connection, visitor.actor, name, reason.strip())
        left = await erasure.survey(connection, name)
    told = f"Erased from {words.count(erased, 'record')}. Of what is left, {_told(left)}"
    return done(request, told, kind="warning", subjects={"settings", "records"})


def _told(left: erasure.Survey) -> str:
    """How many records under a name could be erased, and what keeps the others."""
    told = [f"{words.count(left.erasable, 'record')} can be erased"]
    told += [f"{left.waiting:,} have no position in the log yet"] if left.waiting else []
    told += [f"{left.held:,} are under the legal hold {', '.join(left.holds)}"] if left.held else []
    told += [f"{left.live:,} belong to commands that are live"] if left.live else []
    return "; ".join(told)


def _moment(text: str) -> datetime.datetime | None:
    """A time from a form: as people say it, or as a browser's field for times gives it, in UTC."""
    if not text.strip():
        return None
    at = words.moment(text, words.now())
    return at if "+" in text or text.endswith("Z") or "T" not in text else at.replace(tzinfo=datetime.UTC)


def _id(text: str) -> uuid.UUID | None:
    if not text.strip():
        return None
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        raise InvalidInput(f"{text[:50]!r} is no id of an agent", "Copy it from the agent's page") from None
