"""Agents in a browser: a host arrives while somebody looks, some are chosen and acted on, and no page leaves anybody out."""

from __future__ import annotations

import re
import uuid

import httpx
import pytest
from playwright.async_api import expect

from browser.axe import violations
from redflag.access import enrolment
from redflag.audit import actor as actors
from talking import Agent


@pytest.fixture
async def client(base_url):
    """What agents talk with."""
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as one:
        yield one


@pytest.fixture
async def rack(client, pool):
    """Three agents with a word in common: the word, and they."""
    word = uuid.uuid4().hex[:8]
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, actors.service("tests", "here"), word, 3, 24)
    made = [await Agent.enrol(client, token, hostname=f"{word}-{n}", protocol=n % 2) for n in range(3)]
    for agent in made[:2]:
        await agent.check_in(memory_percent=41.5, disk_percent=92, uptime="3d 4h 12m")
        await agent.post("system-info", {"cpu_model": "A processor", "cpu_cores": 8, "metadata": {"kernel": "6.1"}})
        updates = [
            {"package_type": "apt", "package_name": severity, "available_version": "2", "severity": severity}
            for severity in ("critical", "important", "moderate", "low", "unknown")
        ]
        await agent.post("updates", {"command_id": None, "updates": updates})
    return word, made


async def _fits(page):
    return await page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.parametrize("look", [{"dark": False}, {"dark": True, "width": 390, "height": 844}], ids=["light", "dark"])
async def test_the_pages_of_agents_are_accessible_and_fit(at_home, rack, look):
    word, (theirs, ours, removed) = rack
    page = await at_home(**look)
    await page.goto(f"/agents/{ours.id}")
    await page.locator("#scan").click()
    await expect(page.locator("#work")).to_contain_text("waiting")
    await page.goto(f"/agents/{removed.id}")
    await page.locator("#remove").click()
    await page.locator("#confirm").get_by_role("button", name="Remove it").click()
    await expect(page.get_by_role("note")).to_contain_text("This agent was removed")
    for path in (
        "/agents", f"/agents?text={word}&presence=online", "/agents?text=nothing-fits", f"/agents?text={word}&removed=1",
        f"/agents/{theirs.id}", f"/agents/{ours.id}", f"/agents/{ours.id}/timeline", f"/agents/{removed.id}", "/agents/enrol",
    ):  # fmt: skip
        await page.goto(path)
        assert await violations(page) == [], path
        assert await _fits(page), path
        for opener in await page.locator("[data-opens]:visible").all():
            await opener.click()
            assert await violations(page) == [], f"{path}, a dialog"
            await page.keyboard.press("Escape")


async def test_a_host_arrives_while_one_looks(at_home, client):
    page = await at_home()
    await page.goto("/agents/enrol")
    await page.get_by_label("What it is for").fill("rack 4")
    await page.get_by_role("button", name="Make the command").press("Enter")
    command = await page.locator("#command").inner_text()
    assert await violations(page) == []
    await expect(page.locator("#came")).to_contain_text("No host has arrived yet")
    name = f"arrives-{uuid.uuid4().hex[:8]}"
    agent = await Agent.enrol(client, re.search(r"sh -s -- ([0-9a-f]+)", command)[1], hostname=name)
    await expect(page.locator("#came")).to_contain_text("1 host has arrived")
    await expect(page.locator("#arrived")).to_contain_text(name)
    (scan,) = (await agent.check_in())["commands"]
    await agent.post("logs", {"command_id": scan["id"], "action": "scan_updates", "result": "success"})
    await expect(page.locator("#arrived")).to_contain_text("up to date")
    assert await page.locator("#command").inner_text() == command
    assert await violations(page) == []


async def test_chosen_agents_stay_chosen_while_the_list_changes_and_are_acted_on(at_home, rack):
    word, made = rack
    page = await at_home()
    await page.goto("/agents")
    await page.get_by_label("Name or host name").fill(word)
    await expect(page.locator("#rows tbody tr")).to_have_count(3)
    assert page.url.endswith(f"/agents?text={word}")
    await page.get_by_label(f"Choose {word}-0").check()
    second = page.get_by_label(f"Choose {word}-1")
    # A key that is pressed while the row is drawn anew falls on the row that is gone
    while not await second.is_checked():
        await second.press("Space")
    await page.evaluate("document.body.dispatchEvent(new CustomEvent('live:agents'))")
    await made[2].check_in()
    await page.evaluate("document.body.dispatchEvent(new CustomEvent('live:presence'))")
    await expect(page.locator("#rows")).not_to_contain_text("not come by yet")
    await expect(page.locator("[data-bulk]")).to_contain_text("2 chosen")
    await page.get_by_role("button", name="Tags…").click()
    await page.locator("#tag_name").fill("web")
    await page.keyboard.press("Enter")
    await expect(page.locator("#toasts")).to_contain_text("2 agents now tagged web")
    await expect(page.locator("#rows .tag", has_text="web")).to_have_count(2)
    await page.get_by_role("button", name="Reboot…").click()
    await page.get_by_role("button", name="Restart them…").click()
    await page.locator("#confirm").get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Reboot…").click()
    await page.get_by_role("button", name="Restart them…").click()
    await page.locator("#confirm").get_by_role("button", name="Yes, restart them").click()
    await expect(page.locator("#toasts")).to_contain_text("2 hosts will restart")
    await expect(page.locator("#rows")).to_contain_text("1 command")


async def test_an_agent_is_renamed_in_place(at_home, rack):
    word, (_theirs, ours, _) = rack
    page = await at_home()
    await page.goto(f"/agents/{ours.id}")
    for name in ("Mail relay", "Mail relay 2"):
        await page.get_by_role("button", name="Name and tags…").click()
        await page.get_by_label("Name", exact=True).fill(name)
        await page.get_by_role("button", name="Save").press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
    await expect(page.locator("#head")).to_contain_text(f"host name {word}-1")
