"""The tree: against RFC 6962's definition, against published vectors, and against itself through tiles."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redflag.audit import merkle

# The leaves and roots that the implementations of RFC 6962 test each other with
LEAVES = [bytes.fromhex(x) for x in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    k = merkle.split(len(hashes))
    return merkle.node_hash(mth(hashes[:k]), mth(hashes[k:]))


def tiles_of(hashes: list[bytes]) -> merkle.Tiles:
    """All tiles of a tree, as tlog-tiles defines them."""
    levels = [hashes]
    while len(levels[-1]) >= merkle.WIDTH:
        below = levels[-1]
        levels.append([mth(below[i : i + 256]) for i in range(0, len(below) - 255, 256)])

    def tile(level: int, index: int, width: int) -> bytes:
        found = levels[level][index * 256 : index * 256 + width]
        assert len(found) == width, "a proof asked for a hash that no tile of this tree has"
        return b"".join(found)

    return tile


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(count)]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_are_those_that_others_compute(size):
    assert merkle.root_of([merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing():
    assert merkle.Reader(0, tiles_of([])).root() == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 70_000])
def test_the_root_from_tiles_is_the_root_of_the_leaves(size):
    hashes = leaves(size)
    assert merkle.Reader(size, tiles_of(hashes)).root() == mth(hashes)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 1500), st.data())
def test_every_inclusion_proof_verifies_and_no_other_leaf_position_or_root_does(size, data):
    hashes = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    reader = merkle.Reader(size, tiles_of(hashes))
    proof, root = reader.inclusion(index), mth(hashes)
    assert merkle.verify_inclusion(hashes[index], index, size, proof, root)
    assert not merkle.verify_inclusion(merkle.leaf_hash(b"other"), index, size, proof, root)
    assert not merkle.verify_inclusion(hashes[index], index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(hashes[index], size, size, proof, root)
    if size > 1:
        assert not merkle.verify_inclusion(hashes[index], (index + 1) % size, size, proof, root)
        assert not merkle.verify_inclusion(hashes[index], index, size, proof[:-1], root)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 1500), st.data())
def test_every_consistency_proof_verifies_and_none_hides_a_change(size, data):
    hashes = leaves(size)
    old = data.draw(st.integers(0, size))
    reader = merkle.Reader(size, tiles_of(hashes))
    proof, root, old_root = reader.consistency(old), mth(hashes), mth(hashes[:old])
    assert merkle.verify_consistency(old, old_root, size, root, proof)
    assert len(proof) <= 63
    if 0 < old < size:
        changed = data.draw(st.integers(0, old - 1))
        rewritten = [merkle.leaf_hash(b"rewritten") if i == changed else one for i, one in enumerate(hashes)]
        other = merkle.Reader(size, tiles_of(rewritten))
        assert not merkle.verify_consistency(old, old_root, size, mth(rewritten), other.consistency(old))
        assert not merkle.verify_consistency(old, old_root, size, root, [*proof, root])
        assert not merkle.verify_consistency(old, old_root, size, root, proof[:-1])


@pytest.mark.parametrize(("index", "expected"), [
    (0, "tile/0/000"), (273, "tile/0/273"), (1000, "tile/0/x001/000"), (1234067, "tile/0/x001/x234/067")])  # fmt: skip
def test_a_tile_is_served_where_the_specification_says(index, expected):
    assert merkle.path(0, index) == expected
    assert merkle.path(0, index, 112) == expected + ".p/112"


def test_what_is_not_in_the_tree_has_no_proof():
    reader = merkle.Reader(5, tiles_of(leaves(5)))
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match="not in a tree of 5"):
            reader.inclusion(wrong)
    with pytest.raises(ValueError, match="not a part"):
        reader.consistency(6)
