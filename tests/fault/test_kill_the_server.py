"""SIGKILL at any moment: no answered report is lost, no change is without its record, nothing is executed twice.

The server is the real one, in a process of its own, on a PostgreSQL that writes to the disk. Twenty kills; with REDFLAG_LONG=1
two hundred, and now and then the postmaster is killed along with it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from fault.server_process import ServerProcess
from integration.commands.helpers import make_agent, person, replay, until
from redflag.access import agent_tokens
from redflag.commands import queue
from redflag.database import migrate as migrations
from redflag.database import pool as pools
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import DatabaseUnreachable

LONG = os.environ.get("REDFLAG_LONG") == "1"
KILLS = int(os.environ.get("REDFLAG_KILLS", "200" if LONG else "20"))
POSTMASTER_EVERY = 5  # in the long version, with every fifth kill the postmaster dies too
SEED = int(os.environ.get("REDFLAG_SEED", "20260101"))
AGENTS = 6
COMMANDS = 4  # for each agent, twice a round
OVERDUE = 200  # in each round, for the sweep

# What a client sees, and what a connection says, when the other end has died
GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, DatabaseUnreachable)

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200 if LONG else 240)]
if LONG:
    # A connection of this process's that was being opened as the postmaster died is left to the garbage collector by asyncpg
    pytestmark.append(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest_asyncio.fixture(scope="module")
async def durable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedDatabase]:
    """A PostgreSQL with fsync on, migrated."""
    database = EmbeddedDatabase(tmp_path_factory.mktemp("durable") / "db")
    await asyncio.to_thread(database.init)
    await asyncio.to_thread(database.start)
    await asyncio.to_thread(database.create_roles)
    await migrations.migrate(database.url("redflag_owner"), "redflag_server")
    yield database
    await asyncio.to_thread(database.stop, "immediate")


@dataclass
class Agent:
    """An agent that journals what it is handed, executes it once, and reports until it is answered."""

    agent_id: uuid.UUID
    token: str
    handed: collections.Counter[str] = field(default_factory=collections.Counter)
    to_report: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    unanswered: int = 0

    async def work(self, client: httpx.AsyncClient, rng: random.Random) -> bool:
        """One round: check in, say what runs, report. False when there was nothing to do. Raises when the server is gone."""
        path, headers = f"/api/v1/agents/{self.agent_id}", {"Authorization": f"Bearer {self.token}"}
        asked = await client.request(
            "GET", f"{path}/commands", headers=headers, json={"protocol": 1, "held": [*self.to_report]}
        )
        require_answer(asked)
        for command in asked.json()["commands"]:
            self.handed[command["id"]] += 1
            self.to_report[command["id"]] = rng.randrange(200)
        if not self.to_report:
            return False
        if rng.random() < 0.5:
            said = await client.post(f"{path}/progress", headers=headers, json={"running": [*self.to_report]})
            require_answer(said)
        await asyncio.gather(*(self.report(client, path, headers, one) for one in [*self.to_report]))
        return True

    async def report(self, client: httpx.AsyncClient, path: str, headers: dict[str, str], one: str) -> None:
        told = {"command_id": one, "result": "success", "stdout": f"done {one}", "exit_code": self.to_report[one]}
        try:
            require_answer(await client.post(f"{path}/logs", headers=headers, json=told))
        except httpx.TransportError:
            self.unanswered += 1
            raise
        self.answered[one] = self.to_report.pop(one)


def require_answer(answer: httpx.Response) -> None:
    """An answer is 200. A server whose database has just been killed may say that it cannot, which is as good as none."""
    if LONG and answer.status_code >= 500:
        raise httpx.RemoteProtocolError(f"{answer.status_code}")
    assert answer.status_code == 200, answer.text


async def all_work(agents: list[Agent], url: str, rng: random.Random, *, until_idle: bool) -> None:
    """All agents at once, until the server is gone, or until there is nothing left to do."""
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:

        async def one(agent: Agent) -> None:
            with contextlib.suppress(*(() if until_idle else (httpx.TransportError,))):
                while await agent.work(client, rng) or not until_idle:
                    pass

        done = await asyncio.gather(*(one(agent) for agent in agents), return_exceptions=True)
    for problem in done:
        if isinstance(problem, BaseException):
            raise problem


async def until_a_report_is_answered(agents: list[Agent], working: asyncio.Task[None]) -> None:
    """Every second kill comes while reports are being answered; the others at any time after the start."""
    before = [len(agent.answered) for agent in agents]
    async with asyncio.timeout(60):
        while [len(agent.answered) for agent in agents] == before and not working.done():  # noqa: ASYNC110 - several
            await asyncio.sleep(0.01)


async def enqueue(database: EmbeddedDatabase, agents: list[Agent], silent: uuid.UUID, *, overdue: int) -> None:
    """Work for the agents, and for the sweep commands of one that will never answer."""
    server = await pools.connect(database.url("redflag_server"))
    owner = await pools.connect(database.url("redflag_owner"))
    try:
        for _ in range(COMMANDS):
            await queue.enqueue(server, person(), [agent.agent_id for agent in agents], "scan_updates")
        await owner.execute(
            """INSERT INTO agent_commands (agent_id, command_type, status, sent_at)
               SELECT $1, 'collect_specs', 'sent', now() - interval '3 hours' FROM generate_series(1, $2::integer)""",
            silent, overdue,
        )  # fmt: skip
    except GONE:
        server.terminate()
        owner.terminate()
        raise
    await server.close()
    await owner.close()


def kill_the_postmaster(database: EmbeddedDatabase) -> None:
    """As if the machine had lost power."""
    os.kill(int((database.data / "postmaster.pid").read_text().partition("\n")[0]), signal.SIGKILL)


async def recover(database: EmbeddedDatabase) -> None:
    """Starts the database again, which puts itself right."""
    async with asyncio.timeout(60):
        while database.running():  # noqa: ASYNC110 - a process that is not ours to wait for
            await asyncio.sleep(0.01)
    await asyncio.to_thread(database.start)


async def test_no_answered_report_is_lost_and_every_change_has_its_record(
    durable: EmbeddedDatabase, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    owner = await pools.connect(durable.url("redflag_owner"))
    agents = []
    for _ in range(AGENTS):
        agent_id = await make_agent(owner)
        access, _ = await agent_tokens.issue(owner, agent_id)
        agents.append(Agent(agent_id, access))
    silent = await make_agent(owner, protocol=0)
    await owner.close()

    server = ServerProcess(
        tmp_path, durable.url("redflag_server"), sweep_interval="0.01", replica="fault", database_pool="6"
    )
    in_mid_sweep = 0
    try:
        for kill in range(KILLS):
            await enqueue(durable, agents, silent, overdue=OVERDUE)
            await server.start()
            working = asyncio.create_task(all_work(agents, server.url, rng, until_idle=False))
            more = asyncio.create_task(enqueue(durable, agents, silent, overdue=OVERDUE))
            if kill % 2:
                await until_a_report_is_answered(agents, working)
            await asyncio.sleep(rng.uniform(0.0, 0.4))  # the moment of the kill is what is tried here
            with_it = LONG and kill % POSTMASTER_EVERY == 0
            if with_it:
                kill_the_postmaster(durable)
                await asyncio.sleep(rng.uniform(0.0, 0.1))
            server.kill()
            await working
            with contextlib.suppress(*(GONE if with_it else ())):
                await more
            if with_it:
                await recover(durable)
            in_mid_sweep += await left_overdue(durable)
        await server.start()
        await all_work(agents, server.url, rng, until_idle=True)
        owner = await pools.connect(durable.url("redflag_owner"))
        await until(owner, "SELECT NOT EXISTS (SELECT FROM agent_commands WHERE next_deadline_at IS NOT NULL)")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{server.said()}") from error
    finally:
        server.close()

    # The kills came while there was work under way
    assert sum(agent.unanswered for agent in agents) > KILLS
    assert in_mid_sweep > 0
    # No change without its record, no record without its change
    assert await replay(owner) == []
    # What was answered is there, as it was reported; and whatever was enqueued was done
    ended = {
        str(row["id"]): row for row in await owner.fetch("SELECT * FROM agent_commands WHERE agent_id <> $1", silent)
    }
    answered = {one: code for agent in agents for one, code in agent.answered.items()}
    assert set(answered) == set(ended)
    assert LONG or len(ended) == 2 * KILLS * COMMANDS * AGENTS
    for one, code in answered.items():
        assert (ended[one]["status"], ended[one]["result"]["exit_code"]) == ("completed", code)
    told = await owner.fetch(
        """SELECT command_id, count(*) AS ends, min(exit_code) AS code FROM update_logs
           WHERE result = 'success' AND command_id IS NOT NULL GROUP BY command_id"""
    )
    assert {str(row["command_id"]): (row["ends"], row["code"]) for row in told} == {
        one: (1, code) for one, code in answered.items()
    }
    assert await owner.fetchval("SELECT count(*) FROM update_logs WHERE kind = 'late_result'") == 0
    # Nothing reached an agent twice, so nothing was executed twice
    assert {one: times for agent in agents for one, times in agent.handed.items() if times != 1} == {}
    # Each that was overdue timed out once, and the totals say as many as the record
    ends = await owner.fetchrow(
        """SELECT count(*) AS ends, count(DISTINCT command_id) AS commands, (SELECT sum(timed_out) FROM timeout_totals) AS totals,
                  (SELECT count(*) FROM agent_commands WHERE agent_id = $1) AS made
           FROM update_logs WHERE result = 'timed_out'""",
        silent,
    )
    assert ends["ends"] == ends["commands"] == ends["totals"] == ends["made"]
    assert LONG or ends["made"] == 2 * KILLS * OVERDUE
    await owner.close()


async def left_overdue(database: EmbeddedDatabase) -> bool:
    """Whether the server died before it had ended all that was due."""
    connection = await pools.connect(database.url("redflag_owner"))
    try:
        return await connection.fetchval("SELECT EXISTS (SELECT FROM agent_commands WHERE next_deadline_at <= now())")
    finally:
        await connection.close()
