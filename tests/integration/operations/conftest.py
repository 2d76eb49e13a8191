"""Whole installations, run as a person runs them: `redflag` in a process of its own, a data folder, a free port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import free_port, to_itself
from redflag.database.embedded import EmbeddedDatabase


class Installation:
    """One data folder and one port."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.port = free_port()
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("REDFLAG_", "PG", "PYTEST"))
        }
        self.env = inherited | {"REDFLAG_VAR": str(var), "REDFLAG_PORT": str(self.port)}
        self.url = f"http://127.0.0.1:{self.port}"
        self.first_words = ""
        self._started: list[subprocess.Popen[str]] = []

    def redflag(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "redflag.cli.main", *arguments],
            env=self.env | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Starts a command and leaves it running, until `end` at the latest."""
        self._started.append(subprocess.Popen(
            [sys.executable, "-m", "redflag.cli.main", *arguments],
            env=self.env | env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ))  # fmt: skip
        return self._started[-1]

    def end(self) -> None:
        """Stops whatever was started here."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.communicate(timeout=60)
                finally:
                    process.kill()
        if self.var.exists():
            self.redflag("down")

    def sql(self, statement: str) -> str:
        """What psql prints, as the owner."""
        database = EmbeddedDatabase(self.var / "database")
        return database.run_tool(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, role="redflag_owner"
        ).stdout.strip()

    def assignments(self) -> dict[str, str]:
        """`redflag env`, as bash reads it."""
        script = 'set -a; eval "$0"; for name in ${!REDFLAG_*}; do printf "%s=%s\\n" "$name" "${!name}"; done'
        told = self.redflag("env")
        assert told.returncode == 0, told.stderr
        done = subprocess.run(
            ["bash", "-c", script, told.stdout],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that is up, with this host's agent."""
    made = Installation(tmp_path_factory.mktemp("installation") / "var")
    with to_itself("apt"):  # its first scan, which `up` waits for
        done = made.redflag("up")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        made.first_words = done.stdout
        yield made
    finally:
        made.redflag("down")


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Installation]:
    """An installation that was never up; whatever a test started of it is stopped."""
    made = Installation(tmp_path / "var")
    yield made
    made.end()
