"""`redflag import redflag`: the command, as a person and a program use it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat.sources import SHAPE, definitions, make_source, target
from redflag.database.embedded import EmbeddedDatabase


@pytest.fixture(scope="module")
def varied(postgres: EmbeddedDatabase) -> str:
    """Every status and word, and what is odd."""
    rows = Path(__file__).with_name("varied.sql").read_text()
    return make_source(postgres, "redflag_commanded", definitions(SHAPE) + rows)


@pytest.fixture(scope="module")
def commanded(postgres: EmbeddedDatabase) -> dict[str, str]:
    """The environment of a `redflag` whose database is one of its own."""

    async def make() -> None:
        async with target(postgres, "commanded"):
            pass

    asyncio.run(make())
    return {
        **os.environ,
        "REDFLAG_DATABASE_URL": postgres.url("redflag_server", "commanded"),
        "REDFLAG_DATABASE_OWNER_URL": postgres.url("redflag_owner", "commanded"),
        "NO_COLOR": "1",
    }


def run_command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redflag.cli.main", "import", "redflag", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_the_command_prints_a_table_that_adds_up(commanded: dict[str, str], varied: str) -> None:
    dry = run_command(commanded, "--from", varied, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "Nothing was changed: this was a dry run." in dry.stdout
    assert "agent_specs is left out: " in dry.stdout
    assert "1: its status is unknown here: paused" in dry.stdout
    done = run_command(commanded | {"REDFLAG_IMPORT_FROM": varied}, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert all(one["read"] == one["imported"] + one["there"] + sum(one["skipped"].values()) for one in told["tables"])
    assert told["imported"] > 30
    again = run_command(commanded, "--from", varied)
    assert "Nothing was added" in again.stdout


def test_the_command_says_what_to_do_when_there_is_no_redflag(
    commanded: dict[str, str], postgres: EmbeddedDatabase
) -> None:
    away = run_command(commanded, "--from", "postgresql://x@127.0.0.1:1/x")
    assert away.returncode == 6
    assert "Check the address given with --from" in away.stderr
    ours = run_command(commanded, "--from", postgres.url("postgres", "commanded"))
    assert ours.returncode == 2
    assert "That is no database of RedFlag v0.1.18: its table agents has no column last_seen" in ours.stderr
