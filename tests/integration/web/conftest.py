"""A real server on a port of its own, and clients for each role."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from databases import own_database
from redflag.access import enrolment, tokens
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.settings import Settings
from redflag.web.app import make_app
from redflag.web.connections import Connection

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("web")


@pytest_asyncio.fixture(scope="session")
async def base_url(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that runs as long as the tests."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    settings = Settings(
        var=tmp_path_factory.mktemp("web"),
        port=port,
        replica="tests",
        login_tries=1000,
        enrolment_tries=100_000,
        max_body=24 * 1024 * 1024,
        max_output=64 * 1024,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(settings, dsn_server), http=Connection, log_level="warning", timeout_graceful_shutdown=5
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


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


@dataclass
class Agent:
    """An enrolled agent and the way it talks. `protocol` 0: as RedFlag's own."""

    client: httpx.AsyncClient
    id: str
    token: str
    refresh_token: str
    protocol: int

    async def post(self, what: str, body: Any) -> httpx.Response:
        """POST to a route of its own."""
        return await self.client.post(f"/api/v1/agents/{self.id}/{what}", json=body, headers=self.headers)

    async def check_in(self, **body: Any) -> dict[str, Any]:
        """A check-in, with a body on the GET as agents send it."""
        answer = await self.client.request(
            "GET",
            f"/api/v1/agents/{self.id}/commands",
            json=({"protocol": 1} if self.protocol else {}) | body,
            headers=self.headers,
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    @property
    def headers(self) -> dict[str, str]:
        """Its token."""
        return {"Authorization": f"Bearer {self.token}"}


@pytest_asyncio.fixture(scope="session")
async def enrol(anonymous: httpx.AsyncClient, pool: Any) -> Callable[..., Awaitable[Agent]]:
    """Enrols a new agent."""
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, actors.service("tests", "here"), "tests", 100_000, 24)

    async def enrol(protocol: int = 1) -> Agent:
        body = {
            "hostname": f"host-{uuid.uuid4().hex[:8]}", "os_type": "linux", "os_version": "12", "os_architecture": "amd64",
            "agent_version": "1.0.0" if protocol else "0.1.18", "registration_token": token, "metadata": {},
        } | ({"protocol": 1} if protocol else {})  # fmt: skip
        answer = await anonymous.post(
            "/api/v1/agents/register", json=body, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return Agent(anonymous, told["agent_id"], told["token"], told["refresh_token"], protocol)

    return enrol
