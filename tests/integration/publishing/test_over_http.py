"""Targets as an administrator has them: by the API and the command line of a real server, whose sender runs by itself."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

import redflag_verify
from databases import own_database
from integration.publishing.listeners import Listener, Witness, until
from redflag.access import tokens
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.cli import client
from redflag.cli.exits import ExitCode
from redflag.cli.main import main
from redflag.settings import Settings, settings
from redflag.web.app import make_app

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("publishing_http")

TARGETS = "/api/v1/audit/targets"


@pytest_asyncio.fixture(scope="module")
async def base_url(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that runs as long as these tests."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    given = Settings(var=tmp_path_factory.mktemp("publishing"), port=port, replica="tests")
    running = uvicorn.Server(
        uvicorn.Config(make_app(given, dsn_server), log_level="warning", timeout_graceful_shutdown=5)
    )
    task = asyncio.create_task(running.serve(sockets=[listening]))
    while not running.started:
        assert not task.done(), task
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    await task


@pytest_asyncio.fixture(scope="module")
async def role_tokens(pool: Any) -> dict[Role, str]:
    """A token for each role."""
    async with pool.acquire() as connection:
        return {
            role: (await tokens.create(connection, actors.service("tests", "here"), f"{role}", role, giver=Role.ADMIN))[
                0
            ]
            for role in Role
        }


@pytest.fixture
def calls(base_url: str, role_tokens: dict[Role, str]) -> Callable[[Role], httpx.AsyncClient]:
    """Whoever has a role."""
    return lambda role: httpx.AsyncClient(
        base_url=base_url, headers={"Authorization": f"Bearer {role_tokens[role]}"}, timeout=30
    )


@pytest_asyncio.fixture
async def admin(calls: Callable[[Role], httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator's program."""
    async with calls(Role.ADMIN) as one:
        yield one


@pytest_asyncio.fixture
async def key(admin: httpx.AsyncClient) -> str:
    """The log's key."""
    found: str = (await admin.get("/api/v1/audit/log")).json()["key"]
    return found


def _verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(Path(redflag_verify.__file__).resolve()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_witnesses_cosign_by_themselves_and_a_record_is_proven_with_their_word(admin, key, owner, tmp_path):
    async with Witness(key, "witness.example/a") as first, Witness(key, "witness.example/b") as second:
        for witness in (first, second):
            body = {"kind": "witness", "name": witness.name, "address": witness.url, "vkey": witness.vkey, "every": 1}
            answer = await admin.post(TARGETS, json=body)
            assert answer.status_code == 201, answer.text
        event = await owner.fetchval(
            "INSERT INTO update_logs (result, message) VALUES ('success', 'seen') RETURNING id"
        )

        async def proven() -> str:
            found = await admin.get(f"/api/v1/audit/events/{event}/proof", params={"quorum": 2})
            assert found.status_code in {200, 409}
            return found.text if found.status_code == 200 else ""

        proof = await until(proven)
        cosigned = await admin.get("/log/checkpoint/cosigned", params={"quorum": 2})
        log = (await admin.get("/api/v1/audit/log")).json()
    assert (cosigned.headers["content-type"], cosigned.headers["cache-control"]) == (
        "text/plain; charset=utf-8",
        "no-cache",
    )
    file = tmp_path / "file"
    witnesses = ("--witness", first.vkey, "--witness", second.vkey, "--quorum", 2)
    for command, text in (("proof", proof), ("checkpoint", cosigned.text), ("checkpoint", log["cosigned"]["note"])):
        file.write_text(text)
        ran = _verify(command, file, "--key", key, *(witnesses if text != log["cosigned"]["note"] else ()))
        assert ran.returncode == 0, ran.stdout + ran.stderr
    told = {one["witness"]: one["key_id"] for one in log["cosigned"]["cosignatures"]}
    assert told.items() <= {one.name: one.key.id.hex() for one in (first, second)}.items()
    assert (await admin.get("/log/checkpoint/cosigned", params={"quorum": 3})).status_code == 404
    assert (await admin.get("/log/checkpoint/cosigned", params={"quorum": 16})).status_code == 422
    assert (await admin.get(f"/api/v1/audit/events/{event}/proof", params={"quorum": 3})).status_code == 409


async def test_who_may_see_targets_and_who_may_change_them(calls, anonymous_status):
    body = {"kind": "file", "name": "x", "address": "x"}
    some = f"{TARGETS}/{uuid.uuid4()}"
    for role, reads, writes in (
        (Role.VIEWER, 403, 403),
        (Role.OPERATOR, 403, 403),
        (Role.AUDITOR, 200, 403),
        (Role.ADMIN, 200, 404),
    ):
        async with calls(role) as one:
            assert (await one.get(TARGETS)).status_code == reads
            assert (await one.patch(some, json={"enabled": True})).status_code == writes
            assert (await one.delete(some)).status_code == writes
            assert (await one.post(f"{some}/try")).status_code == writes
            if writes == 403:
                assert (await one.post(TARGETS, json=body)).status_code == 403
    assert await anonymous_status(TARGETS) == await anonymous_status("/log/checkpoint/cosigned") == 401


@pytest.fixture
def anonymous_status(base_url: str) -> Callable[[str], Awaitable[int]]:
    """What somebody without a token is told."""

    async def status(path: str) -> int:
        async with httpx.AsyncClient(base_url=base_url) as one:
            return (await one.get(path)).status_code

    return status


async def test_a_target_is_added_tried_changed_and_removed(admin, owner):
    async with Listener() as listener:
        added = await admin.post(
            TARGETS, json={"kind": "webhook", "name": "hook", "address": listener.url, "every": 3600}
        )
        assert added.status_code == 201
        assert added.json()["secret"].startswith("whsec_")
        path = f"{TARGETS}/{added.json()['id']}"
        listed = {one["name"]: one for one in (await admin.get(TARGETS)).json()["targets"]}
        assert "secret" not in listed["hook"]
        assert listed["hook"]["every"] == 3600

        async def tried() -> dict[str, Any]:
            answer = await admin.post(f"{path}/try")  # 409 while the server itself sends to it
            return answer.json() if answer.status_code == 200 else {}

        outcome = await until(tried)
        assert (outcome["ok"], outcome["error"]) == (True, None)
        assert outcome["target"]["acknowledged_size"] > 0
    outcome = await until(tried)
    assert outcome["ok"] is False
    assert "It cannot be reached" in outcome["error"]
    assert (await admin.patch(path, json={"enabled": False, "every": 5})).json()["every"] == 5
    assert (await admin.patch(path, json={"vkey": "x"})).status_code == 422
    assert (await admin.post(TARGETS, json={"kind": "file", "name": "hook", "address": "x"})).status_code == 409
    assert (await admin.post(TARGETS, json={"kind": "file", "name": "up", "address": "../up"})).status_code == 422
    assert (await admin.post(TARGETS, json={"kind": "pigeon", "name": "up", "address": "up"})).status_code == 422
    assert (await admin.delete(path)).status_code == 200
    assert (await admin.delete(path)).status_code == 404
    tries = await owner.fetch(
        "SELECT actor, result FROM update_logs WHERE action = 'log_target_tried' ORDER BY created_at"
    )
    assert [(one["actor"], one["result"]) for one in tries] == [("token:admin", "success"), ("token:admin", "failed")]


@pytest.fixture
def cli(
    base_url: str,
    role_tokens: dict[Role, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """Runs a command: its exit code, stdout and stderr."""
    monkeypatch.setenv("REDFLAG_URL", base_url)
    monkeypatch.setenv("REDFLAG_TOKEN", role_tokens[Role.ADMIN])
    monkeypatch.setenv("REDFLAG_VAR", str(tmp_path / "var"))
    settings.cache_clear()

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["audit", *arguments])
        captured = capsys.readouterr()
        client.options = client.Options()
        settings.cache_clear()
        return int(code), captured.out, captured.err

    return run


async def test_the_command_line_lists_adds_tries_changes_and_removes(cli, admin, key, owner, tmp_path, monkeypatch):
    code, out, _ = await cli("targets", "list")
    assert (code, "Checkpoints are sent nowhere." in out) == (0, True)
    async with Witness(key, "witness.example/cli") as witness:
        code, out, err = await cli(
            "targets", "add", "witness", "notary", witness.url, "--key", witness.vkey, "--every", "1s"
        )
        assert code == 0, err
        assert "Checkpoints go to the witness notary, one in 1 s at the most." in out
        code, out, err = await cli("targets", "try", "notary")
        while code == ExitCode.CONFLICT:  # the server itself is at it
            code, out, err = await cli("targets", "try", "notary")
        assert code == 0, err
        assert "The witness notary has a checkpoint of" in out
        code, out, _ = await cli("targets", "list")
        assert "notary" in out
        assert "ago" in out or "now" in out
        code, out, _ = await cli("key")
        assert "by 1 witness" in out
        event = await owner.fetchval(
            "INSERT INTO update_logs (result, message) VALUES ('success', 'seen') RETURNING id"
        )
        code, out, err = await cli("proof", str(event), "--quorum", "1")
        while code == ExitCode.CONFLICT:
            await asyncio.sleep(0.05)
            code, out, err = await cli("proof", str(event), "--quorum", "1")
        file = tmp_path / "proof"
        file.write_text(out)
        assert _verify("proof", file, "--key", key, "--witness", witness.vkey).returncode == 0
    code, out, err = await cli("targets", "try", "notary")
    while code == ExitCode.CONFLICT:
        code, out, err = await cli("targets", "try", "notary")
    assert code == ExitCode.ATTENTION
    assert "The checkpoint did not reach notary: It cannot be reached" in err
    code, out, _ = await cli("targets", "list", "--json")
    listed = json.loads(out)["targets"][0]
    assert listed["failures_in_a_row"] >= 1
    code, out, _ = await cli("targets", "list")
    assert "in a row" in out
    code, out, err = await cli("targets", "set", "notary", "--disable", "--every", "1h", "--name", "far")
    assert "Checkpoints do not go to the witness far" in out
    assert "one in 1 h at the most" in out
    assert " off " in (await cli("targets", "list"))[1]
    assert (await cli("targets", "set", "far"))[0] == ExitCode.USAGE
    assert (await cli("targets", "remove", "far"))[0] == ExitCode.USAGE  # nobody can be asked
    assert (await cli("targets", "remove", "far", "--yes"))[0] == 0
    assert (await cli("targets", "try", "far"))[0] == ExitCode.NOT_FOUND
    code, out, err = await cli("targets", "add", "webhook", "hook", "https://hooks.example/")
    assert (code, out.startswith("whsec_"), "cannot be shown again" in err) == (0, True, True)
