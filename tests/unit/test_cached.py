"""A sum that is dear to make is made once for everybody, and nobody waits for it longer than they say."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from redflag.web.dashboard import cached
from redflag.web.dashboard.cached import Cached


class Gathering:
    """Counts how often it is asked, and answers when it is let to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()
        self.may.set()
        self.fails = False

    async def __call__(self) -> int:
        self.asked += 1
        mine = self.asked
        await self.may.wait()
        if self.fails:
            raise RuntimeError("the database is away")
        return mine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The process's clock, moved by hand."""

    class Clock:
        at = 1000.0

        def __call__(self) -> float:
            return self.at

    made = Clock()
    monkeypatch.setattr(cached.time, "monotonic", made)
    return made


async def _gathered(sum_: Cached[int]) -> None:
    if task := sum_.begin():
        await task
        await asyncio.sleep(0)


async def test_nothing_is_gathered_until_somebody_looks_and_then_once_for_all(clock: Any) -> None:
    gathering = Gathering()
    sum_ = Cached("agents", gathering)
    await asyncio.sleep(0)
    assert (gathering.asked, sum_.known) == (0, None)
    gathering.may.clear()
    first = sum_.begin()
    assert all(sum_.begin() is first for _ in range(10))
    gathering.may.set()
    assert first is not None
    await first
    assert gathering.asked == 1
    assert sum_.known is not None
    assert sum_.known.value == 1


async def test_it_is_gathered_anew_only_after_a_while_and_the_old_one_is_there_meanwhile(clock: Any) -> None:
    gathering = Gathering()
    sum_ = Cached("agents", gathering, least=2.0, most=60.0)
    await _gathered(sum_)
    clock.at += 1.9
    assert sum_.begin() is None
    clock.at += 0.2
    gathering.may.clear()
    under_way = sum_.begin()
    assert under_way is not None
    assert sum_.known is not None
    assert sum_.known.value == 1
    gathering.may.set()
    await under_way
    assert sum_.known.value == 2


async def test_what_is_too_old_is_not_shown(clock: Any) -> None:
    sum_ = Cached("agents", Gathering(), most=60.0)
    await _gathered(sum_)
    clock.at += 60.1
    assert sum_.known is None


async def test_what_takes_long_is_gathered_less_often(clock: Any) -> None:
    gathering = Gathering()
    sum_ = Cached("updates", gathering, least=2.0, most=60.0)
    gathering.may.clear()
    task = sum_.begin()
    await asyncio.sleep(0)
    clock.at += 0.5
    gathering.may.set()
    assert task is not None
    await task
    await asyncio.sleep(0)
    clock.at += 0.5 * cached.PAUSE - 0.1
    assert sum_.begin() is None
    clock.at += 0.2
    gathering.may.clear()
    task = sum_.begin()
    assert task is not None
    await asyncio.sleep(0)
    clock.at += 25
    gathering.may.set()
    await task
    await asyncio.sleep(0)
    clock.at += cached.LONGEST_PAUSE_SECONDS
    assert sum_.begin() is not None, "nobody waits for longer than that"
    await sum_.stop()


async def test_waiting_for_a_turn_is_not_taken_for_work(clock: Any) -> None:
    slots = asyncio.Semaphore(1)
    sum_ = Cached("updates", Gathering(), slots=slots)
    await slots.acquire()
    task = sum_.begin()
    await asyncio.sleep(0)
    clock.at += 20
    slots.release()
    assert task is not None
    await task
    await asyncio.sleep(0)
    clock.at += cached.LEAST_SECONDS
    assert sum_.begin() is not None
    await sum_.stop()


async def test_one_that_fails_says_so_keeps_what_was_known_and_is_tried_again(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gathering = Gathering()
    sum_ = Cached("agents", gathering)
    await _gathered(sum_)
    gathering.fails = True
    clock.at += 3
    with caplog.at_level(logging.ERROR):
        await _gathered(sum_)
    assert "agents could not be gathered" in caplog.text
    assert sum_.known is not None
    assert sum_.begin() is None
    gathering.fails = False
    clock.at += cached.FAILURE_PAUSE_SECONDS
    await _gathered(sum_)
    assert sum_.known.value == 3


async def test_what_is_under_way_ends_with_the_server(clock: Any) -> None:
    gathering = Gathering()
    gathering.may.clear()
    sum_ = Cached("agents", gathering)
    sum_.begin()
    await asyncio.sleep(0)
    await sum_.stop()
    assert sum_.known is None
