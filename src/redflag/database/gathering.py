"""What arrives together goes to the database together: one statement for all that wait.

A batch is what queued while the last one ran, so nobody waits for a window to fill, and an idle server answers at once. Two
of one key (an agent, a command) are never in one batch: the second has its turn in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

import asyncpg

from redflag.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

# What a database says of one row among many; the others are not to blame for it
BLAME = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError)


class Gathering(Generic[T, R]):
    """Answers calls in batches: `answer` is given a connection and some calls, and returns their answers in order.

    At most `in_flight` batches are under way at a time, of up to `most` calls and about `most_weight` together. Past
    `most_waiting` calls nobody is let in: they would wait for longer than they would to come back.
    """

    def __init__(
        self,
        pool: Any,
        answer: Callable[[Any, list[T]], Awaitable[list[R]]],
        key: Callable[[T], Hashable],
        *,
        most: int = 256,
        in_flight: int = 2,
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
        self._free = in_flight
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, one: T) -> asyncio.Future[R]:
        """Queues a call for the next batch. The answer raises what its statement raised. Raises Overloaded when too many wait."""
        if len(self._waiting) >= self._most_waiting:
            raise Overloaded(f"{len(self._waiting)} calls wait for the database already")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, future))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._flush())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    def __len__(self) -> int:
        return len(self._waiting)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._settle(self._take())
        finally:
            self._free += 1

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
