"""The settings in a browser: a person is added by keyboard, and no page of them leaves anybody out."""

from __future__ import annotations

import re
import uuid

import pytest
from playwright.async_api import expect

from browser.axe import violations

PAGES = (
    "/settings", "/settings/people", "/settings/tokens", "/settings/enrolment", "/settings/targets",
    "/settings/forwarders", "/settings/retention", "/settings/redaction",
)  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_pages_of_the_settings_are_accessible(at_home, dark):
    page = await at_home(dark=dark)
    for path in PAGES:
        await page.goto(path)
        assert await violations(page) == [], path
        opener = page.locator("[data-opens]").first
        if await opener.count():
            await opener.click()
            assert await violations(page) == [], f"{path}, its dialog"


async def test_no_page_of_the_settings_is_wider_than_a_phone(at_home):
    page = await at_home(width=390, height=844)
    for path in PAGES:
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, path


async def test_a_person_is_added_and_their_role_changed_after_a_question(at_home):
    page = await at_home()
    await page.goto("/settings/people")
    await page.get_by_role("button", name="Add a person").press("Enter")
    name = f"anna-{uuid.uuid4().hex[:8]}"
    await page.get_by_label("User name").fill(name)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(f"{name} can log in")).to_be_visible()
    await expect(page.locator("#secret")).to_have_value(re.compile("^[0-9a-z-]{20,}$"))
    role = page.get_by_label(f"Role of {name}")
    question = page.locator("#confirm").get_by_role("button", name="Change role")
    # The list is drawn anew by the answer and once more by the beat; a choice in that very moment is one in the list that is gone
    while not await question.is_visible():
        await expect(role).to_have_value("viewer")
        await role.select_option("operator")
    await question.click()
    await expect(page.locator("#toasts")).to_contain_text(f"{name} is now operator")
