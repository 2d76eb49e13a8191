"""The record as it is read over the API."""

from __future__ import annotations

import datetime
import uuid

from redflag.alerts import metrics


async def test_pages_of_the_history_follow_each_other_without_gap_or_double(admin, enrol):
    agent = await enrol()
    for _ in range(7):
        answer = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
        assert answer.status_code == 201
    seen, cursor = [], None
    while True:
        query = {"agent": agent.id, "result": "pending", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/api/v1/commands/history", params=query)).json()
        seen += page["events"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["events"]) == 3
    assert len(seen) == 7
    assert len({event["id"] for event in seen}) == 7
    assert [event["executed_at"] for event in seen] == sorted((event["executed_at"] for event in seen), reverse=True)


async def test_each_filter_shows_its_events_and_no_others(admin, enrol, owner):
    agent = await enrol()
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "collect_specs"})
    command = made.json()["commands"][0]["id"]
    await agent.check_in()
    marker = uuid.uuid4().hex
    await agent.post("logs", {"command_id": command, "result": "success", "stdout": f"some 100% {marker} output"})
    overdue = await owner.fetchval(
        "INSERT INTO agent_commands (agent_id, command_type, status, sent_at)"
        " VALUES ($1, 'scan_updates', 'sent', now() - interval '3 hours') RETURNING id",
        uuid.UUID(agent.id),
    )
    assert (await admin.post("/api/v1/admin/timeout-service/run")).status_code == 200

    async def results(**query):
        answer = await admin.get("/api/v1/commands/history", params={"agent": agent.id, "kind": "transition"} | query)
        assert answer.status_code == 200, answer.text
        return [event["result"] for event in answer.json()["events"]]

    assert await results() == ["timed_out", "sent", "success", "sent", "pending"]
    assert await results(include_timeout="false") == ["sent", "success", "sent", "pending"]
    assert await results(command=command) == ["success", "sent", "pending"]
    assert await results(command_id=str(overdue)) == ["timed_out", "sent"]
    assert await results(command_type="collect_specs") == ["success", "sent", "pending"]
    assert await results(result="success") == ["success"]
    assert await results(actor=f"agent:{agent.id}") == ["success", "sent"]
    assert await results(text=marker) == ["success"]
    assert await results(text=f"100% {marker}") == ["success"]
    assert await results(text=f"100_ {marker}") == []
    now = datetime.datetime.now(datetime.UTC)
    assert await results(until=(now - datetime.timedelta(hours=1)).isoformat()) == []
    assert len(await results(since=(now - datetime.timedelta(hours=1)).isoformat())) == 5


async def test_a_command_is_shown_with_all_its_events_in_order(admin, enrol):
    agent = await enrol()
    command = (
        await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    ).json()["commands"][0]["id"]
    await agent.check_in()
    assert (await agent.post("progress", {"running": [command]})).json()["live"][command] > 7000
    await agent.post("logs", {"command_id": command, "result": "partial"})
    await agent.post("logs", {"command_id": command, "result": "failure"})
    shown = (await admin.get(f"/api/v1/commands/{command}")).json()
    assert [(event["kind"], event["result"]) for event in shown["events"]] == [
        ("transition", "pending"), ("transition", "sent"), ("transition", "running"), ("transition", "partial"), ("late_result", "failed"),
    ]  # fmt: skip
    assert shown["command"]["status"] == "completed"
    assert shown["command"]["version"] == 4
    assert "act" not in shown["command"]


async def test_reading_the_history_is_recorded_once_an_hour_for_a_filter(admin, owner):
    marker = f"read-{uuid.uuid4().hex}"
    for _ in range(3):
        await admin.get("/api/v1/commands/history", params={"text": marker})
    records = await owner.fetch(
        "SELECT actor, message, metadata FROM update_logs WHERE action = 'history_read' AND message LIKE $1",
        f"%{marker}%",
    )
    assert 1 <= len(records) <= 2  # two, if the hour ended between them
    assert records[0]["actor"].startswith("token:admin-")
    assert records[0]["metadata"]["address"] == "127.0.0.1"


async def test_cancel_and_retry_are_recorded_with_their_person_and_reason(admin, enrol):
    agent = await enrol()
    command = (await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "reboot"})).json()[
        "commands"
    ][0]["id"]
    cancelled = await admin.post(f"/api/v1/commands/{command}/cancel", json={"reason": "not tonight"})
    assert cancelled.json()["command"]["status"] == "cancelled"
    assert (await admin.post(f"/api/v1/commands/{command}/cancel", json={})).status_code == 409
    again = await admin.post(f"/api/v1/commands/{command}/retry")
    assert again.status_code == 201
    assert (await admin.post(f"/api/v1/commands/{again.json()['command']['id']}/retry")).status_code == 409
    event = (await admin.get(f"/api/v1/commands/{command}")).json()["events"][-1]
    assert (event["result"], event["message"]) == ("cancelled", "not tonight")
    assert event["actor"].startswith("token:admin-")
    shown = (await admin.get(f"/api/v1/commands/{again.json()['command']['id']}")).json()
    assert shown["command"]["retried_from_id"] == command
    assert shown["events"][0]["metadata"]["retried_from_id"] == command


async def test_a_text_is_looked_for_in_a_month_at_the_most_unless_an_agent_is_named(admin, enrol):
    agent = await enrol()
    history = "/api/v1/commands/history"
    year = {"since": "2026-01-01T00:00:00Z", "until": "2026-12-31T00:00:00Z", "text": "enrolled"}
    refused = await admin.get(history, params=year)
    assert refused.status_code == 422
    assert "31 days" in refused.json()["detail"]
    assert (await admin.get(history, params=year | {"agent": agent.id})).json()["events"]
    assert (await admin.get(history, params={"text": "enrolled"})).json()["events"]


async def test_what_an_agent_was_refused_is_found_under_its_name(admin, enrol):
    agent, other = await enrol(), await enrol()
    answer = await agent.client.request("GET", f"/api/v1/agents/{other.id}/commands", headers=agent.headers)
    assert answer.status_code == 403
    shown = await admin.get("/api/v1/commands/history", params={"actor": f"agent:{agent.id}", "result": "denied"})
    [event] = shown.json()["events"]
    assert (event["action"], event["agent_id"]) == ("access_refused", agent.id)


async def test_a_removed_agent_keeps_its_history_and_can_do_nothing_more(admin, enrol):
    agent = await enrol()
    await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    removed = await admin.delete(f"/api/v1/agents/{agent.id}")
    assert removed.json()["cancelled_commands"] == 1
    answer = await agent.client.request("GET", f"/api/v1/agents/{agent.id}/commands", headers=agent.headers)
    assert answer.status_code == 401
    events = (await admin.get("/api/v1/commands/history", params={"agent": agent.id})).json()["events"]
    assert {(event["action"], event["result"]) for event in events} >= {
        ("agent_enrolled", "success"),
        ("agent_removed", "success"),
        (None, "cancelled"),
    }


async def test_metrics_count_what_happened(admin, enrol, owner):
    agent = await enrol()
    await agent.check_in(memory_percent=5.0)
    await owner.execute(
        "INSERT INTO agent_commands (agent_id, command_type, status, sent_at)"
        " VALUES ($1, 'metrics_test', 'sent', now() - interval '3 hours')",
        uuid.UUID(agent.id),
    )
    await admin.post("/api/v1/admin/timeout-service/run")
    metrics._records = (float("-inf"), [])  # what was counted up to 15 s ago
    answer = await admin.get("/metrics")
    assert answer.status_code == 200
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert lines['redflag_commands_timed_out_total{command_type="metrics_test"}'] == "1.0"
    assert lines['redflag_timed_out_stuck_seconds_bucket{command_type="metrics_test",le="7200.0"}'] == "0.0"
    assert lines['redflag_timed_out_stuck_seconds_bucket{command_type="metrics_test",le="14400.0"}'] == "1.0"
    assert float(lines['redflag_audit_records_total{kind="transition",result="timed_out"}']) >= 1
    assert float(lines['redflag_agents{presence="online"}']) >= 1
    assert lines["redflag_database_constraint_violations_total"] is not None
    assert float(lines["redflag_check_in_seconds_count"]) >= 1
    assert "redflag_timeout_service_runs_total" in answer.text
