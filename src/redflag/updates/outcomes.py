"""What a command's end means for the updates it worked on.

Promises: the report and its effect are one transaction; a report that concerns no update is one statement. A success is
believed when a scan has seen it, and that scan is enqueued here. A report that comes again, or of a command that no longer
works on an update, changes nothing. If the database refuses, neither the report nor its effect is kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from redflag.audit import redaction
from redflag.audit.actor import Actor
from redflag.commands import queue, results
from redflag.commands.states import Status as CommandStatus
from redflag.commands.states import outcome_of
from redflag.database import queries
from redflag.database.gathering import Gathering

sql = queries.load(__file__, "outcomes.sql")

INSTALLING = frozenset({"install_updates", "confirm_dependencies"})
CONCERNED = INSTALLING | {"dry_run_update"}
# What agents call the end of a command that works on no update
UNCONCERNED_ACTIONS = frozenset({"scan_updates", "enable_heartbeat", "disable_heartbeat", "collect_specs", "reboot"})
REASON_LIMIT = 500


# Reports that go to the database together have up to about this many bytes
BATCH_BYTES = 4 * 1024 * 1024


class Reports:
    """The reports that come to one server process. Those that concern no update go to the database together."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._gathering = Gathering(
            pool,
            results.store,
            lambda one: one.command_id,
            most=128,
            weight=lambda one: one.size,
            most_weight=BATCH_BYTES,
        )

    async def take(
        self, actor: Actor, agent_id: uuid.UUID, command_id: uuid.UUID, report: results.Report, *, max_output: int
    ) -> results.Outcome:
        """Takes a report, and what it means for updates. Raises NotFound, or Conflict for a command never handed out."""
        if report.action in UNCONCERNED_ACTIONS:
            told = await results.prepare(actor, agent_id, command_id, report, max_output=max_output)
            outcome = await self._gathering.ask(told)
            if not isinstance(outcome, results.Outcome):
                raise outcome
            if outcome.command_type not in CONCERNED:
                return outcome
            # An agent that calls things by other names: the effect comes second, and again with the report if it comes again
        async with self._pool.acquire() as connection:
            return await report_result(connection, actor, agent_id, command_id, report, max_output=max_output)


async def report_result(
    connection: Any,
    actor: Actor,
    agent_id: uuid.UUID,
    command_id: uuid.UUID,
    report: results.Report,
    *,
    max_output: int,
) -> results.Outcome:
    """Takes a report as `commands.results.report` does, and what it means for updates. Raises what that raises."""
    async with connection.transaction():
        outcome = await results.report(connection, actor, agent_id, command_id, report, max_output=max_output)
        if outcome.command_type in CONCERNED:
            await _take_effect(connection, actor, agent_id, command_id, report, outcome)
    return outcome


async def command_cancelled(connection: Any, actor: Actor, command_ids: Sequence[uuid.UUID]) -> int:
    """The updates of cancelled commands go back: to approved if they were, else to pending. Returns how many."""
    act = actor.act("update_command_cancelled")
    return await sql.cancelled.run(connection, command_ids=list(command_ids), act=act)


def because(what: str, message: str, stderr: str) -> str:
    """A reason in one line, without secrets: what happened, and the message or the first line of the error output."""
    lines = [line.strip() for line in (message or stderr).splitlines() if line.strip()]
    return redaction.text(f"{what}: {lines[0]}" if lines else what)[:REASON_LIMIT]


async def _take_effect(
    connection: Any,
    actor: Actor,
    agent_id: uuid.UUID,
    command_id: uuid.UUID,
    report: results.Report,
    outcome: results.Outcome,
) -> None:
    ended, _ = outcome_of(report.result)
    succeeded = ended == CommandStatus.COMPLETED
    if outcome.command_type not in INSTALLING:
        failure = because("the dry run failed", report.message, report.stderr or _exit(report))
        reason = "the dry run ended without telling the dependencies" if succeeded else failure
        await sql.examined.run(
            connection,
            agent_id=agent_id,
            command_id=command_id,
            reason=reason,
            succeeded=succeeded,
            act=actor.act("update_examined"),
        )
        return
    if succeeded:
        await sql.installed.run(
            connection,
            agent_id=agent_id,
            command_id=command_id,
            late=outcome.received == "late",
            act=actor.act("update_reported"),
        )
        if outcome.received in {"recorded", "late"} and await sql.needs_scan.value(connection, agent_id=agent_id):
            await queue.enqueue(connection, actor, [agent_id], "scan_updates", source="automatic")
        return
    reason = because("the installation failed", report.message, report.stderr or _exit(report))
    await sql.failed.run(
        connection, agent_id=agent_id, command_id=command_id, reason=reason, act=actor.act("update_reported")
    )


def _exit(report: results.Report) -> str:
    return f"exit code {report.exit_code}" if report.exit_code else ""
