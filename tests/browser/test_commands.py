"""Commands in a browser: enqueued, seen to wait in words, timed out before one's eyes, and the late result beside it."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio
from playwright.async_api import expect

from browser.axe import violations
from redflag.access import enrolment
from redflag.audit import actor as actors
from talking import Agent

HOST = f"live-{uuid.uuid4().hex[:8]}"


@pytest_asyncio.fixture(scope="module")
async def agent(base_url: str, pool: Any) -> AsyncIterator[Agent]:
    """An agent that has come by."""
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, actors.service("tests", "here"), "browser", 1, 24)
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        enrolled = await Agent.enrol(client, token, hostname=HOST)
        await enrolled.check_in()
        yield enrolled


async def test_a_command_is_enqueued_waits_times_out_live_and_its_late_result_is_shown(at_home, agent):
    page = await at_home()
    await page.goto("/commands")
    await page.get_by_role("link", name="Enqueue a command").first.click()
    await page.get_by_label("Type").select_option("collect_specs")
    await expect(page.locator("#what")).to_contain_text("what its host is made of")
    await page.get_by_label("Name").fill(HOST)
    await page.get_by_label(HOST).check()
    await page.get_by_label("Name").fill("nobody is called that")
    await expect(page.locator("#found")).to_contain_text(HOST)
    await expect(page.get_by_label(HOST)).to_be_checked()
    await page.get_by_label("To finish").fill("6s")
    assert await violations(page) == []
    await page.get_by_role("button", name="Enqueue").click()
    await page.wait_for_url(re.compile("/commands/[0-9a-f-]{36}$"))
    await expect(page.locator("#why")).to_contain_text("waits for its agent to come by")
    [told] = (await agent.check_in())["commands"]
    await expect(page.locator("#why")).to_contain_text("not acknowledged yet")
    await agent.post("progress", {"received": [], "running": [told["id"]]})
    progress = [{"command_id": told["id"], "message": "42 % of the disks counted"}]
    await agent.post("progress", {"received": [], "running": [told["id"]], "progress": progress})
    await expect(page.locator("#why")).to_contain_text("running: 42 % of the disks counted")
    # Nobody reports: the page shows the end by itself
    await expect(page.locator("#state")).to_contain_text("timed out", timeout=15_000)
    await expect(page.locator("#why-none")).to_contain_text("Its agent has not reported before the deadline")
    report = {"command_id": told["id"], "result": "success", "stdout": "8 cores", "exit_code": 0, "duration_seconds": 5}
    assert (await agent.post("logs", report)).status_code == 200
    await expect(page.locator("#now")).to_contain_text("its agent reported success")
    await expect(page.locator("pre.output").last).to_contain_text("8 cores")
    await expect(page.locator("#record")).to_contain_text("timed out after 6.")
    assert await violations(page) == []
    await page.get_by_role("button", name="Retry").click()
    await page.locator("#said").get_by_role("link").click()
    await expect(page.locator("main")).to_contain_text("This is a retry of")


async def test_what_is_chosen_stays_chosen_while_the_list_is_drawn_anew_and_is_cancelled_with_a_reason(
    at_home, agent, pool
):
    page = await at_home(width=390, height=844, dark=True)
    for _ in range(2):
        await page.goto("/commands/new?" + f"agent={agent.id}")
        await page.get_by_role("button", name="Enqueue").click()
        await page.wait_for_url(re.compile("/commands/[0-9a-f-]{36}$"))
    await page.goto(f"/commands?agent={agent.id}&type=scan_updates")
    rows = page.locator("[data-one]")
    await expect(rows).to_have_count(2)
    await rows.first.check()
    await page.get_by_placeholder("Why?").fill("the wrong")
    # Its agent comes by: the list says so, and nobody loses what they were doing
    await agent.check_in()
    await expect(page.locator("#rows")).to_contain_text("not acknowledged yet")
    await expect(rows.first).to_be_checked()
    await expect(page.get_by_placeholder("Why?")).to_have_value("the wrong")
    await page.get_by_placeholder("Why?").press_sequentially(" host")
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.get_by_role("button", name="Cancel them").click()
    await page.locator("#confirm").get_by_role("button", name="Cancel them").click()
    await expect(page.locator("#toasts")).to_contain_text("1 command cancelled.")
    await expect(rows).to_have_count(1)
    said = "SELECT message FROM update_logs WHERE agent_id = $1 AND result = 'cancelled'"
    assert await pool.fetchval(said, uuid.UUID(agent.id)) == "the wrong host"
