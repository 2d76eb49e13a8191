"""Policies: how long a command of a type may wait, start, run, and be silent.

A changed policy holds for new commands. Applying it to those that are live is a choice of its own, and recorded.
"""

from __future__ import annotations

import datetime
from typing import Any

from redflag.audit import events
from redflag.audit.actor import Actor
from redflag.commands.queue import COMMAND_TYPE
from redflag.database import queries
from redflag.errors import InvalidInput

sql = queries.load(__file__, "policies.sql")

LONGEST = datetime.timedelta(days=366)
EVERY_OTHER_TYPE = "*"


async def list_policies(connection: Any) -> list[dict[str, Any]]:
    """Every policy; the one of type `*` holds for all types without one."""
    return [dict(row) for row in await sql.policies.all(connection)]


async def live_of_type(connection: Any, command_type: str, most: int = 10_000) -> int:
    """How many live commands a type's policy would be applied to, counted as far as `most`."""
    counted: int = await sql.live_of_type.value(connection, command_type=command_type, most=most)
    return counted


async def set_policy(
    connection: Any,
    actor: Actor,
    command_type: str,
    *,
    delivery: datetime.timedelta | None = None,
    start: datetime.timedelta | None = None,
    execution: datetime.timedelta | None = None,
    idle: datetime.timedelta | None = None,
    no_idle: bool = False,
    apply_to_live: bool = False,
) -> tuple[dict[str, Any], int]:
    """Sets a policy; None leaves a time as it is. Returns it and how many live commands it was applied to."""
    if command_type != EVERY_OTHER_TYPE and not COMMAND_TYPE.fullmatch(command_type):
        raise InvalidInput(
            f"{command_type[:100]!r} is no command type", "Use a type, or * for all types without a policy"
        )
    for name, value in (("delivery", delivery), ("start", start), ("execution", execution), ("idle", idle)):
        if value is not None and not datetime.timedelta(0) < value <= LONGEST:
            raise InvalidInput(f"The {name} timeout is not between 0 s and 366 days", "Give a number of seconds")
    async with connection.transaction():
        row = await sql.set_policy.one(
            connection,
            command_type=command_type,
            delivery=delivery,
            start=start,
            execution=execution,
            idle=idle,
            no_idle=no_idle,
            act=actor.act("policy_changed"),
        )
        applied = 0
        if apply_to_live:
            applied = await sql.apply_to_live.run(connection, command_type=command_type)
            message = f"policy {command_type} applied to {applied} live commands"
            await events.record(
                connection, actor, kind="service", action="policy_applied", message=message, commands=applied
            )
    return dict(row), applied
