"""The real server in a process of its own, to be killed: `redflag server` on a database that the test owns."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

READY_SECONDS = 60.0


class ServerProcess:
    """One server at a time, on one port. `database_url` is the server's role."""

    def __init__(self, folder: Path, database_url: str, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.out"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("REDFLAG_")} | {
            "REDFLAG_VAR": str(folder / "var"),
            "REDFLAG_DATABASE_URL": database_url,
            "REDFLAG_PORT": str(self.port),
            **{f"REDFLAG_{name.upper()}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts it, and returns when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [sys.executable, "-c", "from redflag.cli.main import main; main()", "server"],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while not await self._answers(client):
                if self._process.poll() is not None:
                    raise AssertionError(f"the server did not start:\n{self.said()}")
                await asyncio.sleep(0.02)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it and whatever it started, at once, and waits for its end."""
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait(60)
            self._process = None

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        try:
            await client.get(f"{self.url}/api/v1/nothing", timeout=2)
        except httpx.TransportError:
            return False
        return True
