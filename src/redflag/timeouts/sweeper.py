"""The sweeper: the only writer of `timed_out`.

Every replica sweeps, and no two get the same command (SKIP LOCKED): no leader, no timers in memory, the database's clock
only. A batch is one statement: the commands, their records (by trigger), the totals and the updates that waited go
together or not at all. Full batches follow each other at once, as far as agents that check in are not held up by them (`pace`).
The more a sweep finds, the sooner comes the next. A sweep that fails is counted, logged, and tried again.

After a time in which nobody swept, pending commands that nobody could have delivered get more time, once per gap.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from redflag.audit import actor as actors
from redflag.audit import events
from redflag.audit.actor import Actor
from redflag.commands.states import Status
from redflag.database import faults, queries
from redflag.database.courtesy import Courtesy
from redflag.timeouts.pace import Pace

log = logging.getLogger("redflag.timeouts")
sql = queries.load(__file__, "sweeper.sql")
# Its own: a server in a thread must not move the one that all of a process shares
_random = random.SystemRandom()

# The statement has the same number in it
BATCH = 1000
# Bounds of the histograms, in seconds; the sweep counts in the same ones (a test holds them together)
STUCK_BOUNDS = (60, 300, 900, 1800, 3600, 7200, 14400, 86400, 604800)
LATENESS_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 5, 60, 3600)
# An idle replica says that it is alive this often, and one that works how far it is
HEARTBEAT_SECONDS = 5.0
BUSY_HEARTBEAT_SECONDS = 1.0
# While something is found, the pause is as long as the last sweep took, and between this part of the interval and the whole
SHORTEST_PAUSE = 0.2
FAILURE_PAUSE_SECONDS = 1.0
# What a database that goes away does to a statement; asyncpg says InternalClientError when it goes between two of them
TROUBLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


@dataclass
class Swept:
    """What one run did. Lateness in milliseconds, measured when each command was ended."""

    timed_out: list[uuid.UUID] = field(default_factory=list)
    redelivered: list[uuid.UUID] = field(default_factory=list)
    max_lateness_ms: float = 0.0

    def add(self, rows: list[Any]) -> None:
        """Takes in a batch."""
        for row in rows:
            if row["status"] == Status.TIMED_OUT:
                self.timed_out.append(row["id"])
                self.max_lateness_ms = max(self.max_lateness_ms, row["late_seconds"] * 1000)
            else:
                self.redelivered.append(row["id"])


class Sweeper:
    """One replica of the timeout service. `interval`, `gap` and `grace` are seconds; `courtesy` knows who is not to be held up."""

    def __init__(
        self,
        pool: Any,
        replica: str,
        *,
        interval: float = 0.1,
        gap: float = 60.0,
        grace: float = 600.0,
        courtesy: Courtesy | None = None,
    ) -> None:
        self.pool = pool
        self.pace = Pace(courtesy or Courtesy(), BATCH)
        self.replica = replica
        self.name = f"timeout@{replica}"
        self.interval = interval
        self.gap = datetime.timedelta(seconds=gap)
        self.grace = datetime.timedelta(seconds=grace)
        self._last_success: float | None = None
        self._last_said = 0.0
        self._unsaid = [0, 0, 0]
        self._failures = 0
        self._lock = asyncio.Lock()

    @property
    def actor(self) -> Actor:
        """The service itself, in a request of its own."""
        return actors.service("timeout", self.replica)

    async def run(self, stop: asyncio.Event) -> None:
        """Sweeps until `stop` is set. Never raises: what fails is counted, logged, and tried again."""
        await self._say_started()
        while not stop.is_set():
            pause, began = self.interval, time.monotonic()
            try:
                swept = await self._sweep(self.actor, "sweep")
                if swept.timed_out or swept.redelivered:
                    pause *= min(max((time.monotonic() - began) / self.interval, SHORTEST_PAUSE), 1.0)
                await self._say_finished(swept, BUSY_HEARTBEAT_SECONDS)
            except Exception as error:
                # Whatever it was: a sweeper that ends here would leave commands live for ever, and nobody would know
                self._failed(error)
                pause = FAILURE_PAUSE_SECONDS
            await _wait(stop, pause * _random.uniform(0.8, 1.2))  # jitter, so that replicas do not step together
        await self._say_stopped()

    async def sweep(self, actor: Actor | None = None, method: str = "sweep") -> Swept:
        """One run, until nothing is overdue. By hand: `actor` is who asked, and the run is recorded."""
        swept = await self._sweep(actor or self.actor, method)
        if actor is not None:
            async with self.pool.acquire() as connection:
                await events.record(
                    connection,
                    actor,
                    kind="service",
                    action="timeout_service_run",
                    message=f"ran the timeout service by hand: {len(swept.timed_out)} timed out",
                    timed_out=len(swept.timed_out),
                    max_lateness_ms=round(swept.max_lateness_ms),
                )
        await self._say_finished(swept)
        return swept

    async def _sweep(self, by: Actor, method: str) -> Swept:
        swept = Swept()
        self.pace.begin()
        await self._handle_gap()
        if self._failures:
            await self._say_failures()
        if await self._batch(swept, by, method, lane=1):
            await self._drain(swept, by, method)
        if swept.timed_out:
            log.info("timed out %d commands, the latest by %.0f ms", len(swept.timed_out), swept.max_lateness_ms)
        if swept.redelivered:
            log.info("took back %d commands that their agents did not confirm", len(swept.redelivered))
        return swept

    async def _drain(self, swept: Swept, by: Actor, method: str) -> None:
        """Batch upon batch until nothing is overdue, on two lanes while the pace leaves room for the second."""
        second: asyncio.Task[None] | None = None
        more = True
        try:
            while more:
                if self.pace.leaves_room and (second is None or second.done()):
                    if second is not None:
                        await second
                    second = asyncio.create_task(self._second_lane(swept, by, method))
                more = await self._batch(swept, by, method, lane=1)
        finally:
            # If one fails, what the other has under way is finished first
            if second is not None:
                await asyncio.wait({second})
        if second is not None:
            await second

    async def _second_lane(self, swept: Swept, by: Actor, method: str) -> None:
        while self.pace.leaves_room and await self._batch(swept, by, method, lane=2):
            pass

    async def _batch(self, swept: Swept, by: Actor, method: str, lane: int) -> bool:
        """One batch, one statement. Returns whether it was full, so that more may be overdue."""
        act = actors.detection(Actor(by.name, address=by.address), service_name=self.name, method=method)
        # Each lane adds to totals of its own, so that none waits for another's commit
        replica = self.replica if lane == 1 else f"{self.replica}/lane-{lane}"
        began, batch = time.monotonic(), self.pace.batch
        async with self.pool.acquire() as connection:
            rows = await sql.sweep.all(connection, batch=batch, act=act, replica=replica)
        swept.add(rows)
        if len(rows) < batch:
            return False
        await self.pace.after(time.monotonic() - began)
        return True

    async def _handle_gap(self) -> None:
        # A replica that swept a moment ago knows that there is no gap; any other asks the database
        if self._last_success is not None and time.monotonic() - self._last_success < self.gap.total_seconds() / 2:
            return
        async with self.pool.acquire() as connection:
            gap = await sql.gap.one(connection, longest=self.gap)
            if gap is None:
                return
            async with connection.transaction():
                claimed = await sql.claim_gap.one(connection, began_at=gap["began_at"])
                if claimed is None:
                    return
                extended = await sql.extend.value(
                    connection, grace=self.grace, began_at=claimed["began_at"], ended_at=claimed["ended_at"]
                )
                away = claimed["ended_at"] - claimed["began_at"]
                more = self.grace.total_seconds()
                message = (
                    f"nobody swept for {away.total_seconds():.0f} s: {extended} pending commands got {more:.0f} s more"
                )
                await events.record(
                    connection, self.actor, kind="service", action="timeout_service_gap", message=message,
                    began_at=claimed["began_at"].isoformat(), ended_at=claimed["ended_at"].isoformat(), extended=extended,
                )  # fmt: skip
        log.warning("%s", message)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        log.error("a sweep failed: %s: %s", type(error).__name__, error)
        faults.note("sweep_failed", f"{type(error).__name__}: {error}")
        self._last_error = f"{type(error).__name__}: {error}"[:500]

    async def _say_failures(self) -> None:
        failures, self._failures = self._failures, 0
        try:
            async with self.pool.acquire() as connection:
                await sql.run_failed.run(connection, replica=self.replica, error=self._last_error, failures=failures)
        except BaseException:
            self._failures += failures
            raise

    async def _say_finished(self, swept: Swept, busy_heartbeat: float = 0.0) -> None:
        now = time.monotonic()
        self._last_success = now
        unsaid = self._unsaid
        unsaid[0] += 1
        unsaid[1] += len(swept.timed_out)
        unsaid[2] += len(swept.redelivered)
        if now - self._last_said < (busy_heartbeat if unsaid[1] or unsaid[2] else HEARTBEAT_SECONDS):
            return
        self._unsaid, self._last_said = [0, 0, 0], now
        async with self.pool.acquire() as connection:
            await sql.run_finished.run(
                connection, replica=self.replica, runs=unsaid[0], timed_out=unsaid[1], redelivered=unsaid[2]
            )

    async def _say_started(self) -> None:
        try:
            # Before it says that it is there: a gap is what lies between the last word of any replica and now
            await self._handle_gap()
            async with self.pool.acquire() as connection, connection.transaction():
                await sql.started.run(connection, replica=self.replica)
                await events.record(
                    connection,
                    self.actor,
                    kind="service",
                    action="timeout_service_started",
                    message="the timeout service started",
                )
        except TROUBLE as error:
            self._failed(error)

    async def _say_stopped(self) -> None:
        try:
            if self._unsaid[0]:
                async with self.pool.acquire() as connection:
                    runs, timed_out, redelivered = self._unsaid
                    await sql.run_finished.run(
                        connection, replica=self.replica, runs=runs, timed_out=timed_out, redelivered=redelivered
                    )
            async with self.pool.acquire() as connection, connection.transaction():
                await sql.stopped.run(connection, replica=self.replica)
                await events.record(
                    connection,
                    self.actor,
                    kind="service",
                    action="timeout_service_stopped",
                    message="the timeout service stopped",
                )
        except TROUBLE as error:
            log.error("could not record that the timeout service stopped: %s", error)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def status(connection: Any) -> dict[str, Any]:
    """The service as a whole: its replicas, what is overdue, failures of the last five minutes, and totals."""
    replicas = [dict(row) for row in await sql.status.all(connection)]
    lag = await sql.lag.one(connection)
    return {
        "replicas": replicas,
        "overdue": lag["overdue"],
        "lag_seconds": lag["lag_seconds"],
        "next_deadline_at": lag["next_deadline_at"],
        "recent_failures": await sql.recent_failures.value(connection, within=datetime.timedelta(minutes=5)),
        "last_run_at": max((one["last_run_at"] for one in replicas if one["last_run_at"]), default=None),
        "last_success_at": max((one["last_success_at"] for one in replicas if one["last_success_at"]), default=None),
        "totals": {
            name: sum(one[name] for one in replicas) for name in ("runs", "failures", "timed_out", "redelivered")
        },
    }


async def preview(connection: Any, *, within: datetime.timedelta, limit: int = 100) -> list[dict[str, Any]]:
    """What expires within the time, the nearest first."""
    return [dict(row) for row in await sql.preview.all(connection, within=within, limit=min(limit, 1000))]
