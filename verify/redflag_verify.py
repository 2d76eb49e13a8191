#!/usr/bin/env python3
"""Verifies the audit log of a RedFlag server: offline, in one file, with nothing but Python 3.9 or newer.

    redflag_verify.py checkpoint  FILE --key VKEY                    is this head of the log signed by that key?
    redflag_verify.py proof       FILE --key VKEY                    does this record stand in the log?
    redflag_verify.py bundle      FILE.zip --key VKEY                is this evidence what the log recorded?
    redflag_verify.py consistency --old FILE --new FILE --key VKEY   does today's log begin with the one I saved?
    redflag_verify.py log         DIR --key VKEY                     a whole downloaded log, recomputed

VKEY is the log's public key, which you got from its operator by another way than the files you check. Every command takes
`--witness VKEY` (repeated) and `--quorum N`, so that others must have signed the same head, and `--json`.

Exit codes: 0 verified; 1 NOT verified, and what is wrong is said; 2 the command line or a file cannot be read.
What is printed as checked was checked; what was not is printed as not checked. Nothing is fetched from a network and nothing
is unpacked to disk. SPEC.md, beside this file, describes all formats, so that you can write your own verifier.

Sources: RFC 6962 §2.1 (tree), RFC 9162 §2.1.3.2 and §2.1.4.2 (verifying proofs), RFC 8032 §5.1 (Ed25519), RFC 8785
(canonical JSON), and C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import io
import json
import re
import stat
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

VERSION = "1"


class NotVerified(Exception):
    """Something is not what it has to be: where, what it says, and what was expected."""

    def __init__(self, what: str, where: str = "", says: object = None, expected: object = None) -> None:
        super().__init__(what)
        self.what, self.where, self.says, self.expected = what, where, says, expected


class Unreadable(Exception):
    """The command line or a file that it names cannot be used."""


@dataclass
class Report:
    """What was checked, what was not, and what was learned from what was checked."""

    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------------------
# Ed25519 (RFC 8032 §5.1), verification only. Everything here is public, so nothing has to run in constant time.

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SQRT_M1 = pow(2, (_P - 1) // 4, _P)

# Extended homogeneous coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x * y = T/Z (§5.1.4)
Point = tuple[int, int, int, int]
_NEUTRAL: Point = (0, 1, 1, 0)


def _add(p: Point, q: Point) -> Point:
    """The sum of two points; complete, since d is no square (§5.1.4)."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _double(p: Point) -> Point:
    """Twice a point (§5.1.4)."""
    a, b = p[0] * p[0] % _P, p[1] * p[1] % _P
    h = a + b
    e = h - (p[0] + p[1]) * (p[0] + p[1])
    g = a - b
    f = 2 * p[2] * p[2] + g
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _decode_point(encoded: bytes) -> Point | None:
    """The point of 32 bytes, or None if they are no point, or a point's encoding that is not its canonical one (§5.1.3)."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _SQRT_M1 % _P
        if v * x * x % _P != u:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _encode_point(p: Point) -> bytes:
    """The 32 bytes of a point (§5.1.2)."""
    inverse = pow(p[2], _P - 2, _P)
    x, y = p[0] * inverse % _P, p[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _is_small(p: Point) -> bool:
    """Whether eight times the point is the neutral element: such a key would let one signature fit many messages."""
    p = _double(_double(_double(p)))
    return p[0] % _P == 0 and (p[1] - p[2]) % _P == 0


def _base_point() -> Point:
    found = _decode_point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
    if found is None:
        raise ArithmeticError("the base point is no point")
    return found


_B = _base_point()


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the key's over `message` (RFC 8032 §5.1.7), by the equation without cofactor: [S]B = R + [k]A.

    Refused besides: S not below the group's order, A or R that are no canonical encodings, and A or R of small order.
    """
    if len(public) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    a, r = _decode_point(public), _decode_point(signature[:32])
    if s >= _L or a is None or r is None or _is_small(a) or _is_small(r):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    minus_a = (_P - a[0], a[1], 1, _P - a[3])
    both = _add(_B, minus_a)
    found = _NEUTRAL
    for bit in range(252, -1, -1):
        found = _double(found)
        chosen = (s >> bit & 1) + 2 * (k >> bit & 1)
        if chosen:
            found = _add(found, (_B, minus_a, both)[chosen - 1])
    return _encode_point(found) == signature[:32]


# ---------------------------------------------------------------------------------------------------------------------
# Base64 and canonical JSON

LARGEST_INTEGER = 2**53 - 1
DEEPEST = 64


def unbase64(text: str, where: str, length: int | None = None) -> bytes:
    """The bytes of standard base64 (RFC 4648 §4) in its one canonical spelling, of `length` bytes if that is given."""
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise NotVerified("this is no base64", where, text) from None
    if base64.b64encode(found).decode() != text:
        raise NotVerified("this is not how base64 spells it", where, text, base64.b64encode(found).decode())
    if length is not None and len(found) != length:
        raise NotVerified(f"this has {len(found)} bytes", where, text, f"{length} bytes")
    return found


def decimal(text: str, where: str) -> int:
    """A number in ASCII digits without a leading zero, below 2^63."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text) or int(text) >= 2**63:
        raise NotVerified("this is no number as the format wants it", where, text, "decimal digits, no leading zero")
    return int(text)


def _integer(digits: str) -> int:
    if len(digits) > 17:
        raise ValueError(f"{digits[:40]} is beyond 2^53 - 1")
    return int(digits)


def _no_number(digits: str) -> NoReturn:
    raise ValueError(f"{digits[:40]} is no integer")


_decode = json.JSONDecoder(parse_int=_integer, parse_float=_no_number, parse_constant=_no_number).decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode
_encode_as_is = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _by_utf16(value: Any) -> Any:
    """RFC 8785 §3.2.3 sorts names by UTF-16 code units, which matters above U+FFFF."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _by_utf16(value[name]) for name in names}
    if isinstance(value, list):
        return [_by_utf16(item) for item in value]
    return value


def canonical(value: Any) -> bytes:
    """The canonical JSON of a value that has no other numbers than integers up to 2^53 - 1 (RFC 8785 §3.2)."""
    text = _encode(value)
    return (text if text.isascii() else _encode_as_is(_by_utf16(value))).encode()


def _require_narrow(value: Any, where: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise NotVerified(f"its JSON is nested deeper than {DEEPEST} levels", where)
    if isinstance(value, dict):
        for item in value.values():
            _require_narrow(item, where, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _require_narrow(item, where, depth + 1)
    elif type(value) is int and not -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
        raise NotVerified("a number is beyond 2^53 - 1", where, value, "a string")


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def parse_canonical(data: bytes, where: str) -> Any:
    """The value of canonical JSON. Whatever is spelled otherwise (a name twice, spaces, escapes, order, 1.0) is refused."""
    try:
        text = data.decode("utf-8")
        value = _decode(text)
        again = canonical(value)
    except RecursionError:
        raise NotVerified("its JSON is nested too deeply", where) from None
    except ValueError as error:
        raise NotVerified(f"this is no JSON of the narrow kind: {error}", where, data[:200]) from None
    if again != data:
        try:
            json.JSONDecoder(object_pairs_hook=_unrepeated).decode(text)
        except ValueError as error:
            raise NotVerified(f"its JSON is not canonical: {error}", where, data[:200]) from None
        at = next((i for i in range(min(len(again), len(data))) if again[i] != data[i]), min(len(again), len(data)))
        begin = max(0, at - 30)
        raise NotVerified(
            f"its JSON is not canonical (RFC 8785), from byte {at} on",
            where, data[begin : at + 30], again[begin : at + 30],
        )  # fmt: skip
    return value


def _members(value: Any, names: Iterable[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise NotVerified("it has other members than the format names", where,
                          sorted(value) if isinstance(value, dict) else type(value).__name__, sorted(names))  # fmt: skip
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Leaves: what the log says of a record

LEAF_LIMIT = 8 * 1024
_UUID_FORM = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_TIME_FORM = r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
_HASH_FORM = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="  # 32 bytes have one spelling in base64
_UUID, _TIME, _HASH = (re.compile(form).fullmatch for form in (_UUID_FORM, _TIME_FORM, _HASH_FORM))
_COMMITTED = frozenset(("actor", "message", "params", "stdout", "stderr", "address", "metadata"))
_REQUIRED = frozenset(("v", "id", "kind", "actor_kind", "created_at", "executed_at", "result", "commitments"))
_IDS = ("id", "command_id", "agent_id")
_TIMES = ("created_at", "executed_at", "sent_at", "completed_at")
_INTEGERS = ("version", "exit_code", "duration_seconds")
_TEXTS = ("kind", "actor_kind", "result", "command_type", "action")
_ALLOWED = frozenset((*_REQUIRED, *_IDS, *_TIMES, *_INTEGERS, *_TEXTS))


def _common_form() -> str:
    """What nearly all leaves look like, as a regular expression: version 1, canonical, and no string with an escape in it."""
    forms = dict.fromkeys(_IDS, f'"{_UUID_FORM}"')
    forms.update((name, f'"{_TIME_FORM}"') for name in _TIMES)
    forms.update((name, "(?:0|-?[1-9][0-9]{0,14})") for name in _INTEGERS)
    forms.update((name, r'"[^"\\\x00-\x1f]*"') for name in _TEXTS)
    members = []
    for name in sorted(_ALLOWED - {"v", "version"}):
        if name == "commitments":
            some = "".join(f'(?:"{one}":"{_HASH_FORM}"(?:,(?=")|(?=}})))?' for one in sorted(_COMMITTED))
            members.append(f'"commitments":{{{some}}},')
        else:
            members.append(f'(?:"{name}":(?P<{name}>{forms[name]}),)' + ("" if name in _REQUIRED else "?"))
    return "{" + "".join(members) + '"v":1(?:,"version":(?P<version>[1-9][0-9]{0,8}))?}'


_COMMON = re.compile(_common_form()).fullmatch
_COMMITMENT = b"redflag/commitment/v1\x00"

Leaf = dict[str, Any]


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962 §2.1: the hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def _check_member(name: str, value: Any, where: str) -> None:
    expected = None
    if name in _IDS:
        expected = None if type(value) is str and _UUID(value) else "a UUID in lower case"
    elif name in _TIMES:
        expected = None if type(value) is str and _TIME(value) else "a UTC time with microseconds and Z"
    elif name in _INTEGERS:
        right = type(value) is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER
        expected = None if right else "an integer up to 2^53 - 1"
    elif name in _TEXTS:
        expected = None if type(value) is str else "a string"
    if expected:
        raise NotVerified(f"the leaf's {name} is malformed", where, value, expected)


def read_leaf(data: bytes, where: str) -> Leaf:
    """A leaf of version 1: canonical, complete, and with nothing in it that version 1 does not have."""
    if len(data) > LEAF_LIMIT:
        raise NotVerified(f"the leaf has {len(data)} bytes", where, None, f"at most {LEAF_LIMIT}")
    told = parse_canonical(data, where)
    if not isinstance(told, dict):
        raise NotVerified("the leaf is no JSON object", where, data[:200])
    if told.get("v") != 1 or type(told["v"]) is not int:
        raise NotVerified("the leaf is of a version that this verifier does not know", where, told.get("v"), 1)
    if not told.keys() <= _ALLOWED or not told.keys() >= _REQUIRED:
        raise NotVerified("the leaf has other members than version 1", where,
                          sorted(told.keys() - _ALLOWED), sorted(_REQUIRED - told.keys()))  # fmt: skip
    for name, value in told.items():
        _check_member(name, value, where)
    commitments = told["commitments"]
    if not isinstance(commitments, dict) or not commitments.keys() <= _COMMITTED:
        raise NotVerified("the leaf commits to what no record has", where, commitments, sorted(_COMMITTED))
    for name, value in commitments.items():
        if type(value) is not str or not _HASH(value):
            raise NotVerified(f"the commitment to {name} is no base64 of 32 bytes", where, value)
    if "version" in told and (told["version"] < 1 or told["version"] >= 2**31):
        raise NotVerified("the command's version is out of range", where, told["version"], "1 or more")
    if told["kind"] == "transition" and not ("command_id" in told and "version" in told):
        raise NotVerified("a transition names no command and version", where)
    return told


def glance(data: bytes, position: int) -> Leaf:
    """What replay needs of a leaf, after the same checks as `read_leaf`: most leaves pass them in one regular expression."""
    try:
        found = _COMMON(data.decode("utf-8"))
    except UnicodeDecodeError:
        found = None
    if found is None or len(data) > LEAF_LIMIT:
        return read_leaf(data, f"position {position}")
    command, version = found["command_id"], found["version"]
    leaf = {"id": found["id"][1:-1], "created_at": found["created_at"][1:-1], "kind": found["kind"][1:-1]}
    if command is not None and version is not None:
        leaf["command_id"], leaf["version"] = command[1:-1], int(version)
    elif leaf["kind"] == "transition":
        return read_leaf(data, f"position {position}")
    return leaf


def commitment(salt: bytes, value: Any) -> str:
    """The commitment to a value under its salt, as a leaf has it."""
    return base64.b64encode(hashlib.sha256(_COMMITMENT + salt + canonical(value)).digest()).decode()


def check_disclosed(leaf: Leaf, salts: Any, values: Any, where: str) -> list[str]:
    """Recomputes the commitment to each disclosed value. Returns the fields."""
    if not isinstance(salts, dict) or not isinstance(values, dict) or salts.keys() != values.keys():
        raise NotVerified("salts and values are not of the same fields", where)
    for name, value in values.items():
        place = f"{where}, {name}"
        if name not in leaf["commitments"]:
            raise NotVerified("a value is shown that the leaf does not commit to", place, None,
                              sorted(leaf["commitments"]))  # fmt: skip
        if not isinstance(salts[name], str):
            raise NotVerified("the salt is no string", place)
        found = commitment(unbase64(salts[name], f"{place}, its salt", 32), value)
        if found != leaf["commitments"][name]:
            raise NotVerified("the value shown is not the one that was recorded: its commitment differs", place,
                              found, leaf["commitments"][name])  # fmt: skip
    actor = values.get("actor")
    if actor is not None and (not isinstance(actor, str) or actor.partition(":")[0] != leaf["actor_kind"]):
        raise NotVerified("the actor is not of the kind that the leaf names", where, actor, leaf["actor_kind"])
    return sorted(values)


# ---------------------------------------------------------------------------------------------------------------------
# The tree (RFC 6962 §2.1) and its tiles (C2SP tlog-tiles)

EMPTY_ROOT = hashlib.sha256().digest()
WIDTH = 256


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 §2.1: the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two that is smaller than `size` (RFC 6962 §2.1, k)."""
    return 1 << (size - 1).bit_length() - 1


def root_of(hashes: list[bytes]) -> bytes:
    """The root of a tree of these leaf hashes."""
    sha256 = hashlib.sha256
    while len(hashes) > 1:
        above = [sha256(b"\x01" + hashes[i] + hashes[i + 1]).digest() for i in range(0, len(hashes) - 1, 2)]
        if len(hashes) % 2:
            above.append(hashes[-1])
        hashes = above
    return hashes[0] if hashes else EMPTY_ROOT


def verify_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """Whether the leaf hash stands at `index` of the tree with that size and root (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(sibling, r)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, sibling)
        fn >>= 1
        sn >>= 1
    return sn == 0 and r == root


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: list[bytes]) -> bool:
    """Whether the tree of `size` begins with the one of `old` (RFC 9162 §2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old in {0, size}:
        return not proof and old_root == (root if old == size else EMPTY_ROOT)
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        return False
    fn, sn = old - 1, size - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = hashes[0]
    for sibling in hashes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(sibling, fr), node_hash(sibling, sr)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, sibling)
        fn >>= 1
        sn >>= 1
    return sn == 0 and fr == old_root and sr == root


def root_of_subset(size: int, leaves: Iterator[tuple[int, bytes]], hashes: Iterator[bytes]) -> bytes:
    """The root of a tree of `size`, from some of its leaves (position, leaf hash; ascending) and the roots of the largest
    subtrees that hold none of them, both from left to right. Raises NotVerified when one of the two is too short or too long.
    """
    pending = next(leaves, None)

    def subtree(begin: int, end: int) -> bytes:
        nonlocal pending
        if pending is None or pending[0] >= end:
            found = next(hashes, None)
            if found is None:
                raise NotVerified("the proof ends too early", f"proof, subtree of positions {begin} to {end - 1}")
            return found
        if end - begin == 1:
            found = pending[1]
            pending = next(leaves, None)
            return found
        middle = begin + split(end - begin)
        left = subtree(begin, middle)
        return node_hash(left, subtree(middle, end))

    root = subtree(0, size) if size else EMPTY_ROOT
    if pending is not None:
        raise NotVerified("an entry is not in the tree", f"position {pending[0]}", None, f"less than {size}")
    if next(hashes, None) is not None:
        raise NotVerified("the proof has more hashes than the tree has places for them", "proof")
    return root


class Growing:
    """The root of a tree that leaf hashes are added to, kept as the roots of its full subtrees."""

    def __init__(self) -> None:
        self.size = 0
        self._full: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Adds one leaf hash."""
        size = self.size
        while size & 1:
            leaf = node_hash(self._full.pop(), leaf)
            size >>= 1
        self._full.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root now."""
        return fold(self._full)


def fold(full: list[bytes]) -> bytes:
    """The root of a tree whose full subtrees, from the largest to the smallest, have these roots (RFC 6962 §2.1)."""
    if not full:
        return EMPTY_ROOT
    found = full[-1]
    for left in reversed(full[:-1]):
        found = node_hash(left, found)
    return found


def full_subtrees(hashes: list[bytes]) -> list[bytes]:
    """The roots of the full subtrees over these hashes of one level, from the largest to the smallest."""
    found, begin = [], 0
    for bit in range(len(hashes).bit_length() - 1, -1, -1):
        if len(hashes) >> bit & 1:
            found.append(root_of(hashes[begin : begin + (1 << bit)]))
            begin += 1 << bit
    return found


def tile_path(level: str, index: int, width: int = WIDTH) -> str:
    """Where a tile or an entry bundle (`level` "entries") stands (tlog-tiles, "Merkle Tree")."""
    parts = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if width < WIDTH else "")


def read_regular(file: Path, limit: int) -> bytes | None:
    """The content of a file of at most `limit` bytes, or None if there is none."""
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable(f"{file} is no regular file")
        if about.st_size > limit:
            raise NotVerified(f"this has {about.st_size} bytes", str(file), None, f"at most {limit}")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror or error}") from None


class Tiles:
    """The tiles of a downloaded log of `size` entries."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self._read: dict[tuple[int, int], list[bytes]] = {}

    def file(self, level: str, index: int, width: int, limit: int) -> tuple[str, bytes | None, bool]:
        """Path and content of a tile or bundle, and whether it is a full one where a partial one would have done."""
        path = tile_path(level, index, width)
        data = read_regular(self.folder / path, limit)
        if data is None and width < WIDTH:
            full = tile_path(level, index)
            data = read_regular(self.folder / full, limit)
            if data is not None:
                return full, data, True
        return path, data, False

    def hashes(self, level: int, index: int, width: int) -> list[bytes]:
        """The first `width` hashes of a tile."""
        path, data, longer = self.file(str(level), index, width, WIDTH * 32)
        if data is None:
            raise NotVerified("a tile is missing", path)
        if len(data) != (WIDTH if longer else width) * 32:
            raise NotVerified(f"the tile has {len(data)} bytes", path, None, f"{(WIDTH if longer else width) * 32}")
        return [data[i : i + 32] for i in range(0, width * 32, 32)]

    def _hash(self, level: int, index: int) -> bytes:
        tile = (level, index // WIDTH)
        if tile not in self._read:
            width = min(WIDTH, (self.size >> 8 * level) - tile[1] * WIDTH)
            self._read[tile] = self.hashes(level, tile[1], width)
        return self._read[tile][index % WIDTH]

    def subtree(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) of RFC 6962 §2.1, for a range aligned to its own size or ending the tree."""
        count = end - begin
        if count & (count - 1) == 0:
            level = (count.bit_length() - 1) // 8
            wide = 1 << 8 * level
            return root_of([self._hash(level, begin // wide + i) for i in range(count // wide)])
        middle = begin + split(count)
        return node_hash(self.subtree(begin, middle), self.subtree(middle, end))

    def consistency(self, old: int) -> list[bytes]:
        """PROOF(old, D[size]) of RFC 6962 §2.1.2."""
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
                begin, whole = middle, False
        return ([] if whole else [self.subtree(begin, end)]) + proof[::-1]


# ---------------------------------------------------------------------------------------------------------------------
# Notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature)

NOTE_LIMIT = 1024 * 1024
SIGNATURE_LINES = 256
ED25519, COSIGNATURE = 0x01, 0x04


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


@dataclass(frozen=True)
class Key:
    """A public key with its name: the log's (type 0x01) or a witness's (type 0x04)."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """SHA-256(name || 0x0A || type || public key)[:4] (signed-note, "Signature types")."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @classmethod
    def parse(cls, vkey: str, kind: int) -> Key:
        """A key from its name+id+base64 form (signed-note, "Verifier keys"). Raises Unreadable."""
        try:
            name, named_id, encoded = vkey.strip().split("+", 2)
            material = unbase64(encoded, "key", 33)
            key = cls(name, material[0], material[1:])
            computed = key.id.hex()
        except (ValueError, NotVerified):
            raise Unreadable(f"{shown(vkey)} is no verifier key: name+id+base64 is expected") from None
        if key.kind != kind:
            wanted = "the log's (type 01)" if kind == ED25519 else "a witness's (type 04)"
            raise Unreadable(f"the key of {shown(name)} is of type {key.kind:02x}, and {wanted} is expected here")
        if not _is_name(name) or computed != named_id:
            raise Unreadable(
                f"the key of {shown(name)} does not agree with itself: its id is {computed}, not {shown(named_id)}"
            )
        point = _decode_point(key.public)
        if point is None or _is_small(point):
            raise Unreadable(f"the key of {shown(name)} is no Ed25519 public key")
        return key


@dataclass(frozen=True)
class Note:
    """A signed note, taken apart: the text that is signed, and (name, key id, signature) of each signature line."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]


def parse_note(data: bytes, where: str) -> Note:
    """A note (signed-note, "Format"). Nothing of it is trusted yet."""
    if len(data) > NOTE_LIMIT:
        raise NotVerified(f"the note has {len(data)} bytes", where, None, f"at most {NOTE_LIMIT}")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NotVerified("the note is no UTF-8", where) from None
    if any(character < " " and character != "\n" for character in note):
        raise NotVerified("the note holds control characters", where)
    text, blank, signed = note.rpartition("\n\n")
    if not blank or not signed.endswith("\n"):
        raise NotVerified("this is no signed note: text, an empty line, signature lines", where, note[:200])
    lines = signed[:-1].split("\n")
    if len(lines) > SIGNATURE_LINES:
        raise NotVerified(f"the note has {len(lines)} signatures", where, None, f"at most {SIGNATURE_LINES}")
    signatures = []
    for line in lines:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "\N{EM DASH}" or not _is_name(parts[1]):
            raise NotVerified("a signature line is malformed", where, line)
        signature = unbase64(parts[2], f"{where}, signature of {parts[1]}")
        if len(signature) < 5:
            raise NotVerified("a signature line is malformed", where, line)
        signatures.append((parts[1], signature[:4], signature[4:]))
    return Note(text + "\n", tuple(signatures))


def check_signed(note: Note, key: Key, where: str) -> None:
    """That the key signed the note. Lines of keys that are not known are not looked at; a bad one of this key is fatal."""
    found = False
    for name, key_id, signature in note.signatures:
        if name == key.name and key_id == key.id:
            if not ed25519_verify(key.public, note.text.encode(), signature):
                raise NotVerified(f"the signature of {key.name} is wrong", where)
            found = True
    if not found:
        raise NotVerified(f"it is not signed by {key.name} with the key that was given", where,
                          [f"{name} {key_id.hex()}" for name, key_id, _ in note.signatures],
                          f"{key.name} {key.id.hex()}")  # fmt: skip


def check_cosigned(note: Note, witness: Key, where: str) -> int | None:
    """When the witness cosigned the checkpoint, in seconds since 1970, or None if it did not (tlog-cosignature)."""
    newest = None
    for name, key_id, signature in note.signatures:
        if name == witness.name and key_id == witness.id:
            moment = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {moment}\n{note.text}".encode()
            if len(signature) != 72 or moment >= 2**63 or not ed25519_verify(witness.public, message, signature[8:]):
                raise NotVerified(f"the cosignature of {witness.name} is wrong", where)
            newest = max(moment, newest or 0)
    return newest


@dataclass(frozen=True)
class Trust:
    """Whom to believe: the log's key, the witnesses, and how many of these must have signed too."""

    key: Key
    witnesses: tuple[Key, ...] = ()
    quorum: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log, after its signatures were verified. `closed`: the logs from which it says that it goes on, and the
    size with which each was closed."""

    origin: str
    size: int
    root: bytes
    closed: tuple[tuple[str, int], ...] = ()


def open_checkpoint(data: bytes, trust: Trust, report: Report, where: str = "checkpoint") -> Checkpoint:
    """A checkpoint that the log's key signed, and the quorum of witnesses (tlog-checkpoint, "Note text")."""
    note = parse_note(data, where)
    check_signed(note, trust.key, where)
    lines = note.text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise NotVerified("its text is no checkpoint: origin, size and root are expected", where, note.text)
    if lines[0] != trust.key.name:
        raise NotVerified("the checkpoint is of another log", where, lines[0], trust.key.name)
    size = decimal(lines[1], f"{where}, size")
    root = unbase64(lines[2], f"{where}, root", 32)
    if size == 0 and root != EMPTY_ROOT:
        raise NotVerified("an empty tree has another root", where, root.hex(), EMPTY_ROOT.hex())
    report.checked.append(
        f"{where}: signed by {trust.key.name} (key id {trust.key.id.hex()}): {size} entries, root {root.hex()}"
    )
    earlier = {line: head for line in lines[3:] if (head := _earlier_log(line, where)) is not None}
    report.not_checked.extend(f"{where}: what it says of a log before it: {line}" for line in earlier)
    if len(lines) > 3 + len(earlier):
        report.not_checked.append(f"{where}: its {len(lines) - 3 - len(earlier)} extension lines have no meaning here")
    _check_witnesses(note, trust, report, where)
    closed = tuple((head.origin, head.size) for line, head in earlier.items() if line.startswith("previous "))
    return Checkpoint(lines[0], size, root, closed)


def _earlier_log(line: str, where: str) -> Checkpoint | None:
    """The head of an earlier log that an extension line names: `previous` or `abandoned`, its name, size and root."""
    words = line.split(" ")
    if len(words) != 4 or words[0] not in {"previous", "abandoned"} or not _is_name(words[1]):
        return None
    try:
        return Checkpoint(words[1], decimal(words[2], where), unbase64(words[3], where, 32))
    except NotVerified:
        return None


def open_older(data: bytes, trust: Trust, where: str) -> Checkpoint:
    """An older checkpoint, by the same key, which may be of a log that was closed: `check_lineage` decides on its name.

    It was verified when it was saved; witnesses may have come later, so that none is asked for.
    """
    name = data.partition(b"\n")[0].decode("utf-8", "replace")
    return open_checkpoint(data, Trust(Key(name, ED25519, trust.key.public)), Report(), where)


def check_lineage(old: Checkpoint, new: Checkpoint, report: Report) -> None:
    """That both are of one log, or that the newer one says that it goes on from the older one's, as that was closed."""
    if old.origin == new.origin:
        return
    size = dict(new.closed).get(old.origin)
    if size is None:
        raise NotVerified("the older checkpoint is of another log, from which this one does not go on", "consistency",
                          old.origin, new.origin)  # fmt: skip
    if old.size > size:
        raise NotVerified(f"the log {old.origin} was closed with {size} entries, and what came after them was given up",
                          "consistency", f"a checkpoint of {old.size}", f"at most {size}")  # fmt: skip
    report.checked.append(f"{new.origin} says that it goes on from {old.origin}, which was closed with {size} entries")


def _check_witnesses(note: Note, trust: Trust, report: Report, where: str) -> None:
    cosigned = {}
    for witness in trust.witnesses:
        moment = check_cosigned(note, witness, where)
        if moment is not None:
            cosigned[witness.name] = moment
            said = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment < 2**36 else str(moment)
            report.checked.append(f"{where}: cosigned by the witness {witness.name} at {said}")
    if len(cosigned) < trust.quorum:
        raise NotVerified("too few witnesses signed it", where, sorted(cosigned),
                          f"{trust.quorum} of {', '.join(key.name for key in trust.witnesses)}")  # fmt: skip
    known = {(key.name, key.id) for key in (trust.key, *trust.witnesses)}
    others = sum((name, key_id) not in known for name, key_id, _ in note.signatures)
    if others:
        report.not_checked.append(f"{where}: {others} signatures of keys that were not given")
    if not trust.witnesses:
        report.not_checked.append(f"{where}: that others were shown the same log (no --witness was given)")


# ---------------------------------------------------------------------------------------------------------------------
# Replay: what must hold between records


class _Pile:
    """Records of one width, sorted part by part in the end: of many, most wait in files, and a part at a time in memory."""

    PARTS = 32
    WAITING = 1024 * 1024

    def __init__(self, width: int) -> None:
        self._width = width
        self._waiting = [bytearray() for _ in range(self.PARTS)]
        self._files: list[BinaryIO | None] = [None] * self.PARTS

    def add(self, record: bytes) -> None:
        """Adds a record; what has the same first 16 bytes comes together."""
        part = record[15] % self.PARTS
        waiting = self._waiting[part]
        waiting += record
        if len(waiting) >= self.WAITING:
            file = self._files[part]
            if file is None:
                file = self._files[part] = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the pile)
            file.write(waiting)
            waiting.clear()

    def sorted_parts(self) -> Iterator[list[bytes]]:
        """The parts, each sorted."""
        for waiting, file in zip(self._waiting, self._files):  # noqa: B905  (strict is not in Python 3.9)
            data = b""
            if file is not None:
                file.seek(0)
                data = file.read()
            data += bytes(waiting)
            yield sorted(data[i : i + self._width] for i in range(0, len(data), self._width))

    def close(self) -> None:
        """Removes its files."""
        for file in self._files:
            if file is not None:
                file.close()


class Replay:
    """No record stands twice, and the versions of each command run without a gap: 1, 2, 3 … if all is there from position 0.

    A version is in the leaf of each transition, and in that of an import which began a command.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._records = _Pile(24)
        self._versions = _Pile(28)

    def add(self, position: int, leaf: Leaf) -> None:
        """Takes one leaf, in order of position."""
        name = hashlib.sha256((leaf["id"] + leaf["created_at"]).encode()).digest()[:16]
        self._records.add(struct.pack(">16sQ", name, position))
        version = leaf.get("version")
        if version is not None and "command_id" in leaf and leaf["kind"] in {"transition", "import"}:
            command = bytes.fromhex(leaf["command_id"].replace("-", ""))
            self._versions.add(struct.pack(">16sIQ", command, version, position))

    def finish(self, versions: bool = True) -> dict[str, int]:
        """Checks all. Returns how many commands and transitions there are, and how many stand before their predecessor."""
        try:
            self._check_records()
            return self._check_versions() if versions else {}
        finally:
            self._records.close()
            self._versions.close()

    def _check_records(self) -> None:
        for part in self._records.sorted_parts():
            last = b""
            for record in part:
                if record[:16] == last[:16]:
                    first, again = int.from_bytes(last[16:], "big"), int.from_bytes(record[16:], "big")
                    raise NotVerified("one record stands at two positions", f"position {again}", None, f"only {first}")
                last = record

    def _check_versions(self) -> dict[str, int]:
        found = {"commands": 0, "transitions": 0, "late": 0}
        for part in self._versions.sorted_parts():
            command, version, position = b"", 0, 0
            for record in part:
                this, at = struct.unpack(">16xIQ", record)
                if record[:16] != command:
                    command, expected = record[:16], 1 if self._first == 0 else this
                    found["commands"] += 1
                else:
                    expected = version + 1
                    found["late"] += at < position
                if this != expected:
                    name = re.sub(r"(.{8})(.{4})(.{4})(.{4})(.{12})", r"\1-\2-\3-\4-\5", command.hex())
                    what = "two records claim one version" if this < expected else "a record of it is missing"
                    raise NotVerified(
                        f"command {name}: {what}", f"position {at}", f"version {this}", f"version {expected}"
                    )
                version, position = this, at
                found["transitions"] += 1
        return found


def _tell_replay(report: Report, found: dict[str, int], whole: bool) -> None:
    start = "from 1 on" if whole else "from the first that is here"
    report.checked.append(
        f"no record stands twice; the versions of {found['commands']} commands run without a gap {start}"
        f" ({found['transitions']} transitions)"
    )
    if found["late"]:
        report.not_checked.append(
            f"why {found['late']} transitions stand before their command's previous one (a clock set back)"
        )
    report.facts.update(commands=found["commands"], transitions=found["transitions"])


# ---------------------------------------------------------------------------------------------------------------------
# Consistency with an older checkpoint


def read_consistency(data: bytes, where: str) -> tuple[int, list[bytes]]:
    """A consistency proof: the line "old N", then one base64 hash a line."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise NotVerified("the consistency proof is no ASCII", where) from None
    if lines[-1] or len(lines) < 2 or not lines[0].startswith("old ") or len(lines) > 130:
        raise NotVerified("this is no consistency proof: the line `old N`, then hashes", where, lines[0][:80])
    return decimal(lines[0][4:], where), [unbase64(line, where, 32) for line in lines[1:-1]]


def check_consistency(old: Checkpoint, new: Checkpoint, proof: list[bytes] | None, how: str, report: Report) -> None:
    """That the new tree begins with the old one."""
    check_lineage(old, new, report)
    if old.size > new.size:
        raise NotVerified("the log has become smaller: it was rolled back, or the two are in the wrong order", "consistency",
                          f"{new.size} entries", f"at least {old.size}")  # fmt: skip
    if old.size == new.size and old.root != new.root:
        raise NotVerified("two different trees of one size were signed", "consistency", new.root.hex(), old.root.hex())
    if old.size in {0, new.size} and proof is None:
        proof = []
    if proof is None:
        raise NotVerified("nothing shows that the log still begins with the older checkpoint: give --proof or --tiles",
                          "consistency")  # fmt: skip
    if not verify_consistency(old.size, old.root, new.size, new.root, proof):
        raise NotVerified(f"the log of {new.size} entries does not begin with the older one of {old.size}, or the proof of it is not one",
                          "consistency", f"root {new.root.hex()}", f"a tree that begins with root {old.root.hex()}")  # fmt: skip
    report.checked.append(f"the log of {new.size} entries begins with the older one of {old.size} ({how})")
    report.facts["old_size"] = old.size


@dataclass(frozen=True)
class Earlier:
    """An older checkpoint that the verified one has to continue, and what may show that it does."""

    checkpoint: Checkpoint
    proof: Path | None = None
    tiles: Path | None = None

    def check(self, new: Checkpoint, report: Report, inside: bytes | None = None) -> None:
        """By the proof file, or the tiles, or a consistency proof that came along."""
        old = self.checkpoint
        proof, how = None, "of equal size" if old.size == new.size else "an empty log begins every other"
        if 0 < old.size < new.size:
            if self.proof is not None:
                proof, how = self._proof(read_file(self.proof, NOTE_LIMIT), str(self.proof)), f"proof {self.proof}"
            elif self.tiles is not None:
                proof, how = (
                    Tiles(self.tiles, new.size).consistency(old.size),
                    f"computed from the tiles in {self.tiles}",
                )
            elif inside is not None:
                proof, how = self._proof(inside, "consistency"), "the proof that came with it"
        check_consistency(old, new, proof, how, report)

    def _proof(self, data: bytes, where: str) -> list[bytes]:
        size, proof = read_consistency(data, where)
        if size != self.checkpoint.size:
            raise NotVerified("the consistency proof begins at another size", where, size, self.checkpoint.size)
        return proof


def read_file(file: Path, limit: int) -> bytes:
    """A file that the command line names. Raises Unreadable."""
    data = read_regular(file, limit)
    if data is None:
        raise Unreadable(f"{file}: there is no such file")
    return data


# ---------------------------------------------------------------------------------------------------------------------
# One record's proof (C2SP tlog-proof)

PROOF_LIMIT = 64 * 1024 * 1024
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
LONGEST_PROOF = 64


def verify_proof(data: bytes, trust: Trust, report: Report, leaf: bytes | None = None) -> Checkpoint:
    """A tlog-proof file, whose extra data is a leaf with disclosed values. `leaf` may be given besides, or instead."""
    head, blank, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise NotVerified("the proof is no ASCII before its checkpoint", "proof") from None
    if not blank or lines[0] != PROOF_HEADER:
        raise NotVerified("this is no proof file", "proof", lines[0][:80], PROOF_HEADER)
    extra = unbase64(lines.pop(1)[6:], "extra") if len(lines) > 1 and lines[1].startswith("extra ") else None
    if len(lines) < 2 or not lines[1].startswith("index "):
        raise NotVerified("the proof names no index", "proof", lines[1:2], "index N")
    position = decimal(lines[1][6:], "index")
    if len(lines) - 2 > LONGEST_PROOF:
        raise NotVerified(f"the proof has {len(lines) - 2} hashes", "proof", None, f"at most {LONGEST_PROOF}")
    hashes = [unbase64(line, "proof", 32) for line in lines[2:]]
    where = f"position {position}"
    salts: Any = {}
    values: Any = {}
    if extra is not None:
        told = _members(parse_canonical(extra, "extra"), ("leaf", "salts", "values"), "extra")
        _require_narrow(told, "extra")
        if not isinstance(told["leaf"], str):
            raise NotVerified("the leaf is no string", "extra")
        if leaf is not None and leaf != told["leaf"].encode():
            raise NotVerified("the leaf that was given is not the one in the proof", "extra", told["leaf"], leaf)
        leaf, salts, values = told["leaf"].encode(), told["salts"], told["values"]
    if leaf is None:
        raise NotVerified("the proof holds no leaf (no extra line): give the leaf's bytes by --leaf", "proof")
    checkpoint = open_checkpoint(note, trust, report)
    if not verify_inclusion(leaf_hash(leaf), position, checkpoint.size, hashes, checkpoint.root):
        raise NotVerified("this leaf does not stand at this position of the log, or the proof of it is not one", where,
                          f"leaf hash {leaf_hash(leaf).hex()}", f"a way to root {checkpoint.root.hex()}")  # fmt: skip
    record = read_leaf(leaf, where)
    report.checked.append(f"{where}: the leaf of record {record['id']} stands in the log of {checkpoint.size} entries")
    shown_fields = check_disclosed(record, salts, values, where)
    if shown_fields:
        report.checked.append(f"{where}: these values are the recorded ones: {', '.join(shown_fields)}")
    hidden = sorted(record["commitments"].keys() - set(shown_fields))
    if hidden:
        report.not_checked.append(f"{where}: {', '.join(hidden)}: not shown (withheld or erased)")
    report.facts.update(position=position, leaf=record, values=values)
    return checkpoint


# ---------------------------------------------------------------------------------------------------------------------
# Evidence bundles

EVIDENCE = "redflag evidence/v1"
MULTIPROOF = "redflag multiproof/v1"
NEEDED = ("checkpoint", "entries.jsonl", "key", "leaves", "manifest.json", "manifest.sig", "proof")
FILES = 64
RATIO = 100  # a bundle that unpacks to more than this many times its size is taken for a bomb
LINE_LIMIT = 32 * 1024 * 1024
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    ValueError,
    OSError,
)


class Bundle:
    """The files in a bundle's zip. They are read, never unpacked to disk."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
            about = path.stat()
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror or error}") from None
        if not stat.S_ISREG(about.st_mode):
            self._file.close()
            raise Unreadable(f"{path} is no regular file")
        try:
            if self._file.read(4) != b"PK\x03\x04":
                raise NotVerified("this is no zip file, or something stands before it", "bundle")
            self._zip = zipfile.ZipFile(self._file)
            self.files = self._admitted(self._zip.infolist(), about.st_size)
        except _BROKEN as error:
            self._file.close()
            raise NotVerified(f"the zip is broken: {error}", "bundle") from None
        except NotVerified:
            self._file.close()
            raise

    @staticmethod
    def _admitted(infos: list[zipfile.ZipInfo], packed: int) -> dict[str, zipfile.ZipInfo]:
        if len(infos) > FILES:
            raise NotVerified(f"the zip has {len(infos)} files", "bundle", None, f"at most {FILES}")
        found: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if not _FILE(info.filename) or info.orig_filename != info.filename:
                raise NotVerified("the zip holds a file of a name that no bundle has", "bundle", info.orig_filename)
            if info.filename.lower() in {name.lower() for name in found}:
                raise NotVerified("the zip holds two files of one name", "bundle", info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 0x1 or info.compress_type not in {0, 8} or kind not in {0, stat.S_IFREG}:
                raise NotVerified("the zip holds what is no plain file", "bundle", info.filename)
            found[info.filename] = info
        missing = [name for name in NEEDED if name not in found]
        if missing:
            raise NotVerified("files are missing", "bundle", None, missing)
        if sum(info.file_size for info in infos) > RATIO * packed + 1024 * 1024:
            raise NotVerified(f"the zip would unpack to more than {RATIO} times its size", "bundle")
        return found

    def read(self, name: str, limit: int = NOTE_LIMIT) -> bytes:
        """A small file, whole."""
        if self.files[name].file_size > limit:
            raise NotVerified(f"this has {self.files[name].file_size} bytes", name, None, f"at most {limit}")
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file in pieces."""
        try:
            with self._zip.open(self.files[name]) as opened:
                while True:
                    piece = opened.read(1024 * 1024)
                    if not piece:
                        return
                    yield piece
        except _BROKEN as error:
            raise NotVerified(f"the zip is broken: {error}", name) from None

    def lines(self, name: str, limit: int) -> Iterator[bytes]:
        """The lines of a file, without their ends. Each, the last one too, has to end with a newline."""
        try:
            with self._zip.open(self.files[name]) as opened, io.BufferedReader(opened, 256 * 1024) as buffered:  # type: ignore[type-var]
                while True:
                    line = buffered.readline(limit + 1)
                    if not line:
                        return
                    if line[-1:] != b"\n":
                        what = (
                            f"a line is longer than {limit} bytes" if len(line) > limit else "the last line is cut off"
                        )
                        raise NotVerified(what, name)
                    yield line[:-1]
        except _BROKEN as error:
            raise NotVerified(f"the zip is broken: {error}", name) from None

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file, in hex."""
        digest = hashlib.sha256()
        for piece in self.chunks(name):
            digest.update(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()


def _read_manifest(bundle: Bundle, trust: Trust, report: Report) -> dict[str, Any]:
    data = bundle.read("manifest.json")
    note = parse_note(bundle.read("manifest.sig"), "manifest.sig")
    check_signed(note, trust.key, "manifest.sig")
    expected = f"{EVIDENCE}\n{hashlib.sha256(data).hexdigest()}\n"
    if note.text != expected:
        raise NotVerified("the manifest is not the one that the log signed", "manifest.sig", note.text, expected)
    manifest = parse_canonical(data, "manifest.json")
    _require_narrow(manifest, "manifest.json")
    manifest = _members(manifest, ("completeness", "files", "filters", "format", "origin", "period"), "manifest.json")
    completeness = _members(
        manifest["completeness"],
        ("count", "filtered", "first_position", "last_position"),
        "manifest.json, completeness",
    )
    period = _members(manifest["period"], ("since", "until"), "manifest.json, period")
    if manifest["format"] != EVIDENCE or manifest["origin"] != trust.key.name:
        raise NotVerified("the manifest is of another format or log", "manifest.json",
                          [manifest["format"], manifest["origin"]], [EVIDENCE, trust.key.name])  # fmt: skip
    if any(not (value is None or (isinstance(value, str) and _TIME(value))) for value in period.values()):
        raise NotVerified("the period is malformed", "manifest.json", period)
    if not isinstance(manifest["filters"], dict) or completeness["filtered"] is not bool(manifest["filters"]):
        raise NotVerified(
            "filters and completeness disagree", "manifest.json", completeness["filtered"], manifest["filters"]
        )
    if not isinstance(manifest["files"], dict):
        raise NotVerified("the files are no object", "manifest.json")
    listed, there = set(manifest["files"]) | {"manifest.json", "manifest.sig"}, set(bundle.files)
    if listed != there or {"manifest.json", "manifest.sig"} & set(manifest["files"]):
        raise NotVerified(
            "the bundle holds other files than its manifest names", "manifest.json", sorted(there), sorted(listed)
        )
    # The entries last: if they are not what was signed, what was signed says which of them
    for name, digest in sorted(manifest["files"].items(), key=lambda item: (item[0] == "entries.jsonl", item[0])):
        found = bundle.sha256(name)
        if found != digest:
            if name == "entries.jsonl":
                for _ in _Entries(bundle, 2**63, None):
                    pass
            raise NotVerified(
                "the file is not the one that the manifest names: its SHA-256 differs", name, found, digest
            )
    report.checked.append(f"manifest: signed by {trust.key.name}; the SHA-256 of {len(manifest['files'])} files")
    return manifest


class _Entries:
    """The entries of a bundle, each checked by itself while they stream by."""

    def __init__(self, bundle: Bundle, size: int, earlier: Checkpoint | None) -> None:
        self._bundle, self._size, self._earlier = bundle, size, earlier
        self._listed = bundle.lines("leaves", 200)
        self.first: int | None = None
        self.last: int | None = None
        self.gap: tuple[int, int] | None = None
        self.count = 0
        self.fields: dict[str, list[int]] = {}
        self.replay: Replay | None = None
        self._growing: Growing | None = None
        self.earlier_root: bytes | None = None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for line in self._bundle.lines("entries.jsonl", LINE_LIMIT):
            where = f"entries.jsonl, line {self.count + 1}"
            told = _members(parse_canonical(line, where), ("leaf", "position", "salts", "values"), where)
            _require_narrow(told, where)
            position, text = told["position"], told["leaf"]
            if type(position) is not int or not 0 <= position < self._size or not isinstance(text, str):
                raise NotVerified("the position is not one of this log, or the leaf is no string", where, position,
                                  f"0 to {self._size - 1}")  # fmt: skip
            if self.last is not None and position <= self.last:
                raise NotVerified("the entries are not in order of position", where, position, f"more than {self.last}")
            where = f"position {position}"
            leaf = text.encode()
            hashed = leaf_hash(leaf)
            self._require_listed(position, hashed, text)
            record = read_leaf(leaf, where)
            for name in check_disclosed(record, told["salts"], told["values"], where):
                self.fields.setdefault(name, [0, 0])[0] += 1
            for name in record["commitments"]:
                self.fields.setdefault(name, [0, 0])[1] += 1
            self._count(position, hashed, record)
            yield position, hashed
        left = next(self._listed, None)
        if left is not None:
            raise NotVerified("an entry was left out", f"position {left.decode('ascii', 'replace').partition(' ')[0]}")

    def _require_listed(self, position: int, hashed: bytes, leaf: str) -> None:
        line = next(self._listed, b"").decode("ascii", "replace")
        if line == f"{position} {base64.b64encode(hashed).decode()}":
            return
        listed = decimal(line.partition(" ")[0], "leaves") if line else None
        named = re.search(r'"id":"([0-9a-f-]{36})"', leaf)
        record = f" of record {named[1]}" if named else ""
        if listed is not None and listed < position:
            raise NotVerified("an entry was left out", f"position {listed}", f"position {position}{record}", line)
        what = "the leaf is not the one that the bundle lists" if listed == position else "an entry was added"
        says = f"leaf hash {base64.b64encode(hashed).decode()}{record}"
        raise NotVerified(what, f"position {position}", says, line or "the end")

    def _count(self, position: int, hashed: bytes, record: Leaf) -> None:
        if self.first is None:
            self.first, self.replay = position, Replay(position)
            self._growing = Growing() if position == 0 and self._earlier else None
        elif self.last is not None and position > self.last + 1:
            self.gap = self.gap or (self.last, position)
            self._growing = None
        if self.replay is not None:
            self.replay.add(position, record)
        if self._growing is not None and self._earlier is not None:
            self._growing.add(hashed)
            if self._growing.size == self._earlier.size:
                self.earlier_root, self._growing = self._growing.root(), None
        self.last = position
        self.count += 1


def _proof_hashes(bundle: Bundle, size: int) -> Iterator[bytes]:
    lines = bundle.lines("proof", 200)
    header, named = next(lines, b""), next(lines, b"")
    if header != MULTIPROOF.encode() or named != f"size {size}".encode():
        raise NotVerified(
            "the proof is of another format or size", "proof", [header, named], [MULTIPROOF, f"size {size}"]
        )
    for line in lines:
        yield unbase64(line.decode("ascii", "replace"), "proof", 32)


def verify_bundle(path: Path, trust: Trust, report: Report, earlier: Earlier | None = None) -> Checkpoint:
    """An evidence bundle: manifest, checkpoint, every entry against the tree, completeness, replay."""
    bundle = Bundle(path)
    try:
        manifest = _read_manifest(bundle, trust, report)
        checkpoint = open_checkpoint(bundle.read("checkpoint"), trust, report)
        entries = _Entries(bundle, checkpoint.size, earlier.checkpoint if earlier else None)
        root = root_of_subset(checkpoint.size, iter(entries), _proof_hashes(bundle, checkpoint.size))
        if root != checkpoint.root:
            raise NotVerified(
                "the entries are not those of the log: an entry was altered, moved, left out or added, or the proof is not one",
                f"positions {entries.first} to {entries.last}", f"root {root.hex()}", f"root {checkpoint.root.hex()}",
            )  # fmt: skip
        report.checked.append(f"{entries.count} entries stand in the log of {checkpoint.size} at their positions")
        _check_completeness(manifest, entries, report)
        if earlier:
            _check_earlier(earlier, checkpoint, entries, report,
                           bundle.read("consistency") if "consistency" in bundle.files else None)  # fmt: skip
        if bundle.read("key").strip() != vkey(trust.key).encode():
            report.not_checked.append(
                "key: the bundle names another key than the one that was given; the one given decided"
            )
        covered = sorted(set(bundle.files) - {*NEEDED, "consistency"})
        if covered:
            report.not_checked.append(
                f"what {', '.join(covered)} say: only that they are the files which the manifest names"
            )
    finally:
        bundle.close()
    return checkpoint


def _check_completeness(manifest: dict[str, Any], entries: _Entries, report: Report) -> None:
    stated = manifest["completeness"]
    filtered = stated["filtered"]
    found = {
        "count": entries.count,
        "filtered": filtered,
        "first_position": entries.first,
        "last_position": entries.last,
    }
    if canonical(found) != canonical(stated):
        raise NotVerified(
            "the bundle is not as complete as its manifest says", "manifest.json, completeness", found, stated
        )
    for name, (shown_count, all_count) in sorted(entries.fields.items()):
        if shown_count:
            report.checked.append(f"{name}: {shown_count} values are the recorded ones")
        if shown_count < all_count:
            report.not_checked.append(f"{name}: {all_count - shown_count} values are not shown (withheld or erased)")
    if not filtered:
        if entries.gap:
            raise NotVerified("positions are missing from a bundle that claims to be unfiltered",
                              f"after position {entries.gap[0]}", f"position {entries.gap[1]}",
                              f"position {entries.gap[0] + 1}")  # fmt: skip
        if entries.count:
            report.checked.append(f"no position is missing from {entries.first} to {entries.last}")
    if entries.replay is not None:
        replayed = entries.replay.finish(versions=not filtered)
        if not filtered:
            _tell_replay(report, replayed, entries.first == 0)
        else:
            report.checked.append("no record stands twice")
    if filtered:
        report.not_checked.append(
            "that the filters left out nothing that they should have kept, and versions without a gap: the bundle is filtered"
        )
    report.not_checked.append(
        f"that the period ({stated_period(manifest)}) holds no record at a position before the first or after the last one here"
    )
    report.facts.update(stated, period=manifest["period"], filters=manifest["filters"])


def stated_period(manifest: dict[str, Any]) -> str:
    """The period of a manifest in words."""
    return f"{manifest['period']['since'] or 'the beginning'} to {manifest['period']['until'] or 'the end'}"


def _check_earlier(earlier: Earlier, new: Checkpoint, entries: _Entries, report: Report, inside: bytes | None) -> None:
    old = earlier.checkpoint
    if entries.earlier_root is not None and old.size < new.size:
        check_lineage(old, new, report)
        # All of the older tree's entries are here and are those of the new tree: its root can simply be computed
        if entries.earlier_root != old.root:
            raise NotVerified(f"the log of {new.size} entries does not begin with the older one of {old.size}", "consistency",
                              f"root {entries.earlier_root.hex()}", f"root {old.root.hex()}")  # fmt: skip
        report.checked.append(
            f"the log of {new.size} entries begins with the older one of {old.size} (computed from the entries)"
        )
        report.facts["old_size"] = old.size
    else:
        earlier.check(new, report, inside)
    if old.size == new.size:
        return
    first, last = entries.first, entries.last
    if first is None or last is None or first > old.size or last != new.size - 1 or entries.gap:
        report.not_checked.append(
            f"what happened since the older checkpoint: not all of positions {old.size} to {new.size - 1} are here"
        )
    else:
        report.checked.append(
            f"every entry since the older checkpoint is here (positions {old.size} to {new.size - 1})"
        )


# ---------------------------------------------------------------------------------------------------------------------
# A whole log (C2SP tlog-tiles)


class Progress:
    """How far it is, on stderr, every few seconds."""

    def __init__(self, total: int, silent: bool) -> None:
        self._total, self._silent = total, silent or not sys.stderr
        self._terminal = not self._silent and sys.stderr.isatty()
        self._began = self._told = time.monotonic()

    def at(self, count: int) -> None:
        """Says it, if it is time to."""
        now = time.monotonic()
        if not self._silent and now - self._told >= (0.5 if self._terminal else 5):
            self._told = now
            line = f"{count:,} of {self._total:,} entries, {count / (now - self._began):,.0f}/s"
            sys.stderr.write(f"\r{line}\x1b[K" if self._terminal else line + "\n")
            sys.stderr.flush()

    def end(self) -> None:
        """Cleans its line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def split_entries(data: bytes, width: int, exact: bool, where: str) -> list[bytes]:
    """The first `width` entries of a bundle: each after its length in 16 bits (tlog-tiles, "Log entries")."""
    found, at, end = [], 0, len(data)
    for i in range(width):
        if at + 2 > end:
            raise NotVerified(f"the bundle ends before its entry {i}", where, f"{i} entries", f"{width} entries")
        begin = at + 2
        at = begin + (data[at] << 8 | data[at + 1])
        if at > end:
            raise NotVerified(f"the bundle ends inside its entry {i}", where)
        found.append(data[begin:at])
    if exact and at != end:
        raise NotVerified(f"the bundle goes on after its {width} entries", where, f"{end - at} bytes more", "nothing")
    return found


class _Levels:
    """The hashes of the rightmost tile of each level, while a log streams by; full tiles go one level up."""

    def __init__(self, tiles: Tiles, begin: int) -> None:
        self._tiles = tiles
        self._pending: list[list[bytes]] = [[]]
        level = 1
        while begin >> 8 * level:
            # What stands to the left of where we begin: taken from the tiles, and proven by the root in the end
            index, filled = divmod(begin >> 8 * level, WIDTH)
            width = min(WIDTH, (tiles.size >> 8 * level) - index * WIDTH)
            self._pending.append(tiles.hashes(level, index, width)[:filled] if filled else [])
            level += 1

    def add(self, first: int, hashes: list[bytes]) -> None:
        """Adds the leaf hashes of one tile."""
        self._compare(0, first // WIDTH, hashes)
        level, index = 0, first // WIDTH
        while len(hashes) == WIDTH:
            above, level = root_of(hashes), level + 1
            if level == len(self._pending):
                self._pending.append([])
            hashes = self._pending[level]
            hashes.append(above)
            if len(hashes) == WIDTH:
                self._compare(level, index // WIDTH, hashes)
                self._pending[level] = []
            index //= WIDTH
        if level == 0:
            self._pending[0] = hashes

    def _compare(self, level: int, index: int, hashes: list[bytes]) -> None:
        there = self._tiles.hashes(level, index, len(hashes))
        if there != hashes:
            at = next(i for i in range(len(hashes)) if there[i] != hashes[i])
            place = (index * WIDTH + at) << 8 * level
            where = f"position {place}" if level == 0 else f"positions {place} to {place + (1 << 8 * level) - 1}"
            raise NotVerified(f"entries and {tile_path(str(level), index, len(hashes))} disagree", where,
                              f"{hashes[at].hex()} (computed)", f"{there[at].hex()} (tile)")  # fmt: skip

    def root(self) -> bytes:
        """Compares the last, partial tiles too. Returns the root."""
        full: list[bytes] = []
        for level in range(len(self._pending) - 1, -1, -1):
            hashes = self._pending[level]
            if hashes and level:
                self._compare(level, (self._tiles.size >> 8 * level) // WIDTH, hashes)
            full += full_subtrees(hashes)
        return fold(full)


def verify_log(
    folder: Path, trust: Trust, report: Report, earlier: Earlier | None = None, pruned: int = 0, silent: bool = True
) -> Checkpoint:
    """A downloaded log: checkpoint, every tile, every entry, replay. `pruned` is its minimum index, if it has one."""
    if not folder.is_dir():
        raise Unreadable(f"{folder} is no directory")
    data = read_regular(folder / "checkpoint", NOTE_LIMIT)
    if data is None:
        raise Unreadable(f"{folder} holds no checkpoint")
    checkpoint = open_checkpoint(data, trust, report)
    if pruned > checkpoint.size:
        raise NotVerified("the log is smaller than what is said to be pruned", "checkpoint", checkpoint.size, pruned)
    begin = pruned - pruned % WIDTH
    tiles = Tiles(folder, checkpoint.size)
    levels, replay, progress = _Levels(tiles, begin), Replay(begin), Progress(checkpoint.size, silent)
    for first in range(begin, checkpoint.size, WIDTH):
        width = min(WIDTH, checkpoint.size - first)
        where, bundle, longer = tiles.file("entries", first // WIDTH, width, WIDTH * (2 + 0xFFFF))
        if bundle is None:
            raise NotVerified("an entry bundle is missing (of a pruned log, say so by --pruned)", where)
        entries = split_entries(bundle, width, not longer, where)
        levels.add(first, [hashlib.sha256(b"\x00" + entry).digest() for entry in entries])
        for position, entry in enumerate(entries, first):
            replay.add(position, glance(entry, position))
        progress.at(first + width)
    root = levels.root()
    progress.end()
    if root != checkpoint.root:
        raise NotVerified("the log is not the one that was signed: its root differs", "checkpoint", f"root {root.hex()} (computed)",
                          f"root {checkpoint.root.hex()}")  # fmt: skip
    report.checked.append(
        f"{checkpoint.size - begin} entries, their bundles and all tiles over them: the root is the signed one"
    )
    _tell_replay(report, replay.finish(), begin == 0)
    if begin:
        report.not_checked.append(f"the pruned entries before position {begin}: only that the tree still counts them")
    if earlier:
        Earlier(earlier.checkpoint, earlier.proof, earlier.tiles or folder).check(checkpoint, report)
    report.not_checked.append("values behind the commitments: a log does not show them")
    report.not_checked.append("other files in the directory, such as partial tiles of earlier sizes")
    return checkpoint


# ---------------------------------------------------------------------------------------------------------------------
# The command line


def vkey(key: Key) -> str:
    """A key as it is given to others: name+id+base64(type || key)."""
    return f"{key.name}+{key.id.hex()}+{base64.b64encode(bytes([key.kind]) + key.public).decode()}"


def shown(value: object, limit: int = 300) -> str:
    """A value as it may be shown on a terminal: short, and without characters that would command it."""
    text = (
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else str(value)
    )
    text = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii", "replace") for one in text[:limit]
    )
    return text + ("…" if len(str(value)) > limit else "")


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError("a number is expected")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--key", required=True, metavar="VKEY", help="the log's public key, got by another way than the files"
    )
    shared.add_argument(
        "--witness", action="append", default=[], metavar="VKEY", help="a witness's public key; may be repeated"
    )
    shared.add_argument(
        "--quorum", type=_number, metavar="N", help="how many witnesses must have signed (default: all given)"
    )
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0],
                                     epilog="Exit codes: 0 verified, 1 NOT verified, 2 usage or unreadable.")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"redflag_verify {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("checkpoint", parents=[shared], help="a signed head of the log")
    one.add_argument("file", type=Path)
    one = commands.add_parser("proof", parents=[shared], help="that one record stands in the log")
    one.add_argument("file", type=Path)
    one.add_argument("--leaf", type=Path, metavar="FILE", help="the leaf's bytes, if the proof does not hold them")
    one = commands.add_parser("bundle", parents=[shared], help="an evidence bundle")
    one.add_argument("file", type=Path)
    _since(one)
    one = commands.add_parser("consistency", parents=[shared], help="that a log still begins with an older checkpoint")
    one.add_argument("--old", type=Path, required=True, metavar="FILE", help="the checkpoint that was saved")
    one.add_argument("--new", type=Path, required=True, metavar="FILE", help="the checkpoint of today")
    _ways(one)
    one = commands.add_parser("log", parents=[shared], help="a whole downloaded log (tlog-tiles)")
    one.add_argument("file", type=Path, metavar="DIR")
    one.add_argument(
        "--pruned", type=_number, default=0, metavar="N", help="entries before position N are no longer served"
    )
    one.add_argument("--quiet", action="store_true", help="no progress on stderr")
    _since(one)
    return parser


def _since(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since-checkpoint", type=Path, metavar="OLD", help="an older checkpoint that it has to continue"
    )
    _ways(parser)


def _ways(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--tiles", type=Path, metavar="DIR", help="a downloaded log's directory, to compute consistency from"
    )
    ways.add_argument("--proof", type=Path, metavar="FILE", help="a consistency proof")


def _trust(arguments: argparse.Namespace) -> Trust:
    key = Key.parse(arguments.key, ED25519)
    witnesses = tuple(Key.parse(one, COSIGNATURE) for one in arguments.witness)
    if len({one.public for one in (key, *witnesses)}) <= len(witnesses) or len({one.name for one in witnesses}) < len(
        witnesses
    ):
        raise Unreadable("two of the keys are one and the same, or two witnesses have one name")
    quorum = len(witnesses) if arguments.quorum is None else arguments.quorum
    if quorum > len(witnesses):
        raise Unreadable(f"a quorum of {quorum} needs as many --witness keys, and {len(witnesses)} were given")
    return Trust(key, witnesses, quorum)


def _run(arguments: argparse.Namespace, report: Report) -> None:
    trust = _trust(arguments)
    if arguments.command == "checkpoint":
        checkpoint = open_checkpoint(read_file(arguments.file, NOTE_LIMIT), trust, report)
        report.not_checked.append("that the log's entries give this root, and that it continues an older checkpoint")
    elif arguments.command == "proof":
        leaf = None if arguments.leaf is None else read_file(arguments.leaf, LEAF_LIMIT)
        checkpoint = verify_proof(read_file(arguments.file, PROOF_LIMIT), trust, report, leaf)
    elif arguments.command == "consistency":
        old = open_older(read_file(arguments.old, NOTE_LIMIT), trust, "old checkpoint")
        report.checked.append(f"old checkpoint: signed by {old.origin}: {old.size} entries")
        checkpoint = open_checkpoint(read_file(arguments.new, NOTE_LIMIT), trust, report, "new checkpoint")
        Earlier(old, arguments.proof, arguments.tiles).check(checkpoint, report)
    else:
        earlier = None
        if arguments.since_checkpoint is not None:
            old = open_older(read_file(arguments.since_checkpoint, NOTE_LIMIT), trust, "older checkpoint")
            earlier = Earlier(old, arguments.proof, arguments.tiles)
        elif arguments.proof or arguments.tiles:
            raise Unreadable("--proof and --tiles say how to check --since-checkpoint, which was not given")
        if arguments.command == "bundle":
            checkpoint = verify_bundle(arguments.file, trust, report, earlier)
        else:
            silent = arguments.quiet or arguments.json
            checkpoint = verify_log(arguments.file, trust, report, earlier, arguments.pruned, silent)
    report.facts.update(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root.hex())


def _tell(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1, sort_keys=True))
        return
    for line in result["checked"]:
        print(f"checked      {shown(line, 1000)}")
    for line in result["not_checked"]:
        print(f"not checked  {shown(line, 1000)}")
    problem = result["problem"]
    if problem is None:
        print("VERIFIED     what is listed as checked, and nothing else")
        return
    print(f"{'UNREADABLE  ' if result['exit'] == 2 else 'NOT VERIFIED'} {shown(problem['what'], 1000)}")
    for name in ("where", "says", "expected"):
        if problem[name]:
            print(f"  {name + ':':<10} {shown(problem[name])}")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns 0 if all was verified, 1 if not, 2 if it could not be read."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parsed = _parser().parse_args(arguments)
    report, code = Report(), 0
    problem: dict[str, str | None] | None = None
    try:
        _run(parsed, report)
    except NotVerified as error:
        code = 1
        problem = {"what": error.what, "where": error.where or None,
                   "says": None if error.says is None else shown(error.says),
                   "expected": None if error.expected is None else shown(error.expected)}  # fmt: skip
    except Unreadable as error:
        code, problem = 2, {"what": str(error), "where": None, "says": None, "expected": None}
    except Exception as error:  # whatever a file made this program do: that is never "verified"
        code = 1
        problem = {
            "what": f"the verifier itself failed: {type(error).__name__}: {error}",
            "where": None,
            "says": None,
            "expected": None,
        }
    result = {"verified": code == 0, "exit": code, "command": parsed.command, "checked": report.checked,
              "not_checked": report.not_checked, "facts": report.facts if code == 0 else {}, "problem": problem}  # fmt: skip
    _tell(result, parsed.json)
    return code


if __name__ == "__main__":
    sys.exit(main())
