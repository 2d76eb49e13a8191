"""What the log serves: checkpoints, tiles and entry bundles (C2SP tlog-tiles). Nothing beyond the newest checkpoint is shown."""

from __future__ import annotations

import re
from typing import Any

from redflag.audit import cosignatures, merkle, sequencer, tree
from redflag.errors import InvalidInput, NotFound

_PATH = re.compile(r"((?:x\d{3}/)*)(\d{3})(?:\.p/([1-9]\d{0,2}))?")


def parse(path: str) -> tuple[int, int]:
    """Index and width of a tile's path: x001/x234/067.p/112 is (1234067, 112). Raises InvalidInput."""
    matched = _PATH.fullmatch(path)
    if not matched or len(path) > 40:
        raise InvalidInput(f"{path[:60]!r} is no tile's path", "See C2SP tlog-tiles")
    index = int(matched[1].replace("x", "").replace("/", "") + matched[2])
    width = int(matched[3]) if matched[3] else merkle.WIDTH
    if merkle.path(0, index, width) != f"tile/0/{path}" or (matched[3] and not 0 < width < merkle.WIDTH):
        raise InvalidInput(f"{path[:60]!r} is no tile's path", "See C2SP tlog-tiles")
    return index, width


async def checkpoint(connection: Any, quorum: int = 0) -> str:
    """The newest checkpoint that `quorum` witnesses or more have cosigned, with all its cosignatures.

    Raises NotFound while there is none.
    """
    row = await cosignatures.newest(connection, quorum)
    if row is None and quorum:
        raise NotFound(f"No checkpoint has been cosigned by {quorum} yet", "See `redflag audit targets list`")
    if row is None:
        raise NotFound("No checkpoint has been signed yet", "Try again in two seconds")
    note: str = row["cosigned"]
    return note


async def _published(connection: Any) -> int:
    row = await sequencer.sql.newest_checkpoint.one(connection)
    return row["size"] if row else 0


async def tile(connection: Any, level: int, index: int, width: int) -> bytes:
    """The first `width` hashes of a tile. Raises NotFound for what no checkpoint covers."""
    if not 0 <= level <= 63 or index * merkle.WIDTH + width > await _published(connection) >> 8 * level:
        raise NotFound(
            f"No tile {merkle.path(level, index, width)} in the newest checkpoint", "Fetch the checkpoint first"
        )
    found = await tree.fetch(connection, [(level, index)])
    return found[level, index][: width * merkle.HASH]


async def bundle(connection: Any, index: int, width: int) -> bytes:
    """An entry bundle: leaves, each after its length in 16 bits. Raises NotFound for what no checkpoint covers, or was pruned."""
    first = index * merkle.WIDTH
    if first + width > await _published(connection):
        raise NotFound(
            f"No bundle {merkle.path('entries', index, width)} in the newest checkpoint", "Fetch the checkpoint first"
        )
    rows = await sequencer.sql.entries.all(connection, first=first, end=first + width)
    if len(rows) < width and first < (pruned := (await sequencer.sql.state.one(connection))["pruned"]):
        raise NotFound(
            f"Entries below {pruned} were pruned: this is the log's minimum index",
            "The tiles over them are served as before; they themselves are in archived evidence bundles",
        )
    return b"".join(len(row["leaf"]).to_bytes(2, "big") + row["leaf"] for row in rows)
