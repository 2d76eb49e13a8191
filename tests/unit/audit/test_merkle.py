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

# Their proofs over these leaves, by position and size, and by old and new size
_96, _5F, _6B, _BC, _CA, _D3, _FA, _6E, _0E, _B0 = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
)
INCLUSION: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 1): (), (0, 8): (_96, _5F, _6B), (5, 8): (_BC, _CA, _D3), (2, 3): (_FA,), (1, 5): (_6E, _5F, _BC)}  # fmt: skip
CONSISTENCY: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 1): (), (1, 8): (_96, _5F, _6B), (6, 8): (_0E, _CA, _D3), (2, 5): (_5F, _BC), (6, 7): (_0E, _B0, _D3)}  # fmt: skip

# RFC 6962 §2.1.3: the tree of seven leaves with the nodes named as there, and the proofs that the section spells out
EXAMPLE = {
    "inclusion": {(0, 7): "bhl", (3, 7): "cgl", (4, 7): "fjk", (6, 7): "ik"},
    "consistency": {(3, 7): "cdgl", (4, 7): "l", (6, 7): "ijk"},
}


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


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_that_others_compute(index, size):
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]
    proof, root = [bytes.fromhex(one) for one in INCLUSION[index, size]], bytes.fromhex(ROOTS[size - 1])
    assert merkle.Reader(size, tiles_of(hashes)).inclusion(index) == proof
    assert merkle.verify_inclusion(hashes[index], index, size, proof, root)
    # What they try a verifier with
    for wrong_index, wrong_size in (
        (index - 1, size),
        (index + 1, size),
        (index ^ 2, size),
        (index, size * 2),
        (index, size // 2),
    ):
        assert not merkle.verify_inclusion(hashes[index], wrong_index, wrong_size, proof, root)
    for wrong in _corrupted(proof, root, hashes[index]):
        assert not merkle.verify_inclusion(hashes[index], index, size, wrong, root)
    for wrong_leaf, wrong_root in ((b"WrongLeaf", root), (hashes[index], merkle.EMPTY_ROOT), (hashes[index], b"")):
        assert not merkle.verify_inclusion(wrong_leaf, index, size, proof, wrong_root)


@pytest.mark.parametrize(("old", "size"), CONSISTENCY)
def test_consistency_proofs_are_those_that_others_compute(old, size):
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]
    proof = [bytes.fromhex(one) for one in CONSISTENCY[old, size]]
    old_root, root = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[size - 1])
    assert merkle.Reader(size, tiles_of(hashes)).consistency(old) == proof
    assert merkle.verify_consistency(old, old_root, size, root, proof)
    for wrong in _corrupted(proof, root, old_root):
        assert not merkle.verify_consistency(old, old_root, size, root, wrong)
    if old < size:
        for wrong_old, wrong_size in (
            (old - 1, size),
            (old + 1, size),
            (old ^ 2, size),
            (old, size * 2),
            (old, size // 2),
        ):
            assert not merkle.verify_consistency(wrong_old, old_root, wrong_size, root, proof)
        for roots in ((b"WrongRoot", root), (old_root, b"WrongRoot"), (root, old_root)):
            assert not merkle.verify_consistency(old, roots[0], size, roots[1], proof)


def _corrupted(proof: list[bytes], *others: bytes) -> list[list[bytes]]:
    """A proof with something before, after, missing, or with a bit altered."""
    found = [*([*proof, other] for other in (b"", *others)), *([other, *proof] for other in (b"", *others))]
    if proof:
        found += [proof[:-1], proof[1:], []]
    for i, one in enumerate(proof):
        found.append([*proof[:i], bytes([one[0] ^ 16]) + one[1:], *proof[i + 1 :]])
    return found


@pytest.mark.parametrize("what", EXAMPLE)
def test_the_example_of_the_rfc(what):
    d = [merkle.leaf_hash(leaf) for leaf in LEAVES[:7]]
    node = dict(zip("abcdefj", d, strict=True))
    for name, children in {"g": "ab", "h": "cd", "i": "ef", "k": "gh", "l": "ij"}.items():
        node[name] = merkle.node_hash(*(node[child] for child in children))
    reader = merkle.Reader(7, tiles_of(d))
    assert reader.root() == merkle.node_hash(node["k"], node["l"])
    for (place, size), named in EXAMPLE[what].items():
        assert size == 7
        assert getattr(reader, what)(place) == [node[name] for name in named]


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
