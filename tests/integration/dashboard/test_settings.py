"""What an administrator sets on the pages leaves the same record as by the API, under the administrator's name."""

from __future__ import annotations

import re
import uuid

import pytest

from integration.commands.helpers import until
from redflag.access import enrolment
from redflag.access.roles import Role
from redflag.audit import actor as actors

PAGES = (
    "/settings", "/settings/people", "/settings/tokens", "/settings/enrolment", "/settings/targets",
    "/settings/forwarders", "/settings/retention", "/settings/redaction",
)  # fmt: skip


async def _recorded(pool, person, action: str) -> int:
    return await pool.fetchval(
        "SELECT count(*) FROM update_logs WHERE action = $1 AND actor = $2", action, f"user:{person.name}"
    )


def _secret(answer) -> str:
    found = re.search(r'id="secret" value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


async def test_an_administrator_sees_every_page_of_the_settings(admin):
    for path in PAGES:
        text = await admin.page(path)
        assert set(PAGES) <= set(re.findall(r'list-group-item[^>]*href="([^"]+)"', text))


@pytest.mark.parametrize(
    ("role", "sees"),
    [
        (Role.VIEWER, {"/settings"}),
        (Role.OPERATOR, {"/settings", "/settings/enrolment"}),
        (Role.AUDITOR, {"/settings", "/settings/targets", "/settings/forwarders", "/settings/retention", "/settings/redaction"}),
    ],
)  # fmt: skip
async def test_others_see_what_they_may_and_no_button_that_is_not_theirs(person, role, sees):
    somebody = await person(role)
    for path in PAGES:
        text = await somebody.page(path, 200 if path in sees else 403)
        if path in sees:
            assert set(re.findall(r'list-group-item[^>]*href="([^"]+)"', text)) == sees
            assert "data-opens" not in text
            assert "hx-post" not in text or path in {"/settings/redaction", "/settings/enrolment"}


async def test_a_person_is_added_logs_in_and_is_let_in_no_more(admin, nobody, pool):
    name = f"anna-{uuid.uuid4().hex[:8]}"
    password = _secret(await admin.act("/settings/people", username=name, role="operator"))
    assert await _recorded(pool, admin, "user_created") >= 1
    answer = await nobody.log_in(name, password)
    assert (answer.status_code, answer.headers["location"]) == (303, "/password")
    user = await pool.fetchval("SELECT id FROM users WHERE username = $1", name)
    answer = await admin.act(f"/settings/people/{user}/role", role="auditor")
    assert "is now auditor" in answer.headers["hx-trigger"]
    password = _secret(await admin.act(f"/settings/people/{user}/password"))
    assert (await nobody.get("/password")).headers["location"].startswith("/login")
    await admin.act(f"/settings/people/{user}/disable")
    assert (await nobody.log_in(name, password)).status_code == 401
    await admin.act(f"/settings/people/{user}/enable")
    assert (await nobody.log_in(name, password)).status_code == 303
    assert name in await admin.region("/settings/people", "users")
    for action in ("user_role_changed", "user_password_set", "user_disabled", "user_enabled"):
        assert await _recorded(pool, admin, action) == 1, action


async def test_a_name_that_is_none_or_taken_is_refused_in_words(admin):
    for name, status in (("", 422), ("a b", 422), (admin.name, 409)):
        answer = await admin.act("/settings/people", status, username=name, role="viewer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.json()["detail"]) > 20
    await admin.act("/settings/people", 422, username="somebody", role="emperor")
    await admin.act(f"/settings/people/{uuid.UUID(int=0)}/disable", 404)


async def test_a_token_is_shown_once_works_and_is_revoked(admin, nobody, pool):
    name = f"backup-{uuid.uuid4().hex[:8]}"
    token = _secret(await admin.act("/settings/tokens", name=name, role="viewer", lasts="8h"))
    headers = {"Authorization": f"Bearer {token}"}
    assert (await nobody.get("/api/v1/auth/me", headers=headers)).json()["name"] == name
    assert token not in await admin.page("/settings/tokens")
    found = await pool.fetchrow("SELECT id, expires_at - created_at AS lasts FROM api_tokens WHERE name = $1", name)
    assert found["lasts"].total_seconds() == 8 * 3600
    await admin.act(f"/settings/tokens/{found['id']}/revoke")
    assert (await nobody.get("/api/v1/auth/me", headers=headers)).status_code == 401
    await admin.act("/settings/tokens", 422, name=name, role="viewer", lasts="soon")


async def test_an_enrolment_token_is_listed_and_revoked(admin, pool):
    async with pool.acquire() as connection:
        _, row = await enrolment.create(connection, actors.user(admin.name), "a rack of hosts", 40, 24)
    assert "a rack of hosts" in await admin.region("/settings/enrolment", "tokens")
    await admin.act(f"/settings/enrolment/{row['id']}/revoke")
    await admin.act(f"/settings/enrolment/{row['id']}/revoke", 404)
    recorded = (
        "SELECT count(*) FROM update_logs WHERE action = 'enrolment_token_revoked' AND metadata ->> 'subject_id' = $1"
    )
    assert await pool.fetchval(recorded, str(row["id"])) == 1


async def test_checkpoints_are_sent_to_a_file_and_no_more(admin, pool, tmp_path):
    name = f"copy-{uuid.uuid4().hex[:8]}"
    await admin.act("/settings/targets", kind="file", name=name, address=name, every="5s")
    target = await pool.fetchval("SELECT id FROM log_targets WHERE name = $1", name)
    await until(pool, "SELECT count(*) > 0 FROM audit_checkpoints")
    answer = await admin.act(f"/settings/targets/{target}/try")
    assert "has the checkpoint of" in answer.headers["hx-trigger"]
    assert name in await admin.region("/settings/targets", "targets")
    await admin.act(f"/settings/targets/{target}/switch", enabled="false")
    assert "off" in await admin.region("/settings/targets", "targets")
    await admin.act(f"/settings/targets/{target}/remove")
    await admin.act(f"/settings/targets/{target}/try", 404)
    secret = _secret(
        await admin.act("/settings/targets", kind="webhook", name=f"hook-{name}", address="http://127.0.0.1:9/x")
    )
    assert secret.startswith("whsec_")
    await admin.act("/settings/targets", 422, kind="pigeon", name="x", address="y")
    await admin.act("/settings/targets", 422, kind="witness", name="x1", address="http://127.0.0.1:9/", vkey="none")


async def test_a_receiver_is_added_paused_and_removed(admin, pool):
    name = f"siem-{uuid.uuid4().hex[:8]}"
    await admin.act("/settings/forwarders", name=name, host="127.0.0.1", port="9", transport="tcp", body="ocsf")
    one = await pool.fetchval("SELECT id FROM log_forwarders WHERE name = $1", name)
    await admin.act(f"/settings/forwarders/{one}/switch", enabled="false")
    assert "paused" in await admin.region("/settings/forwarders", "forwarders")
    await admin.act(f"/settings/forwarders/{one}/remove")
    for wrong in ({"port": "x"}, {"transport": "udp"}, {"body": "morse"}):
        fields = {"name": name, "host": "127.0.0.1", "port": "9", "transport": "tcp", "body": "ocsf"} | wrong
        await admin.act("/settings/forwarders", 422, **fields)


async def test_records_are_kept_as_long_as_somebody_says_and_a_hold_stands_until_it_is_released(admin, pool):
    assert "400 d" in (await admin.act("/settings/retention", keep="400d")).headers["hx-trigger"]
    assert "400 d" in await admin.region("/settings/retention", "kept")
    await admin.act("/settings/retention", keep="for ever")
    assert "for ever" in await admin.region("/settings/retention", "kept")
    await admin.act("/settings/retention", 422, keep="1d")
    name = f"case-{uuid.uuid4().hex[:8]}"
    await admin.act(
        "/settings/retention/holds", name=name, reason="a lawsuit", since="2026-01-01T00:00", actor="user:eve"
    )
    hold = await pool.fetchrow("SELECT id, since FROM legal_holds WHERE name = $1", name)
    assert hold["since"].isoformat() == "2026-01-01T00:00:00+00:00"
    assert "what eve did" in await admin.region("/settings/retention", "kept")
    await admin.act(f"/settings/retention/holds/{hold['id']}/release")
    await admin.act("/settings/retention/holds", 422, name="x", reason="")
    await admin.act("/settings/retention/holds", 422, name="x", reason="y", agent_id="none")


async def test_a_name_is_counted_before_it_is_erased(admin, pool):
    answer = await admin.act("/settings/retention/erasures", actor="user:nobody-of-this-name")
    assert "0 records can be erased" in answer.headers["hx-trigger"]
    await admin.act("/settings/retention/erasures", 422, actor="user:nobody-of-this-name", go="erase")
    await admin.act("/settings/retention/erasures", 422, actor="")


async def test_redaction_shows_what_would_be_left(admin):
    headers = {"HX-Request": "true", "HX-Target": "left", "X-CSRF-Token": admin.csrf}
    answer = await admin.post("/settings/redaction", data={"text": "password=hunter2 <b>"}, headers=headers)
    assert answer.text.strip() == '<pre class="output">password=[redacted] &lt;b&gt;</pre>'


async def test_an_authority_that_is_no_certificate_is_refused_with_the_reason(admin):
    for ca in ("no certificate", "\N{PILE OF POO}"):
        fields = {"name": "siem", "host": "127.0.0.1", "port": "6514", "ca": ca}
        answer = await admin.act("/settings/forwarders", 422, **fields)
        assert "no certificate" in answer.json()["detail"]


@pytest.mark.parametrize("field", ["name", "reason", "actor"])
async def test_a_hold_with_a_nul_byte_is_refused_and_not_a_fault(admin, field):
    await admin.act("/settings/retention/holds", 422, **({"name": "n", "reason": "r"} | {field: "a\x00b"}))
