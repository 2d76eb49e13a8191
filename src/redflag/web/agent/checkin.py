"""Check-in, and what an agent says of the commands it holds."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redflag.alerts import metrics
from redflag.audit.actor import Actor
from redflag.commands import queue
from redflag.fleet.checkin import CheckIn
from redflag.web.agent import wire
from redflag.web.context import Context, context

# A check-in has a handful of numbers and the identifiers that the agent holds
MOST_BODY = 64 * 1024
METRICS = frozenset(
    {
        "cpu_percent",
        "memory_percent",
        "memory_used_gb",
        "memory_total_gb",
        "disk_used_gb",
        "disk_total_gb",
        "disk_percent",
        "uptime",
        "version",
    }
)


@wire.answered
async def check_in(request: Request) -> Response:
    """GET /api/v1/agents/{id}/commands, with a JSON body or without. What is wrong in the body is passed over."""
    began = time.perf_counter()
    agent_id, actor = await wire.known_agent(request)
    body = await wire.read(request, tolerant=True, most=MOST_BODY)
    wait = wait_of(request.query_params.get("wait", "0"))
    return wire.ok(await answer(context(request), agent_id, actor, body, wait, began, request.is_disconnected))


async def answer(
    here: Context,
    agent_id: uuid.UUID,
    actor: Actor,
    body: dict[str, Any],
    wait: float,
    began: float,
    has_gone: Callable[[], Awaitable[bool]],
) -> dict[str, Any]:
    """What an agent that comes by is told. `wait`: for how many seconds it may be held; `has_gone` tells whether it is there no more."""
    protocol = 1 if body.get("protocol") == 1 else 0
    held = wire.identifiers(body, "held") if protocol else ()
    said = {name: value for name, value in body.items() if name in METRICS and _is_small(value)}
    one = CheckIn(agent_id, actor, protocol, held, said or None, throw_away=protocol == 0 and _is_throw_away(body))
    found = await here.check_ins.check_in(one)
    metrics.CHECK_IN_SECONDS.observe(time.perf_counter() - began)
    if protocol and wait and not found.commands and not found.ended:
        woken = await here.holds.hold(agent_id, held, wait)
        # To somebody who has gone nothing is handed out: it would be lost on the way
        if woken and not await has_gone():
            found = await here.check_ins.check_in(one)
    told: dict[str, Any] = {"commands": [_command(row, protocol) for row in found.commands]}
    if found.rapid_until and found.rapid_until > datetime.datetime.now(datetime.UTC):
        told["rapid_polling"] = {"enabled": True, "until": wire.rfc3339(found.rapid_until)}
    if protocol:
        told |= {
            "ended": [str(one) for one in found.ended],
            "check_in_interval": here.settings.check_in_interval,
            "wait": here.holds.offer(),
        }
        if "log" in body and (log := await here.checkpoints.answer(agent_id, body["log"])):
            told["log"] = log
    return told


@wire.answered
async def progress(request: Request) -> Response:
    """POST /api/v1/agents/{id}/progress: what it received, runs, and how far it is."""
    agent_id, actor = await wire.known_agent(request)
    body = await wire.read(request)
    said = []
    for entry in wire.sequence(body, "progress", 1000):
        if isinstance(entry, dict):
            said.append((wire.identifier(entry.get("command_id"), "command_id"), wire.text(entry, "message")))
    async with context(request).pool.acquire() as connection:
        live, ended = await queue.acknowledge(
            connection,
            actor,
            agent_id,
            queue.Progress(wire.identifiers(body, "received"), wire.identifiers(body, "running"), tuple(said)),
        )
    return wire.ok({"live": {str(one): seconds for one, seconds in live.items()}, "ended": [str(one) for one in ended]})


def _is_throw_away(body: dict[str, Any]) -> bool:
    """RedFlag's agent checks in once after a heartbeat command and discards the answer. It is told apart by its metadata."""
    metadata = body.get("metadata")
    return (
        isinstance(metadata, dict)
        and "rapid_polling_enabled" in metadata
        and "rapid_polling_duration_minutes" not in metadata
    )


def wait_of(asked: str) -> float:
    """For how many seconds an agent asks to be held; 0 for none or nonsense."""
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


def _is_small(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 200 and "\x00" not in value)


def _command(row: dict[str, Any], protocol: int) -> dict[str, Any]:
    told = {"id": str(row["id"]), "type": row["command_type"], "params": row["params"]}
    if protocol:
        told["remaining_seconds"] = row["remaining_seconds"]
    return told
