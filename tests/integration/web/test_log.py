"""The log as others see it: fetched over HTTP, and checked by the verifier that imports nothing of ours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from redflag.access.roles import Role
from redflag.audit import merkle

VERIFIER = Path(__file__).resolve().parents[3] / "verify" / "redflag_verify.py"


def _verify(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(VERIFIER), *arguments], capture_output=True, text=True, check=False
    )


async def _published(admin: httpx.AsyncClient, size: int) -> dict[str, Any]:
    """The log's state once a checkpoint has at least that size."""
    for _ in range(200):
        log = (await admin.get("/api/v1/audit/log")).json()
        if log["checkpoint"] and log["checkpoint"]["size"] >= size:
            return log
        await asyncio.sleep(0.05)
    raise AssertionError(log)


async def _command(admin, agent) -> str:
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    await agent.check_in()
    command = made.json()["commands"][0]["id"]
    await agent.post("logs", {"command_id": command, "result": "success", "stdout": "all is well"})
    return command


async def test_an_event_is_proven_by_a_file_that_a_stranger_can_check(admin, enrol, tmp_path: Path):
    command = await _command(admin, await enrol())
    events = (await admin.get(f"/api/v1/commands/{command}")).json()["events"]
    await _published(admin, 1)
    for _ in range(100):
        answer = await admin.get(f"/api/v1/audit/events/{events[-1]['id']}/proof")
        if answer.status_code == 200:
            break
        assert answer.status_code == 409  # in no checkpoint yet
        await asyncio.sleep(0.05)
    key = (await admin.get("/api/v1/audit/log")).json()["key"]
    file = tmp_path / "event.tlog-proof"
    file.write_text(answer.text)
    ran = _verify("proof", str(file), "--key", key)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert events[-1]["id"] in ran.stdout
    assert "stdout" in ran.stdout
    file.write_text(answer.text.replace("index ", "index 1", 1))
    assert _verify("proof", str(file), "--key", key).returncode == 1
    shown = (await admin.get("/api/v1/commands/history", params={"command": command})).json()["events"]
    assert all(isinstance(event["position"], int) for event in shown)


async def test_the_whole_log_fetched_as_tiles_verifies_and_goes_on_consistently(admin, enrol, tmp_path: Path):
    before = await _published(admin, 1)
    old = tmp_path / "old-checkpoint"
    old.write_text((await admin.get("/log/checkpoint")).text)
    agent = await enrol()
    await asyncio.gather(*[
        admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"}) for _ in range(300)
    ])  # fmt: skip
    log = await _published(admin, before["checkpoint"]["size"] + 300)
    folder = tmp_path / "log"
    checkpoint = await admin.get("/log/checkpoint")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "no-cache"
    folder.mkdir()
    (folder / "checkpoint").write_text(checkpoint.text)
    size = int(checkpoint.text.splitlines()[1])
    wanted, level, count = [], 0, size
    while count:
        for index in range((count + 255) // 256):
            width = min(256, count - index * 256)
            wanted.append(merkle.path(level, index, width))
            if level == 0:
                wanted.append(merkle.path("entries", index, width))
        level, count = level + 1, count // 256
    for path in wanted:
        answer = await admin.get(f"/log/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(answer.content)
    ran = _verify("log", str(folder), "--key", log["key"])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    proof = tmp_path / "consistency"
    first = int(old.read_text().splitlines()[1])
    proof.write_text((await admin.get(f"/api/v1/audit/consistency?old={first}&size={size}")).text)
    arguments = (
        "consistency",
        "--old",
        str(old),
        "--new",
        str(folder / "checkpoint"),
        "--key",
        log["key"],
        "--proof",
        str(proof),
    )
    ran = _verify(*arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    entries = folder / "tile" / "entries" / "000"
    data = bytearray(entries.read_bytes())
    data[len(data) // 2] ^= 1
    entries.write_bytes(bytes(data))
    assert _verify("log", str(folder), "--key", log["key"]).returncode == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tile/0/x999/999", 404), ("tile/9/000", 404), ("tile/0/1", 422), ("tile/0/000.p/0", 422), ("tile/0/000.p/256", 422),
        ("tile/0/000.p/01", 422), ("tile/0/x000/000", 422), ("tile/0/../../etc", 404), ("tile/x/000", 422), ("tile/64/000", 404),
        ("tile/-1/000", 404), ("tile/entries/x1/000", 422),
    ],
)  # fmt: skip
async def test_what_is_no_tile_of_the_newest_checkpoint_is_not_served(admin, path, status):
    assert (await admin.get(f"/log/{path}")).status_code == status


async def test_the_log_is_for_auditors_unless_everybody_may_see_it(anonymous, role_tokens):
    for role, status in ((Role.AUDITOR, 200), (Role.ADMIN, 200), (Role.OPERATOR, 403), (Role.VIEWER, 403)):
        answer = await anonymous.get("/log/checkpoint", headers={"Authorization": f"Bearer {role_tokens[role]}"})
        assert answer.status_code == status
    assert (await anonymous.get("/log/checkpoint")).status_code == 401
