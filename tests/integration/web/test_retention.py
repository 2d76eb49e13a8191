"""Erasure, legal holds and retention over HTTP."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest

ERASURES, HOLDS, RETENTION = "/api/v1/audit/erasures", "/api/v1/audit/holds", "/api/v1/audit/retention"

NOBODY = uuid.UUID(int=7)


async def _positioned(admin: httpx.AsyncClient, event: str) -> None:
    """Until an event has its position."""
    for _ in range(400):
        if (await admin.get(f"/api/v1/audit/events/{event}/proof")).status_code == 200:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(event)


async def _reported(admin: httpx.AsyncClient, agent) -> tuple[str, dict]:
    """A command that was reported on, and the event of that."""
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    command = made.json()["commands"][0]["id"]
    await agent.check_in()
    await agent.post("logs", {"command_id": command, "result": "success", "stdout": "Dear Alice"})
    event = (await admin.get(f"/api/v1/commands/{command}")).json()["events"][-1]
    await _positioned(admin, event["id"])
    return command, event


async def test_a_value_is_erased_and_the_history_shows_who_did_it(admin, enrol, owner):
    command, event = await _reported(admin, await enrol())
    body = {"record_id": event["id"], "fields": ["stdout"], "reason": "request 17"}
    answer = await admin.post(ERASURES, json=body)
    assert answer.status_code == 200, answer.text
    (done,) = answer.json()["erasures"]
    assert (done["record_id"], done["fields"]) == (event["id"], ["stdout"])
    events = (await admin.get(f"/api/v1/commands/{command}")).json()["events"]
    assert next(one for one in events if one["id"] == event["id"])["stdout"] is None
    told = next(one for one in events if one["kind"] == "erasure")
    assert told["id"] == done["erasure_id"]
    assert told["actor"].startswith("token:admin")
    assert told["message"].endswith(": request 17")
    assert told["metadata"]["address"] == "127.0.0.1"
    again = await admin.post(ERASURES, json=body)
    assert again.status_code == 409
    assert "has been erased already" in again.json()["detail"]
    missing = await admin.post(ERASURES, json=body | {"record_id": str(uuid.uuid4())})
    assert missing.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {}, {"reason": "x"}, {"reason": "x", "record_id": str(NOBODY)}, {"reason": "x", "fields": ["stdout"]},
        {"reason": "x", "record_id": str(NOBODY), "fields": ["stdout"], "actor": "user:alice"},
        {"reason": "x", "record_id": str(NOBODY), "fields": ["salt"]}, {"reason": "", "actor": "user:alice"},
        {"reason": "x", "actor": "alice"}, {"reason": "x", "actor": f"agent:{NOBODY}"}, {"reason": "x" * 1001, "actor": "user:alice"},
        {"reason": "x", "record_id": str(NOBODY), "fields": ["stdout"], "dry_run": True},
        {"reason": "x", "actor": "user:a", "fields": ["actor"]},
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_to_be_erased_is_said_in_one_way(admin, body):
    assert (await admin.post(ERASURES, json=body)).status_code == 422


async def test_a_person_is_erased_from_all_their_records(admin, owner, server):
    name = f"user:leaver-{uuid.uuid4().hex[:8]}"
    for _ in range(3):
        record = await server.fetchval(
            """INSERT INTO update_logs (kind, actor, action, result, metadata)
               VALUES ('access', $1, 'login', 'success', '{"address": "203.0.113.5"}') RETURNING id""",
            name,
        )
    await _positioned(admin, str(record))
    body = {"actor": name, "reason": "request 18"}
    counted = (await admin.post(ERASURES, json=body | {"dry_run": True})).json()
    assert (counted["erased"], counted["left"]["erasable"]) == (0, 3)
    done = (await admin.post(ERASURES, json=body)).json()
    assert (done["erased"], done["left"]) == (3, {"erasable": 0, "waiting": 0, "held": 0, "live": 0, "holds": []})
    assert not await owner.fetchval("SELECT EXISTS (SELECT FROM update_logs WHERE actor = $1)", name)


async def test_a_hold_is_placed_listed_stands_against_erasure_and_is_released(admin, enrol):
    command, event = await _reported(admin, await enrol())
    body = {"name": f"case {uuid.uuid4().hex[:6]}", "reason": "subpoena", "command_id": command}
    placed = await admin.post(HOLDS, json=body)
    assert placed.status_code == 201, placed.text
    hold = placed.json()
    assert (await admin.post(HOLDS, json=body)).status_code == 409
    assert hold["id"] in {one["id"] for one in (await admin.get(HOLDS)).json()["holds"]}
    refused = await admin.post(ERASURES, json={"record_id": event["id"], "fields": ["stdout"], "reason": "x"})
    assert refused.status_code == 409
    assert body["name"] in refused.json()["detail"]
    assert (await admin.post(f"{HOLDS}/{hold['id']}/release")).json()["released_at"] is not None
    assert (await admin.post(f"{HOLDS}/{hold['id']}/release")).status_code == 409
    assert (await admin.post(f"{HOLDS}/{uuid.uuid4()}/release")).status_code == 404
    assert hold["id"] not in {one["id"] for one in (await admin.get(HOLDS)).json()["holds"]}
    listed = (await admin.get(HOLDS, params={"released": True})).json()["holds"]
    assert hold["id"] in {one["id"] for one in listed}
    for wrong in (
        {"name": "x"},
        {"name": "x", "reason": "y", "since": "2026-01-01T00:00:00"},
        body | {"agent_id": "x"},
    ):
        assert (await admin.post(HOLDS, json=wrong)).status_code == 422


async def test_how_long_records_are_kept_is_shown_and_set(admin):
    now = (await admin.get(RETENTION)).json()
    assert (now["keep"], now["pruned"], now["pruning"], now["archives"]) == (None, 0, False, [])
    assert now["oldest"]
    year = 365 * 86400
    assert (await admin.put(RETENTION, json={"keep": year})).json()["keep"] == year
    assert (await admin.get(RETENTION)).json()["keep"] == year
    for wrong in ({}, {"keep": 86400}, {"keep": 1e12}, {"keep": "forever"}):
        assert (await admin.put(RETENTION, json=wrong)).status_code == 422
    assert (await admin.put(RETENTION, json={"keep": None})).json()["keep"] is None
    assert (await admin.get("/api/v1/audit/log")).json()["pruned"] == 0
