"""Records as OCSF events of the class API Activity (class_uid 6003), one a line (schema.ocsf.io, version 1.8.0).

What the class has no attribute for stands in `unmapped` under the record's own names, so that nothing is lost. Times are
milliseconds since 1970, as OCSF's timestamp_t asks; `metadata.original_time` keeps the microseconds.
"""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import msgspec

import redflag
from redflag.audit import canonical
from redflag.audit.export import records
from redflag.audit.export.reading import Entry

VERSION = "1.8.0"
CATEGORY, CLASS = 6, 6003
CREATE, READ, UPDATE, DELETE, OTHER = 1, 2, 3, 4, 99
ACTIVITIES = {CREATE: "Create", READ: "Read", UPDATE: "Update", DELETE: "Delete"}
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3
SEVERITIES = {INFORMATIONAL: "Informational", LOW: "Low", MEDIUM: "Medium"}
SUCCESS, FAILURE = 1, 2
# result → severity_id, status_id, status
OUTCOMES = {
    "success": (INFORMATIONAL, SUCCESS, "Success"),
    "pending": (INFORMATIONAL, OTHER, "pending"),
    "sent": (INFORMATIONAL, OTHER, "sent"),
    "running": (INFORMATIONAL, OTHER, "running"),
    "partial": (LOW, OTHER, "partial"),
    "cancelled": (LOW, OTHER, "cancelled"),
    "failed": (MEDIUM, FAILURE, "Failure"),
    "error": (MEDIUM, FAILURE, "Failure"),
    "timed_out": (MEDIUM, FAILURE, "Failure"),
    "denied": (MEDIUM, FAILURE, "Failure"),
}
# actor kind → the user's type_id and type
_USER, _SYSTEM, _SERVICE = 1, 3, 4
USERS = {
    "user": (_USER, "User"),
    "token": (_SERVICE, "Service"),
    "service": (_SYSTEM, "System"),
    "agent": (OTHER, "agent"),
    "db": (OTHER, "database role"),
}
# Longer than an address can be, though a network interface's name may stand in one
_ADDRESS_LENGTH = 40


def event(entry: Entry, origin: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The event of a record, for a JSON encoder. `data` stands for what `records.disclosed` tells of it."""
    record = entry.record
    told = records.disclosed(entry) if data is None else data
    known: dict[str, Any] = record["metadata"] if isinstance(record["metadata"], dict) else {}
    activity, name = _activity(record)
    severity, status_id, status = OUTCOMES[record["result"]]
    made: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": name,
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "type_uid": CLASS * 100 + activity,
        "type_name": f"API Activity: {ACTIVITIES.get(activity, 'Other')}",
        "time": _milliseconds(record["executed_at"]),
        "severity_id": severity,
        "severity": SEVERITIES[severity],
        "status_id": status_id,
        "status": status,
        "status_code": record["result"],
        "metadata": _metadata(entry, origin),
        "actor": {"user": _user(told.get("actor"), record)},
        "api": _api(record, known),
        "src_endpoint": _source(told.get("actor"), known),
    }
    if told.get("message"):
        made["message"] = told["message"]
    if record["duration_seconds"] is not None:
        made["duration"] = record["duration_seconds"] * 1000
    if resources := _resources(record):
        made["resources"] = resources
    if "shortened" in told:
        made["metadata"]["is_truncated"] = True
    return made | {"unmapped": {key: value for key, value in told.items() if key != "message"}}


def line(entry: Entry, origin: str) -> bytes:
    """The event as one line of JSON, which ends with a newline."""
    return msgspec.json.encode(event(entry, origin)) + b"\n"


def position(told: bytes) -> int:
    """The position that a line carries. Raises ValueError for what is no such line."""
    try:
        return msgspec.json.decode(told, type=_Placed).metadata.sequence
    except msgspec.MsgspecError as error:
        raise ValueError("no event of the audit trail") from error


class _Sequence(msgspec.Struct):
    sequence: int


class _Placed(msgspec.Struct):
    metadata: _Sequence


def _milliseconds(moment: datetime.datetime) -> int:
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def _activity(record: dict[str, Any]) -> tuple[int, str]:
    """activity_id and activity_name; where it is Other, the name says what."""
    kind, action = record["kind"], record["action"] or ""
    found = OTHER
    if kind == "transition":
        found = CREATE if record["version"] == 1 else UPDATE
    elif kind == "import":
        found = CREATE
    elif kind == "change":
        found = CREATE if action.endswith("_created") else DELETE if action.endswith("_removed") else UPDATE
    elif kind == "erasure":
        found = DELETE
    elif kind == "access" and action.endswith(("_read", "_exported")):
        found = READ
    return found, ACTIVITIES.get(found) or (action if kind in {"access", "service"} and action else kind)


def _metadata(entry: Entry, origin: str) -> dict[str, Any]:
    record = entry.record
    return {
        "version": VERSION,
        "product": {"name": "RedFlag", "vendor_name": "RedFlag", "version": redflag.__version__},
        "uid": str(record["id"]),
        "event_code": records.event_type(record),
        "log_name": origin,
        "logged_time": _milliseconds(record["created_at"]),
        "original_time": canonical.moment(record["executed_at"]),
        "sequence": entry.position,
    } | ({"correlation_uid": str(record["command_id"])} if record["command_id"] is not None else {})


def _user(actor: str | None, record: dict[str, Any]) -> dict[str, Any]:
    """Who acted; None: the name was erased, and the kind stays."""
    kind, _, name = (record["actor"] if actor is None else actor).partition(":")
    if actor is None:
        name = "erased"
    type_id, type_name = USERS.get(kind, (OTHER, kind[:100] or "unknown"))
    return {"uid" if kind == "agent" else "name": name or kind or "unknown", "type_id": type_id, "type": type_name}


def _api(record: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    api: dict[str, Any] = {
        "operation": records.event_type(record).removeprefix(f"{records.PREFIX}."),
        "service": {"name": "redflag"},
    }
    request = known.get("request_id")
    return api | ({"request": {"uid": request}} if isinstance(request, str) and request else {})


def _source(actor: str | None, known: dict[str, Any]) -> dict[str, Any]:
    """From where: the address, else the host of a service, else the agent, else unknown."""
    address = known.get("address")
    if isinstance(address, str) and len(address) <= _ADDRESS_LENGTH:
        try:
            return {"ip": str(ipaddress.ip_address(address))}
        except ValueError:
            pass
    kind, _, name = (actor or "").partition(":")
    if kind == "service" and "@" in name:
        service, _, host = name.partition("@")
        return {"hostname": host or "unknown", "svc_name": service}
    return {"uid": name} if kind == "agent" and name else {"name": "unknown"}


def _resources(record: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    if about := records.subject(record):
        found.append({"type": about[0], "uid": about[1]})
        if about[0] == "command" and record["command_type"]:
            found[0]["name"] = record["command_type"]
    if record["agent_id"] is not None and ("agent", str(record["agent_id"])) != about:
        found.append({"type": "agent", "uid": str(record["agent_id"])})
    return found
