"""What the tests of commands share: commands made by hand, their records, and the replay that holds the two together."""

from __future__ import annotations

import asyncio
import datetime
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

import databases
from redflag.audit import actor as actors
from redflag.audit.actor import Actor
from redflag.commands.states import LIVE, RESULTS, Status
from redflag.database.embedded import EmbeddedDatabase

AUDITED = ("status", "agent_id", "command_type", "params", "sent_at", "completed_at")
STATUS_OF = {result: status for status, results in RESULTS.items() for result in results}
MINUTE = datetime.timedelta(minutes=1)
HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Addresses:
    """The three ways into one database."""

    owner: str
    server: str
    superuser: str


async def make_database(postgres: EmbeddedDatabase, name: str) -> Addresses:
    """A migrated database beside the common one, for tests whose numbers nobody else may change."""
    await databases.make_database(postgres, name)
    return Addresses(
        postgres.url("redflag_owner", name), postgres.url("redflag_server", name), postgres.url("postgres", name)
    )


async def make_agent(owner: Any, *, protocol: int = 1) -> uuid.UUID:
    """An agent that nobody else uses."""
    return await owner.fetchval(
        "INSERT INTO agents (hostname, protocol) VALUES ($1, $2) RETURNING id", f"host-{uuid.uuid4()}", protocol
    )


async def make_command(
    owner: Any,
    agent_id: uuid.UUID,
    status: str = Status.PENDING,
    *,
    age: datetime.timedelta = datetime.timedelta(0),
    sent: datetime.timedelta | None = None,
    overdue: datetime.timedelta | None = None,
    command_type: str = "scan_updates",
    params: dict[str, Any] | None = None,
) -> uuid.UUID:
    """A command put in by hand: made `age` ago, sent `sent` ago (None: what its status needs), its deadline `overdue` ago.

    A pending one with `sent` was handed out once and taken back.
    """
    if sent is None and status in {Status.SENT, Status.RUNNING, Status.COMPLETED, Status.FAILED}:
        sent = age
    command_id = await owner.fetchval(
        """INSERT INTO agent_commands (agent_id, command_type, status, created_at, sent_at, params, act)
           VALUES ($1, $2, $3, now() - $4::interval, now() - $5::interval, $6, '{"actor": "user:forger"}') RETURNING id""",
        agent_id, command_type, status, age, sent, {} if params is None else params,
    )  # fmt: skip
    if overdue is not None:
        await move_deadline(owner, command_id, overdue)
    return command_id


async def move_deadline(owner: Any, command_id: uuid.UUID, overdue: datetime.timedelta) -> None:
    """The deadline was this long ago. Moving a deadline alone is no change of the command."""
    await owner.execute(
        "UPDATE agent_commands SET next_deadline_at = now() - $2::interval WHERE id = $1 AND next_deadline_at IS NOT NULL",
        command_id, overdue,
    )  # fmt: skip


async def command(connection: Any, command_id: uuid.UUID) -> Any:
    """The live row."""
    return await connection.fetchrow("SELECT * FROM agent_commands WHERE id = $1", command_id)


async def records(connection: Any, command_id: uuid.UUID, kind: str | None = "transition") -> list[Any]:
    """The records of a command, in order."""
    return await connection.fetch(
        """SELECT * FROM update_logs WHERE command_id = $1 AND ($2::text IS NULL OR kind = $2)
           ORDER BY executed_at, version NULLS LAST""",
        command_id, kind,
    )  # fmt: skip


async def results(connection: Any, command_id: uuid.UUID) -> list[str]:
    """What its transitions say, in order."""
    return [record["result"] for record in await records(connection, command_id)]


def agent_actor(agent_id: uuid.UUID) -> Actor:
    """The agent in a request of its own."""
    return actors.agent(agent_id, "192.0.2.7")


def person(name: str = "tester") -> Actor:
    """A person in a request of its own."""
    return actors.user(name, "192.0.2.8")


async def replay(connection: Any, ids: Sequence[uuid.UUID] | None = None) -> list[str]:
    """What is wrong between the record and the live table, in words; nothing when each change left exactly one record.

    Versions must run 1, 2, 3 … to the live row's, and the transitions, applied in order, must arrive at every audited column.
    What has ended is changed by nobody, but by force.
    """
    # Two statements, one view of the tables; inside a transaction of the caller's nobody else's changes matter
    isolation = None if connection.is_in_transaction() else "repeatable_read"
    async with connection.transaction(isolation=isolation):
        live = await connection.fetch("SELECT * FROM agent_commands WHERE $1::uuid[] IS NULL OR id = ANY ($1)", ids)
        told = await connection.fetch(
            """SELECT command_id, version, result, agent_id, command_type, params, sent_at, completed_at, metadata ? 'forced' AS forced
               FROM update_logs WHERE kind = 'transition' AND ($1::uuid[] IS NULL OR command_id = ANY ($1)) ORDER BY command_id, version""",
            ids,
        )
    transitions: dict[uuid.UUID, list[Any]] = {row["id"]: [] for row in live}
    wrong = []
    for record in told:
        if record["command_id"] not in transitions:
            wrong.append(f"{record['command_id']}: a record of a command that is not there")
        else:
            transitions[record["command_id"]].append(record)
    for row in live:
        versions = [record["version"] for record in transitions[row["id"]]]
        if versions != list(range(1, row["version"] + 1)):
            wrong.append(f"{row['id']}: version {row['version']}, recorded {versions}")
            continue
        state: dict[str, Any] = {}
        for record in transitions[row["id"]]:
            if "status" in state and state["status"] not in LIVE and not record["forced"]:
                wrong.append(f"{row['id']}: {state['status']} has ended and was changed, to {record['result']}")
            state |= {name: record[name] for name in ("agent_id", "command_type", "sent_at", "completed_at")}
            state["status"] = STATUS_OF[record["result"]]
            if record["params"] is not None:
                state["params"] = record["params"]
        for name in AUDITED:
            if state[name] != row[name]:
                wrong.append(f"{row['id']}: {name} is {row[name]!r}, replayed {state[name]!r}")
    return wrong


async def until(connection: Any, condition: str, *arguments: Any) -> None:
    """Waits until the database says true; 20 s at the most."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(condition, *arguments):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)


async def refusal(connection: Any, statement: str, *arguments: Any) -> asyncpg.PostgresError | None:
    """What the database says to a statement, in a savepoint of its own; None if it let it through."""
    try:
        async with connection.transaction():
            await connection.execute(statement, *arguments)
    except asyncpg.PostgresError as error:
        return error
    return None


def as_json(value: Any) -> str:
    """A value as COPY and CSV take it."""
    return json.dumps(value)
