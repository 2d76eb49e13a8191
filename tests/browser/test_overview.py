"""The overview and the timeouts in a real browser: live, readable by everybody, on a phone and a screen."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from playwright.async_api import Page, expect

from browser.axe import violations
from integration.commands.helpers import MINUTE, make_agent, make_command
from redflag.access.roles import Role


async def fits(page: Page) -> bool:
    """Whether nothing of the page lies beyond its right edge."""
    return await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


async def test_a_timeout_appears_on_the_open_overview_and_its_chart_is_drawn(at_home: Any, owner: Any) -> None:
    kind = f"type_{uuid.uuid4().hex[:8]}"
    page = await at_home()
    await expect(page.get_by_role("heading", name="What needs a person now")).to_be_visible()
    await make_command(owner, await make_agent(owner), overdue=MINUTE, command_type=kind)
    await expect(page.locator("#day")).to_contain_text(f"1 {kind}", timeout=25_000)
    await expect(page.locator("figure canvas")).to_be_visible()
    # The table stays open when the region is drawn anew
    await page.get_by_text("The same as a table").click()
    await make_command(owner, await make_agent(owner), overdue=MINUTE, command_type=kind)
    await expect(page.locator("#day")).to_contain_text(f"2 {kind}", timeout=25_000)
    await expect(page.get_by_role("columnheader", name=kind)).to_be_visible()
    await page.get_by_role("button", name="Light or dark").click()
    await expect(page.locator("figure canvas")).to_be_visible()
    assert await violations(page) == []


async def test_a_policy_is_changed_in_a_dialog_that_live_updates_leave_alone(at_home: Any, owner: Any) -> None:
    kind = f"type_{uuid.uuid4().hex[:8]}"
    command = await make_command(owner, await make_agent(owner), command_type=kind)
    page = await at_home()
    await page.goto("/timeouts")
    await page.get_by_role("link", name="Add a policy").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Commands of type").fill(kind)
    await dialog.get_by_label("Handed out within").fill("soon")
    await dialog.get_by_label("Live ones as well").check()
    assert await violations(page) == []
    await dialog.get_by_role("button", name="Save").click()
    assert await dialog.get_by_label("Handed out within").evaluate("field => field.validity.patternMismatch")
    await make_command(owner, await make_agent(owner))  # a live update, which leaves the form alone
    await expect(page.locator("#next")).to_contain_text("scan_updates")
    await expect(dialog.get_by_label("Commands of type")).to_have_value(kind)
    await dialog.get_by_label("Handed out within").fill("45m")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_be_hidden()
    await expect(page.locator("#policies")).to_contain_text(kind)
    await expect(page.locator("#toasts")).to_contain_text("was given to 1 live command")
    # What expires next has its bar, further ahead or nearer
    row = page.locator("#next tr", has=page.locator(f'a[href="/commands/{command}"]'))
    await expect(row).to_contain_text(re.compile(r"4[45] min.* left to be handed out"))
    await page.get_by_label("within", exact=True).select_option("10m")
    await expect(row).to_have_count(0)
    assert "within=10m" in page.url
    await page.get_by_role("link", name=f"Change the policy of {kind}").click()
    await expect(dialog.get_by_label("Handed out within")).to_have_value("45 min")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Run now").click()
    await page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    await expect(page.locator("#toasts")).to_contain_text(re.compile("Nothing was overdue|timed out, the latest"))


@pytest.mark.parametrize(("width", "dark"), [(390, True), (390, False), (1440, True)])
async def test_both_pages_are_accessible_and_fit(at_home: Any, owner: Any, width: int, dark: bool) -> None:
    await make_command(owner, await make_agent(owner), "running")
    page = await at_home(Role.VIEWER, width=width, dark=dark)
    for path in ("/", "/timeouts"):
        await page.goto(path)
        await expect(page.locator("text=being counted")).to_have_count(0)
        assert await violations(page) == []
        assert await fits(page), f"{path} is wider than {width} px"
