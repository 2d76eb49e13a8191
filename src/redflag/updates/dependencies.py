"""What a dry run found: which other packages an update brings with it, and what follows from that.

Promises: an agent speaks for its own updates only; an installation that was wanted follows in the same transaction if
nothing else is needed, and waits for a person if something is. A report for an update that was decided on otherwise
meanwhile is kept and starts nothing. If the database refuses, nothing is kept and the agent is told.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec

from redflag.audit import redaction
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import InvalidInput, NotFound
from redflag.updates import approvals
from redflag.updates.outcomes import because
from redflag.updates.states import Status

sql = queries.load(__file__, "dependencies.sql")

Name = Annotated[str, msgspec.Meta(max_length=500)]


class DryRunResult(msgspec.Struct):
    """What the dry run itself came to."""

    success: bool | None = None
    error_message: str | None = None
    stderr: str | None = None


class Told(msgspec.Struct):
    """The body of a dependencies report; null and absent are empty."""

    package_name: Name | None = None
    package_type: Annotated[str, msgspec.Meta(max_length=50)] | None = None
    dependencies: Annotated[list[Name], msgspec.Meta(max_length=5000)] | None = None
    update_id: Name | None = None
    dry_run_result: DryRunResult | None = None


async def report(connection: Any, actor: Actor, agent_id: uuid.UUID, body: dict[str, Any]) -> dict[str, Any]:
    """Takes what a dry run found; returns the update's id, its status, its dependencies, the command that follows (or None) and a message.

    Raises InvalidInput, or NotFound for an update that this agent does not have.
    """
    try:
        told = msgspec.convert(body, Told)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The report was not understood: {error}", "Send it as the protocol has it") from None
    found = list(dict.fromkeys(redaction.text(one) for one in told.dependencies or () if one))
    async with connection.transaction():
        row = await _hold(connection, agent_id, told)
        result = told.dry_run_result or DryRunResult()
        if result.success is False:
            reason = because("the dry run failed", result.error_message or "", result.stderr or "")
            status = await sql.examination_failed.value(
                connection, id=row["id"], reason=reason, act=actor.act("update_examined")
            )
            return _answer(
                row["id"],
                status or row["status"],
                row["dependencies"],
                None,
                "the dry run failed: nothing is installed",
            )
        # What stops being under examination goes back to where it was; what was wanted and needs nothing else goes on
        row = await sql.store.one(connection, id=row["id"], dependencies=found, act=actor.act("update_examined"))
        if row["status"] == Status.DEPENDENCIES and row["install_wanted_by"] is not None and not found:
            started = await approvals.follow(connection, actor, row)
            told_so = "no dependencies found - installation command created automatically"
            return _answer(row["id"], started["status"], found, started["command_id"], told_so)
    return _answer(row["id"], row["status"], found, None, "dependencies reported and status updated")


async def _hold(connection: Any, agent_id: uuid.UUID, told: Told) -> Any:
    try:
        update_id = uuid.UUID(told.update_id or "")
    except ValueError:
        update_id = None
    package_type, package_name = (redaction.text(one or "") for one in (told.package_type, told.package_name))
    row = await sql.hold.one(
        connection, agent_id=agent_id, update_id=update_id, package_type=package_type, package_name=package_name
    )
    if row is None:
        raise NotFound(
            f"This agent has no update of {package_type or 'unknown'} package {package_name or told.update_id!r}",
            "Scan first",
        )
    return row


def _answer(
    update_id: uuid.UUID, status: str, dependencies: list[str] | None, command_id: uuid.UUID | None, message: str
) -> dict[str, Any]:
    return {
        "update_id": update_id,
        "status": status,
        "dependencies": dependencies,
        "command_id": command_id,
        "message": message,
    }
