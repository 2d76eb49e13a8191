"""fsck: reads the whole log and the records that it speaks of, and names the first thing that is wrong.

Every leaf is computed anew from its record; every leaf hash goes into a tree of its own, which must agree with every tile and
with the root of every checkpoint that there is, no fewer than an earlier fsck saw; every record must have a position or wait for one
that it can have; every cosignature must be what its witness signed. A value may be missing where an erasure in the log names the
record and the field, and nowhere else. Of a log whose beginning was pruned, the leaf hashes are taken from the tiles there, and a
snapshot in the log must say that it was pruned to this position.

It reads one snapshot of the database, a bounded part at a time, changes nothing, and needs no key but the public one.
What a replay of the transitions says is `commands.replay`'s matter; `redflag audit fsck` does both.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from redflag.audit import canonical, cosignatures, merkle, origins, sequencer, snapshots, tree
from redflag.audit.checkpoint import Verifier, open_own
from redflag.audit.findings import Finding, FoundError, compare, differs, listed, place
from redflag.audit.growing import GrowingTree, tiles_ended
from redflag.database import queries
from redflag.errors import InvalidInput

sql = queries.load(__file__, "fsck.sql")

# A page of records has this many, or ends after the one that brings what can be large in it to so many bytes
CHUNK = 4096
MOST_BYTES = 32 * 1024 * 1024
# So many are examined at once before what the database sent of the next page is read
SLICE = 128
# The columns of a row that stand before the record's own
_BEFORE = 4
# Tiles of pruned leaves that are read at once
TILES = 64


@dataclass(frozen=True)
class Examined:
    """What was looked at, and the first thing that is wrong, if anything is.

    `events` are the records that were compared with their leaves, `erased` those of them that lack what an erasure names;
    `pruned` is the position at which the log begins; `cosignatures` are those of witnesses that were verified.
    """

    events: int
    checkpoints: int
    pending: int
    root: bytes
    finding: Finding | None = None
    erased: int = 0
    pruned: int = 0
    cosignatures: int = 0


Tell = Callable[[int, int], None]


def _tell_nobody(_done: int, _of: int) -> None:
    """Nobody wants to know how far it is."""


async def examine(connection: Any, verifier: Verifier | None, tell: Tell = _tell_nobody) -> Examined:
    """Examines the log in the transaction that the caller opened (repeatable read). `tell` hears how far it is."""
    counts = await sql.counts.one(connection)
    walk = _Walk(connection, verifier, counts, tell)
    finding = None
    try:
        with _without_collector():
            await walk.all_of_it()
    except FoundError as found:
        finding = found.finding
    return Examined(
        walk.events,
        walk.checkpoints,
        counts["pending"],
        walk.tree.root(),
        finding,
        walk.erased,
        counts["pruned"],
        walk.cosignatures,
    )


async def require_whole(connection: Any, first: int, end: int) -> None:
    """That the records at first ≤ position < end are what was logged. Raises ValueError with what is wrong."""
    counts = await sql.counts.one(connection)
    walk = _Walk(connection, None, counts, _tell_nobody)
    try:
        await walk.read_erasures()
        while first < end:
            first += len(walk.check(first, (await walk.fetch(first, end)).rows))
    except FoundError as found:
        place = f"position {found.finding.position}: " if found.finding.position is not None else ""
        raise ValueError(place + found.finding.what) from None


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Without the search for cycles: rows make none, and it takes a quarter of the time while thousands of them are at hand."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class _Page:
    """What is needed to examine some positions: their rows, the tiles that they complete, and checkpoints among them."""

    rows: list[Any]
    tiles: dict[tuple[int, int], bytes]
    checkpoints: list[Any]


class _Walk:
    """One walk along the log."""

    def __init__(self, connection: Any, verifier: Verifier | None, counts: Any, tell: Tell) -> None:
        self._connection = connection
        self._verifier = verifier
        self._sequenced: int = counts["sequenced"]
        self._integrated: int = counts["integrated"]
        self._pruned: int = counts["pruned"]
        self._tell = tell
        self._names = origins.Names(None, [])
        # What erasures in the log name; and records that are named by erasures which are not in it yet
        self._named: dict[uuid.UUID, set[str]] = {}
        self._named_soon: set[uuid.UUID] = set()
        # Sizes, and how many checkpoints of up to so many records were seen before; the smallest last
        self._counted: list[tuple[int, int]] = []
        # The partial tiles of the tree that the database has, once it is as large
        self._ends: dict[tuple[int, int], bytes] | None = None
        self.tree = GrowingTree()
        self.events = self.checkpoints = self.erased = self.cosignatures = 0

    async def all_of_it(self) -> None:
        """Everything. Raises FoundError."""
        self._names = await origins.names(self._connection)
        await self.read_erasures()
        await self._read_counted()
        for row in await sql.checkpoints.all(self._connection, after=-1, upto=0):
            self._check_checkpoint(row)
        await self._pruned_part()
        unfinished = await self._check_beginning()
        await self._kept_part()
        self._require_counted(self._sequenced + 1)
        if row := await sql.odd_checkpoint.one(self._connection, size=self._sequenced):
            what = f"a checkpoint of {row['size']} records was signed, and the log has {self._sequenced}"
            raise FoundError(what, position=self._sequenced)
        if not self.checkpoints and self._names.first is not None:
            raise FoundError(f"the log {self._names.first} was signed, and none of its checkpoints is there")
        await self._compare_ends()
        for row in unfinished:
            await self._check_snapshot(row)
        await self._check_odd()
        if found := await sequencer.unplaceable(self._connection):
            record_id, why = found
            what = f"a record waits for a position and can have none, because it cannot be put into a leaf: {why}"
            raise FoundError(what, record_id=str(record_id))
        self.cosignatures, wrong = await cosignatures.examine(self._connection)
        if wrong is not None:
            raise FoundError(wrong)

    async def read_erasures(self) -> None:
        """Reads what erasures name; the records that say so are examined at their own positions."""
        for row in await sql.erasures.all(self._connection):
            if row["placed"]:
                self._named.setdefault(row["record_id"], set()).update(row["fields"])
            else:
                self._named_soon.add(row["record_id"])

    async def _read_counted(self) -> None:
        """Reads how many checkpoints earlier examinations saw. Their records are examined at their own positions."""
        for row in await sql.counted.all(self._connection):
            told = row["metadata"] if isinstance(row["metadata"], dict) else {}
            size, seen = told.get("size"), told.get("checkpoints")
            if isinstance(size, int) and isinstance(seen, int):
                self._counted.append((size, seen))
        self._counted.sort(reverse=True)

    def _require_counted(self, below: int) -> None:
        """That of the checkpoints of fewer than `below` records none is gone that an earlier examination saw."""
        while self._counted and self._counted[-1][0] < below:
            size, seen = self._counted.pop()
            if self.checkpoints < seen:
                what = f"{seen} checkpoints of up to {size} records were there when the log was examined before"
                raise FoundError(what, position=max(size - 1, 0), says=str(self.checkpoints), expected=str(seen))

    async def fetch(self, first: int, end: int) -> _Page:
        """The rows from `first` on, as many as a page holds, and what they are held against."""
        rows = await self._rows(first, min(first + CHUNK, end))
        upto = first + len(rows)
        ended = tiles_ended(first, min(upto, self._integrated))
        tiles = await tree.fetch(self._connection, ended) if ended else {}
        return _Page(rows, tiles, await sql.checkpoints.all(self._connection, after=first, upto=upto))

    async def _rows(self, first: int, end: int) -> list[Any]:
        try:
            return await sql.page.all(self._connection, first=first, end=end, most_bytes=MOST_BYTES)
        except (ArithmeticError, ValueError) as error:
            # The database holds times that no calendar has; fewer positions, until it is this one
            if end - first <= 1:
                raise FoundError(f"the record at this position cannot be read: {error}", position=first) from None
        return await self._rows(first, first + (end - first) // 2)

    async def _pruned_part(self) -> None:
        """Records that are gone: their hashes are in the tiles, and what was signed says whether they are those."""
        for first in range(0, self._pruned, TILES * merkle.WIDTH):
            end = min(first + TILES * merkle.WIDTH, self._pruned)
            tiles = await tree.fetch(self._connection, tiles_ended(first, end))
            hashes = []
            for index in range(first // merkle.WIDTH, end // merkle.WIDTH):
                tile = tiles.get((0, index), b"")
                if len(tile) != merkle.WIDTH * merkle.HASH:
                    raise FoundError(
                        f"tile 0/{index} of the log is missing or too short", position=index * merkle.WIDTH
                    )
                hashes += merkle.hashes_of(tile)
            signed = await sql.checkpoints.all(self._connection, after=first, upto=end)
            self._grow(first, hashes, _Page([], tiles, signed))
            self._tell(end, self._sequenced)

    async def _kept_part(self) -> None:
        """Every position with its record, its place in the tiles; and the root at every size that was signed."""
        first, total = self._pruned, self._sequenced
        page = await self.fetch(first, total)
        while first < total:
            following = None
            if page.rows:
                # The database works on the next page while this one is examined
                following = asyncio.ensure_future(self.fetch(first + len(page.rows), total))
                await asyncio.sleep(0)
            try:
                hashes: list[bytes] = []
                for begin in range(0, max(len(page.rows), 1), SLICE):
                    hashes += self.check(first + begin, page.rows[begin : begin + SLICE])
                    # It waits while nobody reads what it sends
                    await asyncio.sleep(0)
                self._grow(first, hashes, page)
            except FoundError:
                if following is not None:
                    with contextlib.suppress(Exception):
                        await following
                raise
            first += len(page.rows)
            self._tell(first, total)
            if following is not None:
                page = await following

    def check(self, first: int, rows: list[Any]) -> list[bytes]:
        """The leaf hashes of a page, each of a leaf that is its record's. Raises FoundError."""
        hashes = []
        position = first
        named, leaf_hash = self._named, merkle.leaf_hash
        for row in rows:
            at, record_id, leaf, salts = row[:_BEFORE]
            columns = row[_BEFORE:]
            if at != position:
                break
            if row["id"] is None:
                raise FoundError("the record at this position is gone", position=position, record_id=str(record_id))
            if row["params"] == "null":
                raise FoundError("the record has a JSON null for its parameters, which is never written", **place(row))
            if salts is not None or row["salt"] is None or record_id in named:
                self._check_erased(row)
            else:
                try:
                    says = canonical.leaf_of_columns(columns)
                except Exception as error:  # a record that was altered may be anything
                    raise FoundError(f"the record cannot be put into a leaf: {error}", **place(row)) from None
                if says != leaf:
                    differs(row, says)
            hashes.append(leaf_hash(leaf))
            position += 1
        if not rows or position - first < len(rows):
            raise FoundError("a position of the log is missing", position=position)
        self.events += len(hashes)
        return hashes

    def _check_erased(self, row: Any) -> None:
        """A record of which something was erased: exactly what the erasures in the log name is missing."""
        where = place(row)
        named = self._named.get(row["record_id"], set())
        if not named:
            if row["salt"] is not None:
                raise FoundError("the record has the salts of an erasure, and no erasure names it", **where)
            soon = row["record_id"] in self._named_soon
            later = "; the one that does has no position in the log yet: run fsck again in two seconds" if soon else ""
            raise FoundError(f"the record has lost its salt, and no erasure names it{later}", **where)
        if row["salt"] is not None:
            raise FoundError(f"an erasure names {listed(named)} of the record, and its salt is there", **where)
        try:
            record, logged = sequencer.decoded(row), canonical.decoder.decode(row["leaf"])
            values, commitments = canonical.fields(record), logged["commitments"]
            salts = {name: _salt(salt) for name, salt in (row["salts"] or {}).items()}
            blank = {"actor": f"{logged['actor_kind']}:erased", "metadata": {}}
            for name in named:
                if values.pop(name, None) != blank.get(name):
                    raise FoundError(f"an erasure names {name} of the record, and there is one", **where)
            if lost := commitments.keys() - named - salts.keys():
                raise FoundError(f"the record has lost its salt of {listed(lost)}, and no erasure names that", **where)
            if kept := salts.keys() - (commitments.keys() - named):
                raise FoundError(f"the record has a salt of {listed(kept)}, which was erased or never there", **where)
            now = {name: canonical.commit(salts[name], value) for name, value in values.items() if name in salts}
            says = canonical.plain(record, now | {name: commitments[name] for name in named})
        except FoundError:
            raise
        except Exception as error:
            raise FoundError(f"what remains of the erased record makes no leaf: {error}", **where) from None
        if says != row["leaf"]:
            differs(row, says)
        self.erased += 1

    def _grow(self, first: int, hashes: list[bytes], page: _Page) -> None:
        """The tree with these leaves: its root at each size that was signed, and its tiles."""
        at = first
        for row in page.checkpoints:
            self._extend(hashes[at - first : row["size"] - first])
            at = row["size"]
            self._check_checkpoint(row)
        self._extend(hashes[at - first :])
        whole, self.tree.whole = self.tree.whole, {}
        for (level, index), hashed in whole.items():
            if (index + 1) * merkle.WIDTH ** (level + 1) <= self._integrated:
                compare(level, index, hashed, page.tiles.get((level, index), b""))

    def _extend(self, hashes: list[bytes]) -> None:
        # Some may have a position and not be in the tree yet: it ends before them, and so do its tiles
        before = self._integrated - self.tree.size
        if 0 <= before < len(hashes):
            self.tree.extend(hashes[:before])
            self._ends = self.tree.partial()
            hashes = hashes[before:]
        self.tree.extend(hashes)

    async def _compare_ends(self) -> None:
        ends = self.tree.partial() if self._ends is None else self._ends
        there = await tree.fetch(self._connection, list(ends)) if ends else {}
        for (level, index), hashed in ends.items():
            compare(level, index, hashed, there.get((level, index), b""))

    def _check_checkpoint(self, row: Any) -> None:
        size, root = row["size"], self.tree.root()
        self._require_counted(size)
        self._check_note(row)
        self.checkpoints += 1
        if row["root"] != root:
            what = f"the records up to here are not those of the checkpoint of {size} that was signed"
            raise FoundError(what, position=size - 1, says=root.hex(), expected=row["root"].hex())

    def _check_note(self, row: Any) -> None:
        """That a checkpoint's note says its size and root; and by the key, that the log signed it."""
        size, root, note = row["size"], row["root"], row["note"]
        told = note.split("\n", 3)[1:3]
        if self._verifier is not None:
            try:
                opened = open_own(note, self._verifier.public)
            except (InvalidInput, ValueError) as error:
                why = error.what if isinstance(error, InvalidInput) else "it is malformed"
                raise FoundError(f"the checkpoint of {size} is not the log's: {why}") from None
            for name in (opened.origin, self._verifier.name):
                if self._names.extensions(name) is None:
                    raise FoundError(f"the checkpoint of {size} is not the log's, which was never called {name}")
            expected = self._names.extensions(opened.origin) or ()
            if opened.extensions != expected:
                raise FoundError(
                    f"the checkpoint of {size} does not say what the log was called before",
                    says="; ".join(opened.extensions),
                    expected="; ".join(expected),
                )
        if told != [str(size), base64.b64encode(root).decode()]:
            raise FoundError(
                f"the checkpoint of {size} says something else than its note",
                says=f"{size}, {root.hex()}",
                expected=", ".join(told),
            )

    async def _check_beginning(self) -> list[Any]:
        """That the log was pruned to where it begins. Returns the snapshots to which it is still to be pruned."""
        found = await snapshots.sql.from_here.all(self._connection, pruned=max(self._pruned, 1))
        if not self._pruned:
            return found
        if not found or found[0]["position"] != self._pruned:
            raise FoundError("the log begins here, and no snapshot says that it was pruned", position=self._pruned)
        await self._check_snapshot(found[0])
        return found[1:]

    async def _check_snapshot(self, row: Any) -> None:
        """That a snapshot is what its record in the log says, is signed, and has its states."""
        where = {"position": row["position"], "record_id": str(row["logged_id"])}
        begins = row["position"] == self._pruned
        if row["kind"] != "snapshot" or (begins and row["logged_position"] is None):
            raise FoundError(f"the record of the snapshot at {row['position']} is not in the log", **where)
        told = {name: row[name] for name in ("first", "position", "commands", "kept", "bundle")}
        told |= {name: row[name].hex() for name in ("states", "kept_states", "bundle_sha256")}
        if differ := [name for name, value in told.items() if (row["metadata"] or {}).get(name) != value]:
            raise FoundError(f"the snapshot says something else than its record: {listed(differ)}", **where)
        if begins:
            self._check_snapshot_note(row, where)
        now = await snapshots.states(self._connection, row["position"])
        # Commands that ended before it go with their states, one by one
        whole = not begins or now.commands == row["commands"]
        if (now.kept, now.staying) != (row["kept"], row["kept_states"]) or (
            whole and (now.commands, now.all) != (row["commands"], row["states"])
        ):
            what = "the states of the commands that are kept are not those of the snapshot"
            raise FoundError(what, says=now.staying.hex(), expected=row["kept_states"].hex(), **where)

    def _check_snapshot_note(self, row: Any, where: dict[str, Any]) -> None:
        text = snapshots.signed(row["note"])
        origin = text.split("\n", 2)[1] if text.count("\n") > 1 else ""
        expected = snapshots.text(origin, row["position"], self.tree.root(), row)
        if text != expected:
            raise FoundError(
                "the snapshot's note says something else than the snapshot", says=text, expected=expected, **where
            )
        if self._verifier is not None and (
            self._names.extensions(origin) is None or not snapshots.is_signed_by(row["note"], self._verifier)
        ):
            raise FoundError("the snapshot is not signed by the log's key", **where)

    async def _check_odd(self) -> None:
        """What is there and should not be."""
        if row := await sql.odd_entry.one(self._connection, size=self._sequenced):
            what = "an entry stands at a position that was never given"
            raise FoundError(what, position=row["position"], record_id=str(row["record_id"]))
        if row := await sql.odd_tile.one(self._connection, size=self._integrated):
            what = f"tile {row['level']}/{row['index']} of the log has {row['hashes']} hashes, and the tree has others there"
            raise FoundError(what)
        if row := await sql.odd_pending.one(self._connection):
            what = "a record that has a position" if row["placed"] else "what is no record"
            raise FoundError(f"{what} waits for one in the outbox", record_id=str(row["id"]))
        if row := await sql.unplaced.one(self._connection):
            command = row["command_id"] and str(row["command_id"])
            what = "a record has no position in the log and does not wait for one"
            raise FoundError(what, record_id=str(row["id"]), command_id=command)


def _salt(told: str) -> bytes:
    """A salt that an erasure left, in the one spelling that it has there."""
    salt = bytes.fromhex(told)
    if salt.hex() != told:
        raise ValueError(f"{told[:80]!r} is no salt as an erasure leaves it")
    return salt
