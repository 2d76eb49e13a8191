"""What a record looks like in the log: one canonical byte string for each, and commitments for what is not everybody's.

The leaf of a record is a JSON object in the canonical form of RFC 8785, with two narrowings that make it the same in every
language: numbers are integers up to 2^53 - 1 or else strings, and times are UTC with microseconds and a Z. Identifiers,
kinds, results and times stand in it plainly. Who acted, the address, parameters, messages, output and the metadata stand
in it as commitments:

    salt(field)  = SHA-256("redflag/salt/v1" || 0x00 || root salt || field)
    commitment   = SHA-256("redflag/commitment/v1" || 0x00 || salt(field) || canonical JSON of the value)

so that a leaf can be public, a value be shown later to whom it concerns, and a value be erased by destroying its salt. A
field is named as its column; `address` is the value of that name in the metadata, and `metadata` is all the rest of it.
`verify/SPEC.md` says the same for those who write their own verifier.

A leaf has some 20 fields of bounded size, so it stays far below 8 KiB (an entry bundle's lengths have 16 bits).
"""

from __future__ import annotations

import binascii
import datetime
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

LEAF_LIMIT = 8 * 1024
LARGEST_INTEGER = 2**53 - 1

_SALT = b"redflag/salt/v1\x00"
_COMMITMENT = b"redflag/commitment/v1\x00"
# What stands in the leaf as it is, where the record has it
PLAIN = (
    "id", "kind", "created_at", "executed_at", "command_id", "agent_id", "version", "command_type", "action", "result",
    "sent_at", "completed_at", "exit_code", "duration_seconds",
)  # fmt: skip
# What stands in it as a commitment, where the record has it
COMMITTED = ("actor", "message", "params", "stdout", "stderr")
# Every column that a leaf speaks of; the salts speak for themselves
COLUMNS = (*PLAIN, *COMMITTED, "metadata", "salt", "salts")

# Which of those are times
_MOMENTS = ("created_at", "executed_at", "sent_at", "completed_at")

_sha256 = hashlib.sha256
_base64 = binascii.b2a_base64
_encoder = msgspec.json.Encoder(order="sorted")
# Numbers that are no integers keep the digits that the database gave them
decoder = msgspec.json.Decoder(float_hook=str)


def encode(value: Any) -> bytes:
    """The canonical JSON of a value (RFC 8785 §3.2; numbers as above)."""
    if type(value) is str:
        return msgspec.json.encode(value)
    encoded = _encoder.encode(value if _is_narrow(value) else _narrowed(value))
    return encoded if encoded.isascii() else _encode_by_utf16(value)


def _is_narrow(value: Any) -> bool:
    """Whether this is a flat object of what stands as it is: what nearly every record has, told without a copy."""
    if type(value) is not dict:
        return False
    for item in value.values():
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is not int or not -LARGEST_INTEGER <= item <= LARGEST_INTEGER:
            return False
    return True


def _encode_by_utf16(value: Any) -> bytes:
    """The same where it matters that RFC 8785 sorts names by UTF-16 code units, which differ from code points above U+FFFF."""
    return msgspec.json.encode(_sorted(_narrowed(value)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _sorted(value[name])
            for name in sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        }
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _narrowed(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -LARGEST_INTEGER <= value <= LARGEST_INTEGER else str(value)
    if kind is dict:
        return {name: _narrowed(item) for name, item in value.items()}
    if kind is list:
        return [_narrowed(item) for item in value]
    if isinstance(value, datetime.datetime):
        return moment(value)
    return str(value)


def moment(value: datetime.datetime) -> str:
    """A time as it stands in a leaf: 2026-11-23T23:57:52.014786Z."""
    return value.astimezone(datetime.UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def salt_of(root: bytes, field: str) -> bytes:
    """The salt of a field, derived from the record's root salt."""
    return _sha256(_SALT + root + field.encode()).digest()


def commit(salt: bytes, value: Any) -> str:
    """The commitment to a value, in base64 (RFC 4648 §4)."""
    return _base64(_sha256(_COMMITMENT + salt + encode(value)).digest(), newline=False).decode()


def fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record that its leaf commits to, by field. What the record does not have is left out."""
    found = {name: value for name in COMMITTED if (value := record[name]) is not None}
    metadata: Any = record["metadata"]
    if metadata is not None:
        rest = metadata
        # By hand, any JSON can be put there
        if type(metadata) is dict and "address" in metadata:
            rest = metadata.copy()
            found["address"] = rest.pop("address")
        found["metadata"] = rest
    return found


def leaf(record: Mapping[str, Any]) -> bytes:
    """The leaf of a record (a row of update_logs, metadata and params as decoded by `decoder`)."""
    root: bytes = record["salt"]
    return plain(record, {name: commit(salt_of(root, name), value) for name, value in fields(record).items()})


def plain(record: Mapping[str, Any], commitments: dict[str, str]) -> bytes:
    """The leaf of a record with these commitments: the encoder spells identifiers and times itself, as §3 of the specification asks."""
    told: dict[str, Any] = {"v": 1, "actor_kind": record["actor"].partition(":")[0], "commitments": commitments}
    for name in PLAIN:
        value = record[name]
        if value is not None:
            told[name] = value
    for name in _MOMENTS:
        value = told.get(name)
        # A time of whole seconds, or of another zone, would be spelled without them
        if value is not None and (not value.microsecond or value.tzinfo is not datetime.UTC):
            told[name] = moment(value)
    return _encoder.encode(told)
