"""fsck finds what somebody who owns the database did to it, and names the first thing that is wrong."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import connection, connections, make_database
from redflag.audit import actor as actors
from redflag.audit import fsck, sequencer
from redflag.audit.checkpoint import Signer, load_key
from redflag.commands import queue, replay, results
from redflag.database.embedded import EmbeddedDatabase


@pytest_asyncio.fixture
async def database(postgres: EmbeddedDatabase) -> str:
    name = f"fsck_{uuid.uuid4().hex[:8]}"
    await make_database(postgres, name)
    return name


@pytest_asyncio.fixture
async def villain(postgres: EmbeddedDatabase, database: str) -> AsyncIterator[Any]:
    """A superuser who has switched off every trigger, as only who owns the database can."""
    async for opened in connection(postgres.url("postgres", database)):
        for table in ("update_logs", "agent_commands", "audit_entries", "audit_tiles", "audit_checkpoints"):
            await opened.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        yield opened


@pytest_asyncio.fixture
async def server(postgres: EmbeddedDatabase, database: str) -> AsyncIterator[Any]:
    async for pool in connections(postgres.url("redflag_server", database), 2):
        async with pool.acquire() as one:
            yield one


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_key("example.com/log", tmp_path / "key")


@pytest_asyncio.fixture
async def history(server: Any, postgres: EmbeddedDatabase, database: str, signer: Signer, tmp_path: Path) -> uuid.UUID:
    """Some commands with all their records in two signed checkpoints. Returns a command that was completed."""
    async for owner in connection(postgres.url("redflag_owner", database)):
        agent_id = await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ('h', 1) RETURNING id")
        await owner.execute(
            "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, 300) i"
        )
    commands = [
        (await queue.enqueue(server, actors.user("alice"), [agent_id], "scan_updates", {"refresh": True}))[0]["id"]
        for _ in range(4)
    ]
    await queue.deliver(server, [queue.Asking(agent_id, actors.agent(agent_id, "192.0.2.7"), 1)])
    memory = sequencer.Memory(tmp_path / "newest", signer)
    await _log(server, signer, memory)
    told = results.Report("success", stdout="all done", metadata={"n": 1.5})
    await results.report(server, actors.agent(agent_id, "192.0.2.7"), agent_id, commands[0], told, max_output=1000)
    await queue.cancel(server, actors.user("alice"), commands[1])
    await _log(server, signer, memory)
    return commands[0]


async def _log(server: Any, signer: Signer, memory: sequencer.Memory) -> None:
    while await sequencer.sequence(server, 100) > 0:
        await sequencer.integrate(server)
    await sequencer.integrate(server)
    assert await sequencer.publish(server, signer, memory)


async def _examined(server: Any, signer: Signer | None) -> fsck.Examined:
    async with server.transaction(isolation="repeatable_read", readonly=True):
        return await fsck.examine(server, signer.verifier if signer else None)


async def test_a_whole_log_is_found_whole(server, signer, history):
    told: list[tuple[int, int]] = []
    async with server.transaction(isolation="repeatable_read", readonly=True):
        examined = await fsck.examine(server, signer.verifier, lambda done, of: told.append((done, of)))
        assert await replay.first_difference(server) is None
    assert examined.finding is None
    assert (examined.checkpoints, examined.pending) == (2, 0)
    assert examined.events == await server.fetchval("SELECT count(*) FROM update_logs")
    assert told[-1] == (examined.events, examined.events)


TAMPERINGS = {
    "a message is altered": ("UPDATE update_logs SET message = 'x' WHERE message = 'note 17'", "message"),
    "a result is altered": ("UPDATE update_logs SET result = 'failed' WHERE message = 'note 17'", "result"),
    "an actor is altered": ("UPDATE update_logs SET actor = 'user:mallory' WHERE kind = 'transition' AND result = 'cancelled'", "actor"),
    "a time is altered": ("UPDATE update_logs SET executed_at = executed_at - interval '1 hour' WHERE message = 'note 17'", "executed_at"),
    "a metadata value is altered": ("UPDATE update_logs SET metadata = metadata || '{\"n\": 2.5}' WHERE metadata ? 'n'", "metadata"),
    "an address is altered": (
        "UPDATE update_logs SET metadata = metadata || '{\"address\": \"192.0.2.8\"}' WHERE result = 'success' AND kind = 'transition'",
        "address",
    ),
    "output is blanked": ("UPDATE update_logs SET stdout = NULL WHERE stdout = 'all done'", "stdout"),
    "output is blanked with its salt": ("UPDATE update_logs SET stdout = NULL, salt = NULL WHERE stdout = 'all done'", "lost its salt"),
    "a salt is altered": ("UPDATE update_logs SET salt = sha256(salt) WHERE message = 'note 17'", "message"),
    "a record is removed": ("DELETE FROM update_logs WHERE message = 'note 17'", "is gone"),
    "a record is moved to another time": (
        "UPDATE update_logs SET created_at = created_at - interval '1 second' WHERE message = 'note 17'", "is gone"),
    "the newest record is removed": (
        "DELETE FROM update_logs WHERE id = (SELECT record_id FROM audit_entries ORDER BY position DESC LIMIT 1)", "is gone"),
    "an entry is removed": ("DELETE FROM audit_entries WHERE position = 17", "position of the log is missing"),
    "the last entry is removed": ("DELETE FROM audit_entries WHERE position = (SELECT max(position) FROM audit_entries)", "missing"),
    "two entries change places": (
        "UPDATE audit_entries SET position = CASE position WHEN 17 THEN 1000018 ELSE 1000017 END WHERE position IN (17, 18);"
        "UPDATE audit_entries SET position = position - 1000000 WHERE position > 1000000", "checkpoint"),
    "the log is cut off": (
        "DELETE FROM audit_entries WHERE position >= 100; UPDATE audit_log SET sequenced = 100, integrated = 100",
        "was signed, and the log has 100"),
    "a tile is altered": (
        "UPDATE audit_tiles SET hashes = overlay(hashes PLACING sha256('x') FROM 33) WHERE level = 0 AND index = 0", "tile 0/0"),
    "a higher tile is altered": ("UPDATE audit_tiles SET hashes = sha256('x') WHERE level = 1", "tiles do not lead"),
    "a checkpoint is altered": ("UPDATE audit_checkpoints SET root = sha256('x')", "says something else than its note"),
    "a checkpoint is forged": ("UPDATE audit_checkpoints SET note = replace(note, 'example.com', 'example.org')", "is not the log's"),
    "a record is inserted past the log": (
        "INSERT INTO update_logs (id, actor, result, message) VALUES (gen_random_uuid(), 'user:bob', 'success', 'x')", "no position"),
}  # fmt: skip


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_a_tampering_is_found_and_named(server, signer, history, villain, tampering):
    statements, word = TAMPERINGS[tampering]
    for statement in statements.split(";"):
        assert (await villain.execute(statement)).split()[-1] != "0", "the tampering touched nothing"
    finding = (await _examined(server, signer)).finding
    assert finding is not None
    assert word in finding.what


async def test_a_record_and_its_leaf_altered_together_are_found_by_the_checkpoint(server, signer, history, villain):
    record = await villain.fetchrow("SELECT * FROM update_logs WHERE message = 'note 17'")
    await villain.execute("UPDATE update_logs SET message = 'note 71' WHERE id = $1", record["id"])
    row = await villain.fetchrow("SELECT * FROM update_logs WHERE id = $1", record["id"])
    await villain.execute(
        "UPDATE audit_entries SET leaf = $1 WHERE record_id = $2", fsck.canonical.leaf(row), record["id"]
    )
    finding = (await _examined(server, signer)).finding
    assert finding is not None
    assert "not those of the checkpoint" in finding.what


REPLAYED = {
    "a status is altered": ("UPDATE agent_commands SET status = 'failed' WHERE status = 'completed'", "its status is failed"),
    "parameters are altered": ("UPDATE agent_commands SET params = '{}' WHERE status = 'completed'", "parameters"),
    "a time is altered": ("UPDATE agent_commands SET completed_at = now() WHERE status = 'completed'", "completed_at"),
    "a type is altered": ("UPDATE agent_commands SET command_type = 'reboot' WHERE status = 'completed'", "its type is reboot"),
    "a version is altered": ("UPDATE agent_commands SET version = 9 WHERE status = 'completed'", "its version is 9"),
    "a command is removed": ("DELETE FROM agent_commands WHERE status = 'completed'", "the command is not"),
    "a transition is removed": ("DELETE FROM update_logs WHERE result = 'sent' AND kind = 'transition'", "a version is missing"),
    "a command was never recorded": (
        "INSERT INTO agent_commands (agent_id, command_type, next_deadline_at, delivery_timeout, execution_timeout)"
        " SELECT id, 'x', now(), '1 s', '1 s' FROM agents", "no record of it"),
}  # fmt: skip


@pytest.mark.parametrize("change", REPLAYED)
async def test_a_command_that_is_not_what_its_records_say_is_named(server, history, villain, change):
    statement, word = REPLAYED[change]
    assert (await villain.execute(statement)).split()[-1] != "0"
    difference = await replay.first_difference(server)
    assert difference is not None
    assert word in difference.what
