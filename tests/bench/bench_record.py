"""What a change with its record costs, from enqueue to a signed checkpoint: `python tests/bench/bench_record.py [--commands 20000]`.

Makes a PostgreSQL of its own (durable commits), and prints a line for each step: how many, how long, how many a second. Everything runs on
this machine's cores together: PostgreSQL, and one Python process.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from redflag.audit import actor as actors
from redflag.audit import fsck, sequencer
from redflag.audit.checkpoint import load_key
from redflag.commands import queue, replay, results
from redflag.database import migrate, pool
from redflag.database.embedded import EmbeddedDatabase
from redflag.fleet.checkin import CheckIn, CheckIns
from redflag.timeouts.sweeper import Sweeper

AGENTS = 500


def said(what: str, count: int, began: float) -> None:
    """One line of the result."""
    seconds = time.perf_counter() - began
    print(f"{what:58} {count:8,} in {seconds:7.2f} s  {count / seconds:9,.0f}/s", flush=True)


async def measure(url: str, commands: int, folder: Path) -> None:
    """Each step after the other, on what the one before made."""
    connections = await pool.open_pool(url, size=16)
    async with connections.acquire() as connection:
        fleet = [uuid.uuid4() for _ in range(AGENTS)]
        for one in fleet:
            await connection.execute(
                "INSERT INTO agents (id, hostname, protocol, act) VALUES ($1, 'bench', 1, $2)",
                one,
                actors.agent(one).act(),
            )
        each = commands // AGENTS
        began = time.perf_counter()
        for _ in range(each):
            await queue.enqueue(connection, actors.user("bench"), fleet, "scan_updates")
        said("enqueued, 500 at once", each * AGENTS, began)
    check_ins = CheckIns(connections)
    began = time.perf_counter()
    for _ in range(4):
        await asyncio.gather(*[check_ins.check_in(CheckIn(one, actors.agent(one, "127.0.0.1"))) for one in fleet])
    said("check-ins, each handed ten commands while there are some", 4 * AGENTS, began)
    began = time.perf_counter()
    for _ in range(20):
        answers = await asyncio.gather(
            *[check_ins.check_in(CheckIn(one, actors.agent(one, "127.0.0.1"), throw_away=True)) for one in fleet]
        )
    said("check-ins with nothing to hand out, below HTTP", 20 * len(answers), began)
    await report(connections)
    await expire(connections)
    async with connections.acquire() as connection:
        signer = load_key("bench/log", folder / "key")
        began, count = time.perf_counter(), 0
        while (some := await sequencer.sequence(connection)) > 0:
            count += some
        said("records given a position", count, began)
        began = time.perf_counter()
        while await sequencer.integrate(connection) > 0:
            pass
        await sequencer.publish(connection, signer, sequencer.Memory(folder / "newest", signer))
        said("leaves hashed into the tree, and its head signed", count, began)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            began = time.perf_counter()
            examined = await fsck.examine(connection, signer.verifier)
            said("events examined by fsck", examined.events, began)
            assert examined.finding is None, examined.finding
            began = time.perf_counter()
            assert await replay.first_difference(connection) is None
            said("records replayed", examined.events, began)
    await connections.close()


async def report(connections: Any) -> None:
    """Reports with 2 kB of output, as many at once as agents would."""
    async with connections.acquire() as connection:
        rows = await connection.fetch("SELECT id, agent_id FROM agent_commands WHERE status = 'sent' LIMIT 5000")
    told = results.Report("success", stdout="x" * 2048)
    waiting = list(rows)
    began = time.perf_counter()

    async def worker() -> None:
        async with connections.acquire() as connection:
            while waiting:
                row = waiting.pop()
                await results.report(
                    connection, actors.agent(row["agent_id"]), row["agent_id"], row["id"], told, max_output=1 << 20
                )

    await asyncio.gather(*[worker() for _ in range(16)])
    said("reports of 2 kB, each its own commit, 16 at once", len(rows), began)


async def expire(connections: Any) -> None:
    """All that is left is due at one instant."""
    async with connections.acquire() as connection:
        due = await connection.fetchval(
            "WITH moved AS (UPDATE agent_commands SET execution_timeout = $1, delivery_timeout = $1, start_timeout = $2"
            " WHERE next_deadline_at IS NOT NULL RETURNING 1) SELECT count(*) FROM moved",
            datetime.timedelta(microseconds=1), datetime.timedelta(hours=1),
        )  # fmt: skip
    began = time.perf_counter()
    swept = await Sweeper(connections, "bench").sweep()
    said("timed out by one sweeper, all due at one instant", len(swept.timed_out), began)
    assert len(swept.timed_out) == due


def main() -> None:
    """Makes the database, measures, and takes it away again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        database = EmbeddedDatabase(Path(name) / "postgres")
        database.init()
        database.start()
        try:
            database.create_roles()
            asyncio.run(migrate.migrate(database.url("redflag_owner"), "redflag_server"))
            asyncio.run(measure(database.url("redflag_server"), given.commands, Path(name)))
        finally:
            database.stop()


if __name__ == "__main__":
    main()
