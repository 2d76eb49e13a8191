"""Updates in a browser: from a scan to what the next scan sees as installed, with agents that answer over HTTP."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from browser.axe import violations
from redflag.access import enrolment
from redflag.access.roles import Role
from redflag.audit import actor as actors
from talking import Agent

Json = dict[str, Any]


class Host:
    """An agent, and what it answers."""

    def __init__(self, agent: Agent, names: list[str]) -> None:
        self.agent = agent
        self.names = names

    async def take(self) -> list[Json]:
        """The commands that it is handed."""
        return [
            {"id": one["id"], "type": one["type"], "params": one["params"]}
            for one in (await self.agent.check_in())["commands"]
        ]

    async def scan(self, *gone: str) -> None:
        """Reports what it can update for each scan that it was asked for, or unasked."""
        self.names = [one for one in self.names if one not in gone]
        for command in [one for one in await self.take() if one["type"] == "scan_updates"] or [None]:
            found = [
                {"package_type": "apt", "package_name": name, "current_version": "1.0", "available_version": "2.0", "severity": "critical",
                 "cve_list": ["CVE-2026-1"]}
                for name in self.names
            ]  # fmt: skip
            body = {"package_types": ["apt"], "updates": found} | ({"command_id": command["id"]} if command else {})
            assert (await self.agent.post("updates", body)).status_code == 200
            if command:
                await self.end(command, "scan_updates")

    async def examine(self, brings: dict[str, list[str]]) -> None:
        """Answers each dry run that it is handed."""
        for command in await self.take():
            assert command["type"] == "dry_run_update"
            name = command["params"]["package_name"]
            body = {"package_name": name, "package_type": "apt", "update_id": command["params"]["update_id"],
                    "dependencies": brings.get(name, []), "dry_run_result": {"success": True}}  # fmt: skip
            assert (await self.agent.post("dependencies", body)).status_code == 200
            await self.end(command, "dry_run")

    async def install(self) -> list[str]:
        """Ends each installation that it is handed; which kinds they were."""
        commands = [one for one in await self.take() if one["type"] != "scan_updates"]
        for command in commands:
            await self.end(command, "install")
        return sorted(one["type"] for one in commands)

    async def end(self, command: Json, action: str) -> None:
        """Reports a success."""
        body = {
            "command_id": command["id"],
            "action": action,
            "result": "success",
            "exit_code": 0,
            "duration_seconds": 1,
        }
        assert (await self.agent.post("logs", body)).status_code == 200


@pytest.fixture
def mark() -> str:
    """What the names of a test's packages begin with."""
    return f"pkg-{uuid.uuid4().hex[:8]}"


async def _hosts(base_url: str, pool: Any, names: list[str], client: httpx.AsyncClient) -> list[Host]:
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, actors.service("tests", "here"), "updates", 10, 24)
    hosts = [Host(await Agent.enrol(client, token, hostname=f"{names[0]}-host-{n}"), list(names)) for n in range(2)]
    for host in hosts:
        await host.scan()
    return hosts


async def _press(page: Page, words: str) -> None:
    """Presses a button of the batch, and says yes where it asks."""
    await page.get_by_role("button", name=words).first.click()
    dialog = page.locator("dialog#confirm[open]")
    if "Install" in words:
        await dialog.get_by_role("button", name="Install").click()


async def test_from_a_scan_to_what_the_next_scan_sees_as_installed(at_home, base_url, pool, mark):
    plain, needy = f"{mark}-a", f"{mark}-b"
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        hosts = await _hosts(base_url, pool, [plain, needy], client)
        page = await at_home()
        await page.goto(f"/updates?text={mark}")
        await page.get_by_label("Choose all on this page").check()
        await expect(page.locator("[data-count]")).to_have_text("2")
        await expect(page.get_by_role("button", name="Dry run")).to_contain_text("4")
        await expect(page.get_by_role("button", name="Install", exact=True)).to_be_hidden()
        await page.get_by_role("button", name="Dry run").click()
        await page.wait_for_url("**/updates/batches/*")
        await expect(page.locator("#progress")).to_contain_text("4 dry runs are under way")
        for host in hosts:
            await host.examine({needy: ["libfoo", "libbar"]})
        # Nobody loads the page again: it is told
        await expect(page.locator("#progress")).to_contain_text("libfoo, libbar")
        assert await violations(page) == []
        await _press(page, "Approve 4 updates")
        await _press(page, "Install 4 approved updates")
        await expect(page.locator("#progress")).to_contain_text("4 installing")
        for host in hosts:
            assert await host.install() == ["confirm_dependencies", "install_updates"]
        await expect(page.locator("#progress")).to_contain_text("4 to be confirmed")
        await hosts[0].scan(plain, needy)
        await expect(page.locator("#settled")).to_contain_text("2 of 4 settled")
        await hosts[1].scan(plain, needy)
        await expect(page.locator("#settled")).to_contain_text("All 4 updates settled")
        await page.locator("#progress table a[href^='/updates/']").first.click()
        await expect(page.locator("#now")).to_contain_text("Installed: seen by a scan")
        await expect(page.locator("#story")).to_contain_text("admin-")
        assert await violations(page) == []


async def test_one_is_rejected_with_a_reason_and_choices_outlive_what_changes_meanwhile(at_home, base_url, pool, mark):
    names = [f"{mark}-{n}" for n in range(3)]
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        hosts = await _hosts(base_url, pool, names, client)
        page = await at_home(dark=True, width=390)
        await page.goto(f"/updates/list?text={mark}")
        await (
            page.get_by_label(f"Choose {names[1]} on {hosts[0].agent.id}")
            .or_(page.locator("[data-one]").nth(2))
            .first.check()
        )
        await hosts[0].scan(names[0])
        await expect(page.locator("[data-one]")).to_have_count(5)
        await expect(page.locator("[data-one]:checked")).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        assert await violations(page) == []
        await page.get_by_role("button", name="Reject …").click()
        await page.get_by_label("Reason").fill("breaks the shop")
        assert await violations(page) == []
        await page.locator("dialog#reject").get_by_role("button", name="Reject").click()
        await page.wait_for_url("**/updates/batches/*")
        await expect(page.locator("#progress")).to_contain_text("breaks the shop")
        await expect(page.locator("#settled")).to_contain_text("All 1 update settled")


async def test_a_viewer_sees_it_all_and_can_do_nothing(at_home, base_url, pool, mark):
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        await _hosts(base_url, pool, [mark], client)
        page = await at_home(Role.VIEWER)
        await page.goto(f"/updates?text={mark}")
        await page.get_by_role("link", name=mark).click()
        await expect(page.locator("#rows")).to_contain_text("2 agents")
        assert await page.locator("#content").get_by_role("button").count() == 0
        assert await page.locator("[type=checkbox]").count() == 0
        assert await violations(page) == []
