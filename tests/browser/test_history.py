"""The history in a real browser: find a record, read it, verify its proof here, and be told when it is not what was logged."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from typing import Any

import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.async_api import Page, Route, expect

from browser.axe import violations
from integration.commands.helpers import until
from redflag.audit import actor as actors
from redflag.audit.checkpoint import Verifier
from redflag.commands import queue

OUTPUT = "\nReading package lists...\r\n 10%\r100% <b>done</b> &amp; \x1b[31mred\x1b[0m\n"


@pytest_asyncio.fixture(scope="session")
async def agent(owner: Any) -> uuid.UUID:
    """An agent whose commands these are."""
    found: uuid.UUID = await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ('web-01', 1) RETURNING id")
    return found


@pytest_asyncio.fixture
async def record(pool: Any, owner: Any, agent: uuid.UUID) -> uuid.UUID:
    """A new record of a command that ended, with output that HTML would change, in a tree that was signed."""
    async with pool.acquire() as connection:
        params = {"packages": ["a", "b"], "share": 0.5, "deep": {"er": [1, None]}}
        await queue.enqueue(connection, actors.user("anna"), [agent], "scan_updates", params)
    command = await owner.fetchval("SELECT id FROM agent_commands WHERE agent_id = $1 ORDER BY id DESC LIMIT 1", agent)
    await owner.execute("UPDATE agent_commands SET status = 'sent' WHERE id = $1", command)
    report = {"outcome": "success", "stdout": OUTPUT, "stderr": "", "exit_code": 0, "duration_seconds": 7}
    await owner.execute("UPDATE agent_commands SET status = 'completed', result = $2 WHERE id = $1", command, report)
    return await _covered(pool, command)


async def _covered(pool: Any, command: uuid.UUID) -> uuid.UUID:
    """The record of a command's end, once a checkpoint covers it."""
    end = (
        "FROM update_logs u JOIN audit_entries e ON e.record_id = u.id WHERE u.command_id = $1 AND u.stdout IS NOT NULL"
    )
    await until(pool, f"SELECT count(*) = 1 {end} AND e.position < (SELECT max(size) FROM audit_checkpoints)", command)
    found: uuid.UUID = await pool.fetchval(f"SELECT u.id {end}", command)
    return found


async def _at_record(page: Page, record: uuid.UUID) -> None:
    await page.goto(f"/history/{record}")
    await expect(page.locator("#proof")).to_be_visible()


async def _pinned(page: Page) -> None:
    """Compares the key, as a person does, and keeps it."""
    shown = (
        (await page.locator("#proof [data-fingerprint]").first.inner_text()).removeprefix("SHA-256 ").replace(" ", "")
    )
    vkey = await page.locator("#proof").get_attribute("data-key")
    assert shown == hashlib.sha256(Verifier.parse(vkey or "").public).hexdigest()
    await page.click("#proof [data-pin]")
    await expect(page.locator("#proof [data-verify]")).to_be_visible()


async def _verified(page: Page) -> list[str]:
    """Presses the button, and returns the steps that it says it checked."""
    await page.click("#proof [data-verify]")
    await expect(page.locator("#proof [data-verdict]")).to_contain_text("Verified by")
    await expect(page.locator("#proof [data-alarm]")).to_be_hidden()
    return [" ".join(one.split()) for one in await page.locator("#proof [data-steps] strong").all_inner_texts()]


async def _refused(page: Page, reason: str) -> None:
    await page.click("#proof [data-verify]")
    await expect(page.locator("#proof [data-alarm]")).to_contain_text("NOT verified")
    await expect(page.locator("#proof [data-alarm]")).to_contain_text(reason)
    await expect(page.locator("#proof [data-verdict]")).to_be_hidden()


async def test_a_record_is_found_read_and_its_proof_verified_here(at_home, record, agent):
    page = await at_home()
    await page.goto(f"/history?agent_id={agent}&kind=transition")
    await expect(page.locator("h2.day").first).to_contain_text("Today")
    row = page.locator(".event", has_text="succeeded after 7 s").first
    await row.locator("summary").click()
    await expect(row.locator("pre[data-text=stdout]")).to_contain_text("<b>done</b>")
    assert await violations(page) == []
    await row.locator(".event-what").click()
    await page.wait_for_url(f"**/history/{record}")
    await _pinned(page)
    assert await _verified(page) == [
        "The checkpoint is signed by the pinned key", "The record's leaf stands in the log",
        "The disclosed values are those that were recorded", "What this page shows is what was recorded",
        "This browser keeps this checkpoint",
    ]  # fmt: skip
    assert await violations(page) == []
    await page.reload()
    assert (await _verified(page))[-1] == "The log goes on from what this browser saw before"


async def test_a_log_that_grew_is_held_against_what_was_seen_before(at_home, record, pool):
    page = await at_home()
    await _at_record(page, record)
    await _pinned(page)
    await _verified(page)
    before = json.loads(await page.evaluate("localStorage.getItem('redflag.log.seen')"))["text"]
    # That it is read is recorded
    await page.goto("/history?action=reading")
    await until(pool, "SELECT max(size) > $1 FROM audit_checkpoints", int(before.split("\n")[1]))
    await _at_record(page, record)
    assert (await _verified(page))[-1] == "The log goes on from what this browser saw before"
    # What this browser saw is the past of another log
    lines = before.split("\n")
    forged = {"text": before.replace(lines[2], base64.b64encode(b"x" * 32).decode()), "at": "2030-01-01T00:00:00.000Z"}
    await page.evaluate("one => localStorage.setItem('redflag.log.seen', JSON.stringify(one))", forged)
    await _refused(page, "the signature of")


async def test_where_there_is_no_web_crypto_a_library_verifies(at_home, record):
    page = await at_home()
    await page.add_init_script("Object.defineProperty(globalThis.crypto, 'subtle', {value: undefined})")
    await _at_record(page, record)
    await _pinned(page)
    assert len(await _verified(page)) == 5
    await expect(page.locator("#proof [data-verdict]")).to_contain_text("a library in this page")


async def test_what_is_not_what_was_logged_is_said_in_red(at_home, record):
    page = await at_home()
    await _at_record(page, record)
    await _pinned(page)
    await page.evaluate("document.querySelector('[data-text=stdout]').textContent += 'more'")
    await _refused(page, "the page shows another stdout than was recorded")

    async def tampered(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=re.sub(r"\nindex (\d)", r"\nindex 1\1", await answer.text()))

    await page.route("**/proof", tampered)
    await _refused(page, "does not stand at this position")
    await page.unroute("**/proof")
    await page.reload()
    assert await _verified(page)


async def test_another_key_than_the_pinned_one_is_an_alarm(at_home, record):
    page = await at_home()
    await _at_record(page, record)
    name = (await page.locator("#proof").get_attribute("data-key") or "").partition("+")[0]
    other = Verifier(name, Ed25519PrivateKey.generate().public_key().public_bytes_raw()).vkey()
    kept = {"text": other, "at": "2030-01-01T00:00:00.000Z"}
    await page.evaluate("one => localStorage.setItem('redflag.log.key', JSON.stringify(one))", kept)
    await page.reload()
    await expect(page.locator("#proof [data-alarm]")).to_contain_text("another key than the one that is pinned")
    await _refused(page, "it is not signed by the key that was given")
    await page.goto("/history/audit")
    await expect(page.locator("[data-alarm]")).to_contain_text("another key than the one that is pinned")
    await page.click("[data-forget]")
    await expect(page.locator("[data-alarm]")).to_be_hidden()
    await expect(page.locator("[data-pin]")).to_be_visible()
    assert await violations(page) == []


async def test_new_records_are_announced_and_do_not_move_what_is_read(at_home, record, agent, pool):
    page = await at_home(width=390, height=844, dark=True)
    await page.goto(f"/history?agent_id={agent}")
    await page.locator(".event").first.wait_for()
    shown = await page.locator(".event").count()
    async with pool.acquire() as connection:
        await queue.enqueue(connection, actors.user("anna"), [agent], "reboot", {})
    link = page.locator("#news a", has_text="1 new record: show")
    await link.wait_for()
    assert await page.locator(".event").count() == shown
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await violations(page) == []
    await link.click()
    await expect(page.locator(".event").first).to_contain_text("reboot was enqueued")


async def test_a_filter_is_put_together_and_stands_in_the_address(at_home, record, agent):
    page = await at_home()
    await page.goto("/history")
    await page.select_option("#result", "success")
    await page.fill("#agent_id", "web-01")
    await page.fill("#since", "2h")
    await page.click("form[data-filter] button:has-text('Filter')")
    await page.wait_for_url(f"**/history?result=success&agent_id={agent}&since=2h")
    await page.click(".chip:has-text('since')")
    await page.wait_for_url(f"**/history?result=success&agent_id={agent}")
    await page.click("a.nav-link:has-text('Audit trail')")
    async with page.expect_download() as waiting:
        await page.click("button:has-text('Export')")
    download = await waiting.value
    assert str(record) in (await download.path()).read_text()
