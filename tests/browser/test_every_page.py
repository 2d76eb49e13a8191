"""Every page of a lively fleet, found by its links: accessible, complaining of nothing, as narrow as a phone."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from browser import crawl, fleet
from browser.axe import violations


@pytest_asyncio.fixture(scope="session")
async def lively(base_url: str, pool: Any) -> fleet.Fleet:
    """A fleet in which something happens."""
    return await fleet.make(base_url, pool)


@pytest.mark.parametrize(("dark", "width"), [(False, 1440), (True, 390)], ids=["light-screen", "dark-phone"])
async def test_every_page_is_accessible_and_fits(lively, at_home, dark, width):
    page = await at_home(dark=dark, width=width)
    wrong: list[str] = []
    seen = 0
    async for path in crawl.pages(page):
        seen += 1
        wrong += [f"{path}: {one}" for one in await violations(page)]
        found = await page.evaluate("document.documentElement.scrollWidth")
        if found > width:
            wrong.append(f"{path}: {found} px wide")
        if await page.locator("h1").count() != 1:
            wrong.append(f"{path}: not one h1")
        for word in ("Invalid Date", "undefined", "NaN", "None ", "[object"):
            if word in await page.inner_text("main"):
                wrong.append(f"{path} says {word!r}")
    assert wrong == []
    assert seen >= 14
