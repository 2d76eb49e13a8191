"""The formats of an export, by name: how a record is written, and where in a file a reading can go on.

Each record carries its position, and ends where one can see it: so an export that broke off goes on after the last whole
record, and gives the same bytes as one that did not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from redflag.audit.export import cloudevents, delimited, ocsf, syslog
from redflag.audit.export.reading import Entry

BLOCK = 1024 * 1024


class Format(enum.StrEnum):
    """What an export can be written as."""

    CLOUDEVENTS = "cloudevents"
    OCSF = "ocsf"
    CSV = "csv"
    SYSLOG = "syslog"


@dataclass(frozen=True)
class Shape:
    """One format: `line` writes a record, `position` reads where one stands, `begins` is how each begins, and `header` is what
    comes before the first."""

    line: Callable[[Entry, str], bytes]
    position: Callable[[bytes], int]
    media_type: str
    suffix: str
    begins: bytes
    header: bytes = b""
    # A newline within quotes does not end a record
    quotes: bool = False


SHAPES = {
    Format.CLOUDEVENTS: Shape(
        cloudevents.line, cloudevents.position, "application/x-ndjson", "jsonl", b'{"specversion":'
    ),
    Format.OCSF: Shape(ocsf.line, ocsf.position, "application/x-ndjson", "jsonl", b'{"activity_id":'),
    Format.CSV: Shape(
        delimited.line, delimited.position, "text/csv; charset=utf-8", "csv", b"", delimited.header(), quotes=True
    ),
    Format.SYSLOG: Shape(syslog.line, syslog.position, "text/plain; charset=us-ascii", "log", b"<"),
}


def written(shape: Shape, entries: Iterable[Entry], origin: str) -> bytes:
    """Some records as they stand in the file."""
    return b"".join(shape.line(entry, origin) for entry in entries)


def last_whole(shape: Shape, file: BinaryIO) -> tuple[int, int | None]:
    """How many bytes of a file are whole (its header and whole records), and the position of the last of these records.

    Raises ValueError for a file that is no export in this format.
    """
    if shape.quotes:
        whole, last = _last_quoted(file)
    else:
        whole, last = _last_line(file)
    file.seek(0)
    begins = file.read(max(1, len(shape.header), len(shape.begins)))
    expected = shape.header or shape.begins
    if begins and not (begins.startswith(expected) or expected.startswith(begins)):
        raise ValueError("it does not begin as an export does")
    return whole, shape.position(last) if last is not None and whole > len(shape.header) else None


def _last_line(file: BinaryIO) -> tuple[int, bytes | None]:
    """The bytes up to the last newline, and the line that it ends, found from the end."""
    tail, at = b"", file.seek(0, 2)
    while at and tail.count(b"\n") < 2:
        size = min(BLOCK, at)
        at = file.seek(at - size)
        tail = file.read(size) + tail
    whole = at + tail.rfind(b"\n") + 1
    return (whole, tail[: whole - at - 1].rpartition(b"\n")[2]) if whole > at else (0, None)


def _last_quoted(file: BinaryIO) -> tuple[int, bytes | None]:
    """The same where a newline within quotes ends nothing, which only who reads from the beginning can tell."""
    file.seek(0)
    read = whole = 0
    quoted, begun, last = False, [], None
    for line in file:
        read += len(line)
        begun.append(line)
        quoted ^= bool(line.count(b'"') % 2)
        if line.endswith(b"\n") and not quoted:
            whole, last, begun = read, b"".join(begun), []
    return whole, last
