"""The queue: what is enqueued for agents, handed out to them, and acknowledged by them.

Promises: a command is handed out once, however many ask at once (SKIP LOCKED); never past its deadline; what an agent of
ours does not name as held is handed out again. Every change is one guarded statement, and leaves its record by trigger.
"""

from __future__ import annotations

import datetime
import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redflag.audit import redaction
from redflag.audit.actor import Actor
from redflag.commands.states import LIVE, TERMINAL, Status
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound

sql = queries.load(__file__, "queue.sql")

COMMAND_TYPE = re.compile(r"[a-z][a-z0-9_]{0,99}")
PARAMS_LIMIT = 64 * 1024
LIST_LIMIT = 500


@dataclass(frozen=True)
class Asking:
    """An agent that asks for commands. `held`: what it has journalled; `protocol` 0 cannot say."""

    agent_id: uuid.UUID
    actor: Actor
    protocol: int = 0
    held: tuple[uuid.UUID, ...] = ()


@dataclass(frozen=True)
class Progress:
    """What an agent says of the commands it holds."""

    received: tuple[uuid.UUID, ...] = ()
    running: tuple[uuid.UUID, ...] = ()
    said: tuple[tuple[uuid.UUID, str], ...] = ()


def check_params(command_type: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters as they will be stored, without secrets. Raises InvalidInput for what would harm an agent."""
    if not COMMAND_TYPE.fullmatch(command_type):
        raise InvalidInput(
            f"{command_type[:100]!r} is no command type", "Use small letters, digits and _, as in scan_updates"
        )
    if command_type == "dry_run_update" and not isinstance(params.get("update_id"), str):
        # RedFlag's own agent dies of a dry run without it
        raise InvalidInput("A dry_run_update needs the parameter update_id, a string", "Name the update it is for")
    if command_type == "install_updates" and params.get("action") == "update_all":
        # RedFlag's own agent would install a package of that name
        raise InvalidInput(
            "install_updates takes no action update_all", "Give the package_type alone to upgrade everything"
        )
    if not _is_finite(params):
        raise InvalidInput("The parameters hold a number that JSON does not have", "Send no NaN and no infinity")
    if len(redaction.encode(params)) > PARAMS_LIMIT:
        raise InvalidInput(f"The parameters are larger than {PARAMS_LIMIT} bytes", "Enqueue several commands")
    clean: dict[str, Any] = redaction.clean(params)
    return clean


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True


async def enqueue(
    connection: Any,
    actor: Actor,
    agents: Sequence[uuid.UUID],
    command_type: str,
    params: dict[str, Any] | None = None,
    *,
    source: str = "manual",
    retried_from_id: uuid.UUID | None = None,
    delivery_timeout: datetime.timedelta | None = None,
    execution_timeout: datetime.timedelta | None = None,
) -> list[dict[str, Any]]:
    """Enqueues one command per agent, in one statement. Raises NotFound naming the agents that are not there; then nothing is enqueued."""
    async with connection.transaction():
        rows = await sql.enqueue.all(
            connection,
            agents=list(agents),
            command_type=command_type,
            params=check_params(command_type, params or {}),
            source=source,
            retried_from_id=retried_from_id,
            delivery_timeout=delivery_timeout,
            execution_timeout=execution_timeout,
            act=actor.act(),
        )
        if missing := set(agents) - {row["agent_id"] for row in rows}:
            raise NotFound(f"No agent {', '.join(sorted(map(str, missing))[:5])}", "See `redflag agents list`")
    return [dict(row) for row in rows]


async def deliver(connection: Any, asking: Sequence[Asking]) -> dict[uuid.UUID, list[dict[str, Any]]]:
    """Hands out commands to all who ask, in one statement: agent → its commands, oldest first, at most ten each."""
    # In the order of their ids, so that two workers never lock two agents' commands the other way round
    asking = sorted(asking, key=lambda one: one.agent_id)
    rows = await sql.deliver.all(
        connection,
        agents=[one.agent_id for one in asking],
        protocols=[one.protocol for one in asking],
        acts=[one.actor.act() for one in asking],
        held=[held for one in asking for held in one.held],
    )
    handed_out: dict[uuid.UUID, list[dict[str, Any]]] = {one.agent_id: [] for one in asking}
    for row in sorted(rows, key=lambda row: (row["created_at"], row["id"])):
        handed_out[row["agent_id"]].append(dict(row))
    return handed_out


async def received(connection: Any, held: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> set[uuid.UUID]:
    """Notes what agents say they hold: pairs of agent and command. Returns those commands that are live."""
    rows = await sql.received.all(
        connection, agents=[agent_id for agent_id, _ in held], commands=[command_id for _, command_id in held]
    )
    return {row["id"] for row in rows}


async def acknowledge(
    connection: Any, actor: Actor, agent_id: uuid.UUID, progress: Progress
) -> tuple[dict[uuid.UUID, float], list[uuid.UUID]]:
    """Notes what an agent holds and runs. Returns the live ones with the seconds they have left, and those that have ended."""
    named = dict.fromkeys(progress.received + progress.running)
    rows = await sql.acknowledge.all(
        connection,
        agent_id=agent_id,
        received=[one for one in progress.received if one not in progress.running],
        running=list(progress.running),
        said_of=[one for one, _ in progress.said],
        said=[redaction.short(message, 500) for _, message in progress.said],
        act=actor.act(),
    )
    live = {row["id"]: row["remaining_seconds"] for row in rows}
    return live, [one for one in named if one not in live]


async def cancel(connection: Any, actor: Actor, command_id: uuid.UUID, reason: str = "") -> dict[str, Any]:
    """Ends a live command. Raises NotFound, or Conflict if it has ended already."""
    if ended := await cancel_many(connection, actor, [command_id], reason):
        return ended[0]
    now = await show(connection, command_id)
    raise Conflict(f"Command {command_id} has ended already: {now['status']}", "Enqueue or retry it instead")


async def cancel_many(
    connection: Any, actor: Actor, ids: Sequence[uuid.UUID], reason: str = ""
) -> list[dict[str, Any]]:
    """Ends those of the commands that are live, in one statement; the others stay as they ended. Returns the ones it ended."""
    rows = await sql.cancel.all(
        connection, ids=list(ids), reason=redaction.text(reason) or "cancelled", act=actor.act()
    )
    return [dict(row) for row in rows]


async def retry(connection: Any, actor: Actor, command_id: uuid.UUID) -> dict[str, Any]:
    """Enqueues a new command like one that has ended, and that names it. Raises NotFound, or Conflict while it is live."""
    old = await show(connection, command_id)
    if Status(old["status"]) not in TERMINAL:
        raise Conflict(f"Command {command_id} is still {old['status']}", "Wait for its end, or cancel it first")
    if old["params_erased"]:
        # Without them it would be another command: an installation of everything, for one
        raise Conflict(f"The parameters of command {command_id} were erased", "Enqueue a new one with its parameters")
    rows = await enqueue(
        connection,
        actor,
        [old["agent_id"]],
        old["command_type"],
        old["params"],
        source="retry",
        retried_from_id=command_id,
    )
    return rows[0]


async def live(connection: Any) -> tuple[dict[str, int], uuid.UUID | None]:
    """How many commands are live by state, every state of them; and the one that has waited the longest to be handed out."""
    counted = dict.fromkeys(sorted(map(str, LIVE)), 0)
    since = None
    for row in await sql.counts.all(connection):
        counted[row["status"]] = row["commands"]
        if row["status"] == Status.PENDING:
            since = row["oldest_at"]
    # None too when it was handed out just now: whoever looks again sees the next
    return counted, await sql.waiting_since.value(connection, at=since) if since else None


async def show(connection: Any, command_id: uuid.UUID) -> dict[str, Any]:
    """One command as it is now. Raises NotFound."""
    row = await sql.command.one(connection, id=command_id)
    if row is None:
        raise NotFound(f"No command {command_id}", "See `redflag commands list`")
    return dict(row)


async def list_commands(
    connection: Any,
    *,
    agent_id: uuid.UUID | None = None,
    status: Status | None = None,
    command_type: str | None = None,
    live: bool = False,
    before: tuple[datetime.datetime, uuid.UUID] | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Commands, the newest first. `before` is the (created_at, id) of the last one seen."""
    at, one = before or (None, None)
    rows = await sql.list_commands.all(
        connection,
        agent_id=agent_id,
        status=status,
        command_type=command_type,
        live=live,
        before_at=at,
        before_id=one,
        limit=min(limit, LIST_LIMIT),
    )
    return [dict(row) for row in rows]


async def of_agent(
    connection: Any, agent_id: uuid.UUID, *, live: int = 50, ended: int = 10
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What an agent has to do, the oldest first; and the last of what has ended, the newest first."""
    rows = [
        dict(row) for row in await sql.of_agent.all(connection, agent_id=agent_id, most_live=live, most_ended=ended)
    ]
    return [row for row in rows if row["next_deadline_at"]], [row for row in rows if not row["next_deadline_at"]]


async def live_of_agents(connection: Any, agents: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    """How many live commands each of these agents has; agents without any are left out."""
    rows = await sql.live_of_agents.all(connection, agents=list(agents))
    return {row["agent_id"]: row["commands"] for row in rows}


async def newest_of_agents(
    connection: Any, agents: Sequence[uuid.UUID], command_type: str
) -> dict[uuid.UUID, dict[str, Any]]:
    """The newest command of a type of each of these agents; agents without one are left out."""
    rows = await sql.newest_of_agents.all(connection, agents=list(agents), command_type=command_type)
    return {row["agent_id"]: dict(row) for row in rows}
