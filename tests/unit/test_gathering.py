"""What arrives together is answered together, and nobody pays for another's mistake."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from redflag.database.gathering import FAST, LONG_SECONDS, Gathering
from redflag.errors import Overloaded


class Pool:
    """A pool whose connections are nobody's."""

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        yield None


class Asked:
    """Remembers the batches; holds each until `go`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Event()

    async def __call__(self, _connection: object, batch: list[str]) -> list[str]:
        self.batches.append(batch)
        await self.go.wait()
        if any("bad" in one for one in batch):
            raise asyncpg.DataError("one of them is bad")
        if "away" in batch:
            raise OSError("the database is away")
        return [one.upper() for one in batch]


async def test_what_came_while_a_batch_was_under_way_is_the_next_batch() -> None:
    asked = Asked()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=1)
    first = gathering.ask("a")
    await asyncio.sleep(0)
    later = [gathering.ask(one) for one in "bcd"]
    asked.go.set()
    assert await asyncio.gather(first, *later) == ["A", "B", "C", "D"]
    assert asked.batches == [["a"], ["b", "c", "d"]]


async def test_a_second_batch_beside_the_first_is_begun_only_for_enough_calls() -> None:
    asked = Asked()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=2, worth=3)
    waiting = [gathering.ask("a")]
    await asyncio.sleep(0)
    waiting += [gathering.ask(one) for one in "bc"]
    await asyncio.sleep(0)
    assert asked.batches == [["a"]]
    waiting.append(gathering.ask("d"))
    await asyncio.sleep(0)
    assert asked.batches == [["a"], ["b", "c", "d"]]
    asked.go.set()
    assert await asyncio.gather(*waiting) == ["A", "B", "C", "D"]


async def test_a_batch_that_takes_long_holds_up_nobody() -> None:
    asked = Asked()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=2, worth=100)
    slow = gathering.ask("a")
    # As long as it has to be, or longer
    await asyncio.sleep(2 * LONG_SECONDS)
    quick = gathering.ask("b")
    await asyncio.sleep(0)
    assert asked.batches == [["a"], ["b"]]
    asked.go.set()
    assert await asyncio.gather(slow, quick) == ["A", "B"]


async def test_after_a_batch_of_many_the_next_keeps_its_distance_and_single_calls_wait_for_nothing() -> None:
    asked = Asked()
    asked.go.set()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=1, pace=3600)
    for number in range(20):
        await gathering.ask(f"alone {number}")
    await asyncio.gather(*[gathering.ask(str(number)) for number in range(FAST)])
    later = gathering.ask("later")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not later.done()
    assert [len(batch) for batch in asked.batches] == [1] * 20 + [FAST]


async def test_two_of_one_key_are_never_in_one_batch_and_keep_their_order() -> None:
    asked = Asked()
    asked.go.set()
    gathering = Gathering(Pool(), asked, lambda one: one[0], in_flight=1)
    answers = await asyncio.gather(*[gathering.ask(one) for one in ("a1", "b1", "a2", "a3", "c1")])
    assert answers == ["A1", "B1", "A2", "A3", "C1"]
    assert asked.batches == [["a1", "b1", "c1"], ["a2"], ["a3"]]


async def test_a_batch_has_a_bounded_number_and_weight() -> None:
    asked = Asked()
    asked.go.set()
    gathering = Gathering(Pool(), asked, lambda one: one, most=3, in_flight=1, weight=len, most_weight=10)
    await asyncio.gather(*[gathering.ask(one) for one in ("x" * 20, "b", "c", "d", "e")])
    assert [len(batch) for batch in asked.batches] == [1, 3, 1]


async def test_one_that_the_database_refuses_fails_alone() -> None:
    asked = Asked()
    asked.go.set()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=1)
    answers = await asyncio.gather(*[gathering.ask(one) for one in ("a", "bad", "c")], return_exceptions=True)
    assert [answers[0], answers[2]] == ["A", "C"]
    assert isinstance(answers[1], asyncpg.DataError)


async def test_when_the_database_is_away_all_of_the_batch_are_told_and_the_next_goes_on() -> None:
    asked = Asked()
    asked.go.set()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=1)
    answers = await asyncio.gather(*[gathering.ask(one) for one in ("a", "away")], return_exceptions=True)
    assert all(isinstance(one, OSError) for one in answers)
    assert await gathering.ask("b") == "B"


async def test_past_its_limit_nobody_is_let_in_and_each_is_told_another_time_to_come_back() -> None:
    asked = Asked()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=1, most_waiting=5)
    waiting = [gathering.ask("first")]
    await asyncio.sleep(0)
    waiting += [gathering.ask(str(number)) for number in range(5)]
    told = set()
    for _ in range(50):
        with pytest.raises(Overloaded) as refused:
            gathering.ask("more")
        told.add(refused.value.retry_after)
    assert len(told) > 5
    asked.go.set()
    assert len(await asyncio.gather(*waiting)) == 6


async def test_a_caller_that_gave_up_does_not_disturb_the_others() -> None:
    asked = Asked()
    gathering = Gathering(Pool(), asked, lambda one: one, in_flight=1)
    gone, stays = gathering.ask("a"), gathering.ask("b")
    await asyncio.sleep(0)
    gone.cancel()
    asked.go.set()
    assert await stays == "B"
