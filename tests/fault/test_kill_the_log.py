"""SIGKILL at every point of sequence, integrate and publish: nothing is lost, no position is used twice, no two trees of one size
are signed.

First at each point in turn, one after the other; then at any moment, with two replicas that contend, sixteen writers that roll
back now and then, and a PostgreSQL that dies too. With REDFLAG_LONG=1 all of it many times over.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import connection, make_database
from fault.log_process import GONE, LogProcesses
from fault.test_kill_the_server import kill_the_postmaster, recover
from redflag.audit import actor as actors
from redflag.audit import fsck, merkle, sequencer
from redflag.audit.checkpoint import open_note
from redflag.commands import queue, replay
from redflag.database import migrate as migrations
from redflag.database import pool as pools
from redflag.database.embedded import EmbeddedDatabase

LONG = os.environ.get("REDFLAG_LONG") == "1"
SEED = int(os.environ.get("REDFLAG_SEED", "20260101"))
ROUNDS = 5 if LONG else 1  # of all points
KILLS = int(os.environ.get("REDFLAG_KILLS", "300" if LONG else "12"))  # at any moment
POSTMASTER_EVERY = 4  # with every fourth of these PostgreSQL dies too
WRITERS = 16

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200 if LONG else 120)]


@dataclass
class Watch:
    """What must never change once it was seen: who stands at which position, and the root of each size that was signed."""

    positions: dict[int, tuple[uuid.UUID, bytes]] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)

    async def look(self, server: Any, processes: LogProcesses) -> None:
        """Holds what is there now against what was there before, and against the tree of the leaves."""
        # First what was signed, so that its records must be there by now, whatever the replicas do meanwhile
        notes = processes.signed() | {row["note"] for row in await server.fetch("SELECT note FROM audit_checkpoints")}
        rows = await server.fetch("SELECT position, record_id, leaf FROM audit_entries ORDER BY position")
        assert [row["position"] for row in rows] == list(range(len(rows)))
        now = {row["position"]: (row["record_id"], row["leaf"]) for row in rows}
        assert len({record for record, _ in now.values()}) == len(now), "a record stands at two positions"
        assert now.items() >= self.positions.items(), "a position was lost, or used twice"
        self.positions = now
        for note in notes - self.notes:
            opened = open_note(note, processes.key.verifier)
            assert opened.size <= len(rows), "a tree was signed whose records are not there"
            root = merkle.root_of([merkle.leaf_hash(leaf) for _, leaf in list(now.values())[: opened.size]])
            assert opened.root == root, "a tree was signed that is not the one of its records"
            assert self.roots.setdefault(opened.size, opened.root) == opened.root, "two trees of one size were signed"
        self.notes |= notes

    async def finish(self, server: Any, processes: LogProcesses) -> None:
        """After everything that waits has its place: all is there, fsck and replay find nothing, and each replica agrees."""
        await catch_up(server, processes, "a")
        await catch_up(server, processes, "b")
        await self.look(server, processes)
        async with server.transaction(isolation="repeatable_read", readonly=True):
            examined = await fsck.examine(server, processes.key.verifier)
            assert examined.finding is None
            assert await replay.first_difference(server) is None
        assert examined.pending == 0
        assert examined.events == len(self.positions) == await server.fetchval("SELECT count(*) FROM update_logs")
        assert processes.failures() == ""


async def catch_up(server: Any, processes: LogProcesses, name: str) -> None:
    """What a replica does that is started again with what it remembers, until nothing is left to do."""
    memory = sequencer.Memory(processes.newest(name), processes.key)
    async with asyncio.timeout(20):
        while not await sequencer.idle(server):
            # A killed replica's transaction may hold the lock for a moment yet: then nobody has anything to do
            done = [await sequencer.sequence(server), await sequencer.integrate(server)]
            await sequencer.publish(server, processes.key, memory)
            if -1 in done:
                await asyncio.sleep(0.005)
        await sequencer.publish(server, processes.key, memory)


async def add(owner: Any, count: int) -> None:
    """Some records."""
    await owner.execute(
        "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, $1) i", count
    )


async def test_killed_at_each_point_of_each_step_it_goes_on_as_if_nothing_had_been(
    postgres: EmbeddedDatabase, tmp_path: Path
) -> None:
    name = f"killed_{uuid.uuid4().hex[:8]}"
    await make_database(postgres, name)
    processes, watch, seen = LogProcesses(tmp_path, postgres.url("redflag_server", name)), Watch(), []
    try:
        async for owner in connection(postgres.url("redflag_owner", name)):
            async for server in connection(postgres.url("redflag_server", name)):
                await add(owner, 250)  # the tiles of the next level come up on the way
                await watch.finish(server, processes)
                for turn in range(ROUNDS):
                    point, reached = 0, ["?"]
                    while len(reached) >= point:
                        point += 1
                        await add(owner, 3)
                        replica = "ab"[(point + turn) % 2]
                        reached = await asyncio.to_thread(processes.once, replica, point)
                        await watch.finish(server, processes)
                        seen.append(reached[-1])
                    assert len(reached) == point - 1, "the last run came to its end"
    finally:
        processes.close()
    assert set(seen) >= {
        f"{step}: {moment} {what}"
        for moment in ("before", "after")
        for step, whats in {
            "sequence": ("BEGIN", "claim", "take", "sequenced", "COMMIT"),
            "integrate": ("BEGIN", "claim", "entries", "tiles", "put_tiles", "integrated", "COMMIT"),
            "publish": ("BEGIN", "claim", "newest_checkpoint", "tiles", "the signature", "open", "fsync", "replace", "publish", "COMMIT"),
        }.items()
        for what in whats
    } | {f"{step}: COMMIT is sent" for step in ("sequence", "integrate", "publish")}  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def durable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedDatabase]:
    """A PostgreSQL with fsync on, migrated."""
    database = EmbeddedDatabase(tmp_path_factory.mktemp("durable-log") / "db")
    await asyncio.to_thread(database.init)
    await asyncio.to_thread(database.start)
    await asyncio.to_thread(database.create_roles)
    await migrations.migrate(database.url("redflag_owner"), "redflag_server")
    yield database
    await asyncio.to_thread(database.stop, "immediate")


@dataclass
class Written:
    """What the writers know of what they wrote: what was answered as committed, and what was rolled back."""

    committed: set[uuid.UUID] = field(default_factory=set)
    rolled_back: set[uuid.UUID] = field(default_factory=set)
    commands: int = 0


async def write(
    database: EmbeddedDatabase, number: int, agent_id: uuid.UUID, written: Written, stop: asyncio.Event
) -> None:
    """Notes by the owner, some of them rolled back, and commands by the server; on a new connection when PostgreSQL has died."""
    rng, role = random.Random(f"{SEED} {number}"), "redflag_server" if number % 4 == 0 else "redflag_owner"
    while not stop.is_set():
        mine = None
        try:
            mine = await pools.connect(database.url(role))
            while not stop.is_set():
                if role == "redflag_server":
                    await queue.enqueue(mine, actors.user("alice"), [agent_id], "scan_updates", {"n": number})
                    written.commands += 1
                else:
                    await write_note(mine, rng, written)
                await asyncio.sleep(0.004)
        except GONE:
            await asyncio.sleep(0.02)
        finally:
            if mine is not None:
                mine.terminate()


async def write_note(owner: Any, rng: random.Random, written: Written) -> None:
    transaction = owner.transaction()
    await transaction.start()
    record = await owner.fetchval("INSERT INTO update_logs (result, message) VALUES ('success', 'x') RETURNING id")
    if rng.random() < 0.3:
        await asyncio.sleep(0.003)  # long enough for another one's later record to be given its position first
    if rng.random() < 0.2:
        written.rolled_back.add(record)
        await transaction.rollback()
    else:
        await transaction.commit()
        written.committed.add(record)


async def test_two_replicas_contend_under_sixteen_writers_and_are_killed_at_any_moment(
    durable: EmbeddedDatabase, tmp_path: Path
) -> None:
    rng, written, watch, stop = random.Random(SEED), Written(), Watch(), asyncio.Event()
    processes = LogProcesses(tmp_path, durable.url("redflag_server"))
    async for owner in connection(durable.url("redflag_owner")):
        agent_id = await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ('h', 1) RETURNING id")
    writers = [asyncio.create_task(write(durable, number, agent_id, written, stop)) for number in range(WRITERS)]
    try:
        for name in "ab":
            processes.start(name)
        for kill in range(KILLS):
            await asyncio.sleep(rng.uniform(0.0, 0.25))  # the moment of the kill is what is tried here
            if kill % POSTMASTER_EVERY == POSTMASTER_EVERY - 1:
                if rng.random() < 0.5:
                    kill_the_postmaster(durable)
                else:
                    await asyncio.to_thread(durable.stop, "immediate")
                await recover(durable)
            else:
                name = rng.choice("ab")
                processes.kill(name)
                processes.start(name)
            async for server in connection(durable.url("redflag_server")):
                await watch.look(server, processes)
        stop.set()
        await asyncio.gather(*writers)
    finally:
        stop.set()
        for one in writers:
            one.cancel()
        processes.close()
    async for server in connection(durable.url("redflag_server")):
        await watch.finish(server, processes)
    placed = {record for record, _ in watch.positions.values()}
    assert placed >= written.committed
    assert not placed & written.rolled_back
    assert len(written.committed) > KILLS
    assert written.commands > KILLS
    assert len(watch.roots) > KILLS // 3
