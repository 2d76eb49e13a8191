"""A database with a history of every kind, odd characters and an erased value among it, all of it in a signed checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from integration.audit import evidence
from redflag.access import tokens
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.audit import erasure, events
from redflag.cli import client
from redflag.cli.main import main
from redflag.database.embedded import EmbeddedDatabase
from redflag.settings import Settings, settings
from redflag.web.app import make_app

ODD = "=cmd|'/C calc'!A0,\"quoted\"\r\nnext\tline \\ ] é \u2028 \U0001f6a9 \x7f"
WAIT_SECONDS = 30.0


@pytest_asyncio.fixture(scope="session")
async def history(
    postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[evidence.Place]:
    """The place, with what the tests need of it in `known`."""
    folder = tmp_path_factory.mktemp("export")
    async with evidence.place(postgres, "export", folder) as here:
        await evidence.make_history(here)
        await here.owner.execute(
            "INSERT INTO update_logs (result, action, message, stdout, stderr, params, exit_code, metadata) VALUES "
            """('error', '+act', $1, $1, $1, '{"deep": [1.50, null, {"=x": true}]}', -9, $2)""",
            ODD, {"=key": ODD, "subject": "thing", "subject_id": "=1"},
        )  # fmt: skip
        async with here.owner.transaction():
            await here.owner.execute(
                "SET LOCAL redflag.importing = 'on'; SET LOCAL redflag.imported_from = 'elsewhere'"
            )
            await here.owner.execute("INSERT INTO update_logs (result, message) VALUES ('success', 'long ago')")
        async with here.pool.acquire() as server:
            service = actors.service("backup", "replica-1")
            await events.record(server, service, kind="service", action="backup_made", bytes=2**60)
        await here.seal()
        spoilt = await here.owner.fetchrow("SELECT id FROM update_logs WHERE stdout = $1", evidence.SECRET)
        async with here.pool.acquire() as server:
            fields = ["stdout", "actor", "address"]
            await erasure.erase(server, actors.user("ada"), spoilt["id"], fields, "printed by mistake")
        here.known |= {
            "erased": spoilt["id"],
            "size": await here.seal(),
            "until": await here.now(),
            "key": folder / "key",
        }
        yield here


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@dataclass(frozen=True)
class Serving:
    """A server on a port of its own, and an administrator's token."""

    url: str
    token: str

    def client(self, **more: Any) -> httpx.Client:
        """An administrator's program."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30, trust_env=False, **more
        )


@contextlib.contextmanager
def serving(dsn: str, token: str, folder: Path, **more: Any) -> Iterator[Serving]:
    """A real server in a thread of its own, for whoever blocks while it answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    given = Settings(var=folder, port=port, replica="export-test", **more)
    config = uvicorn.Config(
        make_app(given, dsn), lifespan="on", ws="none", log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert thread.is_alive()
    yield Serving(f"http://127.0.0.1:{port}", token)
    server.should_exit = True
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Waits for a condition."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if found := condition():
            return found
        pause.wait(0.01)
    raise AssertionError("it never came about")


async def admin_token(pool: Any) -> str:
    """An administrator's API token."""
    async with pool.acquire() as connection:
        made, _ = await tokens.create(
            connection, actors.service("test", "here"), f"export-{uuid.uuid4()}", Role.ADMIN, giver=Role.ADMIN
        )
    return made


@pytest_asyncio.fixture(scope="session")
async def history_token(history: evidence.Place) -> str:
    """An administrator's token for the history's server."""
    return await admin_token(history.pool)


@pytest.fixture(scope="session")
def served(
    history: evidence.Place, history_token: str, postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A server on the history. It has two connections, so that whoever held one would be noticed."""
    folder = tmp_path_factory.mktemp("var")
    (folder / "log-key").mkdir(mode=0o700)
    shutil.copy(history.known["key"], folder / "log-key" / "key")
    dsn = postgres.url("redflag_server", "export")
    with serving(dsn, history_token, folder, log_origin="evidence.example/log", database_pool=2) as running:
        yield running


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Cli]:
    """Runs one command of `redflag` against a server: cli(served, "audit", …)."""
    monkeypatch.setenv("REDFLAG_VAR", str(tmp_path / "var"))
    monkeypatch.delenv("REDFLAG_DATABASE_URL", raising=False)
    settings.cache_clear()

    def run(where: Serving, *arguments: str) -> Ran:
        monkeypatch.setenv("REDFLAG_URL", where.url)
        monkeypatch.setenv("REDFLAG_TOKEN", where.token)
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Ran(int(code), captured.out, captured.err)

    yield run
    settings.cache_clear()
    client.options = client.Options()
