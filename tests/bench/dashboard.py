"""The dashboard over a large fleet: each page's first byte, how long a browser takes to show it, and what open pages cost check-ins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from bench import fill, load
from bench.harness import Bench, Database, Server, quantile
from bench.results import Limit, Result
from redflag.access import sessions, users
from redflag.access.roles import Role
from redflag.audit import actor as actors

NAME = "dashboard"
PASSWORD = "correct horse battery"
COOKIE = "redflag_session"
RATE = 1667.0
OPEN = 200
UPDATES_EACH = 10


async def run(bench: Bench) -> None:
    """Every page of the menu and one of each kind of thing, then check-ins without and with open pages."""
    agents, records = bench.of((5_000, 300_000), (100_000, 10_000_000))
    async with bench.database(NAME) as database:
        began = time.perf_counter()
        await fill.agents(database.superuser, agents)
        await fill.updates(database.superuser, agents, each=UPDATES_EACH)
        await fill.history(
            database.superuser,
            bench.postgres.url("postgres", database.name),
            records,
            agents=min(agents, 2000),
            months=12,
        )
        await fill.pending(database.superuser, agents // 100, of_agents=agents, due="now() + interval '1 day'")
        await database.settle()
        bench.say(f"filled in {time.perf_counter() - began:.0f} s")
        cookies = await _log_in(database)
        cookie = cookies[0]
        async with database.server() as server:
            pages = await _pages(database)
            first = await _first_bytes(server, cookie, pages, bench.of(5, 20))
            shown = await _shown(server, cookie, pages)
            size = f"{agents:,} agents, {agents * UPDATES_EACH:,} updates and {records:,} records"
            _add_pages(bench, first, shown, size)
            # Of fewer agents: each of them joins before anything is measured
            await _open_pages(bench, server, cookies, min(agents, 10_000))


async def _log_in(database: Database) -> list[str]:
    """A session of each of four people."""
    made = []
    async with database.pool(2) as connections:
        for name in ("ada", "grace", "linus", "margaret"):
            async with connections.acquire() as connection:
                await users.create(
                    connection, actors.service("bench", "here"), name, Role.ADMIN, PASSWORD, must_change_password=False
                )
            session = await sessions.log_in(connections, name, PASSWORD, "127.0.0.1")
            made.append(f"{COOKIE}={session.token}")
    return made


async def _pages(database: Database) -> list[str]:
    """Every page of the menu, pages further on, and one of each kind of thing."""
    one = database.superuser
    agent = fill.agent_id(77)
    command = await one.fetchval("SELECT id FROM agent_commands LIMIT 1")
    event = await one.fetchval(
        "SELECT id FROM update_logs WHERE command_id IS NOT NULL ORDER BY executed_at DESC LIMIT 1"
    )
    update = await one.fetchval("SELECT id FROM updates WHERE agent_id = $1 LIMIT 1", agent)
    return [
        "/", "/agents", "/agents?text=host-77", f"/agents/{agent}", "/updates", "/updates?severity=critical", f"/updates/{update}",
        "/commands", f"/commands/{command}", "/history", "/history?result=timed_out", f"/history?agent_id={agent}",
        f"/history/{event}", "/timeouts", "/settings", "/settings/people",
    ]  # fmt: skip


async def _first_bytes(server: Server, cookie: str, pages: list[str], times: int) -> dict[str, list[float]]:
    """Milliseconds to the first byte of each page, the first of them with whatever is cold."""
    found: dict[str, list[float]] = {}
    async with httpx.AsyncClient(
        base_url=server.url, headers={"Cookie": cookie, "Accept": "text/html"}, timeout=30
    ) as client:
        await client.get("/static/none")
        for path in pages:
            for _ in range(times):
                began = time.perf_counter()
                async with client.stream("GET", path) as answer:
                    taken = (time.perf_counter() - began) * 1000
                    await answer.aread()
                if answer.status_code != 200:
                    raise RuntimeError(f"{path} was answered {answer.status_code}")
                found.setdefault(path, []).append(taken)
    return found


async def _shown(server: Server, cookie: str, pages: list[str]) -> dict[str, float]:
    """Milliseconds until a browser has each page: loaded, its scripts run and its regions settled. Empty where there is no browser."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 - nothing else of the benchmarks needs it

    found: dict[str, float] = {}
    chromium = shutil.which("chromium")
    if not chromium:
        return found
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    name, _, value = cookie.partition("=")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
        context = await browser.new_context(base_url=server.url)
        await context.add_cookies([{"name": name, "value": value, "url": server.url}])
        page = await context.new_page()
        await page.goto(pages[0])
        for path in pages:
            times = []
            for _ in range(3):
                await page.goto(path, wait_until="load")
                times.append(
                    await page.evaluate(
                        "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
                    )
                )
            found[path] = quantile(times, 0.5)
        await browser.close()
    return found


def _add_pages(bench: Bench, first: dict[str, list[float]], shown: dict[str, float], size: str) -> None:
    worst = max(first, key=lambda path: quantile(first[path], 0.5))
    bench.add(
        Result(
            name="dashboard.first_byte", title=f"first byte of the slowest page, median, with {size}",
            value=quantile(first[worst], 0.5), unit="ms", goal=150.0, better="less",
            facts={"slowest": worst, "cold, the slowest ms": max(times[0] for times in first.values())}
            | {f"{path} ms": quantile(times, 0.5) for path, times in first.items()},
        )
    )  # fmt: skip
    if shown:
        slowest = max(shown, key=lambda path: shown[path])
        bench.add(
            Result(
                name="dashboard.shown", title="the same, shown whole by a browser on the same two cores, the slowest page",
                value=shown[slowest], unit="ms", goal=1000.0, better="less",
                facts={"slowest": slowest} | {f"{path} ms": value for path, value in shown.items()},
            )
        )  # fmt: skip


async def _open_pages(bench: Bench, server: Server, cookies: list[str], agents: int) -> None:
    """Check-ins alone and beside open pages, in turn, so that a machine that changes its speed does not decide it."""
    seconds = bench.of(5, 40)
    alone, beside, counts = [], [], {"beats": 0, "pushed": 0, "regions": 0, "errors": 0}
    for _ in range(bench.of(1, 3)):
        alone.append(await _check_ins(server, agents, seconds))
        async with _watching(server, cookies, counts):
            beside.append(await _check_ins(server, agents, seconds))
    before, after = quantile([one.p99 for one in alone], 0.5), quantile([one.p99 for one in beside], 0.5)
    bench.add(
        Result(
            name="dashboard.open", title=f"check-ins at {RATE:,.0f}/s beside {OPEN} open overviews: p99 grows by",
            value=max(0.0, (after / before - 1) * 100), unit="%", goal=20.0, better="less",
            limits=[Limit("p99 without them, in ms", before)],
            facts={"p99 ms": after, "p50 ms": beside[0].p50, "p50 without ms": alone[0].p50,
                   "errors": sum(one.errors for one in alone + beside)} | counts,
        )
    )  # fmt: skip


async def _check_ins(server: Server, agents: int, seconds: float) -> load.Report:
    return await load.open_loop(server.url, agents, RATE, seconds, connections=1000)


@contextlib.asynccontextmanager
async def _watching(server: Server, cookies: list[str], counts: dict[str, int]) -> AsyncIterator[None]:
    argv = [sys.executable, str(Path(__file__).with_name("watchers.py")), server.url, "/", str(OPEN), *cookies]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - it is short
    assert process.stdin
    assert process.stdout
    try:
        if await asyncio.to_thread(process.stdout.readline) != "open\n":
            raise RuntimeError("The open pages could not be opened")
        yield
        process.stdin.close()
        told: dict[str, Any] = json.loads(await asyncio.to_thread(process.stdout.read))
        for name in counts:
            counts[name] += told[name]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
