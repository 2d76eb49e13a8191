"""A real server on a port of its own, and clients for each role."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from databases import own_database
from redflag.access import enrolment, tokens
from redflag.access.roles import Role
from redflag.audit import actor as actors
from serving import serving
from talking import Agent

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("web")


@pytest_asyncio.fixture(scope="session")
async def base_url(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that runs as long as the tests."""
    async for address in serving(dsn_server, tmp_path_factory.mktemp("web")):
        yield address


@pytest_asyncio.fixture(scope="session")
async def role_tokens(owner: Any, pool: Any) -> dict[Role, str]:
    """A token for each role."""
    made = {}
    async with pool.acquire() as connection:
        for role in Role:
            made[role], _ = await tokens.create(
                connection, actors.service("tests", "here"), f"{role}-{uuid.uuid4()}", role, giver=Role.ADMIN
            )
    return made


@pytest_asyncio.fixture(scope="session")
async def anonymous(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a token."""
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        yield client


@pytest_asyncio.fixture(scope="session")
async def admin(base_url: str, role_tokens: dict[Role, str]) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator's program."""
    headers = {"Authorization": f"Bearer {role_tokens[Role.ADMIN]}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30) as client:
        yield client


@pytest_asyncio.fixture(scope="session")
async def enrol(anonymous: httpx.AsyncClient, pool: Any) -> Callable[..., Awaitable[Agent]]:
    """Enrols a new agent."""
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, actors.service("tests", "here"), "tests", 100_000, 24)

    async def enrol(protocol: int = 1) -> Agent:
        return await Agent.enrol(anonymous, token, protocol=protocol)

    return enrol
