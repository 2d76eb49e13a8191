"""What the tests of bundles and reports share: a database with a history of every kind, and the verifier as a stranger runs it."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from databases import make_database
from integration.commands.helpers import HOUR, make_command, move_deadline
from redflag.access import tokens, users
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.audit import events, sequencer
from redflag.audit.checkpoint import Signer, load_key
from redflag.audit.memory import Memory
from redflag.commands import queue, results
from redflag.database import pool as pools
from redflag.database.embedded import EmbeddedDatabase
from redflag.timeouts import policies
from redflag.timeouts.sweeper import Sweeper
from redflag.updates import approvals

VERIFIER = Path(__file__).resolve().parents[3] / "verify" / "redflag_verify.py"
HOSTILE = "<script>alert('x')</script> & \u202eevil \u6f22 \U0001f6a9"
SECRET = "a password that was printed by mistake: hunter2-hunter2"


@dataclass
class Place:
    """A database of its own, the log's key, and what is in its history by name."""

    owner: Any
    pool: Any
    signer: Signer
    memory: Memory
    known: dict[str, Any] = field(default_factory=dict)

    async def seal(self) -> int:
        """Signs a checkpoint of everything; returns its size."""
        async with self.pool.acquire() as server:
            while await sequencer.sequence(server) > 0:
                pass
            while await sequencer.integrate(server) > 0:
                pass
            await sequencer.publish(server, self.signer, self.memory)
            return (await sequencer.sql.newest_checkpoint.one(server))["size"]

    async def now(self) -> datetime.datetime:
        """The database's clock."""
        return await self.owner.fetchval("SELECT clock_timestamp()")


@contextlib.asynccontextmanager
async def place(postgres: EmbeddedDatabase, name: str, folder: Path) -> AsyncIterator[Place]:
    """A place without history."""
    await make_database(postgres, name)
    signer = load_key("evidence.example/log", folder / "key")
    owner = await pools.connect(postgres.url("redflag_owner", name))
    pool = await pools.open_pool(postgres.url("redflag_server", name), size=3)
    try:
        yield Place(owner, pool, signer, Memory(folder / "newest", signer))
    finally:
        await pool.close()
        await owner.close()


def verify(file: Path, signer: Signer, *more: str) -> subprocess.CompletedProcess[str]:
    """The verifier as a stranger runs it: by itself, isolated."""
    command = [sys.executable, "-I", str(VERIFIER), "bundle", str(file), "--key", signer.verifier.vkey(), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


async def make_history(here: Place) -> None:
    """Something of every kind: commands and their ends, timeouts and what became of them, decisions, changes, refusals, hostile text."""
    owner, pool = here.owner, here.pool
    agent = await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ($1, 1) RETURNING id", HOSTILE)
    here.known |= {"agent": agent, "before": await here.now()}
    async with pool.acquire() as server:
        sent = [
            (await queue.enqueue(server, actors.user("ada"), [agent], "scan_updates", {"n": n}))[0]["id"]
            for n in range(5)
        ]
        await queue.deliver(server, [queue.Asking(agent, actors.agent(agent, "192.0.2.7"), 1)])
        for one, result in zip(sent, ("success", "failed", "partial"), strict=False):
            told = results.Report(
                result, stdout=SECRET if result == "success" else "", message=HOSTILE, metadata={"f": 0.5}
            )
            await results.report(server, actors.agent(agent, "192.0.2.7"), agent, one, told, max_output=4096)
        await queue.cancel(server, actors.user("ada", "192.0.2.1"), sent[3])
    late = await make_command(owner, agent, "sent", sent=3 * HOUR)
    never = await make_command(owner, agent, "pending", age=HOUR)
    idle = await make_command(owner, agent, "running", sent=HOUR, command_type="reboot")
    await move_deadline(owner, idle, datetime.timedelta(minutes=5))
    await Sweeper(pool, "replica-1", gap=86_400).sweep()
    async with pool.acquire() as server:
        told = results.Report("success", stdout="it was done after all")
        await results.report(server, actors.agent(agent), agent, late, told, max_output=4096)
        retried = await queue.retry(server, actors.user("bob"), never)
        user = await users.create(
            server, actors.user("ada", "192.0.2.1"), "carol", Role.VIEWER, "a long passphrase here"
        )
        await users.set_role(server, actors.user("ada", "192.0.2.1"), user["id"], Role.AUDITOR)
        await tokens.create(server, actors.user("ada"), "exporter", Role.AUDITOR, giver=Role.ADMIN)
        await policies.set_policy(server, actors.user("ada"), "reboot", execution=datetime.timedelta(hours=1))
        for _ in range(3):
            await events.record_refusal(
                server, actors.user("mallory", "203.0.113.9"), action="access_refused", message="GET /x"
            )
        for _ in range(7):
            await events.count_refusal(server, "198.51.100.3", action="GET /secret")
        await owner.execute("UPDATE audit_throttle SET bucket = bucket - interval '2 minutes'")
        await events.record_counted_refusals(server, "replica-1")
    update = await owner.fetchval(
        "INSERT INTO updates (agent_id, package_type, package_name, available_version) VALUES ($1, 'apt', 'openssl', '3.0.1') RETURNING id",
        agent,
    )
    other = await owner.fetchval(
        "INSERT INTO updates (agent_id, package_type, package_name, available_version) VALUES ($1, 'apt', 'vim', '9') RETURNING id",
        agent,
    )
    async with pool.acquire() as server:
        await approvals.approve(server, actors.user("ada"), [update])
        await approvals.reject(server, actors.user("bob"), [other], HOSTILE)
    await owner.execute("INSERT INTO update_logs (result, message) VALUES ('success', $1)", HOSTILE)
    here.known |= {
        "sent": sent,
        "late": late,
        "never": never,
        "idle": idle,
        "retried": retried["id"],
        "first_size": await here.seal(),
    }


def new_name(word: str) -> str:
    """A database's name that nobody else has."""
    return f"{word}_{uuid.uuid4().hex[:8]}"
