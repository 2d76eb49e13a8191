"""A real server, and a person of each role with a session at its pages."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from databases import own_database
from redflag.access import tokens, users
from redflag.access.roles import Role
from redflag.audit import actor as actors
from serving import serving

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("dashboard")

PASSWORD = "correct horse battery"


class Person(httpx.AsyncClient):
    """Somebody with a browser, without its script: pages are fetched, forms are sent with the page's word."""

    name = ""
    csrf = ""

    async def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        """Logs in by the form, and reads the word of the acts from the first page."""
        self.name = name
        answer = await self.post("/login", data={"username": name, "password": password, "next": "/"})
        if answer.status_code == 303:
            found = re.search(
                r'name="csrf-token" content="([0-9a-f]{64})"', (await self.page(answer.headers["location"]))
            )
            assert found, "the page carries no word for its acts"
            self.csrf = found[1]
        return answer

    async def page(self, path: str, status: int = 200) -> str:
        """A page's text."""
        answer = await self.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return answer.text

    async def region(self, path: str, region: str) -> str:
        """One region of a page, as htmx asks for it."""
        answer = await self.get(path, headers={"HX-Request": "true", "HX-Target": region})
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:2000])
        assert "<html" not in answer.text
        return answer.text

    async def act(self, path: str, status: int = 200, **fields: Any) -> httpx.Response:
        """An act, as htmx sends a form."""
        headers = {"HX-Request": "true", "X-CSRF-Token": self.csrf, "Sec-Fetch-Site": "same-origin"}
        answer = await self.post(path, data=fields, headers=headers)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return answer


@pytest_asyncio.fixture(scope="session")
async def base_url(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that runs as long as the tests."""
    async for address in serving(dsn_server, tmp_path_factory.mktemp("dashboard")):
        yield address


@pytest_asyncio.fixture(scope="session")
async def person(base_url: str, pool: Any) -> AsyncIterator[Callable[..., Awaitable[Person]]]:
    """Makes somebody of a role who has logged in."""
    made: list[Person] = []

    async def make(role: Role, *, must_change_password: bool = False) -> Person:
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        async with pool.acquire() as connection:
            await users.create(
                connection, actors.service("tests", "here"), name, role, PASSWORD,
                must_change_password=must_change_password,
            )  # fmt: skip
        one = Person(base_url=base_url, timeout=30)
        made.append(one)
        answer = await one.log_in(name)
        assert answer.status_code == 303, answer.text
        return one

    yield make
    for one in made:
        await one.aclose()


@pytest_asyncio.fixture(scope="session")
async def admin(person: Callable[..., Awaitable[Person]]) -> Person:
    """An administrator at the pages."""
    return await person(Role.ADMIN)


@pytest_asyncio.fixture(scope="session")
async def viewer(person: Callable[..., Awaitable[Person]]) -> Person:
    """Somebody who may only look at the fleet."""
    return await person(Role.VIEWER)


@pytest_asyncio.fixture
async def nobody(base_url: str) -> AsyncIterator[Person]:
    """Somebody without a session."""
    async with Person(base_url=base_url, timeout=30) as one:
        yield one


@pytest_asyncio.fixture(scope="session")
async def role_token(pool: Any) -> str:
    """An API token of an administrator: good for the API, and for no page."""
    async with pool.acquire() as connection:
        token, _ = await tokens.create(
            connection, actors.service("tests", "here"), f"token-{uuid.uuid4()}", Role.ADMIN, giver=Role.ADMIN
        )
    return str(token)
