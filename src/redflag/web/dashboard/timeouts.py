"""Deadlines: policies, what the sweep did, what expires next."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from redflag import words
from redflag.access.roles import Permission
from redflag.errors import InvalidInput, NotFound
from redflag.timeouts import policies, sweeper
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/timeouts", route_class=GuardedRoute, include_in_schema=False)

# What may be looked at ahead of now; another length may stand in the address
WITHIN = (("10m", "10 minutes"), ("1h", "an hour"), ("6h", "6 hours"), ("1d", "a day"), ("7d", "a week"))
SHOWN = 20
MOST_COUNTED = 10_000

Field = Annotated[str, Form()]


@router.get("")
async def show(
    request: Request,
    visitor: Visitor = enter(Permission.READ_FLEET),
    within: Annotated[str, Query(max_length=20)] = "1h",
    again: Annotated[str, Query(max_length=3)] = "",
) -> Response:
    """The page. `again`: one of its regions asks once more by itself."""
    ahead = datetime.timedelta(seconds=words.duration(within))
    async with visitor.pool.acquire() as connection:
        rules = await policies.list_policies(connection)
        coming = await sweeper.preview(connection, within=ahead, limit=SHOWN + 1)
    seen = await visitor.context.summary.look("service", "day")
    choices = WITHIN if within in dict(WITHIN) else (*WITHIN, (within, words.exact(ahead.total_seconds())))
    return page(
        request,
        visitor,
        "timeouts.html",
        policies=rules,
        coming=coming[:SHOWN],
        more=len(coming) > SHOWN,
        within=within,
        ahead=ahead,
        choices=choices,
        seen=seen,
        again_ms=seen.again(told="hx-request" in request.headers and not again),
        lateness=lateness(seen.service.buckets, seen.service.timed_out) if seen.service else [],
        silent_after=sweeper.HEARTBEAT_SECONDS * 6,
    )


def lateness(buckets: list[int], timed_out: int) -> list[tuple[str, int]]:
    """How many timeouts were how late, from the sweeper's cumulative buckets: (words, how many), the least late first."""
    told, before = [], 0
    for bound, reached in zip(sweeper.LATENESS_BOUNDS, buckets, strict=True):
        told.append((f"within {_short(bound)}", reached - before))
        before = reached
    told.append((f"later than {_short(sweeper.LATENESS_BOUNDS[-1])}", timed_out - before))
    return told


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else words.length(seconds)


@router.post("/run")
async def run(request: Request, visitor: Visitor = enter(Permission.RUN_TIMEOUTS)) -> Response:
    """Sweeps now. The run is recorded with the name of who asked."""
    swept = await visitor.context.sweeper.sweep(visitor.actor, method="manual run")
    said = "Nothing was overdue: no command timed out."
    if swept.timed_out:
        ended = words.count(len(swept.timed_out), "command")
        said = f"{ended} timed out, the latest {_late(swept.max_lateness_ms)} after its deadline."
    if swept.redelivered:
        said += f" {words.count(len(swept.redelivered), 'command')} taken back, to be handed out again."
    return done(request, said, subjects=("commands", "records", "log"))


def _late(milliseconds: float) -> str:
    return _short(round(milliseconds) / 1000)


@router.get("/policy")
async def show_policy(
    request: Request,
    visitor: Visitor = enter(Permission.MANAGE_POLICIES),
    command_type: Annotated[str | None, Query(alias="type", max_length=100)] = None,
) -> Response:
    """The form to change the policy of a type, or without one to add a policy, filled in with what holds for all other types."""
    async with visitor.pool.acquire() as connection:
        rules = {row["command_type"]: row for row in await policies.list_policies(connection)}
        wanted = command_type or policies.EVERY_OTHER_TYPE
        if wanted not in rules:
            raise NotFound(f"No policy of type {wanted}", "Add one on the page of timeouts")
        live = await policies.live_of_type(connection, command_type, MOST_COUNTED) if command_type else None
    said = f"{MOST_COUNTED:,} or more live commands" if live == MOST_COUNTED else words.count(live or 0, "live command")
    return page(
        request, visitor, "timeouts_policy.html", policy=rules[wanted], command_type=command_type, live=live, live_said=said
    )  # fmt: skip


@router.post("/policy")
async def set_policy(
    request: Request,
    visitor: Visitor = enter(Permission.MANAGE_POLICIES),
    command_type: Field = "",
    delivery: Field = "",
    start: Field = "",
    execution: Field = "",
    idle: Field = "",
    live: Field = "",
) -> Response:
    """Sets the policy of a type; for live commands too only where that was said."""
    if live not in {"yes", "no"}:
        raise InvalidInput(
            "It was not said whether the policy is for live commands as well", "Choose one of the two, and save again"
        )
    times: dict[str, Any] = {
        "delivery": _time("Waiting", delivery),
        "start": _time("Acknowledging", start) if start.strip() else None,
        "execution": _time("Finishing", execution),
        "idle": _time("Silence", idle) if idle.strip() else None,
    }
    async with visitor.pool.acquire() as connection:
        row, applied = await policies.set_policy(
            connection, visitor.actor, command_type.strip(), **times, no_idle=not idle.strip(), apply_to_live=live == "yes"
        )  # fmt: skip
    whose = "all other types" if row["command_type"] == policies.EVERY_OTHER_TYPE else row["command_type"]
    said = f"The policy of {whose} is set. It holds for new commands"
    if live == "yes":
        said += f", and was given to {words.count(applied, 'live command')}"
    return done(request, f"{said}.", subjects=("settings", "commands"))


def _time(name: str, text: str) -> datetime.timedelta:
    """A time of the form. Raises InvalidInput that names its field."""
    try:
        return datetime.timedelta(seconds=words.duration(text[:50]))
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.what}", error.next_step) from None
