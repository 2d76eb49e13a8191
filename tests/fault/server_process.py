"""The real server in a process of its own, to be killed: `redflag server` on a database that the test owns.

Most of a start is importing other people's packages. So this file is also a program, the nursery, which has imported them
and forks: the child runs `redflag server` as ever, and is there in a fraction of a second.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

READY_SECONDS = 60.0


class ServerProcess:
    """One server at a time, on one port. `database_url` is the server's role; `settings` are REDFLAG_… variables."""

    def __init__(self, folder: Path, database_url: str, **settings: str) -> None:
        from machine import free_port  # noqa: PLC0415 - the nursery, which is this file too, would not find it

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.out"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REDFLAG_")} | {
            "REDFLAG_VAR": str(folder / "var"),
            "REDFLAG_DATABASE_URL": database_url,
            "REDFLAG_PORT": str(port),
            **{f"REDFLAG_{name.upper()}": value for name, value in settings.items()},
        }
        self._nursery = subprocess.Popen(
            [sys.executable, __file__, str(self.log)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip

    async def start(self) -> None:
        """Starts it, and returns when it answers."""
        self._ask("start")
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while not await self._answers(client):
                if self._ask("alive") == "no":
                    raise AssertionError(f"the server did not start:\n{self.said()}")
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self._ask("kill")

    def close(self) -> None:
        """Kills what is left, and ends the nursery."""
        self._nursery.communicate(timeout=60)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def _ask(self, what: str) -> str:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(f"{what}\n")
        return self._nursery.stdout.readline().strip()

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        try:
            await client.get(f"{self.url}/api/v1/nothing", timeout=2)
        except httpx.TransportError:
            return False
        return True


def nursery(log: Path) -> None:
    """Does what it is told, a line at a time: start, alive, kill."""
    # Not prometheus_client, which looks at its environment when it is imported, and none of our own
    import aiosql  # noqa: F401, PLC0415
    import argon2  # noqa: F401, PLC0415
    import asyncpg  # noqa: F401, PLC0415
    import bcrypt  # noqa: F401, PLC0415
    import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: PLC0415
    import cryptography.hazmat.primitives.serialization  # noqa: F401, PLC0415
    import fastapi.openapi.utils  # noqa: F401, PLC0415
    import httpx  # noqa: F401, PLC0415
    import jinja2  # noqa: F401, PLC0415
    import msgspec  # noqa: F401, PLC0415
    import pydantic_settings  # noqa: F401, PLC0415
    import reportlab.platypus  # noqa: F401, PLC0415
    import typer.rich_utils  # noqa: F401, PLC0415
    import uvicorn.protocols.http.httptools_impl  # noqa: F401, PLC0415
    import uvloop  # noqa: F401, PLC0415

    child = 0
    for line in sys.stdin:
        told = line.strip()
        if told == "start":
            child = os.fork()
            if child == 0:
                serve(log)
        elif told == "kill":
            end(child)
            child = 0
        elif child and os.waitpid(child, os.WNOHANG)[0]:
            child = 0
        print("yes" if child else "no", flush=True)
    end(child)


def end(child: int) -> None:
    """SIGKILL to the child, and its end."""
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def serve(log: Path) -> None:
    """The child: `redflag server`, its output in the log."""
    os.setsid()
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.argv = ["redflag", "server"]
    from redflag.cli.main import main  # noqa: PLC0415

    main()
    os._exit(0)


if __name__ == "__main__":
    nursery(Path(sys.argv[1]))
