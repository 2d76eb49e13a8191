"""What becomes of a record: from the commit to a signed checkpoint, and examined again; one Python process, and PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench import fill
from bench.harness import Bench, Database
from bench.results import Limit, Result
from redflag.audit import actor as actors
from redflag.audit import fsck, sequencer
from redflag.audit.checkpoint import load_key
from redflag.audit.memory import Memory
from redflag.commands import queue, replay

NAME = "record"
AGENTS = 500


async def run(bench: Bench) -> None:
    """Each step after the other, on what the one before made."""
    count = bench.of(6000, 60_000)
    async with bench.database(NAME) as database, database.pool(2) as connections, connections.acquire() as connection:
        await fill.agents(database.superuser, AGENTS)
        fleet = [fill.agent_id(number) for number in range(1, AGENTS + 1)]

        async def enqueue() -> int:
            for _ in range(count // AGENTS):
                await queue.enqueue(connection, actors.user("bench"), fleet, "scan_updates")
            return count // AGENTS * AGENTS

        await _step(bench, database, "enqueued", "commands enqueued with their record, 500 at once", None, enqueue)

        async def sequence() -> int:
            done = 0
            while (some := await sequencer.sequence(connection)) > 0:
                done += some
            return done

        limit = [Limit("hashing and decoding alone", _hashes_per_second())]
        await _step(bench, database, "sequenced", "records given a position", 20_000.0, sequence, limit)
        signer = load_key("bench/log", bench.folder / f"key-{time.monotonic_ns()}")

        async def integrate() -> int:
            done = 0
            while (some := await sequencer.integrate(connection)) > 0:
                done += some
            await sequencer.publish(connection, signer, Memory(bench.folder / f"newest-{time.monotonic_ns()}", signer))
            return done

        await _step(bench, database, "integrated", "leaves hashed into the tree, and its head signed", None, integrate)
        async with connection.transaction(isolation="repeatable_read", readonly=True):

            async def examine() -> int:
                examined = await fsck.examine(connection, signer.verifier)
                if examined.finding is not None:
                    raise RuntimeError(f"fsck found {examined.finding}")
                if await replay.first_difference(connection) is not None:
                    raise RuntimeError("a command is not what its records say")
                return examined.events

            await _step(bench, database, "examined", "events examined by fsck and replayed", 40_000.0, examine)


async def _step(
    bench: Bench,
    database: Database,
    name: str,
    title: str,
    goal: float | None,
    work: Callable[[], Awaitable[int]],
    limits: list[Limit] | None = None,
) -> None:
    async with database.measured() as used:
        began = time.perf_counter()
        count = await work()
        seconds = time.perf_counter() - began
    used.server, used.load = used.load, 0.0  # this process does what a server does
    bench.add(
        Result(
            name=f"record.{name}", title=title, value=count / seconds, unit="per second", goal=goal, limits=limits or [],
            costs=used.each(count), facts={"records": count},
        )
    )  # fmt: skip


def _hashes_per_second() -> float:
    """Leaves a second that one core makes and hashes, without a database."""
    import hashlib  # noqa: PLC0415 - of this limit only
    import json  # noqa: PLC0415

    event: dict[str, Any] = {f"field{number}": "x" * 20 for number in range(16)}
    began, count = time.perf_counter(), 5000
    for _ in range(count):
        leaf = json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
        for number in range(6):
            hashlib.sha256(leaf[:64] + bytes([number])).digest()
        hashlib.sha256(b"\0" + leaf).digest()
    return count / (time.perf_counter() - began)
