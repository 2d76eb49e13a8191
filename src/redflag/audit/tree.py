"""The tree as it is kept: reading what a root or a proof needs from the tiles in the database, in one query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from redflag.audit import merkle
from redflag.database import queries
from redflag.errors import Conflict

sql = queries.load(__file__, "sequencer.sql")

T = TypeVar("T")


async def compute(connection: Any, size: int, what: Callable[[merkle.Reader], T]) -> T:
    """Computes something of the tree of `size`: first finds out which tiles it asks for, then fetches them, then computes.

    Raises Conflict when a tile is missing or too short: the tree in the database is damaged.
    """
    asked: dict[tuple[int, int], int] = {}

    def ask(level: int, index: int, width: int) -> bytes:
        asked[level, index] = max(width, asked.get((level, index), 0))
        return bytes(merkle.HASH * width)

    what(merkle.Reader(size, ask))
    found = await fetch(connection, list(asked))

    def give(level: int, index: int, width: int) -> bytes:
        tile = found.get((level, index), b"")
        if len(tile) < merkle.HASH * width:
            raise Conflict(f"Tile {level}/{index} of the log has less than {width} hashes", "Run `redflag audit fsck`")
        return tile[: merkle.HASH * width]

    return what(merkle.Reader(size, give))


async def fetch(connection: Any, wanted: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """Some tiles, as far as there are such."""
    rows = await sql.tiles.all(
        connection, levels=[level for level, _ in wanted], indexes=[index for _, index in wanted]
    )
    return {(row["level"], row["index"]): row["hashes"] for row in rows}


async def root(connection: Any, size: int) -> bytes:
    """The root of the tree of `size`."""
    return await compute(connection, size, merkle.Reader.root)


async def inclusion(connection: Any, size: int, position: int) -> list[bytes]:
    """The proof that `position` is in the tree of `size`."""
    return await compute(connection, size, lambda reader: reader.inclusion(position))


async def consistency(connection: Any, old: int, size: int) -> list[bytes]:
    """The proof that the tree of `size` begins with the one of `old`."""
    return await compute(connection, size, lambda reader: reader.consistency(old))
