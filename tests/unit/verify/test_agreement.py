"""The project's own modules and the verifier agree: on canonical JSON, leaves, commitments, trees and proofs."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redflag.audit import canonical, merkle
from redflag.audit.proofs import disclosed
from unit.verify.helpers import make, refused, vector, verifier

text = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | text | st.integers(1 - 2**53, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
times = st.datetimes(timezones=st.just(datetime.UTC)) | st.none()
database_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def leaves(count):
    return [merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(count)]


@settings(max_examples=500, deadline=None)
@given(values)
def test_canonical_json_is_the_same_bytes_and_reads_back(value):
    encoded = canonical.encode(value)
    assert verifier.canonical(value) == encoded
    assert verifier.parse_canonical(encoded, "") == value


@settings(max_examples=300, deadline=None)
@given(values, st.binary(min_size=32, max_size=32), st.sampled_from(canonical.COMMITTED))
def test_commitments_are_the_same(value, root, field):
    salt = canonical.salt_of(root, field)
    assert verifier.commitment(salt, value) == canonical.commit(salt, value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_leaf_that_the_project_makes_is_accepted_with_its_values(data):
    optional = {
        name: data.draw(strategy | st.none())
        for name, strategy in {
            "command_type": database_text, "action": database_text, "message": database_text, "stdout": database_text,
            "stderr": database_text, "params": st.dictionaries(text, values, max_size=3),
            "exit_code": st.integers(-(2**31), 2**31 - 1), "duration_seconds": st.integers(0, 2**31 - 1),
            "sent_at": times, "completed_at": times, "agent_id": st.uuids(),
        }.items()
    }  # fmt: skip
    one = make.record(
        data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 7) | st.none()), **optional,
        actor=data.draw(database_text), metadata=data.draw(st.dictionaries(text | st.just("address"), values, max_size=3)),
        created_at=data.draw(times.filter(bool)),
    )  # fmt: skip
    leaf = canonical.leaf(one)
    assert canonical.leaf_of_columns(as_columns(one)) == leaf
    read = verifier.read_leaf(leaf, "leaf")
    glanced = verifier.glance(leaf, 0)
    assert all(read[name] == value for name, value in glanced.items())
    assert ("version" in glanced) == (read.get("version") is not None and "command_id" in read)
    assert verifier.leaf_hash(leaf) == merkle.leaf_hash(leaf)
    shown, salts = disclosed(one)
    # As they come out of a file: through canonical JSON
    shown = verifier.parse_canonical(canonical.encode(shown), "")
    assert verifier.check_disclosed(read, salts, shown, "leaf") == sorted(read["commitments"])


def as_columns(record, **texts):
    """A record as a query gives it: its JSON is text."""
    dumped = {
        name: None if record[name] is None else json.dumps(record[name], ensure_ascii=False)
        for name in ("params", "metadata")
    }
    return tuple((record | dumped | texts)[name] for name in canonical.ROW)


JSON = ["null", "{}", "7", '"x"', "[]", "1.50", '{"address": null}', '{"address": {"b": 1, "a": 0.50}}', " {}"]


@pytest.mark.parametrize("told", JSON)
@pytest.mark.parametrize("column", ["params", "metadata"])
def test_whatever_json_a_column_has_its_row_gives_the_leaf_of_its_record(column, told):
    record = make.record(3, 0)
    leaf = canonical.leaf(record | {column: canonical.decoder.decode(told)})
    assert canonical.leaf_of_columns(as_columns(record, **{column: told})) == leaf


def test_a_time_is_spelled_with_microseconds_in_utc_wherever_it_stands():
    zone = datetime.timezone(datetime.timedelta(hours=5))
    for name in ("created_at", "executed_at", "sent_at", "completed_at"):
        for told, spelled in (
            (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05.000000Z"),
            (datetime.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=zone), "2026-01-01T22:04:05.000600Z"),
        ):
            record = make.record(3, 3, **{name: told})
            leaf = canonical.leaf(record)
            assert json.loads(leaf)[name] == spelled
            assert canonical.leaf_of_columns(as_columns(record)) == leaf


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 299), st.integers(0, 10_000), st.integers(1, 255))
def test_a_glance_at_a_leaf_refuses_what_a_full_look_refuses(number, place, change):
    leaf = bytearray(canonical.leaf(make.record(number, number % 4)))
    leaf[place % len(leaf)] ^= change
    full = refused(verifier.read_leaf, bytes(leaf), "position 0")
    assert refused(verifier.glance, bytes(leaf), 0) == full


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1200), st.data())
def test_trees_roots_and_proofs_are_the_same(size, data):
    hashes = leaves(size)
    reader = merkle.Reader(size, make.tiles_of(hashes))
    root = merkle.root_of(hashes)
    growing = verifier.Growing()
    for one in hashes:
        growing.add(one)
    assert root == verifier.root_of(hashes) == growing.root() == verifier.fold(verifier.full_subtrees(hashes))
    old = data.draw(st.integers(0, size))
    assert verifier.verify_consistency(old, merkle.root_of(hashes[:old]), size, root, reader.consistency(old))
    if size:
        index = data.draw(st.integers(0, size - 1))
        assert verifier.verify_inclusion(hashes[index], index, size, reader.inclusion(index), root)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 600), st.integers(0, 600), st.lists(st.binary(min_size=32, max_size=32), max_size=12), st.booleans()
)
def test_both_judge_made_up_proofs_alike(size, index, proof, right):
    hashes = leaves(size)
    root = merkle.root_of(hashes)
    leaf = hashes[index % size]
    if right and index < size:
        proof = merkle.Reader(size, make.tiles_of(hashes)).inclusion(index) + proof[:1]
    assert verifier.verify_inclusion(leaf, index, size, proof, root) == merkle.verify_inclusion(
        leaf, index, size, proof, root
    )
    old_root = merkle.root_of(hashes[:index])
    assert verifier.verify_consistency(index, old_root, size, root, proof) == merkle.verify_consistency(
        index, old_root, size, root, proof
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 700), st.data())
def test_any_subset_of_leaves_gives_the_root_and_no_other_subset_does(size, data):
    hashes = leaves(size)
    positions = sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=30)))
    proof = make.multiproof(merkle.Reader(size, make.tiles_of(hashes)), positions)
    some = [(position, hashes[position]) for position in positions]
    root = merkle.root_of(hashes)
    assert verifier.root_of_subset(size, iter(some), iter(proof)) == root
    assert refused(verifier.root_of_subset, size, iter(some), iter([*proof, root]))
    if proof:
        assert refused(verifier.root_of_subset, size, iter(some), iter(proof[:-1]))
    if some:
        at = data.draw(st.integers(0, len(some) - 1))
        altered = [*some[:at], (some[at][0], merkle.leaf_hash(b"altered")), *some[at + 1 :]]
        assert verifier.root_of_subset(size, iter(altered), iter(proof)) != root
        fewer = iter([*some[:at], *some[at + 1 :]])
        with contextlib.suppress(verifier.NotVerified):
            assert verifier.root_of_subset(size, fewer, iter(proof)) != root


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1100), st.data())
def test_tiles_give_the_proofs_that_the_project_gives(tmp_path_factory, size, data):
    hashes = leaves(size)
    tile = make.tiles_of(hashes)
    old = data.draw(st.integers(0, size))

    class Tiles(verifier.Tiles):
        def hashes(self, level, index, width):
            return merkle.hashes_of(tile(level, index, width))

    assert Tiles(tmp_path_factory.getbasetemp(), size).consistency(old) == merkle.Reader(size, tile).consistency(old)


@pytest.mark.parametrize("index", [0, 273, 999, 1000, 1234067])
@pytest.mark.parametrize("width", [256, 112])
def test_tiles_stand_where_the_project_serves_them(index, width):
    for level in ("0", "entries"):
        assert verifier.tile_path(level, index, width) == merkle.path(level, index, width)


def test_the_published_tree_of_eight_leaves():
    told = vector("merkle.json")
    hashes = [verifier.leaf_hash(bytes.fromhex(leaf)) for leaf in told["leaves"]]
    # The root over these leaves that the implementations of RFC 6962 publish
    assert told["roots"][8] == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    for size, root in enumerate(told["roots"]):
        assert verifier.root_of(hashes[:size]).hex() == root
    for case in told["inclusion"]:
        proof, root = [bytes.fromhex(one) for one in case["proof"]], bytes.fromhex(told["roots"][case["size"]])
        assert verifier.verify_inclusion(hashes[case["index"]], case["index"], case["size"], proof, root)
        assert not verifier.verify_inclusion(hashes[case["index"]], case["index"] + 1, case["size"], proof, root)
    for case in told["consistency"]:
        proof = [bytes.fromhex(one) for one in case["proof"]]
        roots = [bytes.fromhex(told["roots"][case[name]]) for name in ("old", "size")]
        assert verifier.verify_consistency(case["old"], roots[0], case["size"], roots[1], proof)
        assert not verifier.verify_consistency(case["old"], bytes(32), case["size"], roots[1], proof)
    for case in told["subsets"]:
        some = ((position, hashes[position]) for position in case["positions"])
        proof = iter([bytes.fromhex(one) for one in case["proof"]])
        assert verifier.root_of_subset(case["size"], some, proof).hex() == told["roots"][case["size"]]


def test_an_entry_beyond_the_tree_or_in_no_order_is_no_part_of_it():
    hashes = leaves(3)
    assert "not in the tree" in refused(
        verifier.root_of_subset, 3, iter([(3, hashes[0])]), iter([verifier.root_of(hashes)])
    )
    assert refused(verifier.root_of_subset, 0, iter([(0, hashes[0])]), iter([]))


def test_canonical_vectors_are_judged_as_they_say():
    told = vector("canonical.json")
    for case in told["valid"]:
        assert verifier.canonical(case["value"]).decode() == case["canonical"]
        assert verifier.parse_canonical(case["canonical"].encode(), "") == case["value"]
    for case in told["invalid"]:
        assert refused(verifier.parse_canonical, case["text"].encode("utf-8", "surrogatepass"), "text"), case
    for text_, reason in make.NOT_CANONICAL:
        assert refused(verifier.parse_canonical, text_.encode("utf-8", "surrogatepass"), "text"), reason


def test_leaf_vectors_are_judged_as_they_say():
    told = vector("leaves.json")
    for case in told["valid"]:
        leaf = case["leaf"].encode()
        read = verifier.read_leaf(leaf, "leaf")
        assert verifier.leaf_hash(leaf).hex() == case["leaf_hash"]
        assert verifier.check_disclosed(read, case["salts"], case["values"], "leaf") == sorted(read["commitments"])
        for field, salt in case["salts"].items():
            assert base64.b64decode(salt) == canonical.salt_of(bytes.fromhex(case["root_salt"]), field)
    for case in told["invalid"]:
        assert refused(verifier.read_leaf, case["leaf"].encode(), "leaf"), case["reason"]
        assert refused(verifier.glance, case["leaf"].encode(), 0), case["reason"]


def test_a_name_that_stands_twice_is_named():
    assert "'a' stands twice" in refused(verifier.parse_canonical, b'{"a":1,"a":1}', "text")


def test_what_msgspec_and_json_read_of_a_leaf_is_the_same():
    leaf = canonical.leaf(make.record(3, 3))
    assert json.loads(leaf) == verifier.read_leaf(leaf, "") == canonical.decoder.decode(leaf)
