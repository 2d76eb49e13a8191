"""Ed25519: the vectors of RFC 8032, agreement with another implementation, and what must never pass."""

from __future__ import annotations

import hashlib
import random
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from unit.verify.helpers import make, vector, verifier

CASES = vector("ed25519.json")


def other_says(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_vector_is_judged_as_it_says(case):
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    assert verifier.ed25519_verify(public, message, signature) is case["valid"]


@pytest.mark.parametrize("case", [case for case in CASES if "secret" in case], ids=lambda case: case["name"])
def test_the_vectors_of_the_rfc_are_the_ones_that_its_secret_keys_give(case):
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["secret"]))
    assert private.public_key().public_bytes_raw().hex() == case["public"]
    assert private.sign(bytes.fromhex(case["message"])).hex() == case["signature"]


def test_200_random_signatures_and_their_changes_are_judged_as_another_implementation_does():
    source = random.Random(8032)
    for _ in range(200):
        private = Ed25519PrivateKey.from_private_bytes(source.randbytes(32))
        public, message = private.public_key().public_bytes_raw(), source.randbytes(source.randrange(200))
        signature = private.sign(message)
        assert verifier.ed25519_verify(public, message, signature)
        place, bit = source.randrange(64), 1 << source.randrange(8)
        changed = bytes([*signature[:place], signature[place] ^ bit, *signature[place + 1 :]])
        assert verifier.ed25519_verify(public, message, changed) is other_says(public, message, changed) is False
        assert not verifier.ed25519_verify(public, message + b"x", signature)
        # The malleable twin: S + L satisfies the equation, and is no signature
        twin = int.from_bytes(signature[32:], "little") + make.ED25519_ORDER
        assert not verifier.ed25519_verify(public, message, signature[:32] + twin.to_bytes(32, "little"))


def test_random_bytes_decode_to_a_point_or_to_none_and_a_point_encodes_to_what_it_was():
    source = random.Random(1)
    points = 0
    for _ in range(300):
        encoded = source.randbytes(32)
        point = verifier._decode_point(encoded)
        points += point is not None
        assert point is None or verifier._encode_point(point) == encoded
    assert 100 < points < 200


def test_every_point_of_small_order_is_refused_as_a_key():
    torsion = []
    for seed in range(60):
        point = verifier._decode_point(hashlib.sha256(seed.to_bytes(4, "big")).digest())
        if point is None:
            continue
        found = verifier._NEUTRAL  # L times a point of the curve is one of the eight of small order
        for bit in bin(make.ED25519_ORDER)[2:]:
            found = verifier._double(found)
            found = verifier._add(found, point) if bit == "1" else found
        torsion.append(verifier._encode_point(found))
    assert len(set(torsion)) == 8
    for key in set(torsion):
        for first in set(torsion):
            assert not verifier.ed25519_verify(key, b"any message", first + bytes(32))


@pytest.mark.parametrize("length", [0, 31, 33, 63, 65])
def test_a_key_or_signature_of_another_length_is_refused(length):
    assert not verifier.ed25519_verify(bytes(length), b"", bytes(64))
    assert not verifier.ed25519_verify(bytes.fromhex(CASES[0]["public"]), b"", bytes(length))


def test_a_verification_takes_less_than_50_ms():
    case = CASES[2]
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    took = []
    for _ in range(5):
        began = time.process_time()
        assert verifier.ed25519_verify(public, message, signature)
        took.append(time.process_time() - began)
    assert min(took) < 0.05
