"""SIGTERM drains: what is under way is answered, what was answered is there, and held calls do not hold it up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from machine import free_port
from redflag.database import pool
from redflag.database.embedded import EmbeddedDatabase

pytestmark = pytest.mark.fault


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A data folder and a port of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REDFLAG_")}
    return kept | {"REDFLAG_VAR": str(tmp_path / "var"), "REDFLAG_PORT": str(free_port())}


@pytest.fixture
def installation(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """`redflag up`, and down again."""
    redflag = [sys.executable, "-m", "redflag.cli.main"]
    subprocess.run([*redflag, "up", "--no-agent"], env=environment, check=True, capture_output=True, timeout=110)
    yield environment
    subprocess.run([*redflag, "down"], env=environment, check=True, capture_output=True, timeout=60)


async def test_a_report_that_is_being_sent_is_finished_and_kept_and_held_calls_are_released(
    installation: dict[str, str],
):
    folder, port = Path(installation["REDFLAG_VAR"]), int(installation["REDFLAG_PORT"])
    token = (folder / "cli-token").read_text().strip()
    base = f"http://127.0.0.1:{port}"
    admin = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=base, timeout=60) as client:
        made = await client.post("/api/v1/enrolment-tokens", json={"seats": 1}, headers=admin)
        enrolled = (
            await client.post(
                "/api/v1/agents/register",
                json={"hostname": "h", "protocol": 1, "registration_token": made.json()["token"]},
            )
        ).json()
        agent, mine = enrolled["agent_id"], {"Authorization": f"Bearer {enrolled['token']}"}
        sent = await client.post(
            "/api/v1/commands", json={"agent_ids": [agent], "command_type": "scan_updates"}, headers=admin
        )
        command = sent.json()["commands"][0]["id"]
        await client.request("GET", f"/api/v1/agents/{agent}/commands", json={"protocol": 1}, headers=mine)
        held = asyncio.create_task(
            client.request(
                "GET", f"/api/v1/agents/{agent}/commands?wait=30", json={"protocol": 1, "held": [command]}, headers=mine
            )
        )
        # A report of which the server has the beginning when it is told to stop
        body = json.dumps({"command_id": command, "result": "success", "stdout": "x" * 200_000}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"POST /api/v1/agents/{agent}/logs HTTP/1.1\r\nHost: x\r\nAuthorization: {mine['Authorization']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body[:100_000])
        await writer.drain()
        # Answered after the head of the report was read: requests of one server are taken up in order
        assert (await client.get("/healthz")).status_code == 200
        server = json.loads((folder / "run" / "server.pid").read_text().split()[0])
        began = time.monotonic()
        os.kill(server, signal.SIGTERM)
        assert (await held).status_code == 200
        assert time.monotonic() - began < 10
        writer.write(body[100_000:])
        await writer.drain()
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
        assert answer == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    database = EmbeddedDatabase(folder / "database")
    connection = await pool.connect(database.url("redflag_owner"))
    try:
        row = await connection.fetchrow("SELECT status, version FROM agent_commands WHERE id = $1", uuid.UUID(command))
        assert row["status"] == "completed"
        assert (
            await connection.fetchval("SELECT count(*) FROM update_logs WHERE command_id = $1", uuid.UUID(command))
            == row["version"]
        )
        for _ in range(300):
            if await connection.fetchval("SELECT count(*) FROM update_logs WHERE action = 'timeout_service_stopped'"):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the server did not lay down its work")
    finally:
        await connection.close()
