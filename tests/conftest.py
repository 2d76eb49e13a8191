"""What every test may use: a real PostgreSQL of its own, migrated, and the connections of its three roles.

The record is append-only, so tests do not clean up: each makes agents and commands of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import parallel
from databases import connection, own_database
from machine import to_itself
from redflag.database.embedded import EmbeddedDatabase


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What `-n auto` means."""
    return None if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") else parallel.processes()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.ByFile:
    """Which process runs what, with `-n`."""
    return parallel.ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `-n` what takes long begins first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: parallel.turn(item.path))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedDatabase]:
    """A PostgreSQL that lives as long as the tests; what it loses in a crash nobody misses."""
    database = EmbeddedDatabase(
        tmp_path_factory.mktemp("postgres") / "db",
        extra_settings={"fsync": "off", "full_page_writes": "off", "max_connections": "200", "shared_buffers": "128MB"},
    )
    database.init()
    database.start()
    database.create_roles()
    yield database
    database.stop("immediate")


migrated, dsn_owner, dsn_server, owner, server, pool = own_database("common", size=24)


@pytest.fixture(scope="session")
def dsn_superuser(postgres: EmbeddedDatabase) -> str:
    """The superuser's address, in the common database."""
    return postgres.url("postgres", "common")


@pytest_asyncio.fixture(scope="session")
async def superuser(migrated: None, dsn_superuser: str) -> AsyncIterator[Any]:
    """A connection of a superuser."""
    async for opened in connection(dsn_superuser):
        yield opened


@pytest_asyncio.fixture
async def agent_id(owner: Any) -> uuid.UUID:
    """An agent that nobody else uses."""
    return await owner.fetchval(
        "INSERT INTO agents (hostname, protocol) VALUES ($1, 1) RETURNING id", f"host-{uuid.uuid4()}"
    )


@pytest.fixture
def apt_to_itself() -> Iterator[None]:
    """The machine's apt, whose lists and lock only one may have at a time."""
    with to_itself("apt"):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The seed and the recorded traffic, beside the checkout; without them the tests that read them are skipped."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the seed's folder is not beside this checkout")
    return folder
