"""Records as CSV (RFC 4180): UTF-8, a header, CRLF after each record, quotes where they are needed.

A spreadsheet takes a cell that begins with = + - @ or white space for a formula. Such a cell of text gets an apostrophe in
front, and so does one that begins with an apostrophe: whoever reads takes one leading apostrophe away and has the text.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from redflag.audit import canonical
from redflag.audit.export import records
from redflag.audit.export.reading import Entry

COLUMNS = (
    "position", "id", "created_at", "executed_at", "kind", "result", "action", "actor", "command_id", "agent_id", "command_type",
    "version", "message", "params", "stdout", "stderr", "exit_code", "duration_seconds", "sent_at", "completed_at", "metadata", "erased",
)  # fmt: skip
# What begins a formula, in their full width too, and what can stand before one
GUARDED = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")  # noqa: RUF001 - those are meant


def guarded(value: Any) -> Any:
    """A cell: text that could be taken for a formula with an apostrophe in front, everything else as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(GUARDED) else value


def header() -> bytes:
    """The first line."""
    return _row(COLUMNS)


def line(entry: Entry, _origin: str) -> bytes:
    """The record; it may be several lines long where a cell is, and ends with CRLF."""
    told = records.disclosed(entry)
    told |= {
        "position": entry.position,
        "id": entry.record["id"],
        "created_at": canonical.moment(entry.record["created_at"]),
        "executed_at": canonical.moment(entry.record["executed_at"]),
        "erased": " ".join(told.get("erased", ())),
    }
    return _row([guarded(_text(told.get(name))) for name in COLUMNS])


def position(told: bytes) -> int:
    """The position that a record carries. Raises ValueError for what is no record, such as the header."""
    return int(told.partition(b",")[0])


def _text(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


def _row(cells: Any) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
