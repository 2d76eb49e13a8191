"""What others wrote reads what we write, and we read what they write: notes, trees, proofs, tiles, canonical JSON.

The others are golang.org/x/mod/sumdb (notes, trees, tiles: what Go's checksum database runs on), filippo.io/torchwood (witnesses,
proof files, the client of tlog-tiles), both in one Go program that stands in the folder `go`, and rfc8785 for canonical JSON.
Without Go 1.24 the tests of torchwood are skipped, without any Go all that need it. Debian's packages do for the first.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from redflag.audit import canonical, merkle, sequencer
from redflag.audit.checkpoint import COSIGNATURE, ED25519, Verifier, key_id, open_note
from redflag.audit.proofs import Proof
from redflag.errors import InvalidInput
from unit.verify.helpers import TRUST, make, refused, verifier, write_log

PROGRAM = Path(__file__).with_name("go")
DEBIAN = Path("/usr/share/gocode")  # where Debian's golang-golang-x-mod-dev is
SIZES = (1, 2, 3, 7, 8, 255, 256, 257, 300, 511, 512, 513, 1000)
KEY = make.SIGNER.verifier.vkey()

Ask = Callable[..., list[dict[str, Any]]]


def encoded(value: Any) -> Any:
    """Bytes as Go's JSON has them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [encoded(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks the Go program: each question a dict, in one run. It is built first, which takes a while where it never was before."""
    if shutil.which("go") is None:
        pytest.skip("there is no Go on this machine: apt install golang-go golang-golang-x-mod-dev")
    folder = tmp_path_factory.mktemp("go")
    built = None
    for tags, environment in (("", {}), ("packaged", {"GO111MODULE": "off", "GOPATH": str(DEBIAN)})):
        built = subprocess.run(
            ["go", "build", "-tags", tags, "-o", folder / "others", "."],
            env=os.environ | {"GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"} | environment,
            cwd=PROGRAM, capture_output=True, text=True, check=False, timeout=110,
        )  # fmt: skip
        if built.returncode == 0:
            break
    assert built is not None
    if built.returncode:
        pytest.skip(f"the Go program cannot be built here: {built.stderr[-500:]}")

    def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
        told = json.dumps([{name: encoded(value) for name, value in one.items()} for one in questions])
        ran = subprocess.run([folder / "others"], input=told, capture_output=True, text=True, check=True, timeout=60)
        found: list[dict[str, Any]] = json.loads(ran.stdout)
        assert len(found) == len(questions)
        return found

    return ask


@pytest.fixture(scope="module")
def c2sp(go: Ask) -> Ask:
    """The same, where it was built with torchwood."""
    if "built without" in go({"do": "client"})[0].get("error", ""):
        pytest.skip("torchwood needs Go 1.24 or newer, and could not be had")
    return go


@pytest.fixture(scope="module")
def log() -> Any:
    return make.Log.of(make.records(300))


def unbase64(value: Any) -> Any:
    return [base64.b64decode(one) for one in value or []] if not isinstance(value, str) else base64.b64decode(value)


# ---------------------------------------------------------------------------------------------------------------------
# Notes


def signer_key(name: str, seed: bytes) -> str:
    """A private key as Go's note package writes it; the key id in it is computed by us."""
    public = make.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return f"PRIVATE+KEY+{name}+{key_id(name, ED25519, public).hex()}+{base64.b64encode(ED25519 + seed).decode()}"


def test_go_opens_our_checkpoints_and_none_that_was_altered(go, log):
    note = log.checkpoint(300)
    altered = [note.replace("\n300\n", "\n301\n"), note.replace("vectors.example/log\n", "vectors.example/lag\n"),
               note[:-5] + ("A" if note[-5] != "A" else "B") + note[-4:], note.rstrip("\n")]  # fmt: skip
    opened, *wrong = go(*({"do": "open", "note": one, "key": KEY} for one in (note, *altered)))
    assert opened == {"text": note.partition("\n\n")[0] + "\n", "signed": 1, "unknown": 0}
    assert all("error" in one for one in wrong)


def test_we_open_what_go_signs_with_the_same_bytes_as_ours(go, log):
    name, seed = make.ORIGIN, make.LOG_KEY.private_bytes_raw()
    text = log.checkpoint(300).partition("\n\n")[0] + "\n"
    signed = go({"do": "sign", "key": signer_key(name, seed), "text": text})[0]["note"]
    assert signed == log.checkpoint(300)  # Ed25519 is deterministic (RFC 8032 §5.1.6)
    assert open_note(signed, make.SIGNER.verifier).size == 300
    assert verifier.open_checkpoint(signed.encode(), TRUST, verifier.Report()).size == 300
    other = go({"do": "sign", "key": signer_key("example.org/other", make.derived("other")), "text": text})[0]["note"]
    with pytest.raises(InvalidInput):
        open_note(other, make.SIGNER.verifier)


def test_both_read_the_same_of_notes_with_one_bit_altered(go, log):
    """Whatever Go refuses, we refuse; we refuse more, such as base64 in another spelling than its canonical one."""
    note, rng = log.checkpoint(300).encode(), random.Random(1)
    altered = []
    while len(altered) < 300:
        bit = rng.randrange(8 * len(note))
        one = bytearray(note)
        one[bit // 8] ^= 1 << bit % 8
        try:
            altered.append(one.decode())
        except UnicodeDecodeError:
            continue
    for one, told in zip(altered, go(*({"do": "open", "note": one, "key": KEY} for one in altered)), strict=True):
        if "error" in told:
            with pytest.raises(InvalidInput):
                open_note(one, make.SIGNER.verifier)
            assert refused(verifier.open_checkpoint, one.encode(), TRUST, verifier.Report())


# ---------------------------------------------------------------------------------------------------------------------
# Trees, tiles, proofs of inclusion and consistency


def grown(hashes: list[bytes], batch: int) -> dict[tuple[int, int], bytes]:
    """The tiles as the sequencer makes them, batch by batch."""
    tiles: dict[tuple[int, int], bytes] = {}
    for size in range(0, len(hashes), batch):
        edge = {
            (level, size >> 8 * (level + 1)): tiles.get((level, size >> 8 * (level + 1)), b"") for level in range(8)
        }
        tiles |= sequencer.grow(size, hashes[size : size + batch], edge)
    return tiles


def test_go_builds_the_same_trees_tiles_and_proofs(go):
    rng, leaves = random.Random(2), [f"leaf {i}".encode() for i in range(max(SIZES))]
    chosen = [(size, rng.randrange(size), rng.randrange(1, size + 1)) for size in SIZES]
    told = go(
        *({"do": "tree", "leaves": leaves[:size], "index": index, "old_size": old} for size, index, old in chosen)
    )
    for (size, index, old), found in zip(chosen, told, strict=True):
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves[:size]]
        reader, root = merkle.Reader(size, make.tiles_of(hashes)), merkle.root_of(hashes)
        assert unbase64(found["root"]) == root == reader.root()
        assert unbase64(found["inclusion"]) == reader.inclusion(index)
        assert unbase64(found["consistency"]) == reader.consistency(old)
        assert merkle.verify_inclusion(hashes[index], index, size, unbase64(found["inclusion"]), root)
        assert merkle.verify_consistency(old, merkle.root_of(hashes[:old]), size, root, unbase64(found["consistency"]))
        tiles = grown(hashes, rng.choice((1, 100, 256, 5000)))
        ours = {merkle.path(level, index, len(tile) // 32): tile for (level, index), tile in tiles.items()}
        theirs = {path: unbase64(tile) for path, tile in found["tiles"].items()}
        assert theirs.items() >= ours.items()
        # Older versions name every width on the way to the last
        assert {path.partition(".p/")[0] for path in theirs} == {path.partition(".p/")[0] for path in ours}


def test_go_accepts_our_proofs_and_no_altered_one(go):
    rng, questions, right = random.Random(3), [], []
    leaves = [f"leaf {i}".encode() for i in range(max(SIZES))]
    for size in SIZES:
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves[:size]]
        reader = merkle.Reader(size, make.tiles_of(hashes))
        for _ in range(4):
            index, old = rng.randrange(size), rng.randrange(1, size + 1)
            one = {
                "do": "inclusion",
                "size": size,
                "root": reader.root(),
                "index": index,
                "leaf": leaves[index],
                "proof": reader.inclusion(index),
            }
            two = {"do": "consistency", "size": size, "root": reader.root(), "old_size": old, "old_root": merkle.root_of(hashes[:old]),
                   "proof": reader.consistency(old)}  # fmt: skip
            questions += [one, two, one | {"leaf": b"another"}, one | {"root": bytes(32)}, two | {"old_root": bytes(32)},
                          one | {"proof": [*one["proof"], bytes(32)]}, two | {"proof": [*two["proof"], bytes(32)]}]  # fmt: skip
            right += [True, True, False, False, False, False, False]
    assert ["error" not in one for one in go(*questions)] == right


def test_go_reads_our_log_by_its_tiles_and_finds_what_was_altered(go, log, tmp_path):
    files, old = log.directory(300), log.checkpoint(90)
    question = {"do": "log", "key": KEY, "old": old}
    whole = write_log(tmp_path / "whole", files)
    found = go(question | {"dir": whole})[0]
    assert found == {"size": 300, "root": encoded(merkle.root_of(log.hashes()))}
    rng, questions = random.Random(4), []
    for number, name in enumerate([*files] * 4):
        altered = bytearray(files[name])
        bit = rng.randrange(8 * len(altered))
        altered[bit // 8] ^= 1 << bit % 8
        folder = write_log(tmp_path / str(number), files | {name: bytes(altered)})
        questions.append(question | {"dir": folder})
    assert all("error" in one for one in go(*questions))


# ---------------------------------------------------------------------------------------------------------------------
# Witnesses, proof files, the client of tlog-tiles


def test_the_client_of_others_reads_every_entry_of_our_log(c2sp, log, tmp_path):
    for size in (1, 255, 256, 300):
        folder = write_log(tmp_path / str(size), log.directory(size))
        assert unbase64(c2sp({"do": "client", "dir": folder, "key": KEY})[0]["leaves"]) == log.leaves[:size]


def test_others_verify_our_proof_files_and_write_the_same_bytes(c2sp, log):
    questions = []
    for position in (0, 103, 255, 256, 299):
        document = log.proof(position)
        extra = base64.b64decode(document.split("\n")[1].removeprefix("extra "))
        question = {"do": "proof", "key": KEY, "leaf": log.leaves[position], "document": document.encode()}
        hashes = log.reader().inclusion(position)
        written = {"do": "format proof", "index": position, "extra": extra, "proof": hashes, "note": log.checkpoint()}
        right, wrong, other, formatted = c2sp(
            question, question | {"leaf": log.leaves[position - 1]},
            question | {"document": document.replace(f"index {position}\n", f"index {position + 1}\n").encode()}, written,
        )  # fmt: skip
        assert unbase64(right["extra"]) == extra
        assert "error" in wrong
        assert "error" in other
        assert unbase64(formatted["document"]) == document.encode()
        assert not refused(verifier.verify_proof, unbase64(formatted["document"]), TRUST, verifier.Report())
        questions.append(formatted)
    assert len(questions) == 5


def test_a_proof_file_without_extra_data_is_one_too(c2sp, log):
    values = Proof(7, log.leaves[7], log.reader().inclusion(7), log.checkpoint(), {}, {})
    told = c2sp({"do": "proof", "key": KEY, "leaf": log.leaves[7], "document": values.text().encode()})[0]
    assert json.loads(unbase64(told["extra"])) == {"leaf": log.leaves[7].decode(), "salts": {}, "values": {}}


def test_witnesses_that_others_wrote_are_ours_to_verify_and_the_other_way_round(c2sp, log):
    note, seed = log.checkpoint(300), make.derived("their witness")
    theirs = c2sp({"do": "cosign", "text": "witness.example/theirs", "root": seed, "note": note, "key": KEY})[0]
    witness = verifier.Key.parse(theirs["key"], verifier.COSIGNATURE)
    report = verifier.Report()
    verifier.open_checkpoint(theirs["note"].encode(), verifier.Trust(TRUST.key, (witness,), 1), report)
    assert any("cosigned by the witness witness.example/theirs" in line for line in report.checked)
    assert Verifier.parse(theirs["key"]).kind == COSIGNATURE
    ours = log.checkpoint(300, witnesses=make.WITNESSES)
    keys = [one.verifier.vkey() for one in make.WITNESSES]
    question = {"do": "cosigned", "key": KEY, "keys": keys}
    both, late, one_missing, altered = c2sp(
        question | {"note": ours}, question | {"note": ours.replace("\n300\n", "\n299\n")},
        question | {"note": log.checkpoint(300, witnesses=make.WITNESSES[:1])}, question | {"note": ours[:-3] + "AA\n"},
    )  # fmt: skip
    assert both["size"] == 300
    assert both["times"] == {one.name: 1_795_478_400 + i for i, one in enumerate(make.WITNESSES)}
    assert all("error" in one for one in (late, one_missing, altered))


# ---------------------------------------------------------------------------------------------------------------------
# Canonical JSON (RFC 8785)

text = st.text(st.characters(codec="utf-8"), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | text | st.integers(1 - 2**53, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(documents)
def test_canonical_json_has_the_bytes_that_others_give_it(document):
    theirs = rfc8785.dumps(document)
    assert canonical.encode(document) == theirs
    assert verifier.canonical(document) == theirs
    assert verifier.parse_canonical(theirs, "") == canonical.decoder.decode(theirs) == document


def test_names_are_sorted_by_utf_16_as_in_the_rfc():
    """RFC 8785 §3.2.3: the example of the section, whose order by code points would be another."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    expected = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    document = dict.fromkeys(names, True)
    assert list(json.loads(canonical.encode(document))) == expected
    assert canonical.encode(document) == rfc8785.dumps(document) == verifier.canonical(document)


def test_every_leaf_is_canonical_json_to_others(log):
    for leaf in log.leaves:
        assert rfc8785.dumps(json.loads(leaf)) == leaf
