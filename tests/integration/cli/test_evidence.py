# ruff: noqa: F811 - fixtures are named after what they give
"""`redflag audit bundle`, `redflag audit report`, and what `redflag audit fsck` leaves behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import redflag_verify
from integration.audit.evidence import new_name, place
from integration.cli.test_cli_api import Cli, cli, token, url  # noqa: F401 - fixtures
from redflag.audit.checkpoint import Signer
from redflag.cli import databases
from redflag.cli.exits import ExitCode
from redflag.settings import settings


@pytest.fixture
def key(cli: Cli) -> str:
    """The log's key, once a checkpoint covers what was recorded until now."""
    sequenced = None
    for _ in range(400):
        log = cli("audit", "key", "--json").json
        sequenced = sequenced or log["sequenced"] + log["pending"]
        if log["checkpoint"] and log["checkpoint"]["size"] >= sequenced:
            return log["key"]
        time.sleep(0.05)
    raise AssertionError(log)


def test_a_bundle_is_verified_at_once_and_kept_private(cli: Cli, key: str, tmp_path: Path) -> None:
    file = tmp_path / "evidence.zip"
    ran = cli("audit", "bundle", "--since", "1d", "--to", str(file))
    assert ran.code == ExitCode.OK, ran.err
    assert "verified against the log" in ran.out
    assert "Next: hand it over." in ran.out
    assert "--key takes the one that you pinned" in ran.err
    assert file.stat().st_mode & 0o777 == 0o600
    command = [sys.executable, "-I", redflag_verify.__file__, "bundle", str(file), "--key", key]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    again = cli("audit", "bundle", "--to", str(file))
    assert again.code == ExitCode.CONFLICT
    assert "exists already" in again.err
    assert list(tmp_path.iterdir()) == [file]


def test_it_goes_on_from_a_checkpoint_that_was_kept(cli: Cli, key: str, tmp_path: Path) -> None:
    old, file = tmp_path / "old", tmp_path / "evidence.zip"
    old.write_text(cli("audit", "key", "--json").json["checkpoint"]["note"])
    assert cli("tokens", "create", "another", "--role", "viewer").code == ExitCode.OK
    ran = cli("audit", "bundle", "--since-checkpoint", str(old), "--key", key, "--to", str(file), "--json")
    assert ran.code == ExitCode.OK, ran.err
    assert any("begins with the older one" in line for line in ran.json["checked"])
    (tmp_path / "none").write_text("no checkpoint")
    assert (
        cli("audit", "bundle", "--since-checkpoint", str(tmp_path / "none"), "--to", str(tmp_path / "x.zip")).code
        == ExitCode.USAGE
    )


def test_a_bundle_that_does_not_verify_is_not_kept(cli: Cli, key: str, tmp_path: Path) -> None:
    other = Signer(key.partition("+")[0], Ed25519PrivateKey.generate()).verifier.vkey()
    ran = cli("audit", "bundle", "--key", other, "--to", str(tmp_path / "x.zip"))
    assert ran.code == ExitCode.ATTENTION
    assert "does NOT verify, and was not kept" in ran.err
    assert cli("audit", "bundle", "--key", "nonsense", "--to", str(tmp_path / "x.zip")).code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_written_in_the_form_of_its_name_or_printed(cli: Cli, key: str, tmp_path: Path) -> None:
    for name, begins in (
        ("r.html", b"<!DOCTYPE html>"),
        ("r.pdf", b"%PDF-"),
        ("r.json", b"{"),
        ("r", b"<!DOCTYPE html>"),
    ):
        ran = cli("audit", "report", "--since", "30d", "--to", str(tmp_path / name))
        assert ran.code == ExitCode.OK, ran.err
        assert "redflag audit bundle --since" in ran.out
        assert (tmp_path / name).read_bytes().startswith(begins)
    told = json.loads((tmp_path / "r.json").read_bytes())
    assert told["completeness"]["findings"] == []
    assert cli("audit", "report", "--since", "30d", "--to", str(tmp_path / "r.pdf")).code == ExitCode.CONFLICT
    assert cli("audit", "report", "--since", "1d", "--until", "2d", "--to", str(tmp_path / "x")).code == ExitCode.USAGE
    assert cli("audit", "report").code == ExitCode.USAGE


async def _fsck(owner: Any) -> list[Any]:
    return await owner.fetch("SELECT * FROM update_logs WHERE action = 'fsck' ORDER BY created_at")


async def test_fsck_leaves_its_outcome_in_the_record_and_the_report_shows_it(
    cli: Cli,
    key: str,
    owner: Any,
    dsn_server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("REDFLAG_DATABASE_URL", dsn_server)
    settings.cache_clear()
    before = len(await _fsck(owner))
    # The command line runs an event loop of its own, so it cannot run in this one's thread
    ran = await asyncio.to_thread(cli, "audit", "fsck", "--key", key)
    assert ran.code == ExitCode.OK, ran.err
    assert (await asyncio.to_thread(cli, "audit", "fsck", "--no-record")).code == ExitCode.OK
    found = await _fsck(owner)
    assert len(found) == before + 1
    record = found[-1]
    assert (record["kind"], record["result"], record["actor"]) == (
        "service",
        "success",
        f"service:fsck@{databases.hostname()}",
    )
    assert record["metadata"]["signatures_checked"] is True
    assert record["metadata"]["finding"] is None
    assert {"size", "root", "checkpoints", "seconds", "replay"} <= record["metadata"].keys()
    ran = await asyncio.to_thread(
        cli, "audit", "report", "--since", "1d", "--format", "json", "--to", str(tmp_path / "r.json")
    )
    told = json.loads((tmp_path / "r.json").read_bytes())
    assert told["completeness"]["fsck"]["message"] == record["message"]
    assert told["completeness"]["fsck"]["result"] == "success"
    assert any(row["action"] == "fsck" for row in told["custody"]["rows"])


async def test_what_fsck_finds_is_recorded_and_a_database_that_can_only_be_read_is_told_of(
    cli: Cli, postgres: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = new_name("fsck_cli")
    async with place(postgres, name, tmp_path) as here:
        await here.owner.execute("INSERT INTO update_logs (result, message) VALUES ('success', 'as it was')")
        await here.seal()
        await here.owner.execute("ALTER TABLE update_logs DISABLE TRIGGER USER")
        await here.owner.execute("UPDATE update_logs SET message = 'as it was not'")
        await here.owner.execute("ALTER TABLE update_logs ENABLE ALWAYS TRIGGER update_logs_admit")
        address = postgres.url("redflag_server", name)
        monkeypatch.setenv("REDFLAG_DATABASE_URL", address)
        settings.cache_clear()
        ran = await asyncio.to_thread(cli, "audit", "fsck")
        assert ran.code == ExitCode.ATTENTION
        [record] = await _fsck(here.owner)
        assert record["result"] == "failed"
        assert record["metadata"]["finding"]["position"] == 0
        assert "the record says something else than what was logged: message" in record["message"]
        assert "as it was not" not in json.dumps(record["metadata"]) + record["message"]
        read_only = f"{address}{'&' if '?' in address else '?'}default_transaction_read_only=on"
        monkeypatch.setenv("REDFLAG_DATABASE_URL", read_only)
        settings.cache_clear()
        ran = await asyncio.to_thread(cli, "audit", "fsck")
        assert ran.code == ExitCode.FAILED
        assert "could not be recorded" in ran.err
        assert "Give --no-record" in ran.err
        assert (await asyncio.to_thread(cli, "audit", "fsck", "--no-record")).code == ExitCode.ATTENTION
        assert len(await _fsck(here.owner)) == 1
