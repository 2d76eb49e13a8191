"""Records as syslog messages (RFC 5424), and their framing on a stream (RFC 6587 §3.4.1, RFC 5425 §4.3: octet counting).

    <110>1 2026-11-23T23:57:52.014786Z redflag.example.org redflag - command.timed_out [redflag@32473 position="103" id="…" …] {…}

The structured data tells place and kind of the record, so that a receiver can order, count and find doubles without reading
the JSON that follows. The JSON is ASCII: text that is not would have to begin with a byte order mark (RFC 5424 §6.4), which
few who read JSON expect. 32473 is the number that RFC 5612 sets aside for examples; RedFlag has none of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Any

import msgspec

from redflag.audit import canonical
from redflag.audit.export import cloudevents, ocsf, records
from redflag.audit.export.reading import Entry

SD_ID = "redflag@32473"
APP_NAME = "redflag"
# log audit (RFC 5424 §6.2.1)
FACILITY = 13
_ERROR, _WARNING, _INFORMATIONAL = 3, 4, 6
SEVERITIES = {"error": _ERROR, "failed": _WARNING, "timed_out": _WARNING, "denied": _WARNING, "partial": _WARNING}

_LONGEST_MSGID = 32
_POSITION = re.compile(rb'^<\d{1,3}>1 (?:\S+ ){5}\[redflag@32473 position="(\d+)"')
# What can be long, the first to be shortened first
_LONG = ("stdout", "stderr", "params", "metadata", "message", "action", "actor", "command_type")


class Body(enum.StrEnum):
    """What the message itself says, in which shape."""

    CLOUDEVENTS = "cloudevents"
    OCSF = "ocsf"


_EVENTS = {Body.CLOUDEVENTS: cloudevents.event, Body.OCSF: ocsf.event}


def message(
    entry: Entry,
    origin: str,
    *,
    body: Body = Body.CLOUDEVENTS,
    facility: int = FACILITY,
    again: bool = False,
    limit: int | None = None,
) -> bytes:
    """The message of a record: one line of ASCII. `again` marks one that may have been sent before.

    A message longer than `limit` bytes has its long fields shortened, or left out where they are no text; `shortened` names them.
    """
    head = _head(entry, origin, facility, again)
    if limit is None:
        return head + _json(entry, origin, body)
    # What is far too long is not written out to be measured
    if sum(len(entry.record[name] or "") for name in ("stdout", "stderr", "message")) < limit:
        whole = _json(entry, origin, body)
        if len(head) + len(whole) <= limit:
            return head + whole
    return head + _shortened(entry, origin, body, limit - len(head))


def line(entry: Entry, origin: str) -> bytes:
    """The message as a line of a file."""
    return message(entry, origin) + b"\n"


def framed(told: bytes) -> bytes:
    """A message on a stream: its length in bytes, a space, and itself."""
    return b"%d %s" % (len(told), told)


def position(told: bytes) -> int:
    """The position that a message carries. Raises ValueError for what is none of ours."""
    if not (matched := _POSITION.match(told)):
        raise ValueError("no message of the audit trail")
    return int(matched[1])


def _head(entry: Entry, origin: str, facility: int, again: bool) -> bytes:
    record = entry.record
    priority = facility * 8 + SEVERITIES.get(record["result"], _INFORMATIONAL)
    what = records.event_type(record).removeprefix(f"{records.PREFIX}.")[:_LONGEST_MSGID]
    told = {"position": entry.position, "id": record["id"], "kind": record["kind"], "result": record["result"]}
    if again:
        told["again"] = 1
    data = " ".join(f'{name}="{value}"' for name, value in told.items())
    moment = canonical.moment(record["executed_at"])
    return f"<{priority}>1 {moment} {_hostname(origin)} {APP_NAME} - {what} [{SD_ID} {data}] ".encode()


def _hostname(origin: str) -> str:
    host = origin.partition("/")[0].partition(":")[0][:255]
    return host if host and host.isascii() and host.isprintable() and " " not in host else "-"


def _json(entry: Entry, origin: str, body: Body, data: dict[str, Any] | None = None) -> bytes:
    return records.ascii_json(msgspec.json.encode(_EVENTS[body](entry, origin, data)))


def _shortened(entry: Entry, origin: str, body: Body, room: int) -> bytes:
    data = records.disclosed(entry)
    for share in (room // 4, room // 16, room // 64):
        told = _json(entry, origin, body, _cut(data, share))
        if len(told) <= room:
            return told
    # Without what an event takes from the metadata by itself: only identifiers and words of ours are left
    bare = dataclasses.replace(entry, record=entry.record | {"metadata": None})
    return _json(bare, origin, body, _cut(data, room // 128))


def _cut(data: dict[str, Any], share: int) -> dict[str, Any]:
    """The data with no long field over `share` bytes."""
    told = data.copy()
    shortened = []
    for name in _LONG:
        value = told.get(name)
        # A character is a byte or more
        some = value[: share + 1] if isinstance(value, str) else value
        size = len(records.ascii_json(msgspec.json.encode(some)))
        if size > share:
            shortened.append(name)
            del told[name]
            if isinstance(some, str):
                told[name] = _prefix(some, share * len(some) // size, share)
    return told | {"shortened": shortened}


def _prefix(text: str, length: int, share: int) -> str:
    while len(records.ascii_json(msgspec.json.encode(told := f"{text[:length]}…"))) > share and length:
        length = length * 3 // 4
    return told
