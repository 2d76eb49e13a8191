"""Bundles and reports over HTTP: whole files for whoever may read the trail, and each of them recorded."""

from __future__ import annotations

import asyncio
import datetime
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pypdf
import pytest

from redflag.access.roles import Role
from redflag.web.api import evidence

VERIFIER = Path(__file__).resolve().parents[3] / "verify" / "redflag_verify.py"


async def _published(admin: httpx.AsyncClient) -> str:
    """The log's key, once a checkpoint covers the newest transition. What other tests left may wait for a position for ever."""
    newest = (await admin.get("/api/v1/commands/history", params={"limit": 1, "kind": "transition"})).json()["events"]
    assert newest
    for _ in range(400):
        found = {"command": newest[0]["command_id"], "limit": 500}
        events = (await admin.get("/api/v1/commands/history", params=found)).json()["events"]
        log = (await admin.get("/api/v1/audit/log")).json()
        at = next(event["position"] for event in events if event["id"] == newest[0]["id"])
        if at is not None and log["checkpoint"] and log["checkpoint"]["size"] > at:
            key: str = log["key"]
            return key
        await asyncio.sleep(0.05)
    raise AssertionError(log)


def _since() -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).isoformat()


async def test_a_bundle_is_handed_out_whole_verifies_and_is_recorded(admin, enrol, owner, tmp_path: Path) -> None:
    agent = await enrol()
    await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    key = await _published(admin)
    answer = await admin.get("/api/v1/audit/bundle", params={"agent": agent.id, "since": _since()})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="evidence-')
    assert int(answer.headers["content-length"]) == len(answer.content)
    file = tmp_path / "bundle.zip"
    file.write_bytes(answer.content)
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-I", str(VERIFIER), "bundle", str(file), "--key", key],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    with zipfile.ZipFile(file) as opened:
        assert agent.id in opened.read("entries.jsonl").decode()
    record = await owner.fetchrow(
        "SELECT * FROM update_logs WHERE action = 'audit_exported' AND metadata ->> 'format' = 'bundle' ORDER BY created_at DESC LIMIT 1"
    )
    assert record["kind"] == "access"
    assert f"agent_id={agent.id}" in record["metadata"]["query"]
    assert record["actor"].startswith("token:admin-")


@pytest.mark.parametrize("format_", list(evidence.Format))
async def test_a_report_comes_in_the_form_that_was_asked_for_and_is_recorded(admin, owner, format_) -> None:
    answer = await admin.get("/api/v1/audit/report", params={"since": _since(), "format": format_})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == evidence.MEDIA[format_]
    assert answer.headers["content-disposition"].endswith(f'.{format_}"')
    if format_ == "json":
        assert answer.json()["completeness"]["records"] > 0
    elif format_ == "pdf":
        assert pypdf.PdfReader(io.BytesIO(answer.content)).pages
    else:
        assert answer.text.startswith("<!DOCTYPE html>")
    assert await owner.fetchval(
        "SELECT count(*) FROM update_logs WHERE action = 'audit_exported' AND message LIKE 'report since=%'"
    )


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("report", {}),
        ("report", {"since": "2030-01-02", "until": "2030-01-01"}),
        ("report", {"since": "2020-01-01", "until": "2030-01-01"}),
        ("report", {"since": "2030-01-01T00:00:00Z", "format": "docx"}),
        ("report", {"since": "yesterday"}),
        ("bundle", {"since": "2030-01-02T00:00:00", "until": "2030-01-01T00:00:00"}),
        ("bundle", {"agent": "x"}),
        ("bundle", {"kind": "x"}),
        ("bundle", {"actor": "\x00"}),
        ("bundle", {"consistency_from": -1}),
        ("bundle", {"consistency_from": 10**12}),
    ],
)
async def test_what_cannot_be_given_is_refused_with_a_reason(admin, path, query) -> None:
    answer = await admin.get(f"/api/v1/audit/{path}", params=query)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_one_bundle_is_written_at_a_time(admin) -> None:
    await _published(admin)
    async with evidence._writing:
        answer = await admin.get("/api/v1/audit/bundle")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "30"


async def test_auditors_get_them_and_operators_do_not(anonymous, role_tokens, admin) -> None:
    await _published(admin)
    for role, status in ((Role.AUDITOR, 200), (Role.OPERATOR, 403), (Role.VIEWER, 403)):
        headers = {"Authorization": f"Bearer {role_tokens[role]}"}
        for path, query in (("bundle", {"actor": "nobody"}), ("report", {"since": _since()})):
            assert (await anonymous.get(f"/api/v1/audit/{path}", params=query, headers=headers)).status_code == status
