"""A real server on a port of its own, in this process, for as long as the tests of a folder run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn

from redflag.settings import Settings
from redflag.web.app import make_app
from redflag.web.connections import Connection


async def serving(dsn: str, var: Path, **more: Any) -> AsyncIterator[str]:
    """The server's address, while it runs. `more` are settings."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    settings = Settings(
        var=var, port=port, replica="tests", login_tries=1000, enrolment_tries=100_000, max_body=24 * 1024 * 1024,
        max_output=64 * 1024, **more,
    )  # fmt: skip
    server = uvicorn.Server(
        uvicorn.Config(make_app(settings, dsn), http=Connection, log_level="warning", timeout_graceful_shutdown=5)
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task
