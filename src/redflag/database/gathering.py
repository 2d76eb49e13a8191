"""What arrives together goes to the database together: one statement for all that wait.

A batch is what queued while the last one ran, so nobody waits for a window to fill, and an idle server answers at once. The
more comes in, the more goes together: a second batch beside the first is begun only for enough calls to be worth it, or when the
first takes long. Two of one key (an agent, a command) are never in one batch: the second has its turn in the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

import asyncpg

from redflag.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

# From so many calls in a batch on they come fast enough for the next to be worth a moment's wait
FAST = 3

# A batch that takes longer than this holds up nobody else: it waits for a lock, or for the disk
LONG_SECONDS = 0.01

# What a database says of one row among many; the others are not to blame for it
BLAME = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError)


class Gathering(Generic[T, R]):
    """Answers calls in batches: `answer` is given a connection and some calls, and returns their answers in order.

    At most `in_flight` batches are under way at a time, of up to `most` calls and about `most_weight` together; more than one
    only when `worth` calls wait or the last begun takes long. While calls come fast (FAST to a batch), a batch begins no sooner
    than `pace` seconds after the one before. Past `most_waiting` calls nobody is let in: they would wait for longer than they
    would to come back.
    """

    def __init__(
        self,
        pool: Any,
        answer: Callable[[Any, list[T]], Awaitable[list[R]]],
        key: Callable[[T], Hashable],
        *,
        most: int = 256,
        in_flight: int = 2,
        worth: int = 1,
        pace: float = 0.0,
        most_waiting: int = 8192,
        weight: Callable[[T], int] = lambda _: 0,
        most_weight: int = 1,
    ) -> None:
        self.pool = pool
        self._answer = answer
        self._key = key
        self._most = most
        self._most_waiting = most_waiting
        self._weight = weight
        self._most_weight = most_weight
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._in_flight = in_flight
        self._worth = worth
        self._pace = pace
        self._under_way = 0
        self._begun_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, one: T) -> asyncio.Future[R]:
        """Queues a call for the next batch. The answer raises what its statement raised. Raises Overloaded when too many wait."""
        if len(self._waiting) >= self._most_waiting:
            raise Overloaded(f"{len(self._waiting)} calls wait for the database already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((one, future))
        if not self._under_way or (
            self._under_way < self._in_flight
            and (len(self._waiting) >= self._worth or loop.time() > self._begun_at + LONG_SECONDS)
        ):
            self._under_way += 1
            self._begun_at = loop.time()
            task = loop.create_task(self._flush())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    def __len__(self) -> int:
        return len(self._waiting)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                began = time.monotonic()
                self._begun_at = asyncio.get_running_loop().time()
                batch = self._take()
                await self._settle(batch)
                if len(batch) >= FAST and (rest := began + self._pace - time.monotonic()) > 0:
                    await asyncio.sleep(rest)
        finally:
            self._under_way -= 1

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The next batch; what stays waits for the one after."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        later: list[tuple[T, asyncio.Future[R]]] = []
        seen: set[Hashable] = set()
        weight = 0
        for place, (one, future) in enumerate(self._waiting):
            if len(batch) >= self._most or weight >= self._most_weight:
                later += self._waiting[place:]
                break
            key = self._key(one)
            if key in seen:
                later.append((one, future))
            else:
                seen.add(key)
                weight += self._weight(one)
                batch.append((one, future))
        self._waiting = later
        return batch

    async def _settle(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            async with self.pool.acquire() as connection:
                answers = await self._answer(connection, [one for one, _ in batch])
        except BLAME as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:
                await self._settle([one])
        except Exception as error:
            _fail(batch, error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
