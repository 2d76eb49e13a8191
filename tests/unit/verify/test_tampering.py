"""Every change to a proof, a bundle, a log or a pair of checkpoints is found, and clean ones verify.

Bundles are changed in two ways: as by anybody (the manifest then disagrees), and as by whoever has the log's key and makes a
new manifest (the tree then disagrees).
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re

import pytest

from redflag.audit import canonical, merkle
from unit.verify.helpers import (
    KEY,
    TRUST,
    bundle_refused,
    log_refused,
    make,
    proof_refused,
    refused,
    run,
    verifier,
    write_log,
)

LOG = make.Log.of(make.records(300))
FORGED = make.Log.of([one | {"result": "success"} if i == 150 else one for i, one in enumerate(LOG.records)])
PROOF = LOG.proof(103).encode()
SPAN = list(range(140, 160))


def flipped(data: bytes, place: int, bits: int = 1) -> bytes:
    return bytes([*data[:place], data[place] ^ bits, *data[place + 1 :]])


def with_extra(proof: bytes, change) -> bytes:
    """The proof with its extra data changed."""
    lines = proof.split(b"\n")
    told = json.loads(base64.b64decode(lines[1][6:]))
    told = change(told) or told
    lines[1] = b"extra " + base64.b64encode(told if isinstance(told, bytes) else canonical.encode(told))
    return b"\n".join(lines)


# Proofs


def test_a_clean_proof_verifies():
    for position in (0, 1, 22, 103, 255, 256, 298, 299):
        assert not proof_refused(LOG.proof(position).encode())
    assert not proof_refused(LOG.proof(0, 1).encode())


def test_every_byte_of_a_proof_counts():
    # Outside the salt of a value everything is either hashed, signed or spelled in one way
    for place in range(len(PROOF)):
        assert proof_refused(flipped(PROOF, place, 1 << place % 8)), place


def test_every_truncation_of_a_proof_is_found():
    assert all(proof_refused(PROOF[:end]) for end in range(0, len(PROOF), 7))


def renamed(told):
    for part in (told["salts"], told["values"]):
        part["stdout"] = part.pop("stderr")


def added(told):
    told["salts"]["params"], told["values"]["params"] = told["salts"]["actor"], {}


def removed(_):
    """What was popped is no new value for the whole."""


PROOF_CHANGES = {
    "a value": lambda told: told["values"].update(message="all is well"),
    "a value's type": lambda told: told["values"].update(stdout=1),
    "a salt": lambda told: told["salts"].update(message=told["salts"]["actor"]),
    "a salt cut short": lambda told: told["salts"].update(message="AAAA"),
    "a field renamed": renamed,
    "a field added": added,
    "a salt without its value": lambda told: removed(told["values"].pop("message")),
    "a value without its salt": lambda told: removed(told["salts"].pop("message")),
    "another member": lambda told: told.update(more=1),
    "no salts": lambda told: removed(told.pop("salts")),
    "the leaf's result": lambda told: told.update(
        leaf=re.sub('"result":"[a-z_]+"', '"result":"success"', told["leaf"])
    ),
    "the leaf of a neighbour": lambda told: told.update(leaf=LOG.leaves[104].decode()),
    "the leaf with a space": lambda told: told.update(leaf=told["leaf"].replace(":", ": ", 1)),
    "the leaf as an object": lambda told: told.update(leaf=json.loads(told["leaf"])),
    "a fraction": lambda told: b'{"leaf":"","salts":{},"values":{"a":1.5}}',
    "a name twice": lambda told: b'{"leaf":"","leaf":"","salts":{},"values":{}}',
    "very deep": lambda told: b'{"leaf":"","salts":{},"values":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    "rather deep": lambda told: b'{"leaf":"","salts":{},"values":{"a":' + b"[" * 70 + b"]" * 70 + b"}}",
}


@pytest.mark.parametrize("name", PROOF_CHANGES)
def test_a_change_of_what_a_proof_shows_is_found(name):
    changed = with_extra(PROOF, PROOF_CHANGES[name])
    assert changed != PROOF
    assert proof_refused(changed)


def test_a_value_and_its_salt_may_be_withheld_and_that_is_said():
    def withhold(told):
        del told["values"]["stdout"], told["salts"]["stdout"]

    report = verifier.Report()
    verifier.verify_proof(with_extra(PROOF, withhold), TRUST, report)
    assert "position 103: stdout: not shown (withheld or erased)" in report.not_checked
    assert not any("stdout" in line for line in report.checked)


def test_a_proof_whose_place_or_checkpoint_is_another_is_found():
    older = LOG.checkpoint(200).encode()
    head = PROOF.partition(b"\n\n")[0]
    hashes = head.split(b"\n")
    assert proof_refused(PROOF.replace(b"index 103", b"index 104"))
    assert proof_refused(PROOF.replace(b"index 103", b"index 0103"))
    assert proof_refused(PROOF.replace(b"index 103", b"index 10300000000000000000000"))
    assert proof_refused(head + b"\n\n" + older)
    assert proof_refused(head + b"\n\n" + LOG.checkpoint(signer=make.OTHER).encode())
    assert proof_refused(b"\n".join([*hashes[:-1]]) + b"\n\n" + LOG.checkpoint().encode())
    assert proof_refused(
        b"\n".join([*hashes[:3], hashes[4], hashes[3], *hashes[5:]]) + b"\n\n" + LOG.checkpoint().encode()
    )
    assert proof_refused(b"\n".join([*hashes, *hashes[3:] * 9]) + b"\n\n" + LOG.checkpoint().encode())
    assert "does not stand at this position" in proof_refused(FORGED.proof(150, note=LOG.checkpoint()).encode())


def test_a_leaf_may_be_given_besides_the_proof(capsys, tmp_path):
    bare = re.sub(rb"extra [^\n]+\n", b"", PROOF)
    (tmp_path / "proof").write_bytes(bare)
    (tmp_path / "leaf").write_bytes(LOG.leaves[103])
    (tmp_path / "other").write_bytes(LOG.leaves[104])
    assert run(capsys, "proof", tmp_path / "proof")[0] == 1
    assert run(capsys, "proof", tmp_path / "proof", "--leaf", tmp_path / "leaf")[0] == 0
    assert run(capsys, "proof", tmp_path / "proof", "--leaf", tmp_path / "other")[0] == 1
    (tmp_path / "proof").write_bytes(PROOF)
    assert run(capsys, "proof", tmp_path / "proof", "--leaf", tmp_path / "other")[0] == 1


# Bundles


def manifest_of(files: dict[str, bytes]) -> dict:
    return json.loads(files["manifest.json"])


def resealed(files: dict[str, bytes], **changes) -> dict[str, bytes]:
    """The files with a new manifest under the log's own key: what the log's operator could do."""
    manifest = manifest_of(files)
    manifest["completeness"] |= changes
    return make.sealed(files, manifest)


@pytest.fixture(scope="module")
def clean() -> dict[str, bytes]:
    return make.bundle_files(LOG, SPAN, old=90, extra={"report.html": b"<p>hi</p>", "redflag_verify.py": b"pass\n"})


@pytest.mark.parametrize(("positions", "filters"), [
    (SPAN, None), (list(range(300)), None), ([0], None), ([299], None), ([], None), ([], {"kind": "access"}),
    (list(range(0, 300, 7)), {"kind": "transition"}), ([255, 256], {"agent": "x"}), (list(range(200, 300)), {"x": [1, None]}),
])  # fmt: skip
def test_a_clean_bundle_verifies(tmp_path, positions, filters):
    assert not bundle_refused(tmp_path / "b.zip", make.bundle_files(LOG, positions, filters=filters))
    withheld = make.bundle_files(LOG, positions, filters=filters, withheld=["stdout", "actor"])
    assert not bundle_refused(tmp_path / "b.zip", withheld)


def test_a_bundle_of_a_tree_of_any_size_verifies(tmp_path):
    for size in (1, 2, 3, 7, 8, 64, 255, 256, 257):
        assert not bundle_refused(tmp_path / "b.zip", make.bundle_files(LOG, list(range(size // 2, size)), size=size))


def test_any_byte_of_any_file_of_a_bundle_counts(tmp_path, clean):
    source = random.Random(4)
    for name, data in clean.items():
        places = range(len(data)) if len(data) < 40 else sorted(source.sample(range(len(data)), 40))
        for place in places:
            found = bundle_refused(tmp_path / "b.zip", clean | {name: flipped(data, place, 1 << source.randrange(8))})
            assert found, (name, place)
        assert bundle_refused(tmp_path / "b.zip", clean | {name: data[:-1]}), name
        assert bundle_refused(tmp_path / "b.zip", clean | {name: data + b"\n"}), name
        assert bundle_refused(tmp_path / "b.zip", {one: two for one, two in clean.items() if one != name}), name


def test_any_byte_of_what_is_proven_counts_even_under_a_new_manifest_by_the_logs_own_key(tmp_path, clean):
    source = random.Random(5)
    assert not bundle_refused(tmp_path / "b.zip", resealed(clean))
    for name in ("checkpoint", "entries.jsonl", "leaves", "proof"):
        for place in sorted(source.sample(range(len(clean[name])), 100)):
            changed = clean | {name: flipped(clean[name], place, 1 << source.randrange(8))}
            assert bundle_refused(tmp_path / "b.zip", resealed(changed)), (name, place)


def lines_changed(change):
    """A change of the entries' lines, made alike in `leaves`."""

    def alter(files):
        entries, leaves = files["entries.jsonl"].splitlines(keepends=True), files["leaves"].splitlines(keepends=True)
        files["entries.jsonl"], files["leaves"] = b"".join(change(entries)), b"".join(change(leaves))

    return alter


ENTRY_CHANGES = {
    "swapped": lines_changed(lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]]),
    "reversed": lines_changed(lambda lines: lines[::-1]),
    "dropped": lines_changed(lambda lines: [*lines[:4], *lines[5:]]),
    "dropped at the beginning": lines_changed(lambda lines: lines[1:]),
    "dropped at the end": lines_changed(lambda lines: lines[:-1]),
    "doubled": lines_changed(lambda lines: [*lines[:5], *lines[4:]]),
    "none left": lines_changed(lambda lines: []),
    "last line cut": lambda files: files.update({"entries.jsonl": files["entries.jsonl"][:-20]}),
    "an empty line": lambda files: files.update({"entries.jsonl": files["entries.jsonl"] + b"\n"}),
    "positions exchanged": lambda files: files.update({"entries.jsonl": files["entries.jsonl"].replace(
        b'"position":144,', b'"position":1440,').replace(b'"position":145,', b'"position":144,')}),
    "a position as text": lambda files: files.update({"entries.jsonl": files["entries.jsonl"].replace(
        b'"position":144,', b'"position":"144",')}),
    "a value": lambda files: files.update({"entries.jsonl": files["entries.jsonl"].replace(b"user:ada", b"user:eve", 1)}),
    "a result": lambda files: files.update({"entries.jsonl": files["entries.jsonl"].replace(b"timed_out", b"completed", 1)}),
    "a field renamed": lambda files: files.update({"entries.jsonl": files["entries.jsonl"].replace(b'"stdout"', b'"stdoux"')}),
    "a proof's hash dropped": lambda files: files.update({"proof": files["proof"].rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n"}),
    "a proof's hash added": lambda files: files.update({"proof": files["proof"] + files["proof"].splitlines()[-1] + b"\n"}),
    "a proof's hashes exchanged": lambda files: files.update({"proof": b"".join(
        [*files["proof"].splitlines(keepends=True)[:2], *files["proof"].splitlines(keepends=True)[:1:-1]])}),
    "another size": lambda files: files.update({"proof": files["proof"].replace(b"size 300", b"size 299")}),
    "the proof of other positions": lambda files: files.update({"proof": make.bundle_files(LOG, SPAN[1:])["proof"]}),
    "an older checkpoint": lambda files: files.update({"checkpoint": LOG.checkpoint(200).encode()}),
    "a checkpoint by another key": lambda files: files.update({"checkpoint": LOG.checkpoint(signer=make.OTHER).encode()}),
    "a checkpoint of another tree": lambda files: files.update({"checkpoint": FORGED.checkpoint().encode()}),
    "entries of another tree": lambda files: files.update(
        {name: make.bundle_files(FORGED, SPAN)[name] for name in ("entries.jsonl", "leaves")}),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRY_CHANGES)
@pytest.mark.parametrize("by", ["anybody", "the log's operator"])
def test_a_change_of_a_bundles_entries_is_found(tmp_path, clean, name, by):
    if by == "anybody":
        changed = dict(clean)
        ENTRY_CHANGES[name](changed)
    else:
        changed = make.bundle_files(LOG, SPAN, alter=ENTRY_CHANGES[name])
    assert changed["entries.jsonl"] != clean["entries.jsonl"] or any(
        changed[one] != clean[one] for one in ("proof", "checkpoint")
    )
    assert bundle_refused(tmp_path / "b.zip", changed)


def test_the_entry_that_was_altered_is_named_with_what_was_signed(tmp_path, clean, capsys):
    def told_of(changed):
        (tmp_path / "b.zip").write_bytes(make.zipped(changed.items()))
        code, told = run(capsys, "bundle", tmp_path / "b.zip")
        assert code == 1
        return told["problem"]

    entries = clean["entries.jsonl"].splitlines(keepends=True)
    line = (
        entries[5]
        .replace(b'\\"exit_code\\":', b'\\"exit_code\\":7', 1)
        .replace(b"install_updates", b"install_updatez", 1)
    )
    told = told_of(clean | {"entries.jsonl": b"".join([*entries[:5], line, *entries[6:]])})
    assert told["where"] == "position 145"
    assert LOG.records[145]["id"].hex[:8] in told["says"]
    assert base64.b64encode(merkle.leaf_hash(LOG.leaves[145])).decode() in told["expected"]
    told = told_of(clean | {"entries.jsonl": b"".join([*entries[:5], *entries[6:]])})
    assert (told["where"], told["what"]) == ("position 145", "an entry was left out")
    told = told_of(clean | {"entries.jsonl": clean["entries.jsonl"].replace(b"user:ada", b"user:eve", 1)})
    assert "its commitment differs" in told["what"]
    assert re.fullmatch(r"position 1\d\d, actor", told["where"])


def test_a_bundle_that_claims_to_be_complete_may_leave_out_nothing(tmp_path):
    gap = [*SPAN[:9], *SPAN[10:]]
    assert "positions are missing" in bundle_refused(tmp_path / "b.zip", make.bundle_files(LOG, gap))
    filtered = make.bundle_files(LOG, gap, filters={"kind": "x"})
    assert not bundle_refused(tmp_path / "b.zip", filtered)
    for wrong in ({"filtered": False}, {"count": 18}, {"count": True}, {"first_position": 0}, {"last_position": 200}):
        assert bundle_refused(tmp_path / "b.zip", resealed(filtered, **wrong)), wrong


def test_a_manifest_of_another_shape_log_or_key_is_refused(tmp_path, clean):
    manifest = manifest_of(clean)
    for wrong in (
        {"format": "redflag evidence/v2"}, {"origin": "other.example"}, {"more": 1}, {"filters": []}, {"period": {}},
        {"period": {"since": "yesterday", "until": None}}, {"completeness": {}}, {"filters": {"kind": "x"}},
    ):  # fmt: skip
        assert bundle_refused(tmp_path / "b.zip", make.sealed(clean, manifest | wrong)), wrong
    assert bundle_refused(tmp_path / "b.zip", make.sealed(clean, manifest, make.private_key("another log")))
    other = make.sign_text("redflag evidence/v1\n" + "0" * 64 + "\n").encode()
    assert bundle_refused(tmp_path / "b.zip", clean | {"manifest.sig": other})
    assert bundle_refused(tmp_path / "b.zip", clean | {"manifest.sig": clean["checkpoint"]})
    spaced = clean["manifest.json"].replace(b":", b": ", 1)
    signed = make.sign_text(f"redflag evidence/v1\n{hashlib.sha256(spaced).hexdigest()}\n").encode()
    assert "canonical" in bundle_refused(tmp_path / "b.zip", clean | {"manifest.json": spaced, "manifest.sig": signed})


def test_a_bundles_own_key_decides_nothing(tmp_path):
    files = make.bundle_files(LOG, SPAN, alter=lambda files: files.update(key=b"another.example+00000000+AAAA\n"))
    (tmp_path / "b.zip").write_bytes(make.zipped(files.items()))
    report = verifier.Report()
    verifier.verify_bundle(tmp_path / "b.zip", TRUST, report)
    assert any(line.startswith("key:") for line in report.not_checked)


def earlier(log, size: int, **ways):
    return verifier.Earlier(verifier.open_checkpoint(log.checkpoint(size).encode(), TRUST, verifier.Report()), **ways)


def test_a_bundle_continues_an_older_checkpoint_or_is_refused(tmp_path, clean):
    zipped = tmp_path / "b.zip"
    assert not bundle_refused(zipped, clean, earlier(LOG, 90))
    assert not bundle_refused(zipped, clean, earlier(LOG, 300))
    assert not bundle_refused(zipped, clean, earlier(LOG, 0))
    assert "begins at another size" in bundle_refused(zipped, clean, earlier(LOG, 91))
    without = make.bundle_files(LOG, SPAN)
    assert "nothing shows" in bundle_refused(zipped, without, earlier(LOG, 90))
    assert not bundle_refused(zipped, without, earlier(LOG, 91, tiles=write_log(tmp_path / "log", LOG.directory())))
    assert "does not begin" in bundle_refused(zipped, without, earlier(FORGED, 200, tiles=tmp_path / "log"))
    # A bundle that holds everything from the beginning shows it by itself
    whole = make.bundle_files(LOG, list(range(300)))
    for size in (1, 151, 256, 299):
        assert not bundle_refused(zipped, whole, earlier(LOG, size))
    assert "does not begin" in bundle_refused(zipped, whole, earlier(FORGED, 200))
    assert "two different trees" in bundle_refused(zipped, whole, earlier(FORGED, 300))
    assert "smaller" in bundle_refused(zipped, make.bundle_files(LOG, SPAN, size=200), earlier(LOG, 201))


def test_a_bundle_says_whether_everything_since_the_older_checkpoint_is_in_it(capsys, tmp_path):
    (tmp_path / "old").write_text(LOG.checkpoint(250))
    for positions, whole in (
        (range(250, 300), True),
        (range(240, 300), True),
        (range(251, 300), False),
        (range(250, 299), False),
    ):
        (tmp_path / "b.zip").write_bytes(make.zipped(make.bundle_files(LOG, list(positions), old=250).items()))
        code, told = run(capsys, "bundle", tmp_path / "b.zip", "--since-checkpoint", tmp_path / "old")
        assert code == 0
        assert any(line.startswith("every entry since the older checkpoint") for line in told["checked"]) is whole


# Replay


def versions_log(changes: dict[int, dict]) -> object:
    return make.Log.of([one | changes.get(i, {}) for i, one in enumerate(make.records(20))])


@pytest.mark.parametrize(("changes", "said"), [
    ({5: {"version": 3}}, "a record of it is missing"),
    ({4: {"version": 2}}, "a record of it is missing"),
    ({5: {"version": 1}}, "two records claim one version"),
    ({5: {"id": make.records(20)[4]["id"], "created_at": make.records(20)[4]["created_at"]}}, "two positions"),
])  # fmt: skip
def test_versions_of_a_command_with_a_gap_are_found(tmp_path, changes, said):
    log = versions_log(changes)
    assert said in log_refused(write_log(tmp_path / "log", log.directory()))
    assert said in bundle_refused(tmp_path / "b.zip", make.bundle_files(log, list(range(20))))


def test_an_imported_command_begins_with_its_import_and_a_note_has_no_version(tmp_path):
    log = versions_log(
        {4: {"kind": "import"}, 9: {"kind": "note", "version": None}, 10: {"version": 2}, 11: {"version": 3}}
    )
    assert not log_refused(write_log(tmp_path / "log", log.directory()))


def test_a_bundle_that_begins_later_may_begin_at_any_version(tmp_path):
    log = versions_log({})
    assert not bundle_refused(tmp_path / "b.zip", make.bundle_files(log, list(range(6, 20))))


def test_transitions_in_another_order_are_no_gap_and_are_told(capsys, tmp_path):
    one, two = make.records(20)[4:6]
    log = make.Log.of([*make.records(20)[:4], two, one, *make.records(20)[6:]])
    code, told = run(capsys, "log", write_log(tmp_path / "log", log.directory()))
    assert code == 0
    assert any("1 transitions stand before" in line for line in told["not_checked"])


def test_what_does_not_fit_into_memory_is_sorted_from_files(tmp_path, monkeypatch):
    monkeypatch.setattr(verifier._Pile, "WAITING", 64)
    assert not log_refused(write_log(tmp_path / "log", LOG.directory()))
    gap = make.Log.of([one | {"version": 9} if i == 101 else one for i, one in enumerate(LOG.records)])
    assert "a record of it is missing" in log_refused(write_log(tmp_path / "gap", gap.directory()))


# Logs


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 300])
def test_a_clean_log_verifies(tmp_path, size):
    assert not log_refused(write_log(tmp_path, LOG.directory(size)))


def test_a_large_log_verifies_and_shows_its_history(tmp_path, capsys):
    leaves = 66_000
    log = make.Log.of(make.records(leaves))
    folder = write_log(tmp_path / "log", log.directory())
    (tmp_path / "old").write_text(log.checkpoint(65_600))
    code, told = run(capsys, "log", folder, "--since-checkpoint", tmp_path / "old")
    assert (code, told["facts"]["size"], told["facts"]["old_size"]) == (0, leaves, 65_600)
    # What is pruned is below the minimum index and in no tile that anybody still needs
    for name in [name for name in log.directory() if name.startswith(("tile/0/", "tile/entries/"))]:
        number = int(re.sub(r"\D", "", name.partition(".p")[0].split("/", 2)[2]))
        if (number + 1) * 256 <= 65_700:
            (folder / name).unlink()
    (folder / "tile/1/000").unlink()
    assert "missing" in log_refused(folder)
    assert not log_refused(folder, 65_700)
    (folder / "tile/2/000.p/1").write_bytes(bytes(32))
    assert log_refused(folder, 65_700)


def test_any_byte_of_any_file_of_a_log_counts(tmp_path):
    source = random.Random(6)
    files = LOG.directory()
    folder = write_log(tmp_path, files)
    for name, data in files.items():
        for place in sorted(source.sample(range(len(data)), min(len(data), 40))):
            (folder / name).write_bytes(flipped(data, place, 1 << source.randrange(8)))
            assert log_refused(folder), (name, place)
        for changed in (data[:-1], data + b"\0", b"", data * 2):
            (folder / name).write_bytes(changed)
            assert log_refused(folder), name
        (folder / name).unlink()
        assert refused_or_unreadable(folder), name
        (folder / name).write_bytes(data)
    assert not log_refused(folder)


def refused_or_unreadable(folder) -> str:
    try:
        return log_refused(folder)
    except verifier.Unreadable as error:
        return str(error)


def test_the_position_of_an_altered_entry_is_named(tmp_path):
    files, forged = LOG.directory(), FORGED.directory()
    folder = write_log(tmp_path, files | {"tile/entries/000": forged["tile/entries/000"]})
    found = log_refused(folder)
    assert found.startswith("position 150: ")
    assert merkle.leaf_hash(LOG.leaves[150]).hex() in found
    assert merkle.leaf_hash(FORGED.leaves[150]).hex() in found


@pytest.mark.parametrize("change", [
    lambda records: [*records[:9], *records[10:], records[9]],
    lambda records: [*records[:9], records[10], records[9], *records[11:]],
    lambda records: [*records[:9], *records[8:-1]],
    lambda records: [*records[:9], *records[10:]],
])  # fmt: skip
def test_a_log_that_was_rebuilt_is_not_the_one_that_was_signed(tmp_path, change):
    rebuilt = make.Log.of(change(LOG.records)).directory()
    assert log_refused(write_log(tmp_path, rebuilt | {"checkpoint": LOG.checkpoint().encode()}))


def test_a_full_tile_does_instead_of_a_partial_one(tmp_path):
    later, files = LOG.directory(300), LOG.directory(200)
    for name in ("tile/0/000", "tile/entries/000"):
        files[name] = later[name]
        del files[f"{name}.p/200"]
    assert not log_refused(write_log(tmp_path, files))
    assert not refused(earlier(LOG, 90, tiles=tmp_path).check, earlier(LOG, 200).checkpoint, verifier.Report())


def test_a_leaf_that_is_no_leaf_of_ours_is_refused_though_it_is_in_the_tree(tmp_path):
    for leaf in (
        b"",
        b"{}",
        LOG.leaves[3].replace(b'"v":1', b'"v":2'),
        LOG.leaves[3] + b" ",
        b"\xff" * 9,
        b'{"v":1,"v":1}',
    ):
        log = make.Log(LOG.records[:5], [*LOG.leaves[:4], leaf])
        assert log_refused(write_log(tmp_path, log.directory())).startswith("position 4")


# Consistency


def test_two_checkpoints_are_consistent_by_proof_or_by_tiles(capsys, tmp_path):
    folder = write_log(tmp_path / "log", LOG.directory())
    (tmp_path / "new").write_text(LOG.checkpoint())
    for size in (0, 1, 128, 255, 256, 257, 299, 300):
        (tmp_path / "old").write_text(LOG.checkpoint(size))
        (tmp_path / "proof").write_text(make.consistency_file(size, LOG.reader().consistency(size)))
        pair = ("consistency", "--old", tmp_path / "old", "--new", tmp_path / "new")
        assert run(capsys, *pair, "--tiles", folder)[0] == 0
        assert run(capsys, *pair, "--proof", tmp_path / "proof")[0] == 0
        assert run(capsys, *pair)[0] == (0 if size in {0, 300} else 1)
        backwards = run(capsys, "consistency", "--old", tmp_path / "new", "--new", tmp_path / "old", "--tiles", folder)
        assert backwards[0] == (0 if size == 300 else 1)


def test_a_history_that_was_rewritten_is_found(capsys, tmp_path):
    folder = write_log(tmp_path / "log", FORGED.directory())
    (tmp_path / "new").write_text(FORGED.checkpoint())
    for size, code in ((150, 0), (151, 1), (256, 1), (300, 1)):
        (tmp_path / "old").write_text(LOG.checkpoint(size))
        (tmp_path / "proof").write_text(make.consistency_file(size, FORGED.reader().consistency(size)))
        pair = ("consistency", "--old", tmp_path / "old", "--new", tmp_path / "new")
        assert run(capsys, *pair, "--tiles", folder)[0] == code
        assert run(capsys, *pair, "--proof", tmp_path / "proof")[0] == code


def test_every_byte_of_a_consistency_proof_counts(tmp_path):
    new = earlier(LOG, 300).checkpoint
    proof = make.consistency_file(90, LOG.reader().consistency(90)).encode()
    file = tmp_path / "proof"
    old = earlier(LOG, 90, proof=file)
    for place in range(len(proof)):
        for changed in (flipped(proof, place, 1 << place % 8), proof[:place]):
            file.write_bytes(changed)
            assert refused(old.check, new, verifier.Report()), place
    file.write_bytes(proof)
    assert not refused(old.check, new, verifier.Report())


def test_the_vectors_verify(capsys, tmp_path):
    folder = verifier.Path(make.FOLDER)
    assert run(capsys, "checkpoint", folder / "checkpoint-300.txt")[0] == 0
    assert run(capsys, "proof", folder / "event-103.tlog-proof")[0] == 0
    assert run(capsys, "consistency", "--old", folder / "checkpoint-90.txt", "--new", folder / "checkpoint-300.txt",
               "--proof", folder / "consistency-90-300.txt")[0] == 0  # fmt: skip
    for name in ("bundle.json", "bundle-filtered.json"):
        files = {one: text.encode() for one, text in json.loads((folder / name).read_text()).items()}
        assert not bundle_refused(tmp_path / "b.zip", files)
    files = {one: base64.b64decode(text) for one, text in json.loads((folder / "log.json").read_text()).items()}
    assert not log_refused(write_log(tmp_path / "log", files))


def test_the_vectors_are_those_that_the_project_makes_today():
    for name, text in make.vectors().items():
        assert (make.FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run verify/vectors/make.py"
    kept = {path.name for path in make.FOLDER.iterdir() if path.is_file()}
    assert kept == {*make.vectors(), "make.py"}
    assert json.loads((make.FOLDER / "keys.json").read_text())["log"]["vkey"] == KEY
