"""Open dashboards without a browser: `python watchers.py URL PAGE COUNT COOKIE …`, the pages shared among the cookies.

Each holds the page's stream of events, and asks for the page's regions anew when a beat says so, at a moment of its own, as the
page's script does. Ends with its standard input.

Says in one line of JSON at the end how many beats came and how many regions were asked for.
"""

from __future__ import annotations

import asyncio
import html.parser
import itertools
import json
import random
import re
import sys
import urllib.parse
from dataclasses import dataclass, field


@dataclass
class Counts:
    """What was seen."""

    open: int = 0
    beats: int = 0
    regions: int = 0
    pushed: int = 0
    errors: int = 0


@dataclass
class Regions(html.parser.HTMLParser):
    """The regions of a page that listen to beats: (id, address, subjects)."""

    found: list[tuple[str, str, frozenset[str]]] = field(default_factory=list)
    pushed: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element."""
        said = {name: value or "" for name, value in attrs}
        if "data-pushed" in said:
            self.pushed = said["id"]
        subjects = frozenset(re.findall(r"(?:live|slow):([a-z]+)", said.get("hx-trigger", "")))
        if subjects and "hx-get" in said:
            self.found.append((said.get("hx-target", "").lstrip("#") or said.get("id", ""), said["hx-get"], subjects))


class Watcher:
    """The open pages of this process."""

    def __init__(self, url: str, cookies: list[str], count: int) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.cookies = itertools.cycle(cookies)
        self.counts = Counts()
        self.count = count
        self.all_open = asyncio.Event()

    async def fetch(self, path: str, region: str = "") -> bytes:
        """The body of a page or of a region."""
        more = f"HX-Request: true\r\nHX-Target: {region}\r\n" if region else ""
        reader, writer = await self._ask(path, more + "Connection: close\r\n")
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            self.counts.errors += 1
        return body

    async def watch(self, regions: list[tuple[str, str, frozenset[str]]], pushed: str) -> None:
        """One open page."""
        reader, _writer = await self._ask(f"/live?region={pushed}", "Accept: text/event-stream\r\n")
        if b" 200 " not in await reader.readline():
            raise RuntimeError("A stream was refused")
        self.counts.open += 1
        if self.counts.open == self.count:
            self.all_open.set()
        tasks: set[asyncio.Task[None]] = set()
        # A region comes in one line
        while line := await reader.readline():
            self.counts.pushed += line == b"event: region\n"
            if line.startswith(b'data: {"subjects"'):
                told = json.loads(line[6:])
                self.counts.beats += 1
                tasks.add(task := asyncio.create_task(self._refresh(regions, set(told["subjects"]), told["spread"])))
                task.add_done_callback(tasks.discard)
        self.counts.errors += 1

    async def _refresh(self, regions: list[tuple[str, str, frozenset[str]]], subjects: set[str], spread: float) -> None:
        await asyncio.sleep(random.random() * spread / 1000)
        for region, path, concerned in regions:
            if concerned & subjects:
                self.counts.regions += 1
                await self.fetch(path, region)

    async def _ask(self, path: str, headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=4 * 1024 * 1024)
        asked = f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nCookie: {next(self.cookies)}\r\n{headers}\r\n"
        writer.write(asked.encode())
        await writer.drain()
        return reader, writer


async def main(url: str, page: str, count: str, *cookies: str) -> None:
    """Opens the pages, says so, and keeps them open until the standard input ends."""
    watcher = Watcher(url, list(cookies), int(count))
    parsed = Regions()
    parsed.feed((await watcher.fetch(page)).decode())
    watching = [asyncio.create_task(watcher.watch(parsed.found, parsed.pushed)) for _ in range(int(count))]
    await watcher.all_open.wait()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in watching:
        task.cancel()
    print(json.dumps(vars(watcher.counts)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
