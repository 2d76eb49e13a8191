"""Records as CloudEvents 1.0 in its JSON format, one a line (CloudEvents 1.0.2; JSON Event Format for CloudEvents 1.0.2).

`id` is the record's, so that source and id together name an event once and for ever (§3.1.1). `logposition` is an extension
attribute of type String: CloudEvents' Integer ends at 2^31 - 1 (§2.3), and a log does not.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from redflag.audit import canonical
from redflag.audit.export import records
from redflag.audit.export.reading import Entry

SPECVERSION = "1.0"


def source(origin: str) -> str:
    """The log's origin as a URI-reference without a scheme: //redflag.example.org/log (RFC 3986 §4.2, network-path reference)."""
    return "//" + quote(origin, safe="/:@!$&'()*,;=[]~")


def event(entry: Entry, origin: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The event of a record, for a JSON encoder. `data` stands for what `records.disclosed` tells of it."""
    record = entry.record
    told: dict[str, Any] = {
        "specversion": SPECVERSION,
        "id": str(record["id"]),
        "source": source(origin),
        "type": records.event_type(record),
    }
    if about := records.subject(record):
        told["subject"] = "/".join(about)
    return told | {
        "time": canonical.moment(record["executed_at"]),
        "datacontenttype": "application/json",
        "logposition": str(entry.position),
        "recordedtime": canonical.moment(record["created_at"]),
        "data": records.disclosed(entry) if data is None else data,
    }


def line(entry: Entry, origin: str) -> bytes:
    """The event as one line of JSON, which ends with a newline."""
    return msgspec.json.encode(event(entry, origin)) + b"\n"


def position(told: bytes) -> int:
    """The position that a line carries. Raises ValueError for what is no such line."""
    try:
        return int(msgspec.json.decode(told, type=_Placed).logposition)
    except msgspec.MsgspecError as error:
        raise ValueError("no event of the audit trail") from error


class _Placed(msgspec.Struct):
    logposition: str
