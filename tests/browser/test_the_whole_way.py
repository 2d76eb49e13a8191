"""The whole way of a new administrator, in a browser: from the generated password to an installed package, a timeout, and its proof.

Nothing is played: a server, its database, an agent process of its own, apt and dpkg (in a folder, so that the machine stays as it is).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from aptroot import AptRoot
from databases import make_database
from redflag.access import users
from redflag.audit import actor as actors
from redflag.database import pool
from serving import serving

needs_apt = pytest.mark.skipif(not shutil.which("apt-get") or os.geteuid() != 0, reason="needs apt and root")
VERIFIER = Path(__file__).resolve().parents[2] / "verify" / "redflag_verify.py"
PASSWORD = "a sentence of my own"


@pytest.fixture(scope="module")
def debian(tmp_path_factory) -> AptRoot:
    """A host with hello-flag 1.0 on which 1.1 waits, which brings flag-pole along."""
    made = AptRoot(tmp_path_factory.mktemp("debian"))
    made.publish("hello-flag", "1.0")
    made.publish("flag-pole", "1.0")
    made.install("hello-flag")
    made.publish("hello-flag", "1.1", depends="flag-pole")
    return made


@pytest.fixture
async def base_url(postgres, tmp_path: Path) -> AsyncIterator[str]:
    """A server that nobody has logged in to."""
    await make_database(postgres, "whole_way")
    async for address in serving(postgres.url("redflag_server", "whole_way"), tmp_path / "var", check_in_interval=30):
        yield address


@pytest.fixture
async def first_password(base_url: str, postgres) -> str:
    """The administrator's generated password, as `make up` prints it."""
    connection = await pool.connect(postgres.url("redflag_server", "whole_way"))
    made = await users.bootstrap_admin(connection, actors.service("tests", "here"))
    await connection.close()
    assert made
    return made


class Host:
    """A host on which the command of the page is pasted: the agent's own program, in the folder's Debian."""

    def __init__(self, debian: AptRoot, folder: Path, url: str) -> None:
        self.env = debian.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.folder, self.url = folder, url
        self.process: subprocess.Popen[bytes] | None = None

    def enrol(self, token: str) -> None:
        """What the install script does."""
        argv = [
            sys.executable,
            "-m",
            "redflag_agent",
            "enroll",
            "--state-dir",
            str(self.folder),
            "--token-stdin",
            "--server",
            self.url,
        ]
        subprocess.run(argv, input=token.encode(), env=self.env, check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        """The agent runs."""
        argv = [sys.executable, "-m", "redflag_agent", "run", "--state-dir", str(self.folder)]
        self.process = subprocess.Popen(argv, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """The agent ends, if it runs."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def host(debian: AptRoot, tmp_path: Path, base_url: str):
    """The host, whose agent is ended afterwards."""
    made = Host(debian, tmp_path / "agent", base_url)
    yield made
    made.stop()


@needs_apt
@pytest.mark.timeout(240)
async def test_from_the_first_log_in_to_an_installed_package_and_the_proof_of_a_timeout(
    window, host: Host, debian: AptRoot, first_password: str, tmp_path: Path
):
    page: Page = await window(accept_downloads=True)
    page.set_default_timeout(30_000)
    await _log_in(page, first_password)
    await _enrol(page, host)
    await _update(page, debian)
    await asyncio.to_thread(host.stop)
    await _time_out(page)
    await _prove(page)
    await _export(page, tmp_path)


async def _log_in(page: Page, first_password: str) -> None:
    await page.goto("/")
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("Password").fill(first_password)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Choose a password of your own")
    await page.get_by_label("Current password").fill(first_password)
    await page.get_by_label("New password", exact=True).fill(PASSWORD)
    await page.get_by_label("New password again").fill(PASSWORD)
    await page.get_by_role("button", name="Change password").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


async def _enrol(page: Page, host: Host) -> None:
    await page.goto("/agents/enrol")
    await page.get_by_label("What it is for").fill("the first host")
    await page.get_by_role("button", name="Make the command").click()
    command = await page.locator("#command").inner_text()
    token = re.search(r"-- ([0-9a-f]{64})", command)
    assert token, command
    await expect(page.locator("#came")).to_contain_text("No host has arrived yet")
    await asyncio.to_thread(host.enrol, token[1])
    host.start()
    await expect(page.locator("#came")).to_contain_text("1 host has arrived")
    await expect(page.locator("#arrived")).to_contain_text("1 moderate")


async def _update(page: Page, debian: AptRoot) -> None:
    await page.goto("/updates")
    await page.get_by_role("link", name="hello-flag").click()
    await page.locator("#rows a[href^='/updates/0']").first.click()
    await expect(page.locator("main")).to_contain_text("1.1")
    await page.get_by_role("button", name="Dry run").first.click()
    await expect(page.locator("main")).to_contain_text("flag-pole")
    assert debian.installed("hello-flag") == "1.0"
    await page.goto(await _update_page(page))
    await page.get_by_role("button", name="Approve").first.click()
    await page.goto(await _update_page(page))
    await page.get_by_role("button", name=re.compile("^Install")).first.click()
    dialog = page.locator("dialog#confirm[open]")
    if await dialog.count():
        await dialog.get_by_role("button", name=re.compile("Install")).click()
    await expect(page.locator("main")).to_contain_text(re.compile("Installed: seen by a scan|settled"), timeout=60_000)
    await asyncio.to_thread(_until_installed, debian)
    await page.goto(await _update_page(page))
    await expect(page.locator("main")).to_contain_text("Installed: seen by a scan", timeout=60_000)


async def _update_page(page: Page) -> str:
    """The page of the one update there is."""
    await page.goto("/updates/package?type=apt&name=hello-flag&status=all")
    link = await page.locator("#rows a[href^='/updates/0']").first.get_attribute("href")
    assert link
    return link


def _until_installed(debian: AptRoot) -> None:
    assert debian.installed("hello-flag") == "1.1"
    assert debian.installed("flag-pole") == "1.0"


async def _time_out(page: Page) -> None:
    await page.goto("/commands/new")
    await page.get_by_label("Type").select_option("collect_specs")
    await page.locator("#found [type=checkbox]").first.check()
    await page.get_by_label("To be handed out").fill("3s")
    await page.get_by_role("button", name="Enqueue").click()
    await expect(page.locator("#why")).to_contain_text("waits for its agent to come by")
    await expect(page.locator("#state")).to_contain_text("timed out")


async def _prove(page: Page) -> None:
    await page.goto("/history?result=timed_out")
    await expect(page.locator(".event").first).to_contain_text("timed out after 3")
    await page.locator(".event .event-what").first.click()
    await page.get_by_role("button", name="It is the same").click()
    await page.locator("#proof [data-verify]").click()
    await expect(page.locator("#proof [data-verdict]")).to_contain_text("Verified by")


async def _export(page: Page, folder: Path) -> None:
    """What was proved stands in an evidence bundle as well, and the verifier that anybody can run agrees."""
    await page.goto("/history/audit")
    key = await page.locator("[data-key]").first.get_attribute("data-key")
    assert key
    async with page.expect_download() as waiting:
        await (
            page.get_by_role("button", name=re.compile("bundle", re.IGNORECASE))
            .or_(page.get_by_role("link", name=re.compile("bundle", re.IGNORECASE)))
            .first.click()
        )
    bundle = folder / "bundle.zip"
    await (await waiting.value).save_as(bundle)
    argv = [sys.executable, "-I", str(VERIFIER), "bundle", str(bundle), "--key", key]
    ran = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
