# ruff: noqa: F811 - fixtures are named after what they give
"""`redflag audit erase`, `hold`, `retention` and `prune`."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import run_as_superuser
from integration.audit.evidence import Place, place, verify
from integration.cli.test_cli_api import Cli, cli, token, url  # noqa: F401 - fixtures
from redflag.audit import fsck
from redflag.cli.exits import ExitCode
from redflag.cli.main import main
from redflag.database.embedded import EmbeddedDatabase
from redflag.settings import settings

NOBODY = uuid.UUID(int=7)


def _events(cli: Cli, actor: str) -> list[dict[str, Any]]:
    """Events under a name, once all have their position."""
    for _ in range(400):
        events: list[dict[str, Any]] = cli("history", "--actor", actor, "--json").json["events"]
        if all(isinstance(event["position"], int) for event in events):
            return events
        time.sleep(0.05)
    raise AssertionError(events)


def test_one_event_is_erased_after_a_yes(cli: Cli) -> None:
    name = f"erased-{uuid.uuid4().hex[:8]}"
    assert cli("tokens", "create", name, "--role", "viewer").code == ExitCode.OK
    event = next(one for one in _all(cli) if name in (one["message"] or ""))
    asked = cli("audit", "erase", "--record", event["id"], "--field", "message", "--reason", "request 19")
    assert asked.code == ExitCode.USAGE
    assert "Add --yes" in asked.err
    done = cli("audit", "erase", "--record", event["id"], "--field", "message", "--reason", "request 19", "--yes")
    assert done.code == ExitCode.OK, done.err
    assert f"Erased message of the record at position {event['position']:,}." in done.out
    again = cli("audit", "erase", "--record", event["id"], "--field", "message", "--reason", "x", "--yes", "--json")
    assert again.code == ExitCode.CONFLICT
    assert "erased already" in again.err


def _all(cli: Cli) -> list[dict[str, Any]]:
    """The newest events, once all have their position."""
    for _ in range(400):
        events: list[dict[str, Any]] = cli("history", "--json").json["events"]
        if all(isinstance(event["position"], int) for event in events):
            return events
        time.sleep(0.05)
    raise AssertionError(events)


async def test_everything_under_a_name_is_erased_and_what_is_held_is_told(cli: Cli, server: Any) -> None:
    who = f"user:leaver-{uuid.uuid4().hex[:8]}"
    for _ in range(2):
        await server.execute(
            "INSERT INTO update_logs (kind, actor, action, result) VALUES ('access', $1, 'login', 'success')", who
        )

    def run() -> None:
        _events(cli, who)
        ran = cli("audit", "hold", "place", "case 1", "--reason", "subpoena", "--actor", who)
        assert ran.code == ExitCode.OK, ran.err
        assert f"It covers: actor {who}." in ran.out
        ran = cli("audit", "erase", "--actor", who, "--reason", "request 20", "--yes")
        assert ran.code == ExitCode.OK, ran.err
        assert "2 records could not be erased yet, under the legal hold case 1: once it is released" in ran.out
        ran = cli("audit", "hold", "list")
        assert who in ran.out
        assert cli("audit", "hold", "release", "case 1", "--yes").code == ExitCode.OK
        assert cli("audit", "hold", "list").out.strip() == "There are no legal holds."
        assert "case 1" in cli("audit", "hold", "list", "--all").out
        ran = cli("audit", "erase", "--actor", who, "--reason", "request 20", "--yes", "--json")
        assert ran.json["erased"] == 2
        assert not cli("history", "--actor", who, "--json").json["events"]

    await asyncio.to_thread(run)


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase", "--reason", "x"), ("erase", "--reason", "x", "--actor", "user:a", "--field", "stdout"),
        ("erase", "--reason", "x", "--record", str(NOBODY)), ("hold", "place", "x", "--reason", "y"),
        ("hold", "place", "x", "--reason", "y", "--everything", "--actor", "user:a"), ("retention", "set", "--keep", "1d", "--yes"),
        ("retention", "set", "--keep", "soon"), ("retention", "set", "--keep", "400d"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_not_clear_is_asked_again(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli("audit", *arguments).code == ExitCode.USAGE


def test_how_long_records_are_kept_is_set_and_shown(cli: Cli) -> None:
    shown = cli("audit", "retention", "show")
    assert "records are kept   for ever" in shown.out
    assert "Nothing was pruned yet." in shown.out
    ran = cli("audit", "retention", "set", "--keep", "400d", "--yes")
    assert ran.out.strip() == "Records are kept for 400 d."
    assert cli("audit", "retention", "show", "--json").json["keep"] == 400 * 86400
    assert cli("audit", "retention", "set", "--keep", "forever", "--json").json["keep"] is None


@pytest_asyncio.fixture
async def here(postgres: EmbeddedDatabase, tmp_path: Path) -> Any:
    """A log of 700 notes, whose key is where a server keeps it."""
    folder = tmp_path / "var" / "log-key"
    folder.mkdir(parents=True)
    name = f"cli_prune_{uuid.uuid4().hex[:8]}"
    async with place(postgres, name, folder) as found:
        await found.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 700)")
        await found.seal()
        found.known |= {"name": name, "folder": tmp_path / "var"}
        yield found
    run_as_superuser(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def local(
    here: Place, postgres: EmbeddedDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs a command on the server's own host."""
    name = here.known["name"]
    for variable, value in (
        ("VAR", here.known["folder"]),
        ("DATABASE_URL", postgres.url("redflag_server", name)),
        ("DATABASE_OWNER_URL", postgres.url("redflag_owner", name)),
    ):
        monkeypatch.setenv(f"REDFLAG_{variable}", str(value))
    settings.cache_clear()

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["audit", *arguments])
        told = capsys.readouterr()
        return int(code), told.out, told.err

    yield run
    settings.cache_clear()


async def test_the_log_is_pruned_by_hand_after_a_look_and_a_yes(here: Place, local: Any) -> None:
    before = (await here.now()).isoformat()

    def run() -> dict[str, Any]:
        code, _, err = local("prune")
        assert (code, "Records are kept for ever" in err) == (ExitCode.USAGE, True)
        code, out, err = local("prune", "--before", before, "--dry-run")
        assert code == ExitCode.OK, err
        assert "To be archived and pruned: 512 records, positions 0 to 511." in out
        code, _, err = local("prune", "--before", before)
        assert (code, "Add --yes" in err) == (ExitCode.USAGE, True)
        code, out, err = local("prune", "--before", before, "--yes", "--json")
        assert code == ExitCode.OK, err
        told: dict[str, Any] = json.loads(out)
        code, out, _ = local("prune", "--before", before, "--yes")
        assert "There is nothing to prune" in out
        code, out, err = local("fsck", "--key", here.signer.verifier.vkey(), "--no-record")
        assert code == ExitCode.OK, err
        assert "The log begins at position 512, as a snapshot in it says" in out
        return told

    told = await asyncio.to_thread(run)
    assert (told["first"], told["end"], told["held"]) == (0, 512, None)
    (file,) = told["bundles"]
    assert Path(file).parent == here.known["folder"] / "archive"
    assert verify(Path(file), here.signer).returncode == 0
    async with here.pool.acquire() as server:
        assert (await fsck.examine(server, here.signer.verifier)).pruned == 512


async def test_a_host_without_the_logs_key_does_not_prune(here: Place, local: Any) -> None:
    (here.known["folder"] / "log-key" / "key").unlink()
    before = (await here.now()).isoformat()
    code, _, err = await asyncio.to_thread(local, "prune", "--before", before, "--yes")
    assert code == ExitCode.USAGE
    assert "There is no key of the log" in err
    assert await here.owner.fetchval("SELECT min(position) FROM audit_entries") == 0
