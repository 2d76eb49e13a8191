"""A server with a database of its own, and agents of RedFlag's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from compat.agents import TESTER, Agent, Place, enrol
from compat.sources import serving, target
from redflag.access import enrolment
from redflag.database import pool as pools
from redflag.database.embedded import EmbeddedDatabase


@pytest_asyncio.fixture(scope="session")
async def place(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A server with a database of its own."""
    async with (
        target(postgres, "recorded_traffic") as into,
        serving(into.server_dsn, tmp_path_factory.mktemp("var")) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        server = await pools.connect(into.server_dsn)
        try:
            token, _ = await enrolment.create(server, TESTER, "tests", 1000, 24)
            yield Place(client, url, into, server, token)
        finally:
            await server.close()


@pytest_asyncio.fixture
async def agent(place: Place) -> Agent:
    """One of RedFlag's own agents."""
    return await enrol(place)
