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
import operator
from collections.abc import Mapping
from typing import Any

import msgspec

LEAF_LIMIT = 8 * 1024
LARGEST_INTEGER = 2**53 - 1
VERSION = 1

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

# The same in the order in which the queries give them whose rows become leaves, the last of their columns: `leaf_of_columns`
ROW = (*COMMITTED, "metadata", "salt", *PLAIN)

_columns = operator.itemgetter(*ROW)
_UTC = datetime.UTC
_sha256 = hashlib.sha256
_base64 = binascii.b2a_base64
_encoder = msgspec.json.Encoder(order="sorted")
_text = msgspec.json.Encoder().encode
_EMPTY = b"{}"
# Numbers that are no integers keep the digits that the database gave them
decoder = msgspec.json.Decoder(float_hook=str)


def encode(value: Any) -> bytes:
    """The canonical JSON of a value (RFC 8785 §3.2; numbers as above)."""
    if type(value) is str:
        return _text(value)
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
    return _text(_sorted(_narrowed(value)))


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


class _Leaf(msgspec.Struct, omit_defaults=True, gc=False):
    """The members of a leaf in the order in which they stand there; what a record does not have is None, and left out."""

    action: Any = None
    actor_kind: Any = None
    agent_id: Any = None
    command_id: Any = None
    command_type: Any = None
    commitments: Any = None
    completed_at: Any = None
    created_at: Any = None
    duration_seconds: Any = None
    executed_at: Any = None
    exit_code: Any = None
    id: Any = None
    kind: Any = None
    result: Any = None
    sent_at: Any = None
    v: Any = None
    version: Any = None


def leaf(record: Mapping[str, Any]) -> bytes:
    """The leaf of a record (a row of update_logs, metadata and params as decoded by `decoder`)."""
    root: bytes = record["salt"]
    return plain(record, {name: commit(salt_of(root, name), value) for name, value in fields(record).items()})


def plain(record: Mapping[str, Any], commitments: dict[str, str]) -> bytes:
    """The leaf of a record with these commitments."""
    return _written(_columns(record), dict(sorted(commitments.items())))


def leaf_of_columns(columns: tuple[Any, ...]) -> bytes:
    """`leaf` of what the database gives of a record in the order of ROW, metadata and params as JSON text.

    All in one and by place, as it runs for every record.
    """
    actor, message, params, stdout, stderr, metadata, root, *_ = columns
    salted = _SALT + root
    rest: Any = None if metadata is None else decoder.decode(metadata)
    # In the order in which they are sorted
    commitments = {"actor": _committed(salted, b"actor", _text(actor))}
    # By hand, any JSON can be put there
    if type(rest) is dict and "address" in rest:
        commitments["address"] = _committed(salted, b"address", encode(rest.pop("address")))
    if message is not None:
        commitments["message"] = _committed(salted, b"message", _text(message))
    if rest is not None:
        commitments["metadata"] = _committed(salted, b"metadata", encode(rest))
    if params == "{}":
        commitments["params"] = _committed(salted, b"params", _EMPTY)
    elif params is not None and (value := decoder.decode(params)) is not None:
        commitments["params"] = _committed(salted, b"params", encode(value))
    if stderr is not None:
        commitments["stderr"] = _committed(salted, b"stderr", _text(stderr))
    if stdout is not None:
        commitments["stdout"] = _committed(salted, b"stdout", _text(stdout))
    return _written(columns, commitments)


def _committed(salted: bytes, field: bytes, value: bytes) -> bytes:
    """`commit` under `salt_of`, in one; the encoder spells it in base64."""
    return _sha256(_COMMITMENT + _sha256(salted + field).digest() + value).digest()


def _written(columns: tuple[Any, ...], commitments: Mapping[str, str | bytes]) -> bytes:
    """The leaf of a record's columns with sorted commitments: the encoder spells identifiers and times as §3 of the specification asks."""
    (
        actor, _, _, _, _, _, _, number, kind, created_at, executed_at, command_id, agent_id, version, command_type,
        action, result, sent_at, completed_at, exit_code, duration_seconds,
    ) = columns  # fmt: skip
    # A time of whole seconds, or of another zone, would be spelled without them
    if not created_at.microsecond or created_at.tzinfo is not _UTC:
        created_at = moment(created_at)
    if not executed_at.microsecond or executed_at.tzinfo is not _UTC:
        executed_at = moment(executed_at)
    if sent_at is not None and (not sent_at.microsecond or sent_at.tzinfo is not _UTC):
        sent_at = moment(sent_at)
    if completed_at is not None and (not completed_at.microsecond or completed_at.tzinfo is not _UTC):
        completed_at = moment(completed_at)
    told = _Leaf(
        action, actor.partition(":")[0], agent_id, command_id, command_type, commitments, completed_at, created_at,
        duration_seconds, executed_at, exit_code, number, kind, result, sent_at, VERSION, version,
    )  # fmt: skip
    return _text(told)
