"""Evidence bundles: a part of the log in one signed zip that anybody can check offline (verify/SPEC.md §10).

A bundle holds the records of a period, those that pass some filters, or a range of positions, each with its leaf and the
values that the leaf commits to; the proof that they stand in the tree of one checkpoint; that checkpoint; a report for
people; and the verifier. What was erased is not in it: its salt is gone.

- It is written entry by entry, so that the memory needed does not grow with it. The records are read once; their leaf
  hashes wait in a file, from which the proof is made.
- The proof reads the tiles beside the entries, some dozen subtrees at a time.
- Without filters no position between the first and the last is missing, or Conflict is raised: a bundle that would not
  verify is never handed out.
- A value that no verifier takes (a line of over 32 MiB, nesting beyond 64 levels) is withheld; `withheld.txt` names it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import itertools
import re
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import redflag_verify
from redflag.audit import canonical, cosignatures, merkle, proofs, report, tree
from redflag.audit.checkpoint import Signer, open_note
from redflag.audit.export import reading
from redflag.audit.export.reading import Entry, Selection
from redflag.errors import Conflict, InvalidInput

# Entries that are in memory at once, if they are small
BATCH = 256
# Subtrees of the proof that are computed from one fetch of tiles
SUBTREES = 64
# What unpacks to more than this many times its size is not compressed: a verifier would take it for a bomb at twice that
RATIO = redflag_verify.RATIO // 2
# Values stand two levels deep in their line
DEEPEST = redflag_verify.DEEPEST - 2
# The files that every bundle may have
OWN = {
    *redflag_verify.NEEDED,
    "consistency",
    "readme.txt",
    "redflag_verify.py",
    "report.html",
    "report.json",
    "report.pdf",
    "withheld.txt",
}
SPOOL = 8 * 1024 * 1024
PIECE = 1024 * 1024

Tell = Callable[[int, int], None]


def tell_nobody(_done: int, _of: int) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True)
class Written:
    """A bundle that was written: its entries, the size of the tree that proves them, the SHA-256 of the zip in hex, and
    how many values were withheld.
    """

    count: int
    first: int | None
    last: int | None
    size: int
    sha256: str
    withheld: int


async def write(
    connection_source: Any,
    signer: Signer,
    out: BinaryIO,
    selection: Selection,
    *,
    first: int | None = None,
    end: int | None = None,
    extra: Mapping[str, bytes] = {},
    consistency_from: int | None = None,
    tell: Tell = tell_nobody,
) -> Written:
    """Writes the bundle of what is selected to `out` (empty, seekable), of the positions first ≤ p < end if they are given.

    `connection_source` is a pool, from which a connection is taken for a moment at a time, or one connection. `extra` are
    more files of the bundle, by name. With `consistency_from` it proves that the log goes on from the checkpoint of that
    size. `tell` hears how many positions of how many were read.

    Raises Conflict while there is no checkpoint, or when positions are missing; InvalidInput for a range that is none, or
    for a name in `extra` that no file may have.
    """
    for name in extra:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name.lower() in OWN:
            raise InvalidInput(f"{name!r} cannot name another file of a bundle", "Use letters, digits and dots")
    async with _borrowed(connection_source) as connection:
        begin, stop = await reading.bounds(connection, selection)
        begin, stop = begin if first is None else first, stop if end is None else end
        newest = await _checkpoint(connection, max(stop, consistency_from or 0))
    if newest is None:
        raise Conflict("No checkpoint has been signed yet", "Try again in two seconds")
    if not 0 <= begin <= stop <= newest["size"] or not 0 <= (consistency_from or 0) <= newest["size"]:
        raise InvalidInput(
            f"The log has {newest['size']} records, and what was asked for is not within it", "See `redflag audit key`"
        )
    origin = open_note(newest["note"], signer.verifier).origin
    making = _Making(connection_source, signer, selection, newest, extra, consistency_from, tell)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        out.seek(0)
        out.truncate()
        sink = _Sink(out)
        with zipfile.ZipFile(sink, "w") as archive:
            making.begin(archive, method)
            await making.all_of_it(begin, stop)
        if making.unpacked <= RATIO * sink.written + PIECE:
            break
    if signer.verifier.name != origin:
        raise Conflict(f"The log {origin} was closed meanwhile, and goes on as {signer.verifier.name}", "Try again")
    out.flush()
    return Written(
        making.count, making.first, making.last, newest["size"], sink.digest.hexdigest(), len(making.withheld)
    )


async def _checkpoint(connection: Any, size: int) -> Any:
    """The newest checkpoint of `size` records or more that a witness cosigned, with all cosignatures; else the newest."""
    return await cosignatures.newest(connection, quorum=1, above=size - 1) or await cosignatures.newest(connection)


@contextlib.asynccontextmanager
async def _borrowed(source: Any) -> AsyncIterator[Any]:
    """A connection of a pool, or the one connection that there is."""
    if hasattr(source, "acquire"):
        async with source.acquire() as connection:
            yield connection
    else:
        yield source


class _Sink:
    """Where the zip goes: hashed on the way, so that nothing goes back in it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes) -> int:
        """Writes and hashes."""
        self.digest.update(data)
        self.written += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """It is its owner's to close."""


class _File:
    """A file of the zip while it is written."""

    def __init__(self, opened: IO[bytes]) -> None:
        self._opened = opened
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Writes and hashes."""
        self._opened.write(data)
        self.digest.update(data)
        self.size += len(data)


class _Making:
    """A bundle while it is written."""

    def __init__(
        self,
        source: Any,
        signer: Signer,
        selection: Selection,
        checkpoint: Any,
        extra: Mapping[str, bytes],
        consistency_from: int | None,
        tell: Tell,
    ) -> None:
        self._source = source
        self._signer = signer
        self._selection = selection
        self._checkpoint = checkpoint
        self._extra = extra
        self._consistency_from = consistency_from
        self._tell = tell

    def begin(self, archive: zipfile.ZipFile, method: int) -> None:
        """Begins, or begins anew."""
        self._archive = archive
        self._method = method
        self._files: dict[str, str] = {}
        self.count = self.unpacked = 0
        self.first: int | None = None
        self.last: int | None = None
        self.earliest: datetime.datetime | None = None
        self.latest: datetime.datetime | None = None
        self.withheld: list[str] = []

    async def all_of_it(self, begin: int, stop: int) -> None:
        """Every file, the manifest last."""
        size = self._checkpoint["size"]
        with tempfile.SpooledTemporaryFile(SPOOL) as leaves:
            await self._entries(leaves, begin, stop)
            if not self._selection.filters and self.count != stop - begin:
                raise Conflict(
                    f"Of positions {begin} to {stop - 1} only {self.count} are there",
                    "If they were not pruned meanwhile, run `redflag audit fsck`",
                )
            leaves.seek(0)
            with self._open("leaves") as file:
                while piece := leaves.read(PIECE):
                    await asyncio.to_thread(file.write, piece)
            leaves.seek(0)
            positions = (int(line.partition(b" ")[0]) for line in leaves)
            with self._open("proof") as file:
                file.write(f"{redflag_verify.MULTIPROOF}\nsize {size}\n".encode())
                await self._proof(file, gaps(size, positions))
        for name, data in (await self._beside()).items():
            self._put(name, data)
        for name, data in (await self._report()).items():
            self._put(name, data)
        manifest = canonical.encode(self._manifest())
        signed = self._signer.sign_text(f"{redflag_verify.EVIDENCE}\n{hashlib.sha256(manifest).hexdigest()}\n")
        self._put("manifest.json", manifest)
        self._put("manifest.sig", signed.encode())

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[_File]:
        about = zipfile.ZipInfo(name, self._checkpoint["published_at"].timetuple()[:6])
        about.compress_type = self._method
        about.external_attr = 0o644 << 16
        with self._archive.open(about, "w", force_zip64=True) as opened:
            file = _File(opened)
            yield file
        self._files[name] = file.digest.hexdigest()
        self.unpacked += file.size

    def _put(self, name: str, data: bytes) -> None:
        with self._open(name) as file:
            file.write(data)

    async def _entries(self, leaves: IO[bytes], begin: int, stop: int) -> None:
        # Positions nearly follow the times. A bundle that is not filtered holds all of them, also the few that do not
        chosen = self._selection if self._selection.filters else Selection()
        with self._open("entries.jsonl") as file:
            at, width = begin, BATCH
            while at < stop:
                async with _borrowed(self._source) as connection:
                    page = await reading.page(connection, chosen, first=at, end=stop, most=BATCH, width=width)
                # Beside the event loop, which has agents to answer meanwhile
                await asyncio.to_thread(self._add, file, leaves, page.entries)
                at, width = page.next, page.width
                self._tell(at - begin, stop - begin)

    def _add(self, file: _File, leaves: IO[bytes], found: list[Entry]) -> None:
        for entry in found:
            file.write(self._line(entry))
            leaves.write(b"%d %s\n" % (entry.position, base64.b64encode(merkle.leaf_hash(entry.leaf))))
            self.first = entry.position if self.first is None else self.first
            self.last = entry.position
            self.count += 1
            recorded = entry.record["created_at"]
            self.earliest = min(self.earliest or recorded, recorded)
            self.latest = max(self.latest or recorded, recorded)

    def _line(self, entry: Entry) -> bytes:
        values, salts = proofs.disclosed(entry.record)
        told = {"leaf": entry.leaf.decode(), "position": entry.position, "salts": salts, "values": values}
        while True:
            line = canonical.encode(told) + b"\n"
            nested = line.count(b"{") + line.count(b"[") > DEEPEST
            deep = [name for name, value in values.items() if nested and not _is_flat(value)]
            if not deep and len(line) <= redflag_verify.LINE_LIMIT:
                return line
            name = deep[0] if deep else max(values, key=lambda name: len(canonical.encode(values[name])))
            del values[name], salts[name]
            self.withheld.append(f"{entry.position} {name}: {'nested too deeply' if deep else 'too long'}\n")

    async def _proof(self, file: _File, wanted: Iterator[tuple[int, int]]) -> None:
        size = self._checkpoint["size"]
        while some := list(itertools.islice(wanted, SUBTREES)):
            async with _borrowed(self._source) as connection:
                hashes = await tree.compute(connection, size, functools.partial(_roots, some))
            file.write(b"".join(base64.b64encode(one) + b"\n" for one in hashes))

    async def _beside(self) -> dict[str, bytes]:
        """The small files: what the entries are checked against, and what is there for people."""
        verifier = self._signer.verifier
        files = {
            "checkpoint": self._checkpoint["cosigned"].encode(),
            "key": f"{verifier.vkey()}\n".encode(),
            "redflag_verify.py": _verifier(),
            "README.txt": self._readme().encode(),
        }
        if self._consistency_from is not None:
            async with _borrowed(self._source) as connection:
                hashes = await tree.consistency(connection, self._consistency_from, self._checkpoint["size"])
            lines = (f"old {self._consistency_from}", *(base64.b64encode(one).decode() for one in hashes))
            files["consistency"] = "".join(f"{line}\n" for line in lines).encode()
        if self.withheld:
            files["withheld.txt"] = "".join(self.withheld).encode()
        return files | dict(self._extra)

    async def _report(self) -> dict[str, bytes]:
        """The report on what is in the bundle; of a bundle without a period, on the time in which its records were written."""
        chosen, published = self._selection, self._checkpoint["published_at"]
        since = chosen.since or self.earliest or published
        until = chosen.until or (self.latest or published) + datetime.timedelta(microseconds=1)
        asked = dataclasses.replace(chosen, since=since, until=until)
        async with _borrowed(self._source) as connection:
            made = await report.gather(connection, self._signer.verifier, asked)
        # A fifth of the start of every command, and needed here only
        from redflag.audit import report_pages, report_pdf  # noqa: PLC0415

        return {
            "report.html": (await asyncio.to_thread(report_pages.html, made)).encode(),
            "report.json": made.json(),
            "report.pdf": await asyncio.to_thread(report_pdf.pdf, made),
        }

    def _readme(self) -> str:
        found = f"{self.count} records at positions {self.first} to {self.last}" if self.count else "no records"
        return (
            f"Evidence from the audit log {self._signer.verifier.name}: {found}; for people in report.html and report.pdf, "
            "for programs in entries.jsonl.\n"
            "Check it:  python3 redflag_verify.py bundle THIS.zip --key VKEY\n"
            "Get redflag_verify.py and VKEY, the log's public key, another way than with this file: who forges one may forge "
            "all.\n"
        )

    def _manifest(self) -> dict[str, Any]:
        chosen = self._selection
        return {
            "completeness": {
                "count": self.count,
                "filtered": bool(chosen.filters),
                "first_position": self.first,
                "last_position": self.last,
            },
            "files": self._files,
            "filters": chosen.filters,
            "format": redflag_verify.EVIDENCE,
            "origin": self._signer.verifier.name,
            "period": {
                "since": chosen.since and canonical.moment(chosen.since),
                "until": chosen.until and canonical.moment(chosen.until),
            },
        }


def _verifier() -> bytes:
    """The verifier, as this release has it."""
    return Path(redflag_verify.__file__).read_bytes()


def _is_flat(value: Any, left: int = DEEPEST) -> bool:
    """Whether a value is nested no deeper than a verifier takes."""
    if left < 0:
        return False
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_flat(item, left - 1) for item in items)


def _roots(some: list[tuple[int, int]], reader: merkle.Reader) -> list[bytes]:
    return [reader.subtree(*one) for one in some]


def gaps(size: int, positions: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The largest subtrees of a tree of `size` that hold none of the positions (ascending), from left to right."""
    at = 0
    for position in positions:
        yield from _cover(at, position, size)
        at = position + 1
    yield from _cover(at, size, size)


def _cover(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """The largest subtrees that positions begin ≤ p < end are made of. What ends the tree may be no full subtree."""
    while begin < end:
        wide = begin & -begin or 1 << size.bit_length()
        if end < size or begin + wide < size:
            wide = min(wide, 1 << (end - begin).bit_length() - 1)
        yield begin, min(begin + wide, end)
        begin += wide
