"""Pictures of every page, light and dark, on a phone and on a screen: `make screenshots`, or `screenshots.py [--to FOLDER]`.

A PostgreSQL and a server of their own, a fleet that is none (`fleet.py`), Debian's Chromium. Into docs/images/dashboard go those that
pages of the documentation show; all of them go to build/screenshots.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

from playwright.async_api import Browser, async_playwright  # noqa: E402

from browser import crawl, fleet  # noqa: E402
from databases import make_database  # noqa: E402
from redflag.access import users  # noqa: E402
from redflag.access.roles import Role  # noqa: E402
from redflag.audit import actor as actors  # noqa: E402
from redflag.database import pool  # noqa: E402
from redflag.database.embedded import EmbeddedDatabase  # noqa: E402
from serving import serving  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"screen": (1440, 900), "phone": (390, 844)}
# Shown by the README and the how-to: page, theme, size
KEPT = {"overview-light-screen", "commands-light-screen", "commands-dark-phone", "history-light-screen"}  # fmt: skip
USER, PASSWORD = "anna", "correct horse battery"


def main(to: Path) -> None:
    """All of it."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    asyncio.run(take(to))
    kept = ROOT / "docs" / "images" / "dashboard"
    kept.mkdir(parents=True, exist_ok=True)
    for name in sorted(KEPT):
        shutil.copyfile(to / f"{name}.png", kept / f"{name}.png")
    print(f"{len(list(to.glob('*.png')))} pictures in {to}, {len(KEPT)} of them in {kept}")


async def take(to: Path) -> None:
    """The pictures, into a folder."""
    with tempfile.TemporaryDirectory(prefix="redflag-pictures-") as folder:
        postgres = EmbeddedDatabase(Path(folder) / "db", extra_settings={"fsync": "off"})
        postgres.init()
        postgres.start()
        try:
            postgres.create_roles()
            await make_database(postgres, "pictures")
            dsn = postgres.url("redflag_server", "pictures")
            async for url in serving(dsn, Path(folder) / "var"):
                await _take(url, dsn, to)
        finally:
            postgres.stop("immediate")


async def _take(url: str, dsn: str, to: Path) -> None:
    connections = await pool.open_pool(dsn, size=4)
    async with connections.acquire() as connection:
        await users.create(
            connection, actors.service("pictures", "here"), USER, Role.ADMIN, PASSWORD, must_change_password=False
        )
    await fleet.make(url, connections)
    await connections.close()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for theme in ("light", "dark"):
            for size in SIZES:
                await _pictures(browser, url, to, theme, size)
        await browser.close()


async def _pictures(browser: Browser, url: str, to: Path, theme: str, size: str) -> None:
    width, height = SIZES[size]
    context = await browser.new_context(
        base_url=url, viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce",  # type: ignore[arg-type]
        locale="en-GB", timezone_id="Europe/Berlin",
    )  # fmt: skip
    page = await context.new_page()
    await page.goto("/login")
    await page.screenshot(path=to / f"login-{theme}-{size}.png")
    await page.fill("#username", USER)
    await page.fill("#password", PASSWORD)
    await page.click("button:has-text('Log in')")
    await page.wait_for_url("**/")
    async for path in crawl.pages(page):
        await page.wait_for_load_state("load")
        await page.evaluate("new Promise(done => setTimeout(done, 150))")
        await page.screenshot(path=to / f"{_name(path)}-{theme}-{size}.png", full_page=size == "phone")
        print(".", end="", flush=True)
    print()
    await context.close()


def _name(path: str) -> str:
    """The name of a page's picture: overview, agents-detail, history-result."""
    found = crawl.pattern(path).strip("/").replace("…", "detail") or "overview"
    return re.sub(r"[^a-z0-9]+", "-", found).strip("-")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "screenshots")
    main(parser.parse_args().to)
