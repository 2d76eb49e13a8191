"""Every format says of every kind of record what the database has of it, and is read by what others wrote."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
import re
import uuid
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from integration.audit import evidence
from redflag.audit.export import delimited, formats, ocsf, reading, syslog
from redflag.audit.export.formats import SHAPES, Format
from redflag.audit.export.reading import Entry, Selection
from redflag.commands.states import Kind, Result

ORIGIN = "evidence.example/log"
# RFC 5424 §6, as its grammar has it
SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    r'\[(?P<sd>[!-~]{1,32}@\d+)(?P<params>( [!-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] (?P<msg>[ -~]*)'
)


@pytest_asyncio.fixture(scope="module")
async def entries(history: evidence.Place) -> list[Entry]:
    async with history.pool.acquire() as server:
        return [one async for one in reading.entries(server, Selection(), first=0, end=history.known["size"])]


@pytest_asyncio.fixture(scope="module")
async def rows(history: evidence.Place) -> dict[str, dict[str, Any]]:
    """What the database itself says: every record as its own JSON, by id."""
    found = await history.owner.fetch("SELECT id, to_jsonb(u) AS told FROM update_logs u")
    return {str(row["id"]): row["told"] for row in found}


@pytest.fixture(scope="module")
def validator() -> Any:
    """OCSF's own schema of the class, from its published export."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(ocsf.VERSION)).get_class_schema("api_activity")
    return jsonschema.Draft202012Validator(schema)


def _moment(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


def _same(told: dict[str, Any], row: dict[str, Any]) -> None:
    """The data of an event and the record are the same."""
    gone = set(told.get("erased", ()))
    for name in ("kind", "result", "action", "command_id", "agent_id", "command_type", "version", "message", "stdout", "stderr", "exit_code", "duration_seconds", "params", "metadata"):  # fmt: skip  # noqa: E501
        assert told.get(name) == row[name], name
    assert told.get("actor") == (None if "actor" in gone else row["actor"])
    for name in ("sent_at", "completed_at"):
        assert _moment(told.get(name)) == _moment(row[name]), name


def test_the_history_has_every_kind_of_record(entries):
    kinds = {entry.record["kind"] for entry in entries}
    assert kinds == set(Kind) - {"snapshot"}
    assert {"timed_out", "pending", "sent", "success", "partial", "failed", "error", "cancelled", "denied"} <= {
        entry.record["result"] for entry in entries
    }
    assert [entry.position for entry in entries] == list(range(len(entries)))


def test_a_cloudevent_says_what_the_record_says(entries, rows):
    for entry in entries:
        line = SHAPES[Format.CLOUDEVENTS].line(entry, ORIGIN)
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        event = json.loads(line)
        row = rows[event["id"]]
        # CloudEvents 1.0.2 §3: required attributes, names, and types
        assert event["specversion"] == "1.0"
        assert event["source"] == "//evidence.example/log"
        assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in event)
        assert all(isinstance(value, str) and value for name, value in event.items() if name != "data")
        assert re.fullmatch(r"dev\.redflag(\.[a-z0-9_]+)+", event["type"])
        assert event["time"].endswith("Z")
        assert _moment(event["time"]) == _moment(row["executed_at"])
        assert _moment(event["recordedtime"]) == _moment(row["created_at"])
        assert event["logposition"] == str(entry.position)
        _same(event["data"], row)


def test_the_type_and_the_subject_of_an_event_tell_what_happened_to_what(entries):
    told = {}
    for entry in entries:
        event = json.loads(SHAPES[Format.CLOUDEVENTS].line(entry, ORIGIN))
        told[event["type"]] = event.get("subject")
    assert told["dev.redflag.command.timed_out"].startswith("command/")
    assert told["dev.redflag.command.late_result"].startswith("command/")
    assert told["dev.redflag.change.user_created"].startswith("user/")
    assert told["dev.redflag.note"] == "thing/=1"
    assert {"dev.redflag.access.access_refused", "dev.redflag.import", "dev.redflag.erasure"} <= set(told)


def test_an_ocsf_event_is_what_the_published_schema_asks_for_and_loses_nothing(entries, rows, validator):
    for entry in entries:
        event = json.loads(SHAPES[Format.OCSF].line(entry, ORIGIN))
        problems = [f"{'/'.join(map(str, one.path))}: {one.message}" for one in validator.iter_errors(event)]
        assert problems == [], entry.record["kind"]
        row = rows[event["metadata"]["uid"]]
        assert event["type_uid"] == 6003 * 100 + event["activity_id"]
        assert event["metadata"]["sequence"] == entry.position
        assert event["metadata"]["version"] == "1.8.0"
        assert _moment(event["metadata"]["original_time"]) == _moment(row["executed_at"])
        assert event["time"] == int(_moment(row["executed_at"]).timestamp() * 1000)
        _same(event["unmapped"] | ({"message": event["message"]} if "message" in event else {}), row)


def test_an_ocsf_event_names_activity_severity_status_actor_and_source(entries, rows):
    told: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        event = json.loads(SHAPES[Format.OCSF].line(entry, ORIGIN))
        told.setdefault(event["metadata"]["event_code"].removeprefix("dev.redflag."), []).append(event)
    timeout = told["command.timed_out"][0]
    assert (timeout["activity_name"], timeout["severity"], timeout["status"]) == ("Update", "Medium", "Failure")
    assert timeout["actor"]["user"]["type"] == "System"
    assert timeout["src_endpoint"] == {"hostname": "replica-1", "svc_name": "timeout"}
    assert timeout["resources"][0]["type"] == "command"
    assert told["command.pending"][0]["activity_name"] == "Create"
    assert told["change.user_created"][0]["activity_name"] == "Create"
    assert told["change.user_created"][0]["src_endpoint"] == {"ip": "192.0.2.1"}
    assert told["access.access_refused"][0]["status_id"] == ocsf.FAILURE
    assert told["erasure"][0]["activity_id"] == ocsf.DELETE
    assert told["note"][0]["activity_id"] == ocsf.OTHER
    caption = {"success": "Success", "denied": "Failure", "cancelled": "cancelled"}
    for event in (one for some in told.values() for one in some):
        assert event["status"] == caption.get(event["status_code"], event["status"])


def test_every_result_has_an_outcome_in_ocsf_and_a_severity_in_syslog():
    assert set(ocsf.OUTCOMES) == set(Result)
    assert set(syslog.SEVERITIES) <= set(Result)


def test_a_csv_is_read_by_the_csv_module_and_gives_the_record(entries, rows):
    shape = SHAPES[Format.CSV]
    data = shape.header + formats.written(shape, entries, ORIGIN)
    assert data.startswith(b"position,id,created_at,")
    assert data.endswith(b"\r\n")
    read = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert len(read) == len(entries)
    for entry, cells in zip(entries, read, strict=True):
        row = rows[cells["id"]]
        assert cells["position"] == str(entry.position)
        for name, cell in cells.items():
            if name in {"position", "erased"}:
                continue
            text = cell.removeprefix("'") if isinstance(row[name], str) else cell
            if name in {"created_at", "executed_at", "sent_at", "completed_at"}:
                assert _moment(text or None) == _moment(row[name])
            elif name in {"params", "metadata"}:
                assert (json.loads(text) if text else None) == row[name]
            elif name == "actor" and "actor" in cells["erased"]:
                assert text == ""
            else:
                assert text == ("" if row[name] is None else str(row[name])), name


def test_no_cell_of_text_can_be_taken_for_a_formula(entries):
    shape = SHAPES[Format.CSV]
    numbers = {"exit_code"}
    for entry in entries:
        line = next(csv.reader(io.StringIO(shape.line(entry, ORIGIN).decode(), newline="")))
        for name, cell in zip(delimited.COLUMNS, line, strict=True):
            assert name in numbers or not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")), (name, cell)
    assert delimited.guarded("=1+1") == "'=1+1"
    assert delimited.guarded("'tis") == "''tis"  # so that taking one apostrophe away is always right
    assert delimited.guarded(-9) == -9


@pytest.mark.parametrize("body", list(syslog.Body))
def test_a_syslog_message_follows_the_grammar_and_carries_the_event(entries, body, validator):
    for entry in entries:
        message = syslog.message(entry, ORIGIN, body=body)
        matched = SYSLOG.fullmatch(message.decode("ascii"))
        assert matched, message
        parameters = dict(re.findall(r'(\S+)="([^"]*)"', matched["params"]))
        assert parameters == {
            "position": str(entry.position), "id": str(entry.record["id"]),
            "kind": entry.record["kind"], "result": entry.record["result"],
        }  # fmt: skip
        assert (matched["host"], matched["app"]) == ("evidence.example", "redflag")
        assert int(matched["pri"]) // 8 == 13
        assert _moment(matched["time"]) == entry.record["executed_at"]
        shape = SHAPES[Format.OCSF if body == syslog.Body.OCSF else Format.CLOUDEVENTS]
        assert json.loads(matched["msg"]) == json.loads(shape.line(entry, ORIGIN))
        assert syslog.position(message) == entry.position


def test_an_erased_value_is_in_no_format_and_said_to_be_erased(entries, history):
    erased = next(entry for entry in entries if entry.record["id"] == history.known["erased"])
    data = json.loads(SHAPES[Format.CLOUDEVENTS].line(erased, ORIGIN))["data"]
    assert data["erased"] == ["actor", "address", "stdout"]
    assert "actor" not in data
    assert "stdout" not in data
    assert "address" not in data["metadata"]
    assert data["metadata"]["f"] == 0.5  # what was not erased is still there
    assert json.loads(SHAPES[Format.OCSF].line(erased, ORIGIN))["actor"]["user"] == {
        "uid": "erased", "type_id": 99, "type": "agent",
    }  # fmt: skip
    for shape in SHAPES.values():
        assert evidence.SECRET.encode() not in formats.written(shape, entries, ORIGIN)
        assert b"192.0.2.7" not in shape.line(erased, ORIGIN)


NASTY = {
    "long output": {"stdout": "x" * 1_000_000, "stderr": "\U0001f6a9" * 100_000},
    "controls": {"message": "\x01" * 50_000, "actor": "user:" + "\x02" * 600, "action": "\x03" * 200},
    "large parameters": {"params": {"list": ["\u6f22" * 100] * 500}},
    "large metadata": {"metadata": {"subject": "\U0001f6a9" * 100, "subject_id": "\x04" * 300, "more": "y" * 100_000}},
    "everything": {
        "stdout": "é" * 9000, "stderr": "\x05" * 9000, "message": "\U0001f6a9" * 2000, "actor": "user:" + "\U0001f6a9" * 690,
        "action": "\U0001f6a9" * 200, "command_type": "\U0001f6a9" * 100, "params": {"p": "z" * 9000},
        "metadata": {"subject": "\U0001f6a9" * 100, "subject_id": "\U0001f6a9" * 300, "address": "w" * 5000},
    },
}  # fmt: skip


@pytest.mark.parametrize("body", list(syslog.Body))
@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("limit", [2048, 8000])
def test_a_message_never_exceeds_its_limit_and_says_what_was_shortened(entries, body, nasty, limit, validator):
    model = next(entry for entry in entries if entry.record["kind"] == "note")
    record = model.record | {"id": uuid.uuid4(), "params": None, "metadata": {}} | NASTY[nasty]
    entry = dataclasses.replace(
        model, record=record, json={name: json.dumps(record[name]) if record[name] else None for name in ("params", "metadata")}
    )  # fmt: skip
    message = syslog.message(entry, ORIGIN, body=body, limit=limit)
    assert len(message) <= limit
    event = json.loads(SYSLOG.fullmatch(message.decode())["msg"])
    data = event["unmapped"] if body == syslog.Body.OCSF else event["data"]
    assert set(data["shortened"]) <= set(record)
    assert set(data["shortened"]) & set(NASTY[nasty])
    if body == syslog.Body.OCSF:
        assert list(validator.iter_errors(event)) == []
        assert event["metadata"]["is_truncated"] is True
    assert len(syslog.message(entry, ORIGIN, body=body)) > limit


@pytest.mark.parametrize("format_", list(Format))
def test_a_file_cut_anywhere_goes_on_after_its_last_whole_record(entries, format_):
    shape = SHAPES[format_]
    lines = [shape.line(entry, ORIGIN) for entry in entries]
    whole = shape.header + b"".join(lines)
    for cut in [*range(0, len(whole), 211), len(shape.header), len(whole)]:
        kept, last = formats.last_whole(shape, io.BytesIO(whole[:cut]))
        assert kept <= cut
        rest = lines if last is None else lines[last + 1 :]
        assert whole[:kept] + (shape.header if not kept else b"") + b"".join(rest) == whole, cut


@pytest.mark.parametrize("format_", list(Format))
def test_a_file_that_is_no_export_is_not_gone_on_with(format_):
    for other in (b"root:x:0:0:root:/root:/bin/bash\n", b"[1]\n", b"\x00" * 5000):
        with pytest.raises(ValueError, match="begin"):
            formats.last_whole(SHAPES[format_], io.BytesIO(other))
