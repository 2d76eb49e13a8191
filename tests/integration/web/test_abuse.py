"""What somebody tried on this server, and what came of it."""

from __future__ import annotations

import asyncio
import time
import uuid

import asyncpg
import pytest

from redflag.audit import redaction


async def test_whoever_shows_no_token_cannot_keep_the_server_busy_with_what_it_would_search(anonymous):
    slow = ("-eyJ" * 500 + "." + "-eyJ" * 1000) * 30
    for body in ({"metadata": {"a": ["a"] * 60_000}}, {"hostname": slow}, {"metadata": {"x": "y" * 250_000}}):
        began = time.process_time()  # the server is in this process
        answer = await anonymous.post(
            "/api/v1/agents/register", json={"hostname": "h", "registration_token": "wrong"} | body
        )
        assert answer.status_code in {400, 401}
        assert time.process_time() - began < 1
    answer = await anonymous.post("/api/v1/agents/register", json={"hostname": "h" * 1_000_000})
    assert answer.status_code == 413


def test_no_pattern_of_secrets_takes_long_on_what_was_made_to_be_slow():
    for text in (
        "-eyJ" * 30_000,
        "eyJ" + "a" * 100_000,
        "password=" * 20_000,
        "a://" * 40_000,
        "Bearer " * 20_000,
        "--token " * 20_000,
    ):
        began = time.process_time()
        redaction.text(text)
        assert time.process_time() - began < 1, text[:20]


async def test_an_agent_cannot_fill_the_record_with_reports_that_come_late(admin, enrol, owner):
    agent = await enrol()
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    command = made.json()["commands"][0]["id"]
    await agent.check_in()
    for i in range(30):
        answer = await agent.post(
            "logs", {"command_id": command, "result": "success", "stdout": f"{i}", "metadata": {"x": "y" * 50_000}}
        )
        assert answer.status_code == 200
    rows = await owner.fetch(
        "SELECT kind, pg_column_size(metadata) AS size FROM update_logs WHERE command_id = $1", uuid.UUID(command)
    )
    assert sum(row["kind"] == "late_result" for row in rows) == 20
    assert max(row["size"] for row in rows) < 2000


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO update_logs (kind, actor, result, command_id, version) VALUES ('import', 'user:x', 'success', gen_random_uuid(), 1)",
        "INSERT INTO update_logs (kind, actor, result) VALUES ('change', 'user:admin', 'success')",
        "INSERT INTO update_logs (kind, actor, result) VALUES ('access', 'db:redflag_owner', 'success')",
        "INSERT INTO updates (agent_id, package_type, package_name, status) SELECT id, 'apt', 'x', 'approved' FROM agents LIMIT 1",
        "UPDATE updates SET approved_version = '6.6.6' WHERE id = (SELECT id FROM updates LIMIT 1)",
        "UPDATE agent_commands SET next_deadline_at = now() + interval '10 years' WHERE next_deadline_at IS NOT NULL",
        "UPDATE agent_commands SET next_deadline_at = now() - interval '1 hour' WHERE next_deadline_at IS NOT NULL",
        "UPDATE agent_commands SET result = '{\"message\": \"forged\"}' WHERE status = 'completed'",
        "UPDATE agent_commands SET source = 'elsewhere'",
        "SELECT set_config('redflag.importing', 'on', false); UPDATE agent_commands SET status = 'completed' WHERE status = 'pending'",
    ],
)
async def test_the_servers_own_role_is_refused_what_would_leave_no_true_record(server, owner, admin, enrol, statement):
    agent = await enrol()
    for _ in range(2):
        made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
        await agent.check_in()
    await agent.post("logs", {"command_id": made.json()["commands"][0]["id"], "result": "success"})
    await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    item = {
        "package_type": "apt",
        "package_name": "p",
        "current_version": "1",
        "available_version": "2",
        "severity": "low",
    }
    assert (await agent.post("updates", {"updates": [item]})).json()["count"] == 1
    with pytest.raises(asyncpg.PostgresError) as refused:
        await server.execute(statement)
    assert refused.value.sqlstate in {"RF001", "RF002", "RF003", "RF004"}, str(refused.value)
    await server.execute("SELECT set_config('redflag.importing', '', false)")


async def test_no_record_is_so_odd_that_the_log_or_the_sweep_stops(owner, admin):
    for odd in (
        "action => repeat('x', 10000)", "executed_at => '0044-03-15 BC'", "executed_at => '20000-01-01'", "executed_at => 'infinity'",
    ):  # fmt: skip
        name, value = odd.split(" => ")
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute(f"INSERT INTO update_logs (result, {name}) VALUES ('success', {value})")
    deep = "[" * 2000 + "]" * 2000
    marker = uuid.uuid4()
    note = "INSERT INTO update_logs (result, metadata) VALUES ('success', jsonb_build_object('odd', $1::text::jsonb))"
    for value in (deep, "9" * 100_000):
        await owner.execute(note, value)
    await owner.execute("INSERT INTO update_logs (id, result) VALUES ($1, 'success')", marker)
    for _ in range(200):
        if await owner.fetchval("SELECT count(*) FROM audit_entries WHERE record_id = $1", marker):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the log did not go on")
    assert (await admin.get("/api/v1/admin/timeout-service/status")).json()["overdue"] == 0


@pytest.mark.parametrize(
    "path", ["agents?text=%00", "agents?tag=%00", "commands?command_type=%00", "commands/history?text=%00"]
)
async def test_a_nul_byte_in_a_query_is_refused_in_words(admin, path):
    assert (await admin.get(f"/api/v1/{path}")).status_code == 422


async def test_numbers_that_json_does_not_have_are_refused(admin, enrol):
    agent = await enrol()
    body = '{"agent_ids": ["%s"], "command_type": "scan_updates", "params": {"n": NaN}}' % agent.id  # noqa: UP031
    answer = await admin.post("/api/v1/commands", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
