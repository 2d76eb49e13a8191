"""Sums over the whole fleet: asked once for all pages, never waited for when they take long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from redflag.web.dashboard import gathered


class Asked:
    """A database that counts how often it is asked, and answers when it is let."""

    def __init__(self):
        self.times = 0
        self.answers = asyncio.Event()
        self.refuses = False

    async def __call__(self, _pool):
        self.times += 1
        await self.answers.wait()
        if self.refuses:
            raise OSError("the database is away")
        return self.times


async def test_pages_that_come_together_ask_once():
    asked = Asked()
    asked.answers.set()
    one = gathered.Gathered(asked)
    found = await asyncio.gather(*(one.value(None) for _ in range(20)))
    assert {value for value, _ in found} == {1}
    assert asked.times == 1
    assert (await one.value(None))[0] == 1, "a second has not passed"


async def test_the_first_page_does_not_wait_for_a_sum_that_takes_long():
    asked = Asked()
    one = gathered.Gathered(asked)
    assert await one.value(None) == (None, 0.0)
    assert await one.value(None) == (None, 0.0)
    asked.answers.set()
    async with asyncio.timeout(5):
        while (await one.value(None))[0] is None:
            pass
    assert asked.times == 1


async def test_what_the_database_refuses_leaves_the_last_sum(monkeypatch, caplog):
    monkeypatch.setattr(gathered, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(gathered, "SHARE", -1)
    asked = Asked()
    asked.answers.set()
    one = gathered.Gathered(asked)
    assert (await one.value(None))[0] == 1
    asked.refuses = True
    assert (await one.value(None))[0] == 1
    assert asked.times == 2
    assert "a sum stays as it was: OSError" in caplog.text


async def test_a_sum_is_of_its_app():
    here, there = SimpleNamespace(), SimpleNamespace()
    assert gathered.on(here, "sum", Asked()) is gathered.on(here, "sum", Asked())
    assert gathered.on(here, "sum", Asked()) is not gathered.on(there, "sum", Asked())
