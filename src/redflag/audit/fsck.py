"""fsck: reads the whole log and the records that it speaks of, and names the first thing that is wrong.

Every leaf is computed anew from its record; every leaf hash goes into a tree of its own, which must agree with the tiles and
with the root of every checkpoint that was ever signed; every record must have a position or wait for one. It reads one
snapshot, changes nothing, and needs no key but the public one.

What a replay of the transitions says is `commands.replay`'s matter; `redflag audit fsck` does both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redflag.audit import canonical, merkle, sequencer, tree
from redflag.audit.checkpoint import Verifier, open_note
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput

sql = queries.load(__file__, "fsck.sql")

CHUNK = 4096


@dataclass(frozen=True)
class Finding:
    """What is wrong: where, what it says, and what it should say."""

    what: str
    position: int | None = None
    record_id: str | None = None
    command_id: str | None = None
    says: str | None = None
    expected: str | None = None


@dataclass(frozen=True)
class Examined:
    """What was looked at, and the first thing that is wrong, if anything is."""

    events: int
    checkpoints: int
    pending: int
    root: bytes
    finding: Finding | None = None


class _Range:
    """A tree that only grows: the roots of its full subtrees, the largest first (one hash a leaf)."""

    def __init__(self) -> None:
        self.size = 0
        self._full: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """One more leaf hash."""
        ended, full = leaf, self.size
        while full & 1:
            ended = merkle.node_hash(self._full.pop(), ended)
            full >>= 1
        self._full.append(ended)
        self.size += 1

    def root(self) -> bytes:
        """The root of what there is (RFC 6962 §2.1)."""
        if not self._full:
            return merkle.EMPTY_ROOT
        found = self._full[-1]
        for left in reversed(self._full[:-1]):
            found = merkle.node_hash(left, found)
        return found


class _FoundError(Exception):
    """Ends the examination: the first thing that is wrong."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.what)


Tell = Callable[[int, int], None]


def _tell_nobody(_done: int, _of: int) -> None:
    """Nobody wants to know how far it is."""


async def examine(connection: Any, verifier: Verifier | None, tell: Tell = _tell_nobody) -> Examined:
    """Examines the log in the transaction that the caller opened (repeatable read). `tell` hears how far it is."""
    counts = await sql.counts.one(connection)
    signed = await sql.checkpoints.all(connection)
    grown = _Range()
    finding = None
    try:
        for row in signed:
            _check_signature(row, verifier)
        await _check_entries(connection, counts, signed, grown, tell)
        await _check_tree(connection, counts["integrated"], grown)
        await _check_outbox(connection)
    except _FoundError as found:
        finding = found.finding
    return Examined(grown.size, len(signed), counts["pending"], grown.root(), finding)


async def _check_entries(connection: Any, counts: Any, signed: list[Any], grown: _Range, tell: Tell) -> None:
    """Every position, its record, its place in the tiles; and the root at every size that was signed."""
    roots = {row["size"]: row["root"] for row in signed}
    total = counts["sequenced"]
    for first in range(0, total, CHUNK):
        end = min(first + CHUNK, total)
        rows = await sql.chunk.all(connection, first=first, end=end)
        hashes = []
        for position, row in itertools.zip_longest(range(first, end), rows):
            if row is None or row["position"] != position:
                raise _FoundError(Finding("a position of the log is missing", position))
            _check_record(row)
            hashes.append(merkle.leaf_hash(row["leaf"]))
            grown.add(hashes[-1])
            _check_root(grown, roots.pop(grown.size, None))
        await _check_tiles(connection, first, hashes, counts["integrated"])
        tell(end, total)
    roots.pop(0, None)
    if roots:
        raise _FoundError(Finding(f"a checkpoint of {max(roots)} records was signed, and the log has {total}", total))


def _check_root(grown: _Range, signed: bytes | None) -> None:
    if signed is not None and signed != grown.root():
        what = f"the records up to here are not those of the checkpoint of {grown.size} that was signed"
        raise _FoundError(Finding(what, grown.size - 1, says=grown.root().hex(), expected=signed.hex()))


async def _check_tree(connection: Any, integrated: int, grown: _Range) -> None:
    if not integrated:
        return
    expected = grown.root() if grown.size == integrated else await _root_of_leaves(connection, integrated)
    try:
        root = await tree.root(connection, integrated)
    except Conflict as error:
        raise _FoundError(Finding(error.what)) from None
    if root != expected:
        raise _FoundError(
            Finding("the tree's tiles do not lead to the root of its leaves", says=root.hex(), expected=expected.hex())
        )


async def _check_outbox(connection: Any) -> None:
    if row := await sql.unplaced.one(connection):
        command = row["command_id"] and str(row["command_id"])
        what = "a record has no position in the log and does not wait for one"
        raise _FoundError(Finding(what, record_id=str(row["id"]), command_id=command))


def _check_signature(row: Any, verifier: Verifier | None) -> None:
    if verifier is None:
        return
    try:
        opened = open_note(row["note"], verifier)
    except InvalidInput as error:
        raise _FoundError(Finding(f"the checkpoint of {row['size']} is not the log's: {error.what}")) from None
    if (opened.size, opened.root) != (row["size"], row["root"]):
        what = f"the checkpoint of {row['size']} says something else than its note"
        raise _FoundError(Finding(what, says=row["root"].hex(), expected=opened.root.hex()))


def _check_record(row: Any) -> None:
    where: dict[str, Any] = {"position": row["position"], "record_id": str(row["record_id"])}
    if row["id"] is None:
        raise _FoundError(Finding("the record at this position is gone", **where))
    where["command_id"] = row["command_id"] and str(row["command_id"])
    if row["salt"] is None:
        raise _FoundError(Finding("the record has lost its salt, and no erasure names it", **where))
    says, logged = canonical.leaf(sequencer.decoded(row)), row["leaf"]
    if says != logged:
        differs = _differences(canonical.decoder.decode(logged), canonical.decoder.decode(says))
        what = f"the record says something else than what was logged: {differs}"
        raise _FoundError(Finding(what, says=says.decode(), expected=logged.decode(), **where))


def _differences(logged: dict[str, Any], now: dict[str, Any]) -> str:
    """The fields that differ, by name."""
    one, other = {**logged, **logged.pop("commitments", {})}, {**now, **now.pop("commitments", {})}
    names = sorted(
        name for name in one.keys() | other.keys() if one.get(name) != other.get(name) and name != "commitments"
    )
    return ", ".join(names) or "its form"


async def _check_tiles(connection: Any, first: int, hashes: list[bytes], integrated: int) -> None:
    """Whether the tiles of the lowest level hold these leaf hashes."""
    count = min(len(hashes), integrated - first)
    if count <= 0:
        return
    indexes = range(first // merkle.WIDTH, (first + count - 1) // merkle.WIDTH + 1)
    found = await tree.fetch(connection, [(0, index) for index in indexes])
    for place, one in enumerate(hashes[:count], first):
        index, offset = divmod(place, merkle.WIDTH)
        tile = found.get((0, index), b"")
        if tile[offset * merkle.HASH : (offset + 1) * merkle.HASH] != one:
            raise _FoundError(
                Finding(f"tile 0/{index} of the log does not hold the hash of its leaf", place, expected=one.hex())
            )


async def _root_of_leaves(connection: Any, size: int) -> bytes:
    """The root of the first `size` leaves, while others have a position and are not in the tree yet."""
    grown = _Range()
    for first in range(0, size, CHUNK):
        for row in await sequencer.sql.entries.all(connection, first=first, end=min(first + CHUNK, size)):
            grown.add(merkle.leaf_hash(row["leaf"]))
    return grown.root()
