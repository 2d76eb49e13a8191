"""A server for each of a few kinds of test, on a database of their own: its agents and commands are counted."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from databases import own_database
from redflag.access import agent_tokens, tokens
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.settings import Settings
from redflag.web.app import make_app
from redflag.web.connections import Connection
from redflag.web.context import Context

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("simulation")

START_SECONDS = 30.0


class Running:
    """A server in a thread of its own."""

    def __init__(self, dsn: str, folder: Path, port: int = 0, **settings: Any) -> None:
        self._listening = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        given = Settings(var=folder, port=self.port, replica=f"simulation-{self.port}", login_tries=1000, **settings)
        self._app = make_app(given, dsn)
        tls = {"ssl_certfile": given.tls_cert, "ssl_keyfile": given.tls_key} if given.tls_cert else {}
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                lifespan="on",
                http=Connection,
                ws="none",
                loop="uvloop",
                log_level="warning",
                timeout_graceful_shutdown=3,
                **tls,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        ends = time.monotonic() + START_SECONDS
        while not self._server.started:
            assert self._thread.is_alive()
            assert time.monotonic() < ends
            time.sleep(0.01)
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve([self._listening])

    def stop(self) -> None:
        """Ends it in order: as a signal does, it lets go of whom it holds."""
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self.context.holds.release)
        self._server.should_exit = True
        self._thread.join(START_SECONDS)

    @property
    def context(self) -> Context:
        """What its routes share."""
        found: Context = self._app.context  # type: ignore[attr-defined]
        return found


@pytest.fixture(scope="session")
def make(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Running]:
    """Makes a server with these settings; it runs as long as a `with` lasts. All have one log, and so one key."""
    folder = tmp_path_factory.mktemp("server")
    return lambda **settings: Running(dsn_server, folder, **{"enrolment_tries": 100_000} | settings)


@pytest.fixture(scope="session")
def running(make: Callable[..., Running]) -> Iterator[Running]:
    """The server that most tests use."""
    with make() as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def token(pool: Any) -> str:
    """An administrator's API token."""
    async with pool.acquire() as connection:
        made, _ = await tokens.create(
            connection, actors.service("tests", "here"), f"simulation-{uuid.uuid4()}", Role.ADMIN, giver=Role.ADMIN
        )
    return made


@pytest.fixture
def fleet(owner: Any, pool: Any) -> Callable[..., Awaitable[list[tuple[str, str, str]]]]:
    """Makes agents: their ids, access and refresh tokens."""

    async def fleet(count: int, protocol: int = 0) -> list[tuple[str, str, str]]:
        made = await owner.fetch(
            "INSERT INTO agents (hostname, protocol) SELECT 'host-' || n, $2 FROM generate_series(1, $1) n RETURNING id",
            count,
            protocol,
        )
        async with pool.acquire() as connection:
            return [(str(row["id"]), *await agent_tokens.issue(connection, row["id"])) for row in made]

    return fleet
