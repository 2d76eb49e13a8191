"""How often somebody may try, on a real database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redflag.access import rate
from redflag.errors import RateLimited


async def test_tries_past_the_limit_are_refused_and_say_when_to_come_back(server: Any, name: str) -> None:
    for _ in range(3):
        await rate.allow(server, f"test:{name}", 3, 300)
    for _ in range(2):
        with pytest.raises(RateLimited) as limited:
            await rate.allow(server, f"test:{name}", 3, 300)
        assert 290 <= limited.value.retry_after <= 300
    await rate.allow(server, f"test:{name}:other", 3, 300)


async def test_a_window_that_is_over_begins_anew_and_refused_tries_do_not_lengthen_it(
    server: Any, owner: Any, name: str
) -> None:
    key = f"test:{name}"
    await rate.allow(server, key, 1, 300)
    with pytest.raises(RateLimited):
        await rate.allow(server, key, 1, 300)
    await owner.execute("UPDATE rate_limits SET since = since - interval '290 s' WHERE key = $1", key)
    with pytest.raises(RateLimited) as limited:
        await rate.allow(server, key, 1, 300)
    assert 1 <= limited.value.retry_after <= 10
    await owner.execute("UPDATE rate_limits SET since = since - interval '10 s' WHERE key = $1", key)
    await rate.allow(server, key, 1, 300)
    with pytest.raises(RateLimited):
        await rate.allow(server, key, 1, 300)


async def test_tries_at_once_are_all_counted(pool: Any, name: str) -> None:
    async def attempt() -> bool:
        try:
            await rate.allow(pool, f"test:{name}", 7, 300)
        except RateLimited:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(40)))) == 7


async def test_counters_whose_window_is_over_are_purged(server: Any, owner: Any, name: str) -> None:
    await rate.allow(server, f"old:{name}", 3, 300)
    await rate.allow(server, f"new:{name}", 3, 300)
    await owner.execute("UPDATE rate_limits SET since = now() - interval '25 hours' WHERE key = $1", f"old:{name}")
    assert await rate.purge(server) >= 1
    left = await owner.fetch("SELECT key FROM rate_limits WHERE key LIKE $1", f"%:{name}")
    assert [row["key"] for row in left] == [f"new:{name}"]


@pytest.mark.parametrize(("tries", "seconds"), [(0, 300), (3, 0), (3, 90_000)])
async def test_a_limit_that_cannot_be_kept_is_a_mistake_of_the_caller(
    server: Any, name: str, tries: int, seconds: float
) -> None:
    with pytest.raises(ValueError, match="cannot be counted"):
        await rate.allow(server, f"test:{name}", tries, seconds)
