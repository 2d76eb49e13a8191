"""The tree over the leaves: RFC 6962 hashing, kept as C2SP tlog-tiles.

    leaf hash = SHA-256(0x00 || leaf)         node hash = SHA-256(0x01 || left || right)       RFC 6962 §2.1

A tile holds up to 256 hashes of one level; a full tile's root is one hash of the level above (tlog-tiles, "Merkle Tree").
Everything here is a function of hashes: where tiles are kept is not this module's matter. `Tiles` is whatever can give
the hashes of a tile. Roots, inclusion and consistency proofs need O(log n) tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

WIDTH = 256
HEIGHT = 8
HASH = 32

EMPTY_ROOT = hashlib.sha256().digest()

# (level, index, width) → the first `width` hashes of that tile, concatenated
Tiles = Callable[[int, int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962 §2.1: the hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 §2.1: the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two that is smaller than `size` (RFC 6962 §2.1, k)."""
    return 1 << (size - 1).bit_length() - 1


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root of a tree of these leaf hashes. Of none: the hash of nothing."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def hashes_of(tile: bytes) -> list[bytes]:
    """The hashes that a tile concatenates."""
    return [tile[i : i + HASH] for i in range(0, len(tile), HASH)]


def path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Where a tile or an entry bundle (`level` "entries") is served: tile/0/x001/x234/067, with .p/W if it is partial."""
    parts = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if width < WIDTH else "")


class Reader:
    """Subtree hashes of a tree of `size` leaves, computed from its tiles. Each tile is asked for once."""

    def __init__(self, size: int, tiles: Tiles) -> None:
        self.size = size
        self._tiles = tiles
        self._read: dict[tuple[int, int], list[bytes]] = {}

    def _hash(self, level: int, index: int) -> bytes:
        """The hash of the `index`-th full subtree of 256**level leaves."""
        tile = (level, index // WIDTH)
        if tile not in self._read:
            count = self.size >> (HEIGHT * level)
            width = min(WIDTH, count - tile[1] * WIDTH)
            self._read[tile] = hashes_of(self._tiles(level, tile[1], width))
        return self._read[tile][index % WIDTH]

    def subtree(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) of RFC 6962 §2.1, for ranges that a proof asks for: aligned to their own size, or ending the tree."""
        count = end - begin
        if count == 1:
            return self._hash(0, begin)
        if count & (count - 1) == 0:
            # A full subtree of 2**k leaves: the hashes of the highest level that has some, paired
            level = min((count.bit_length() - 1) // HEIGHT, 63)
            wide = 1 << (HEIGHT * level)
            return root_of([self._hash(level, begin // wide + i) for i in range(count // wide)])
        middle = begin + split(count)
        return node_hash(self.subtree(begin, middle), self.subtree(middle, end))

    def root(self) -> bytes:
        """The tree's root."""
        return self.subtree(0, self.size) if self.size else EMPTY_ROOT

    def inclusion(self, index: int) -> list[bytes]:
        """PATH(index, D[size]) of RFC 6962 §2.1.1, from the leaf's sibling up."""
        if not 0 <= index < self.size:
            raise ValueError(f"position {index} is not in a tree of {self.size}")
        begin, end, proof = 0, self.size, []
        while end - begin > 1:
            middle = begin + split(end - begin)
            if index < middle:
                proof.append(self.subtree(middle, end))
                end = middle
            else:
                proof.append(self.subtree(begin, middle))
                begin = middle
        return proof[::-1]

    def consistency(self, old: int) -> list[bytes]:
        """PROOF(old, D[size]) of RFC 6962 §2.1.2. Empty for an old size of 0 or of today."""
        if not 0 <= old <= self.size:
            raise ValueError(f"a tree of {old} is not a part of one of {self.size}")
        if old in {0, self.size}:
            return []
        begin, end, proof, whole = 0, self.size, [], True
        while old - begin != end - begin:
            middle = begin + split(end - begin)
            if old <= middle:
                proof.append(self.subtree(middle, end))
                end = middle
            else:
                proof.append(self.subtree(begin, middle))
                begin = middle
                whole = False
        return ([] if whole else [self.subtree(begin, end)]) + proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf hash stands at `index` of the tree with that size and root (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and found == root


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `size` begins with the one of `old` (RFC 9162 §2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            second = node_hash(second, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == root
