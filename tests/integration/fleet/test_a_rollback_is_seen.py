"""The whole way: a real server, a real agent, and somebody who rolls the log in the database back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import connection, connections, make_database
from fault.server_process import ServerProcess
from integration.commands.helpers import until
from redflag.access import enrolment
from redflag.alerts import rules
from redflag.audit import actor as actors
from redflag.audit import origins
from redflag.audit.checkpoint import open_own
from redflag.commands import queue
from redflag_agent import config
from redflag_agent.main import main
from redflag_agent.witness import open_held, read_memory
from unit.agent.conftest import Running

NAME = "a_rollback_is_seen"


@pytest_asyncio.fixture
async def owner(postgres: Any) -> AsyncIterator[Any]:
    await make_database(postgres, NAME)
    async for opened in connection(postgres.url("redflag_owner", NAME)):
        yield opened


@pytest_asyncio.fixture
async def pool(owner: Any, postgres: Any) -> AsyncIterator[Any]:
    async for opened in connections(postgres.url("redflag_server", NAME), 2):
        yield opened


@pytest.fixture
def server(owner: Any, postgres: Any, tmp_path: Path) -> Iterator[ServerProcess]:
    running = ServerProcess(tmp_path, postgres.url("redflag_server", NAME), replica="tests")
    yield running
    running.close()


async def _checkpoint(owner: Any, size: int) -> int:
    """The size of the newest checkpoint, once it has at least this many records."""
    await until(owner, "SELECT max(size) >= $1 FROM audit_checkpoints", size)
    newest: int = await owner.fetchval("SELECT max(size) FROM audit_checkpoints")
    return newest


async def _another_note(state: Path, note: str) -> str:
    """What the agent holds, once it is not this any more."""
    async with asyncio.timeout(20):
        while read_memory(state).note == note:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)
    return read_memory(state).note


@contextlib.asynccontextmanager
async def _agent(state: Path) -> AsyncIterator[None]:
    """The agent, which looks at the log as soon as it runs."""
    running = await asyncio.to_thread(Running, state, look_every=0.0)
    try:
        yield
    finally:
        await asyncio.to_thread(running.stop)


async def _roll_back(superuser: Any, size: int) -> None:
    """As the owner of the machine would, for whom no trigger stands."""
    tables = ("audit_entries", "audit_checkpoints", "audit_tiles")
    async with superuser.transaction():
        for table in tables:
            await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        await superuser.execute("DELETE FROM audit_entries WHERE position >= $1", size)
        await superuser.execute("DELETE FROM audit_checkpoints WHERE size > $1", size)
        await superuser.execute("UPDATE audit_tiles SET hashes = substr(hashes, 1, 32 * $1)", size)
        await superuser.execute("UPDATE audit_log SET sequenced = $1, integrated = $1", size)
        for table in tables:
            await superuser.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
            await superuser.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuse")


async def test_an_agent_refuses_a_rollback_reports_it_and_goes_on_and_accepts_a_log_that_was_reopened(
    owner: Any, pool: Any, server: ServerProcess, postgres: Any, tmp_path: Path
) -> None:
    state = tmp_path / "agent"
    await server.start()
    async with pool.acquire() as one:
        token, _ = await enrolment.create(one, actors.service("tests", "here"), "witness", 1, 1)
    arguments = ["enroll", "--server", server.url, "--token", token, "--state-dir", str(state)]
    assert await asyncio.to_thread(main, arguments) == 0
    pinned = config.load(state).log_key
    assert pinned is not None
    assert pinned.startswith(f"{server.url.removeprefix('http://')}/log+")

    small = await _checkpoint(owner, 1)
    await owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 20)")
    await _checkpoint(owner, small + 20)
    async with _agent(state):
        held = await _another_note(state, "")
    opened = open_held(config.parse_log_key(pinned), held)
    assert opened is not None
    assert opened[1].size >= small + 20

    server.kill()
    async for superuser in connection(postgres.url("postgres", NAME)):
        await _roll_back(superuser, small)
    await server.start()
    agent_id = await owner.fetchval("SELECT id FROM agents")
    async with pool.acquire() as one:
        rows = await queue.enqueue(one, actors.user("alice"), [agent_id], "collect_specs")
    async with _agent(state):
        await until(owner, "SELECT status = 'completed' FROM agent_commands WHERE id = $1", rows[0]["id"])
        await until(owner, "SELECT EXISTS (SELECT FROM service_faults WHERE kind = 'log_rollback_seen')")
    record = await owner.fetchrow("SELECT * FROM update_logs WHERE action = 'log_rollback_seen'")
    assert (record["actor"], record["agent_id"], record["result"]) == (f"agent:{agent_id}", agent_id, "failed")
    assert record["metadata"]["reason"] == "smaller_tree"
    assert (record["metadata"]["held_size"], record["metadata"]["given_size"]) == (opened[1].size, small)
    assert f"that this log's key has signed, and this log has {small}" in record["message"]
    alerts = [one for one in await rules.firing(owner) if one.rule.name == "RedFlagLogRollbackSeen"]
    assert len(alerts) == 1
    assert str(agent_id) in alerts[0].last_detail
    assert (read_memory(state).note, read_memory(state).doubted, read_memory(state).unreported) == (held, True, [])

    # The administrator says that it is so, and the agent goes on with what is left
    server.kill()
    public = config.parse_log_key(pinned).public
    async with owner.transaction():
        await origins.reopen(owner, public, "redflag.example/log-2", [open_own(held, public)], reason="restored")
    await server.start()
    await _checkpoint(owner, small + 1)
    async with _agent(state):
        note = await _another_note(state, held)
        await until(owner, "SELECT EXISTS (SELECT FROM update_logs WHERE action = 'log_renamed_seen')")
    now = open_held(config.parse_log_key(pinned), note)
    assert now is not None
    assert now[1].origin == "redflag.example/log-2"
    assert not read_memory(state).doubted
    message = await owner.fetchval("SELECT message FROM update_logs WHERE action = 'log_renamed_seen'")
    assert f"closed with {small} records and goes on as redflag.example/log-2" in message
    assert f"the last {opened[1].size - small} were given up" in message
