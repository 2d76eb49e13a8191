"""What the server does by itself, beside answering: the sweep, storing faults, counted refusals, partitions, tidying up.

Each task runs until it is told to stop; one that fails says so in the log and goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redflag.access import agent_tokens, rate, sessions
from redflag.alerts import faults, rules
from redflag.audit import events, sequencer
from redflag.commands import history
from redflag.database import faults as faults_met
from redflag.errors import Conflict
from redflag.web.context import Context

log = logging.getLogger("redflag.background")

FAULTS_SECONDS = 1.0
# An event is in a signed checkpoint at most two of these after its commit
LOG_SECONDS = 0.7
REFUSALS_SECONDS = 20.0
PARTITIONS_SECONDS = 6 * 3600.0
TIDY_SECONDS = 600.0
MONTHS_AHEAD_AT_LEAST = 3

Work = Callable[[Any, Context], Awaitable[None]]


async def run(context: Context, stop: asyncio.Event) -> None:
    """All of it, until `stop` is set. Returns when everything has been laid down in order."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(context.sweeper.run(stop))
        tasks.create_task(context.holds.run(stop))
        tasks.create_task(_keep_log(context, stop))
        tasks.create_task(_every(FAULTS_SECONDS, _store_faults, context, stop))
        tasks.create_task(_every(REFUSALS_SECONDS, _record_refusals, context, stop))
        tasks.create_task(_every(PARTITIONS_SECONDS, _make_partitions, context, stop))
        tasks.create_task(_every(TIDY_SECONDS, _tidy, context, stop))
    async with context.pool.acquire() as connection:
        await _store_faults(connection, context)


async def _keep_log(context: Context, stop: asyncio.Event) -> None:
    """Gives records their positions, hashes them into the tree, and signs its head every second or so. Any replica does it."""
    said = ""
    # Once at the start also a log in which nothing is new is held against what this server remembers
    looked_at = False
    while not stop.is_set():
        busy = False
        try:
            async with context.pool.acquire() as connection:
                if not looked_at or not await sequencer.idle(connection):
                    busy = await sequencer.sequence(connection) == sequencer.BATCH
                    await sequencer.integrate(connection)
                    if not busy:
                        await sequencer.publish(connection, context.signer, context.memory)
                        looked_at = True
                said = ""
        except Exception as error:
            # Said once, not every second, for as long as it is the same
            if str(error) != said:
                said = str(error)
                log.critical(
                    "the log does not go on: %s: %s",
                    type(error).__name__,
                    said,
                    exc_info=not isinstance(error, Conflict),
                )
                faults_met.note("log_stopped", said)
        if not busy:
            try:
                await asyncio.wait_for(stop.wait(), LOG_SECONDS)
            except TimeoutError:
                continue


async def _every(seconds: float, work: Work, context: Context, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            async with context.pool.acquire() as connection:
                await work(connection, context)
        except Exception:  # one that fails must not end the others, the sweep among them
            log.exception("%s failed, and will be tried again", work.__name__.strip("_"))
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            continue


async def _store_faults(connection: Any, context: Context) -> None:
    if await faults.store(connection, context.settings.replica):
        for alert in await rules.firing(connection):
            log.log(
                logging.CRITICAL if alert.rule.severity == "critical" else logging.WARNING,
                "alert %s: %s (%d in %s): %s", alert.rule.name, alert.rule.summary, alert.faults, alert.rule.within, alert.rule.next_step,
            )  # fmt: skip


async def _record_refusals(connection: Any, context: Context) -> None:
    await events.record_counted_refusals(connection, context.settings.replica)


async def _make_partitions(connection: Any, _context: Context) -> None:
    ahead = await history.sql.make_partitions.value(connection)
    if ahead < MONTHS_AHEAD_AT_LEAST:
        log.warning(
            "only %d months of update_logs have a partition waiting; records of later months go to the default partition",
            ahead,
        )


async def _tidy(connection: Any, _context: Context) -> None:
    await agent_tokens.purge(connection)
    await sessions.purge(connection)
    await rate.purge(connection)
