"""Timeouts: the service's state, a run by hand, what expires next, and the policies."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from redflag.access.roles import Permission
from redflag.timeouts import policies, sweeper
from redflag.web.api.commands import Seconds
from redflag.web.api.fields import Body, Limit, span
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1", tags=["timeouts"], route_class=GuardedRoute)


class Policy(Body):
    """Times in seconds; absent: as they are. `no_idle` takes the idle timeout away."""

    delivery_timeout: Seconds | None = None
    start_timeout: Seconds | None = None
    execution_timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    no_idle: bool = Field(False)
    apply_to_live: bool = Field(False, description="give the live commands of the type these times as well")


def _in_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.total_seconds() if isinstance(value, datetime.timedelta) else value for name, value in row.items()
    }


@router.post("/admin/timeout-service/run")
async def run(caller: Caller = allow(Permission.RUN_TIMEOUTS)) -> dict[str, Any]:
    """Sweeps now. The run is recorded with the name of who asked."""
    swept = await caller.context.sweeper.sweep(caller.actor, method="manual run")
    return {
        "timed_out": len(swept.timed_out),
        "commands": swept.timed_out,
        "redelivered": swept.redelivered,
        "max_lateness_ms": round(swept.max_lateness_ms),
    }


@router.get("/admin/timeout-service/status")
async def status(caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """Last run, lag, failures, totals."""
    async with caller.pool.acquire() as connection:
        return await sweeper.status(connection)


@router.get("/admin/timeout-service/preview")
async def preview(
    caller: Caller = allow(Permission.READ_FLEET),
    within: Annotated[float, Query(gt=0, le=366 * 86400, description="seconds from now")] = 3600,
    limit: Limit = 100,
) -> dict[str, Any]:
    """What expires next, and when."""
    async with caller.pool.acquire() as connection:
        return {"commands": await sweeper.preview(connection, within=datetime.timedelta(seconds=within), limit=limit)}


@router.get("/timeout-policies")
async def list_policies(caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """Every policy, times in seconds. The one of type * holds for all types without one."""
    async with caller.pool.acquire() as connection:
        return {"policies": [_in_seconds(row) for row in await policies.list_policies(connection)]}


@router.put("/timeout-policies/{command_type}")
async def set_policy(
    command_type: str, body: Policy, caller: Caller = allow(Permission.MANAGE_POLICIES)
) -> dict[str, Any]:
    """Sets the policy of a type. It holds for new commands, and with apply_to_live for those that are live."""
    async with caller.pool.acquire() as connection:
        row, applied = await policies.set_policy(
            connection,
            caller.actor,
            command_type,
            delivery=span(body.delivery_timeout),
            start=span(body.start_timeout),
            execution=span(body.execution_timeout),
            idle=span(body.idle_timeout),
            no_idle=body.no_idle,
            apply_to_live=body.apply_to_live,
        )
    return {"policy": _in_seconds(row), "applied_to_live": applied}
