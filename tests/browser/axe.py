"""Accessibility as axe-core sees it: WCAG 2.2 AA and what it calls best practice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page

SOURCE = Path(__file__).resolve().parents[2] / "node_modules/axe-core/axe.min.js"
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


async def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is now, a line each; an empty list is what a page should have."""
    await page.evaluate(SOURCE.read_text())
    found: dict[str, Any] = await page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", list(TAGS)
    )
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['target']} {node['failureSummary']} {node['html'][:200]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
