"""What all formats say of a record: its fields as JSON values, what was erased of it, what kind of event it is and of what.

Numbers stay numbers: params and metadata go out as the database writes them, and are not read on the way.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

import msgspec

from redflag.audit import canonical
from redflag.audit.export.reading import Entry

PREFIX = "dev.redflag"
# The columns of a record that are not JSON themselves, in the order in which they are told; position, id and times stand beside
COLUMNS = (
    "kind", "result", "action", "actor", "command_id", "agent_id", "command_type", "version", "message", "stdout", "stderr",
    "exit_code", "duration_seconds", "sent_at", "completed_at",
)  # fmt: skip

_NO_WORD = re.compile(r"[^a-z0-9_]+")
_decoder = msgspec.json.Decoder()


def erased(entry: Entry) -> list[str]:
    """The fields that the record's leaf commits to and whose salts are gone: their values were erased."""
    if entry.record["salt"] is not None:
        return []
    kept = entry.record["salts"] or {}
    return sorted(name for name in _decoder.decode(entry.leaf)["commitments"] if name not in kept)


def disclosed(entry: Entry) -> dict[str, Any]:
    """What the record says, in order, for a JSON encoder: absent is what it does not have, and what was erased (see `erased`)."""
    record, gone = entry.record, erased(entry)
    told: dict[str, Any] = {name: value for name in COLUMNS if (value := record[name]) is not None and name not in gone}
    for name in ("params", "metadata"):
        text = entry.json[name]
        if text is not None and name not in gone:
            told[name] = msgspec.Raw(text.encode())
    if gone:
        if "metadata" in gone and "address" not in gone and "address" in (record["metadata"] or {}):
            told["metadata"] = {"address": record["metadata"]["address"]}
        told["erased"] = gone
    for name in ("sent_at", "completed_at"):
        if name in told:
            told[name] = canonical.moment(told[name])
    return told


def event_type(record: dict[str, Any]) -> str:
    """What happened, as a name: dev.redflag.command.timed_out, dev.redflag.change.user_created, dev.redflag.note."""
    kind = record["kind"]
    if kind == "transition":
        return f"{PREFIX}.command.{record['result']}"
    if kind == "late_result":
        return f"{PREFIX}.command.late_result"
    # Of an import and a note the action is what somebody else wrote
    action = (
        _NO_WORD.sub("_", (record["action"] or "").lower())[:100] if kind in {"change", "access", "service"} else ""
    )
    return f"{PREFIX}.{kind}.{action}" if action else f"{PREFIX}.{kind}"


def subject(record: dict[str, Any]) -> tuple[str, str] | None:
    """What it happened to: what such a thing is called, and its id."""
    if record["command_id"] is not None:
        return "command", str(record["command_id"])
    metadata = record["metadata"] or {}
    what, which = metadata.get("subject"), metadata.get("subject_id")
    if isinstance(what, str) and isinstance(which, str) and what and which:
        return what[:100], which[:300]
    return ("agent", str(record["agent_id"])) if record["agent_id"] is not None else None


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


codecs.register_error("redflag.json_escape", _escape)


def ascii_json(text: bytes) -> bytes:
    """The same JSON text in printable ASCII: other characters stand in strings only, where they can be escaped (RFC 8259 §7)."""
    escaped = text if text.isascii() else text.decode().encode("ascii", "redflag.json_escape")
    return escaped.replace(b"\x7f", b"\\u007f")
