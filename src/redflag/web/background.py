"""What the server does by itself, beside answering: the sweep, the log, storing faults, counted refusals, partitions, tidying up.

Each task runs until it is told to stop; one that fails says so in the log and goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redflag.access import agent_tokens, rate, sessions
from redflag.access.principals import WATCH_SECONDS
from redflag.alerts import faults, metrics, rules
from redflag.audit import events
from redflag.audit.export.forwarding import Forwarding
from redflag.audit.keeper import Keeper
from redflag.commands import history
from redflag.web.context import Context

log = logging.getLogger("redflag.background")

FAULTS_SECONDS = 1.0
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
        tasks.create_task(context.pulse.run(stop))
        tasks.create_task(Keeper(context.pool, context.signer, context.memory, metrics.count_failed_step).run(stop))
        tasks.create_task(context.sender.run(stop))
        tasks.create_task(context.pruning.run(stop))
        tasks.create_task(Forwarding(context.pool).run(stop))
        tasks.create_task(_every(WATCH_SECONDS, _watch_tokens, context, stop))
        tasks.create_task(_every(FAULTS_SECONDS, _store_faults, context, stop))
        tasks.create_task(_every(REFUSALS_SECONDS, _record_refusals, context, stop))
        tasks.create_task(_every(PARTITIONS_SECONDS, _make_partitions, context, stop))
        tasks.create_task(_every(TIDY_SECONDS, _tidy, context, stop))
    async with context.pool.acquire() as connection:
        await _store_faults(connection, context)


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


async def _watch_tokens(connection: Any, context: Context) -> None:
    await context.authenticator.watch(connection)


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
