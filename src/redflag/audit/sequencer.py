"""From the outbox to a signed checkpoint, in three steps that any replica can do and that can be stopped anywhere.

- *Sequence*: what waits in the outbox is given positions, gap-free, in the order in which it was recorded.
- *Integrate*: what has a position is hashed into the tree's tiles.
- *Publish*: the tree's head is signed.

Each step is a transaction under one row's lock (SKIP LOCKED: who does not get it has nothing to do), and none is a business
transaction. Killed anywhere, a step has happened or has not: no position is used twice, none is left out, and since the
tree is a function of the entries, no two different trees of one size can be signed.

The server remembers the newest checkpoint that it saw or signed in a file of its own. A database whose tree is smaller than
that, or does not begin with it, was restored or rewritten: nothing is signed then, and that is said loudly.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any

from redflag.audit import canonical, merkle, tree
from redflag.audit.checkpoint import Checkpoint, Signer, open_note
from redflag.database import queries
from redflag.errors import Conflict

log = logging.getLogger("redflag.audit")
sql = queries.load(__file__, "sequencer.sql")

BATCH = 5000


class RolledBack(Conflict):
    """The log in the database is not the one whose checkpoint this server remembers."""


async def idle(connection: Any) -> bool:
    """Whether no step has anything to do: one statement that locks nothing."""
    return bool(await sql.idle.value(connection))


async def sequence(connection: Any, batch: int = BATCH) -> int:
    """Gives positions to what waits. Returns how many, or -1 if another replica does it right now."""
    async with connection.transaction():
        state = await sql.claim.one(connection)
        if state is None:
            return -1
        rows = await sql.take.all(connection, batch=batch, passed_over=list(_unreadable))
        if not rows:
            return 0
        await sql.append.run(
            connection,
            first=state["sequenced"],
            records=[row["id"] for row in rows],
            times=[row["created_at"] for row in rows],
            leaves=[_leaf(row) for row in rows],
        )
        await sql.sequenced.run(connection, sequenced=state["sequenced"] + len(rows))
    return len(rows)


# Records that cannot be put into a leaf: each is passed over from then on, so that it does not stop the others. fsck tells of them
_unreadable: set[uuid.UUID] = set()


def _leaf(row: Any) -> bytes:
    """The leaf of a record. Raises Conflict, and remembers the record, when it has none."""
    try:
        made = canonical.leaf(decoded(row))
        if len(made) > canonical.LEAF_LIMIT:
            raise ValueError(f"its leaf has {len(made)} bytes")
    except Exception as error:
        _unreadable.add(row["id"])
        why = f"{type(error).__name__}: {error}"[:300]
        raise Conflict(
            f"Record {row['id']} cannot be put into the log, and is passed over: {why}", "Run `redflag audit fsck`"
        ) from error
    return made


def decoded(row: Any) -> dict[str, Any]:
    """A record with its JSON read as a leaf needs it: numbers keep the digits that the database gave them."""
    record = dict(row)
    for name in ("params", "metadata"):
        if record[name] is not None:
            record[name] = canonical.decoder.decode(record[name])
    return record


async def integrate(connection: Any, batch: int = 10 * BATCH) -> int:
    """Hashes what has a position into the tree. Returns how many, or -1 if another replica does it right now."""
    async with connection.transaction():
        state = await sql.claim.one(connection)
        if state is None:
            return -1
        first, end = state["integrated"], min(state["sequenced"], state["integrated"] + batch)
        if first == end:
            return 0
        rows = await sql.entries.all(connection, first=first, end=end)
        if [row["position"] for row in rows] != list(range(first, end)):
            raise Conflict(f"Positions {first} to {end - 1} of the log are not all there", "Run `redflag audit fsck`")
        edge = await tree.fetch(connection, [(level, first >> 8 * (level + 1)) for level in range(8)])
        changed = grow(first, [merkle.leaf_hash(row["leaf"]) for row in rows], edge)
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
        state = await sql.claim.one(connection)
        if state is None:
            return None
        origin = state["origin"] or await sql.name_log.value(connection, origin=signer.verifier.name)
        if origin != signer.verifier.name:
            raise Conflict(
                f"This log is called {origin}, and the server would sign as {signer.verifier.name}",
                f"Set REDFLAG_LOG_ORIGIN={origin}",
            )
        row = await sql.newest_checkpoint.one(connection)
        newest = open_note(row["note"], signer.verifier) if row else None
        size = state["integrated"]
        if newest is not None and newest.size == size and (memory.newest is None or memory.newest.size <= size):
            memory.remember(newest)
            return None
        root = await tree.root(connection, size)
        for known in (memory.newest, newest):
            if known is not None:
                await _require_extension(connection, known, size, root)
        signed = Checkpoint(origin, size, root, signer.sign(size, root))
        # Remembered first: a checkpoint that anybody may have seen is never forgotten by who signed it
        memory.remember(signed)
        await sql.publish.run(connection, size=size, root=root, note=signed.note)
    return signed


async def _require_extension(connection: Any, known: Checkpoint, size: int, root: bytes) -> None:
    if known.size > size:
        raise RolledBack(
            f"The log has {size} records in its tree, and this server knows a checkpoint of {known.size}: the database was rolled back",
            "Find out who restored it; see docs/howto/back-up-and-restore.md for how to go on",
        )
    proof = await tree.consistency(connection, known.size, size)
    if not merkle.verify_consistency(known.size, known.root, size, root, proof):
        raise RolledBack(
            f"The log's tree of {size} does not begin with the one of {known.size} that was signed before: records were changed",
            "Run `redflag audit fsck`, which names the first record that is wrong",
        )


class Memory:
    """The newest checkpoint that this server saw or signed, in a file of its own folder, outside the database."""

    def __init__(self, file: Path, signer: Signer) -> None:
        self._file = file
        self.newest: Checkpoint | None = open_note(file.read_text(), signer.verifier) if file.exists() else None

    def remember(self, checkpoint: Checkpoint) -> None:
        """Keeps it, if it is of a larger tree than the one that is known; on the disk when this returns."""
        if self.newest is not None and checkpoint.size <= self.newest.size:
            return
        fresh = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as opened:
            opened.write(checkpoint.note)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.newest = checkpoint
