"""Every page there is, found by following links from the menu: one address for each pattern."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import AsyncIterator

from playwright.async_api import Page

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# What is no page: files, and addresses that programs read
_FILES = re.compile(
    r"^/(static|api|log|live|healthz|metrics|agent)/|\.(zip|pdf|py|tlog-proof|jsonl|csv)$|/(export|bundle|report|proof|download|output)\b"
)


def pattern(path: str) -> str:
    """An address without what differs from one thing to another: ids, and its query. A filter is the same page."""
    return _ID.sub("…", urllib.parse.urlsplit(path).path)


async def pages(page: Page, most: int = 60) -> AsyncIterator[str]:
    """Goes to each page, one after the other, and yields its address; `page` shows it meanwhile."""
    waiting, seen = ["/"], {"/"}
    while waiting and most:
        most -= 1
        path = waiting.pop(0)
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 200, f"{path} was answered {answer.status}"
        yield path
        links: list[str] = await page.eval_on_selector_all(
            "a[href]", "links => links.filter(a => !a.hasAttribute('download')).map(a => a.getAttribute('href'))"
        )
        for link in links:
            found = urllib.parse.urljoin(path, link).partition("#")[0]
            if (
                found.startswith("/")
                and not found.startswith("//")
                and not _FILES.search(found)
                and pattern(found) not in seen
            ):
                seen.add(pattern(found))
                waiting.append(found)
