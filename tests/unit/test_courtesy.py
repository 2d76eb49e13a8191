"""Who works in bulk sees who waits, and gives way; by a clock that the test moves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redflag.database import courtesy as room
from redflag.database.courtesy import CALM_SECONDS, Courtesy
from redflag.timeouts.pace import FIRST, SMALLEST, Pace

LONG = CALM_SECONDS * 2
MOST = 1000


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(room, "time", made)
    return made


def asked(courtesy: Courtesy) -> asyncio.Future[Any]:
    """A call that waits for its answer."""
    return courtesy.watch(asyncio.get_running_loop().create_future())


async def answered(*calls: asyncio.Future[Any]) -> None:
    for call in calls:
        call.set_result(None)
    await asyncio.sleep(0)


async def test_who_is_answered_soon_was_not_held_up(clock: Clock) -> None:
    courtesy = Courtesy()
    call = asked(courtesy)
    clock.now += CALM_SECONDS / 2
    await answered(call)
    assert not courtesy.held_up()


async def test_a_late_answer_is_told_once(clock: Clock) -> None:
    courtesy = Courtesy()
    call = asked(courtesy)
    clock.now += LONG
    await answered(call)
    clock.now += LONG
    assert courtesy.held_up()
    assert not courtesy.held_up()


async def test_who_still_waits_is_seen_without_an_answer(clock: Clock) -> None:
    courtesy = Courtesy()
    asked(courtesy)
    clock.now += LONG
    assert courtesy.held_up()
    assert courtesy.held_up()


async def test_of_many_calls_the_oldest_is_watched_and_the_next_after_its_answer(clock: Clock) -> None:
    courtesy = Courtesy()
    first = asked(courtesy)
    clock.now += LONG
    second = asked(courtesy)
    assert courtesy.held_up()
    await answered(first)
    assert courtesy.held_up(), "the first was answered late"
    third = asked(courtesy)
    await answered(second, third)
    assert not courtesy.held_up()


async def test_a_call_that_is_given_up_or_fails_is_no_longer_waited_for(clock: Clock) -> None:
    courtesy = Courtesy()
    for end in (lambda call: call.cancel(), lambda call: call.set_exception(ValueError())):
        call = asked(courtesy)
        end(call)
        await asyncio.wait({call})
        call.cancelled() or call.exception()
        await asyncio.sleep(0)
        clock.now += LONG
        assert not courtesy.held_up()


async def test_way_is_given_until_the_answer_and_not_longer_than_allowed(clock: Clock) -> None:
    courtesy = Courtesy()
    call = asked(courtesy)
    await courtesy.give_way(60)  # nobody is held up yet
    clock.now += LONG
    giving = asyncio.create_task(courtesy.give_way(60))
    await asyncio.sleep(0)
    assert not giving.done()
    await answered(call)
    await asyncio.wait_for(giving, 10)
    asked(courtesy)
    clock.now += LONG
    await courtesy.give_way(0)


async def test_a_storm_that_holds_nobody_up_doubles_its_batches_and_then_takes_a_second_lane() -> None:
    pace = Pace(Courtesy(), MOST)
    sizes = [pace.batch]
    while not pace.leaves_room:
        await pace.after(1.0)
        sizes.append(pace.batch)
    assert sizes == [FIRST, 2 * FIRST, 4 * FIRST, MOST, MOST]
    pace.begin()
    assert pace.batch == FIRST
    assert not pace.leaves_room


async def test_while_somebody_is_held_up_batches_are_halved_on_one_lane_and_grow_slowly_afterwards(
    clock: Clock,
) -> None:
    courtesy = Courtesy()
    pace = Pace(courtesy, MOST)
    pace.batch = MOST
    sizes = []
    for _ in range(6):
        call = asked(courtesy)
        clock.now += LONG
        await answered(call)
        await pace.after(1.0)
        assert not pace.leaves_room
        sizes.append(pace.batch)
    assert sizes == [500, 250, 125, SMALLEST, SMALLEST, SMALLEST]
    await pace.after(1.0)
    assert pace.batch == 2 * SMALLEST
    while not pace.leaves_room:
        await pace.after(1.0)


async def test_a_bound_below_all_others_is_kept() -> None:
    pace = Pace(Courtesy(), 10)
    assert pace.batch == 10
    assert not pace.leaves_room
    await pace.after(1.0)
    assert pace.batch == 10
    assert pace.leaves_room
