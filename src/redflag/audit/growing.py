"""A tree that is computed anew, leaf by leaf, with all that the tiles of a log must say of it."""

from __future__ import annotations

from collections.abc import Sequence

from redflag.audit import merkle
from redflag.audit.merkle import WIDTH


class _Level:
    """The rightmost tile of a level: its hashes so far, and the roots of the full subtrees over them, the largest first."""

    __slots__ = ("full", "hashes", "index")

    def __init__(self) -> None:
        self.index = 0
        self.hashes: list[bytes] = []
        self.full: list[bytes] = []


class GrowingTree:
    """A tree that only grows. `whole` holds the tiles that have become full since somebody took them, by level and index."""

    def __init__(self) -> None:
        self.size = 0
        self.whole: dict[tuple[int, int], bytes] = {}
        self._levels = [_Level()]

    def extend(self, hashes: Sequence[bytes]) -> None:
        """More leaf hashes."""
        at, end = 0, len(hashes)
        self.size += end
        while at < end:
            if end - at >= WIDTH and not self._levels[0].hashes:
                # A whole tile at once: half the time
                some = hashes[at : at + WIDTH]
                self.whole[0, self._levels[0].index] = b"".join(some)
                self._levels[0].index += 1
                self._add(1, merkle.root_of(some))
                at += WIDTH
            else:
                self._add(0, hashes[at])
                at += 1

    def _add(self, level: int, one: bytes) -> None:
        while True:
            if level == len(self._levels):
                self._levels.append(_Level())
            place = self._levels[level]
            count = len(place.hashes)
            place.hashes.append(one)
            while count & 1:
                one = merkle.node_hash(place.full.pop(), one)
                count >>= 1
            if len(place.hashes) < WIDTH:
                place.full.append(one)
                return
            self.whole[level, place.index] = b"".join(place.hashes)
            place.index, place.hashes = place.index + 1, []
            level += 1

    def partial(self) -> dict[tuple[int, int], bytes]:
        """The tiles that are not full, by level and index."""
        return {(level, one.index): b"".join(one.hashes) for level, one in enumerate(self._levels) if one.hashes}

    def root(self) -> bytes:
        """The root of what there is (RFC 6962 §2.1)."""
        found: bytes | None = None
        for level in self._levels:
            for left in reversed(level.full):
                found = left if found is None else merkle.node_hash(left, found)
        return merkle.EMPTY_ROOT if found is None else found


def tiles_ended(first: int, end: int) -> list[tuple[int, int]]:
    """The tiles that become full while a tree grows from `first` leaves to `end`, by level and index."""
    found, level, wide = [], 0, WIDTH
    while wide <= end:
        found += [(level, index) for index in range(first // wide, end // wide)]
        level, wide = level + 1, wide * WIDTH
    return found
