"""What agents report: results, updates, dependencies, facts."""

from __future__ import annotations

from typing import Any

import msgspec

from redflag.commands.results import Report
from redflag.commands.states import Status
from redflag.fleet import agents, presence
from redflag.updates import dependencies, inventory
from redflag.web.agent import wire


class _Scan(msgspec.Struct):
    """A scan's report, but for its packages, which are read only if they say something new."""

    updates: msgspec.Raw = msgspec.Raw(b"[]")
    package_types: Any = None
    command_id: Any = None


_SCAN = msgspec.json.Decoder(_Scan)


async def logs(call: wire.Call) -> dict[str, Any]:
    """POST /api/v1/agents/{id}/logs: a command's end."""
    body = call.body()
    command_id = wire.identifier(body.get("command_id"), "command_id")
    metadata = wire.mapping(body, "metadata")
    for name in ("started_at", "finished_at"):
        if value := wire.text(body, name):
            metadata[f"agent_{name}"] = value[:40]
    for name in ("stdout_bytes", "stderr_bytes"):
        if body.get(name) is not None:
            metadata[name] = wire.number(body, name)
            metadata[name.replace("_bytes", "_cut")] = True
    if body.get("killed") is True:
        metadata["killed_at_deadline"] = True
    told = Report(
        result=wire.text(body, "result"),
        action=wire.text(body, "action"),
        stdout=wire.text(body, "stdout"),
        stderr=wire.text(body, "stderr"),
        exit_code=wire.number(body, "exit_code"),
        duration_seconds=wire.number(body, "duration_seconds"),
        message=wire.text(body, "message"),
        metadata=metadata,
    )
    outcome = await call.here.reports.take(
        call.actor, call.agent_id, command_id, told, max_output=call.here.settings.max_output
    )
    if (
        outcome.received == "recorded"
        and outcome.status == Status.COMPLETED
        and outcome.command_type in {"enable_heartbeat", "disable_heartbeat"}
    ):
        minutes = outcome.params.get("duration_minutes", 60) if outcome.command_type == "enable_heartbeat" else None
        async with call.here.pool.acquire() as connection:
            await presence.set_rapid(
                connection, call.agent_id, minutes if isinstance(minutes, int) else 60 if minutes else None
            )
    return {"message": "log recorded", "status": outcome.received, "command_status": outcome.status}


async def updates(call: wire.Call) -> dict[str, Any]:
    """POST /api/v1/agents/{id}/updates: what a scan found. What is wrong with one item is told; the others are kept."""
    try:
        scan = _SCAN.decode(call.content or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        call.body()  # says what is wrong with it
        raise
    told = bytes(scan.updates)
    package_types = wire.sequence({"package_types": scan.package_types}, "package_types", 50)
    command_id = scan.command_id
    async with call.here.pool.acquire() as connection:
        reported = await inventory.report(
            connection,
            call.actor,
            call.agent_id,
            b"[]" if told == b"null" else told,
            [one for one in package_types if isinstance(one, str)],
            wire.identifier(command_id, "command_id") if command_id else None,
        )
    return {
        "message": "update events recorded",
        "count": reported.count,
        "rejected": reported.rejected,
        "command_id": command_id,
    }


async def report_dependencies(call: wire.Call) -> dict[str, Any]:
    """POST /api/v1/agents/{id}/dependencies: what a dry run found."""
    body = call.body()
    async with call.here.pool.acquire() as connection:
        told = await dependencies.report(connection, call.actor, call.agent_id, body)
    return {"message": "dependencies reported"} | told


async def system_info(call: wire.Call) -> dict[str, Any]:
    """POST /api/v1/agents/{id}/system-info: facts about the host."""
    body = call.body()
    facts = {name: value for name, value in body.items() if name not in {"timestamp", "metadata"}} | wire.mapping(
        body, "metadata"
    )
    async with call.here.pool.acquire() as connection:
        await agents.store_facts(
            connection,
            call.agent_id,
            facts,
            agent_version=str(facts.pop("agent_version", "") or ""),
            os_version=str(facts.get("os_version", "") or ""),
        )
    return {"message": "system info updated successfully"}
