"""From the outbox to a signed checkpoint, in three steps that any replica can do and that can be stopped anywhere.

- *Sequence*: what waits in the outbox is given positions, gap-free, in the order in which it was recorded.
- *Integrate*: what has a position is hashed into the tree's tiles.
- *Publish*: the tree's head is signed.

Each step is a transaction under one row's lock (SKIP LOCKED: who does not get it has nothing to do), and none is a business
transaction. Killed anywhere, a step has happened or has not: no position is used twice, none is left out, and since the
tree is a function of the entries, no two different trees of one size can be signed.

The server remembers the newest checkpoint that it saw or signed in a file of its own (`memory`). A database whose tree is
smaller than that, or does not begin with it, was restored or rewritten: then this server does no step, so that no position is
used twice, and says so loudly until the log goes on under a new name (`origins`). Records are written all the same, and wait.
"""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redflag.audit import canonical, merkle, origins, tree
from redflag.audit.checkpoint import Checkpoint, Signer
from redflag.audit.memory import Memory
from redflag.audit.origins import RolledBack
from redflag.database import queries
from redflag.errors import Conflict

sql = queries.load(__file__, "sequencer.sql")

BATCH = 1000
# Others of this process have their turn after so many leaves: a check-in must not wait for a batch
SLICE = 100
# Records are taken until their output has this many bytes, and the last one may go beyond: what a step holds in memory
MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Look:
    """What the log is called (None: it has no name yet), and whether no step has anything to do."""

    origin: str | None
    idle: bool


async def look(connection: Any) -> Look:
    """One statement that locks nothing."""
    return Look(**await sql.look.one(connection))


async def idle(connection: Any) -> bool:
    """Whether no step has anything to do."""
    return (await look(connection)).idle


async def health(connection: Any) -> dict[str, Any]:
    """How far the log is, for metrics and people.

    `origin`, `sequenced`, `integrated`, `pending` (records without a position, counted up to a million), `lag_seconds` (age
    of the oldest of them), `unpublished_seconds` (age of the oldest record that no signed checkpoint has), `size` and
    `published_at` of the newest checkpoint (0 and None: there is none). Ages are 0 when nothing waits.
    """
    return dict(await sql.health.one(connection))


async def _claim(connection: Any, memory: Memory | None) -> Any:
    """The log's row, if no other replica does a step right now. Raises RolledBack when it is not the log that is remembered."""
    state = await sql.claim.one(connection)
    if state is not None and memory is not None:
        await origins.recall(connection, memory, state["origin"], state["integrated"])
    return state


async def sequence(
    connection: Any, batch: int = BATCH, memory: Memory | None = None, most_bytes: int = MOST_BYTES
) -> int:
    """Gives positions to what waits. Returns how many, or -1 if another replica does it right now. Raises RolledBack.

    Takes the oldest `batch` records, or fewer if their output comes to `most_bytes`, and at least one.
    """
    async with connection.transaction():
        state = await _claim(connection, memory)
        if state is None:
            return -1
        rows = await sql.take.all(connection, batch=batch, most_bytes=most_bytes, passed_over=list(_unreadable))
        if not rows:
            return 0
        entries = _Entries(rows, state["sequenced"])
        # COPY takes three quarters of the time of an INSERT here, and the database stores the first while the last are made
        await connection.copy_records_to_table(
            "audit_entries", columns=["position", "record_id", "recorded_at", "leaf"], records=entries
        )
        if entries.failed is not None:
            raise entries.failed
        await sql.sequenced.run(connection, sequenced=state["sequenced"] + len(rows))
    return len(rows)


class _Entries:
    """The entries of some records, from a position on. It ends early at one that has no leaf, and `failed` says why."""

    def __init__(self, rows: list[Any], first: int) -> None:
        self._rows = rows
        self._first = first
        self.failed: Conflict | None = None

    async def __aiter__(self) -> AsyncIterator[tuple[int, uuid.UUID, datetime.datetime, bytes]]:
        for done, row in enumerate(self._rows, 1):
            try:
                leaf = _leaf(row)
            except Conflict as error:
                # Not raised from here: COPY would hand its words to the database's log
                self.failed = error
                return
            yield self._first + done - 1, row["id"], row["created_at"], leaf
            if done % SLICE == 0:
                await asyncio.sleep(0)


# Records that cannot be put into a leaf: each is passed over from then on, so that it does not stop the others. fsck tells of them
_unreadable: set[uuid.UUID] = set()


def _leaf(row: Any) -> bytes:
    """The leaf of a record. Raises Conflict, and remembers the record, when it has none."""
    try:
        return fitting_leaf(row)
    except Exception as error:
        _unreadable.add(row["id"])
        why = f"{type(error).__name__}: {error}"[:300]
        raise Conflict(
            f"Record {row['id']} cannot be put into the log, and is passed over: {why}", "Run `redflag audit fsck`"
        ) from error


def fitting_leaf(row: Any) -> bytes:
    """The leaf of a record that is to be put into the log. Raises whatever says why it has none, ValueError when it is too large."""
    made = canonical.leaf_of_columns(tuple(row))
    if len(made) > canonical.LEAF_LIMIT:
        raise ValueError(f"its leaf has {len(made)} bytes")
    return made


async def unplaceable(connection: Any) -> tuple[uuid.UUID, str] | None:
    """The first record that waits for a position and can have none, and why. It reads everything that waits, a bounded part at a time."""
    after: dict[str, Any] = {"created_at": datetime.datetime.min.replace(tzinfo=datetime.UTC), "id": uuid.UUID(int=0)}
    most = BATCH
    while True:
        try:
            rows = await sql.waiting.all(connection, **after, most=most, most_bytes=MOST_BYTES)
        except (ArithmeticError, ValueError) as error:
            # The database holds times that no calendar has; fewer records, until it is this one
            if most == 1:
                return await sql.next_waiting.value(connection, **after), str(error)
            most //= 2
            continue
        if not rows:
            return None
        for row in rows:
            try:
                fitting_leaf(row)
            except Exception as error:  # a record that was altered may be anything
                return row["id"], f"{type(error).__name__}: {error}"[:300]
        after = {"created_at": rows[-1]["created_at"], "id": rows[-1]["id"]}


def decoded(row: Any) -> dict[str, Any]:
    """A record with its JSON read as a leaf needs it: numbers keep the digits that the database gave them."""
    record = dict(row)
    for name in ("params", "metadata"):
        if record[name] is not None:
            record[name] = canonical.decoder.decode(record[name])
    return record


async def integrate(connection: Any, batch: int = 5 * BATCH, memory: Memory | None = None) -> int:
    """Hashes what has a position into the tree. Returns how many, or -1 if another replica does it right now. Raises RolledBack."""
    async with connection.transaction():
        state = await _claim(connection, memory)
        if state is None:
            return -1
        first, end = state["integrated"], min(state["sequenced"], state["integrated"] + batch)
        if first == end:
            return 0
        rows = await sql.entries.all(connection, first=first, end=end)
        if [row["position"] for row in rows] != list(range(first, end)):
            raise Conflict(f"Positions {first} to {end - 1} of the log are not all there", "Run `redflag audit fsck`")
        edge = await tree.fetch(connection, [(level, first >> 8 * (level + 1)) for level in range(8)])
        hashes = []
        for row in rows:
            hashes.append(merkle.leaf_hash(row["leaf"]))
            if len(hashes) % SLICE == 0:
                await asyncio.sleep(0)
        changed = grow(first, hashes, edge)
        await sql.put_tiles.run(
            connection,
            levels=[level for level, _ in changed],
            indexes=[index for _, index in changed],
            hashes=list(changed.values()),
        )
        await sql.integrated.run(connection, integrated=end)
    return int(end - first)


def grow(size: int, hashes: list[bytes], edge: dict[tuple[int, int], bytes]) -> dict[tuple[int, int], bytes]:
    """The tiles that change when leaf hashes are added to a tree of `size`, whose rightmost tiles are `edge`."""
    changed: dict[tuple[int, int], bytes] = {}
    level = 0
    while hashes:
        above: list[bytes] = []
        index, filled = divmod(size, merkle.WIDTH)
        tile = edge[level, index][: filled * merkle.HASH] if filled else b""
        for begin in range(-filled, len(hashes), merkle.WIDTH):
            tile += b"".join(hashes[max(begin, 0) : begin + merkle.WIDTH])
            changed[level, index] = tile
            if len(tile) == merkle.WIDTH * merkle.HASH:
                above.append(merkle.root_of(merkle.hashes_of(tile)))
            tile = b""
            index += 1
        size, hashes, level = size // merkle.WIDTH, above, level + 1
    return changed


async def publish(connection: Any, signer: Signer, memory: Memory) -> Checkpoint | None:
    """Signs the head of the tree, if it has grown since. Returns the checkpoint, or None. Raises RolledBack."""
    async with connection.transaction():
        state = await _claim(connection, memory)
        if state is None:
            return None
        origin = state["origin"] or await sql.name_log.value(connection, origin=signer.verifier.name)
        if not await origins.follow(connection, signer, origin):
            raise Conflict(
                f"This log is called {origin}, and the server would sign as {signer.verifier.name}",
                f"Set REDFLAG_LOG_ORIGIN={origin}",
            )
        row = await sql.newest_checkpoint.one(connection)
        newest = origins.own(row["note"], signer.verifier.public) if row else None
        openings = await origins.sql.openings.all(connection)
        size = state["integrated"]
        if openings and size <= openings[0]["first_size"]:
            return None
        if newest is not None and newest.size == size:
            memory.remember(newest)
            return None
        root = await tree.root(connection, size)
        await origins.require_beginning(connection, openings, size, root)
        for known in (memory.newest, newest):
            if known is not None:
                await _require_extension(connection, known, size, root)
        note = signer.sign(size, root, origins.extensions(openings))
        signed = Checkpoint(origin, size, root, note)
        # Remembered first: a checkpoint that anybody may have seen is never forgotten by who signed it
        memory.remember(signed)
        await sql.publish.run(connection, size=size, root=root, note=signed.note)
    return signed


async def _require_extension(connection: Any, known: Checkpoint, size: int, root: bytes) -> None:
    proof = await tree.consistency(connection, known.size, size)
    if not merkle.verify_consistency(known.size, known.root, size, root, proof):
        raise RolledBack(
            f"The log's tree of {size:,} does not begin with the one of {known.size:,} that was signed before: records were changed",
            "Run `redflag audit fsck`, which names the first record that is wrong",
        )
