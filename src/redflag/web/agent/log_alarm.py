"""What an agent reports of the log that it witnesses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from redflag.fleet import checkpoints
from redflag.web.agent import wire
from redflag.web.context import context

# Two notes, each escaped as JSON may be
MOST = 1024 * 1024


@wire.answered
async def log_alarm(request: Request) -> Response:
    """POST /api/v1/agents/{id}/log-alarm: a checkpoint was refused, or its log has another name. Both notes, and the reason."""
    agent_id, actor = await wire.known_agent(request)
    here = context(request)
    body = await wire.read(request, most=MOST)
    alarm = checkpoints.Alarm(
        reason=wire.text(body, "reason"),
        message=wire.text(body, "message"),
        held=wire.text(body, "held"),
        given=wire.text(body, "given"),
    )
    async with here.pool.acquire() as connection:
        recorded = await checkpoints.record_alarm(connection, actor, agent_id, alarm, here.checkpoints.public)
    return wire.ok({"status": "recorded" if recorded else "counted"})
