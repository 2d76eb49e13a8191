"""What an examination of the log finds wrong, and in which words it says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from redflag.audit import canonical, merkle


@dataclass(frozen=True)
class Finding:
    """What is wrong: where, what it says, and what it should say."""

    what: str
    position: int | None = None
    record_id: str | None = None
    command_id: str | None = None
    says: str | None = None
    expected: str | None = None


class FoundError(Exception):
    """Ends the examination: the first thing that is wrong."""

    def __init__(self, what: str, **where: Any) -> None:
        self.finding = Finding(what, **where)
        super().__init__(what)


def place(row: Any) -> dict[str, Any]:
    """Where an entry of the log stands, and what it is of."""
    return {
        "position": row["position"],
        "record_id": str(row["record_id"]),
        "command_id": row["command_id"] and str(row["command_id"]),
    }


def listed(names: Iterable[str]) -> str:
    """Names in words."""
    return ", ".join(sorted(names))


def differs(row: Any, says: bytes) -> NoReturn:
    """Raises FoundError: the record is not what was logged; in which fields."""
    leaf: bytes = row["leaf"]
    try:
        logged, now = canonical.decoder.decode(leaf), canonical.decoder.decode(says)
        one, other = {**logged, **logged.pop("commitments")}, {**now, **now.pop("commitments")}
        names = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
        differ = listed(set(names) - {"commitments"}) or "its form"
    except Exception:  # a leaf that was altered may be anything
        differ = "what was logged is no leaf"
    what = f"the record says something else than what was logged: {differ}"
    raise FoundError(what, says=says.decode(errors="replace"), expected=leaf.decode(errors="replace"), **place(row))


def compare(level: int, index: int, hashed: bytes, there: bytes) -> None:
    """That a tile holds what is computed. Raises FoundError."""
    if hashed == there:
        return
    pairs = zip(merkle.hashes_of(hashed), merkle.hashes_of(there), strict=False)
    at = next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(hashed), len(there)) // merkle.HASH
    )
    what = "does not hold the hash of its leaf" if level == 0 else "does not hold the root of a tile below it"
    raise FoundError(
        f"tile {level}/{index} of the log {what}",
        position=(index * merkle.WIDTH + at) << 8 * level,
        expected=hashed[at * merkle.HASH : (at + 1) * merkle.HASH].hex(),
    )
