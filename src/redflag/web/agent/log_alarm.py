"""What an agent reports of the log that it witnesses."""

from __future__ import annotations

from typing import Any

from redflag.fleet import checkpoints
from redflag.web.agent import wire

# Two notes, each escaped as JSON may be
MOST = 1024 * 1024


async def log_alarm(call: wire.Call) -> dict[str, Any]:
    """POST /api/v1/agents/{id}/log-alarm: a checkpoint was refused, or its log has another name. Both notes, and the reason."""
    body = call.body(most=MOST)
    alarm = checkpoints.Alarm(
        reason=wire.text(body, "reason"),
        message=wire.text(body, "message"),
        held=wire.text(body, "held"),
        given=wire.text(body, "given"),
    )
    async with call.here.pool.acquire() as connection:
        recorded = await checkpoints.record_alarm(
            connection, call.actor, call.agent_id, alarm, call.here.checkpoints.public
        )
    return {"status": "recorded" if recorded else "counted"}
