"""What agents report of their commands.

Promises: the first report ends a live command; the same report again changes nothing; one that comes after the end is a
record of its own and never changes the end. An unknown word for the result is kept verbatim. Output is redacted and
cut to the documented size, and the record says so.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Any

from redflag.audit import redaction
from redflag.audit.actor import Actor
from redflag.commands.states import Status, outcome_of
from redflag.database import queries
from redflag.errors import Conflict, NotFound

sql = queries.load(__file__, "results.sql")

INT_MAX = 2**31 - 1
# What an agent says beside its output; more is left out, and the record says how much there was
METADATA_LIMIT = 16 * 1024


@dataclass(frozen=True)
class Report:
    """A command's end as its agent tells it. Sizes in bytes, duration in seconds."""

    result: str
    action: str = ""
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    duration_seconds: int = 0
    message: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """The same report has the same digest, whatever else came with it."""
        told = [self.result, self.action, self.stdout, self.stderr, self.exit_code, self.duration_seconds]
        return hashlib.sha256(redaction.encode(told)).hexdigest()[:32]


@dataclass(frozen=True)
class Outcome:
    """What became of a report, and the command's type and status now.

    `recorded`, `already_recorded`, `late`, or `not_recorded` after too many different ones that were late.
    """

    received: str
    command_type: str
    status: Status
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """A report as it is stored: cut to its limits, without secrets. `size` is about its bytes."""

    agent_id: uuid.UUID
    command_id: uuid.UUID
    status: Status
    result: str
    kept: dict[str, Any]
    act: dict[str, Any]
    size: int


async def prepare(actor: Actor, agent_id: uuid.UUID, command_id: uuid.UUID, told: Report, *, max_output: int) -> Told:
    """A report as it will be stored. Touches no database."""
    status, result = outcome_of(told.result[:100])
    stdout, stdout_bytes = await redaction.output(told.stdout, max_output)
    stderr, stderr_bytes = await redaction.output(told.stderr, max_output)
    size = len(redaction.encode(told.metadata))
    metadata = redaction.clean(told.metadata) if size <= METADATA_LIMIT else {"metadata_cut": size}
    if told.result not in {result, status}:
        metadata["reported_result"] = redaction.short(told.result, 200)
    for name, size in (("stdout", stdout_bytes), ("stderr", stderr_bytes)):
        if size > max_output:
            metadata[f"{name}_bytes"] = size
            metadata[f"{name}_cut"] = True
    kept: dict[str, Any] = {
        "outcome": result,
        "digest": told.digest(),
        "action": redaction.short(told.action, 100),
        "stdout": stdout,
        "stderr": stderr,
        "exit_code": max(-INT_MAX, min(INT_MAX, told.exit_code)),
        "duration_seconds": max(0, min(INT_MAX, told.duration_seconds)),
        "metadata": metadata,
    }
    if told.message:
        kept["message"] = redaction.short(told.message, 2000)
    return Told(agent_id, command_id, status, result, kept, actor.act(), len(stdout) + len(stderr) + METADATA_LIMIT)


async def store(connection: Any, reports: list[Told]) -> list[Outcome | NotFound | Conflict]:
    """Takes reports, no two of one command, in one statement. Each is answered by its outcome, or by why it was not taken:
    NotFound for a command that is not this agent's, Conflict for one that was never handed out."""
    rows = await sql.report.all(
        connection,
        commands=[one.command_id for one in reports],
        agents=[one.agent_id for one in reports],
        statuses=[one.status for one in reports],
        results=[one.result for one in reports],
        reports=[one.kept for one in reports],
        digests=[one.kept["digest"] for one in reports],
        acts=[one.act for one in reports],
    )
    found = {row["id"]: row for row in rows}
    return [_outcome(one.command_id, found.get(one.command_id)) for one in reports]


async def report(
    connection: Any, actor: Actor, agent_id: uuid.UUID, command_id: uuid.UUID, told: Report, *, max_output: int
) -> Outcome:
    """Takes one report. Raises NotFound for a command that is not this agent's, Conflict for one never handed out."""
    [outcome] = await store(connection, [await prepare(actor, agent_id, command_id, told, max_output=max_output)])
    if not isinstance(outcome, Outcome):
        raise outcome
    return outcome


def _outcome(command_id: uuid.UUID, row: Any) -> Outcome | NotFound | Conflict:
    if row is None:
        return NotFound(f"No command {command_id} of this agent", "Drop the report")
    if not (row["was_sent"] or row["ended"] or row["late"]) and row["status"] == Status.PENDING:
        return Conflict(f"Command {command_id} was never handed out", "Drop the report")
    if row["ended"]:
        received = "recorded"
    elif row["late"]:
        received = "late"
    else:
        received = "already_recorded" if row["known"] else "not_recorded"
    return Outcome(received, row["command_type"], Status(row["status"]), row["params"])
