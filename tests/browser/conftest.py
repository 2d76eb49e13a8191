"""A real browser (Debian's Chromium, driven by Playwright) at a real server on a database of its own.

Whatever the browser complains of fails the test: an error in its console, a request that leaves this host, a script that throws.
"""

from __future__ import annotations

import shutil
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from databases import own_database
from redflag.access import users
from redflag.access.roles import Role
from redflag.audit import actor as actors
from serving import serving

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("browser")

PASSWORD = "correct horse battery"
# What is live comes with a beat, and who is there with one every ten seconds
expect.set_options(timeout=20_000)
ROOT = Path(__file__).resolve().parents[2]
# A browser that asks nobody for anything but what it is shown
FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-sandbox",
)  # fmt: skip


@pytest_asyncio.fixture(scope="session")
async def base_url(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that runs as long as the tests."""
    async for address in serving(dsn_server, tmp_path_factory.mktemp("browser"), check_in_interval=30):
        yield address


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    found = shutil.which("chromium")
    if not found:
        pytest.skip("there is no chromium: apt install chromium")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield opened
        await opened.close()


class Watched:
    """A browser's window, and what was wrong in it."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.context = context
        self.complaints: list[str] = []
        self._host = urllib.parse.urlsplit(base_url).netloc
        context.on("console", lambda said: said.type in {"error", "warning"} and self.complaints.append(said.text))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("request", lambda request: self._left(request.url))

    def _left(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.netloc != self._host:
            self.complaints.append(f"a request left the host: {url}")


@pytest_asyncio.fixture
async def window(browser: Browser, base_url: str) -> AsyncIterator[Callable[..., Awaitable[Page]]]:
    """Opens windows; at the end of the test none may have complained."""
    opened: list[Watched] = []

    async def open_one(*, width: int = 1440, height: int = 900, dark: bool = False, **more: Any) -> Page:
        context = await browser.new_context(
            base_url=base_url, viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light",
            reduced_motion="reduce", timezone_id="Europe/Berlin", locale="en-GB", **more,
        )  # fmt: skip
        context.set_default_timeout(15_000)
        opened.append(Watched(context, base_url))
        return await context.new_page()

    yield open_one
    for one in opened:
        await one.context.close()
    assert [complaint for one in opened for complaint in one.complaints] == []


@pytest_asyncio.fixture(scope="session")
async def make_user(pool: Any) -> Callable[..., Awaitable[str]]:
    """Makes a user of a role, and returns the name."""

    async def make(role: Role = Role.ADMIN, *, must_change_password: bool = False) -> str:
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        async with pool.acquire() as connection:
            await users.create(
                connection, actors.service("tests", "here"), name, role, PASSWORD,
                must_change_password=must_change_password,
            )  # fmt: skip
        return name

    return make


@pytest_asyncio.fixture
async def at_home(window: Any, make_user: Any) -> Callable[..., Awaitable[Page]]:
    """A window of somebody of a role who has logged in."""

    async def come(role: Role = Role.ADMIN, **more: Any) -> Page:
        page: Page = await window(**more)
        await page.goto("/login")
        await page.fill("#username", await make_user(role))
        await page.fill("#password", PASSWORD)
        await page.click("button:has-text('Log in')")
        await page.wait_for_url("**/")
        return page

    return come
