"""Signed notes, checkpoints, cosignatures and keys."""

from __future__ import annotations

import base64

import pytest

from redflag.audit.checkpoint import DASH, open_note
from redflag.errors import InvalidInput
from unit.verify.helpers import KEY, TRUST, WITNESS_KEYS, make, refused, run, vector, verifier

CASES = vector("checkpoints.json")
LOG = make.Log.of(make.records(30))


def trust(witnesses, quorum):
    return verifier.Trust(TRUST.key, tuple(verifier.Key.parse(one, verifier.COSIGNATURE) for one in witnesses), quorum)


def checkpoint_refused(note: str | bytes, trusted=TRUST) -> str:
    data = note.encode() if isinstance(note, str) else note
    return refused(verifier.open_checkpoint, data, trusted, verifier.Report())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_note_is_judged_as_it_says(case):
    assert bool(checkpoint_refused(case["note"], trust(case["witnesses"], case["quorum"]))) is not case["valid"]


@pytest.mark.parametrize("case", [case for case in CASES if case["valid"]], ids=lambda case: case["name"])
def test_what_verifies_is_read_as_the_project_reads_it(case):
    ours = open_note(case["note"], make.SIGNER.verifier)
    theirs = verifier.open_checkpoint(case["note"].encode(), TRUST, verifier.Report())
    assert (theirs.origin, theirs.size, theirs.root) == (ours.origin, ours.size, ours.root)


def test_every_bit_of_a_checkpoint_counts():
    note = LOG.checkpoint().encode()
    for place in range(len(note)):
        for bit in range(8):
            changed = bytes([*note[:place], note[place] ^ 1 << bit, *note[place + 1 :]])
            assert checkpoint_refused(changed), (place, bit)


def test_every_byte_of_a_cosignature_counts_when_the_witness_is_wanted():
    note = LOG.checkpoint(witnesses=make.WITNESSES[:1]).encode()
    wanted = trust(WITNESS_KEYS[:1], 1)
    assert not checkpoint_refused(note, wanted)
    for place in range(note.rindex(DASH.encode()), len(note)):
        assert checkpoint_refused(bytes([*note[:place], note[place] ^ 1, *note[place + 1 :]]), wanted), place


def test_every_truncation_of_a_checkpoint_is_found():
    note = LOG.checkpoint().encode()
    assert all(checkpoint_refused(note[:end]) for end in range(len(note)))


def test_what_the_verifier_refuses_of_a_checkpoint_is_what_it_says(capsys, tmp_path):
    file = tmp_path / "checkpoint"
    file.write_text(LOG.checkpoint(signer=make.OTHER))
    code, told = run(capsys, "checkpoint", file)
    assert (code, told["verified"], told["facts"]) == (1, False, {})
    assert "not signed by vectors.example/log" in told["problem"]["what"]
    assert make.OTHER.verifier.id.hex() in told["problem"]["says"]
    assert make.SIGNER.verifier.id.hex() in told["problem"]["expected"]


def test_witnesses_that_were_given_all_have_to_sign_unless_a_quorum_says_how_many(capsys, tmp_path):
    file = tmp_path / "checkpoint"
    file.write_text(LOG.checkpoint(witnesses=make.WITNESSES[:1]))
    both = [argument for vkey in WITNESS_KEYS for argument in ("--witness", vkey)]
    assert run(capsys, "checkpoint", file, *both)[0] == 1
    assert run(capsys, "checkpoint", file, *both, "--quorum", 1)[0] == 0
    assert run(capsys, "checkpoint", file, *both, "--quorum", 3)[0] == 2
    assert run(capsys, "checkpoint", file, *both[:2], *both[:2])[0] == 2
    code, told = run(capsys, "checkpoint", file)
    assert code == 0
    assert "checkpoint: 1 signatures of keys that were not given" in told["not_checked"]


def test_a_note_of_too_many_signatures_or_bytes_is_refused():
    note = LOG.checkpoint()
    line = note.splitlines()[-1]
    assert "300 signatures" in checkpoint_refused(note[: -len(line) - 1] + f"{line}\n" * 300)
    assert "at most" in checkpoint_refused(note + "x" * 2_000_000)


@pytest.mark.parametrize("spoil", [
    lambda vkey: "", lambda vkey: "x", lambda vkey: vkey[:-1], lambda vkey: vkey.replace("+", "+0", 1),
    lambda vkey: vkey.replace("vectors", "vector", 1), lambda vkey: vkey[:-3] + "AA=", lambda vkey: WITNESS_KEYS[0],
    lambda vkey: " +" + vkey.partition("+")[2],
    lambda vkey: "a+00000000+" + base64.b64encode(b"\x01" + bytes(32)).decode(),
    lambda vkey: "\N{LATIN SMALL LETTER O WITH DIAERESIS}" + vkey, lambda vkey: "\udc80" + vkey,
])  # fmt: skip
def test_a_key_that_is_none_is_a_mistake_on_the_command_line(capsys, tmp_path, spoil):
    file = tmp_path / "checkpoint"
    file.write_text(LOG.checkpoint())
    code, told = run(capsys, "checkpoint", file, key=spoil(KEY))
    assert code == 2
    assert not told["verified"]


def test_a_key_of_small_order_is_refused_though_it_agrees_with_itself():
    public = (1).to_bytes(32, "little")
    key = verifier.Key("log", verifier.ED25519, public)
    with pytest.raises(verifier.Unreadable, match="no Ed25519 public key"):
        verifier.Key.parse(verifier.vkey(key), verifier.ED25519)


def test_keys_are_read_and_written_as_the_project_does():
    assert verifier.vkey(TRUST.key) == KEY
    assert TRUST.key.id == make.SIGNER.verifier.id


def test_the_project_refuses_what_the_verifier_refuses_of_the_signature():
    note = LOG.checkpoint(signer=make.OTHER)
    with pytest.raises(InvalidInput):
        open_note(note, make.SIGNER.verifier)
