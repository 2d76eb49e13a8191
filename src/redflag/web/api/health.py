"""Is it there, how is it, and what can be asked of it."""

from __future__ import annotations

from typing import Any

import fastapi
from fastapi import APIRouter, Request, Response

import redflag
from redflag.access.roles import Permission
from redflag.alerts import faults, metrics, rules
from redflag.audit import sequencer
from redflag.commands import queue
from redflag.database import migrate
from redflag.fleet import agents
from redflag.timeouts import sweeper
from redflag.web.context import context
from redflag.web.guards import Caller, GuardedRoute, allow, public

router = APIRouter(tags=["health"], route_class=GuardedRoute)


@router.get("/healthz")
@public
async def healthy(request: Request) -> dict[str, Any]:
    """200 when this process can reach its database."""
    async with context(request).pool.acquire() as connection:
        await connection.fetchval("SELECT 1")
    return {"status": "ok"}


@router.get("/metrics", response_class=Response)
async def show_metrics(caller: Caller = allow(Permission.READ_METRICS)) -> Response:
    """Prometheus' text format."""
    async with caller.pool.acquire() as connection:
        body = await metrics.render(connection, caller.context.settings.check_in_interval)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/api/v1/status")
async def status(caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """The whole at a glance: agents, live commands, timeouts, the log, alerts that fire, the schema."""
    settings = caller.context.settings
    async with caller.pool.acquire() as connection:
        return {
            "version": redflag.__version__,
            "replica": settings.replica,
            "agents": await agents.counts(connection, settings.check_in_interval),
            "commands": {row["status"]: row["commands"] for row in await queue.sql.counts.all(connection)},
            "timeouts": await sweeper.status(connection),
            "log": await sequencer.health(connection) | {"passed_over": await faults.passed_over(connection)},
            "alerts": [
                {"name": one.rule.name, "severity": one.rule.severity, "summary": one.rule.summary, "faults": one.faults,
                 "last_detail": one.last_detail, "next_step": one.rule.next_step}
                for one in await rules.firing(connection)
            ],
            "migrations": [vars(one) for one in await migrate.status(connection)],
            "database_time": await connection.fetchval("SELECT clock_timestamp()"),
        }  # fmt: skip


def documentation(admin: fastapi.FastAPI) -> APIRouter:
    """The API's own description, for whoever is logged in."""
    described = APIRouter(route_class=GuardedRoute)

    @described.get("/api/openapi.json", include_in_schema=False)
    async def openapi(_caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
        """OpenAPI."""
        return admin.openapi()

    return described
