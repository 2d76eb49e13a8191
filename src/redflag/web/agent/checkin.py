"""Check-in, and what an agent says of the commands it holds."""

from __future__ import annotations

import datetime
import time
from typing import Any

from redflag.alerts import metrics
from redflag.commands import queue
from redflag.fleet.checkin import CheckIn
from redflag.web.agent import wire

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


async def check_in(call: wire.Call) -> dict[str, Any]:
    """GET /api/v1/agents/{id}/commands, with a JSON body or without. What is wrong in the body is passed over."""
    began = time.perf_counter()
    here, agent_id = call.here, call.agent_id
    body = call.body(tolerant=True, most=MOST_BODY)
    protocol = 1 if body.get("protocol") == 1 else 0
    held = wire.identifiers(body, "held") if protocol else ()
    said = {name: value for name, value in body.items() if name in METRICS and _is_small(value)}
    one = CheckIn(agent_id, call.actor, protocol, held, said or None, throw_away=protocol == 0 and _is_throw_away(body))
    found = await here.check_ins.check_in(one)
    metrics.CHECK_IN_SECONDS.observe(time.perf_counter() - began)
    wait = wait_of(call.wait) if protocol else 0.0
    if wait and not found.commands and not found.ended:
        woken = await here.holds.hold(agent_id, held, wait)
        # To somebody who has gone nothing is handed out: it would be lost on the way
        if woken and not await call.has_gone():
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


async def progress(call: wire.Call) -> dict[str, Any]:
    """POST /api/v1/agents/{id}/progress: what it received, runs, and how far it is."""
    body = call.body()
    said = []
    for entry in wire.sequence(body, "progress", 1000):
        if isinstance(entry, dict):
            said.append((wire.identifier(entry.get("command_id"), "command_id"), wire.text(entry, "message")))
    async with call.here.pool.acquire() as connection:
        live, ended = await queue.acknowledge(
            connection,
            call.actor,
            call.agent_id,
            queue.Progress(wire.identifiers(body, "received"), wire.identifiers(body, "running"), tuple(said)),
        )
    return {"live": {str(one): seconds for one, seconds in live.items()}, "ended": [str(one) for one in ended]}


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
