"""The installation at a glance: sums over the whole fleet, the same for everybody who looks, gathered by `cached`.

Each part is gathered by itself, so that a quick one never waits for a slow one: in a large fleet the first look after a while
may find a part that is still being counted, and the page says so and asks again.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redflag.alerts import faults, metrics, rules
from redflag.audit import events, sequencer
from redflag.audit.export import forwarding
from redflag.commands import listing as command_listing
from redflag.commands import queue
from redflag.fleet import agents
from redflag.publishing import targets
from redflag.timeouts import recent, sweeper
from redflag.updates import listing
from redflag.web.dashboard.cached import Cached

# Whoever looks waits so long for what is being gathered: where nothing is known of it yet, and where an older value is
WAIT_SECONDS = 0.08
WAIT_FOR_NEWER_SECONDS = 0.03
# What is being gathered is likely to be there after so long
RENEWED_MS = 600
# So many are gathered side by side: the pool is there for agents first
SIDE_BY_SIDE = 2

Value = TypeVar("Value")


@dataclass(frozen=True)
class Service:
    """The timeout service: its state, how late all timeouts ever were, and when nobody swept."""

    status: dict[str, Any]
    timed_out: int
    buckets: list[int]
    gaps: list[dict[str, Any]]


@dataclass(frozen=True)
class Audit:
    """The audit trail: how far its log is, what it cannot take, months with a partition, and the last fsck that was recorded."""

    log: dict[str, Any]
    passed_over: list[dict[str, Any]]
    months_ahead: int
    fsck: dict[str, Any] | None


@dataclass(frozen=True)
class Trouble:
    """Alerts that fire, and where checkpoints and records are sent."""

    alerts: list[rules.Firing]
    targets: list[dict[str, Any]]
    forwarders: list[dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What is known now; None is a part that is still being gathered. `at`: when the oldest of it was;

    `renewing`: newer comes at once; else it may be gathered anew in `due` seconds.
    """

    agents: dict[str, int] | None
    updates: listing.Open | None
    commands: tuple[dict[str, int], dict[str, Any] | None] | None
    day: recent.Day | None
    service: Service | None
    audit: Audit | None
    trouble: Trouble | None
    at: datetime.datetime | None
    renewing: bool = False
    due: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return None not in (
            self.agents, self.updates, self.commands, self.day, self.service, self.audit, self.trouble,
        )  # fmt: skip

    def again(self, *, told: bool) -> int:
        """In how many milliseconds a region that shows this asks once more, 0: not at all.

        Whoever was `told` of a change may have come before it was counted.
        """
        if self.renewing:
            return RENEWED_MS
        return round(self.due * 1000) + RENEWED_MS if told else 0


class Summary:
    """The sums of this process."""

    def __init__(self, pool: Any, check_in_interval: int) -> None:
        self._pool = pool
        slots = asyncio.Semaphore(SIDE_BY_SIDE)
        # What is quick comes first
        self._parts: dict[str, Cached[Any]] = {
            name: Cached(name, self._on_a_connection(gather), slots=slots)
            for name, gather in (
                ("trouble", _trouble),
                ("audit", _audit),
                ("service", _service),
                ("commands", _commands),
                ("day", recent.last_day),
                ("agents", lambda connection: agents.counts(connection, check_in_interval)),
                ("updates", listing.open_updates),
            )
        }

    async def look(self, *names: str) -> Seen:
        """What is known of the parts, or of all. Waits a moment for what is being gathered, and no longer."""
        wanted = {name: part for name, part in self._parts.items() if not names or name in names}
        under_way = [task for part in wanted.values() if (task := part.begin())]
        if under_way:
            known = all(part.known for part in wanted.values())
            await asyncio.wait(under_way, timeout=WAIT_FOR_NEWER_SECONDS if known else WAIT_SECONDS)
        found = {name: one for name, part in wanted.items() if (one := part.known)}
        return Seen(
            **{name: found[name].value if name in found else None for name in self._parts},
            at=min((one.at for one in found.values()), default=None),
            renewing=any(part.under_way for part in wanted.values()),
            due=max((part.due for part in wanted.values()), default=0.0),
        )

    async def stop(self) -> None:
        """Ends what is under way."""
        for part in self._parts.values():
            await part.stop()

    def _on_a_connection(self, gather: Callable[[Any], Awaitable[Value]]) -> Callable[[], Awaitable[Value]]:
        async def gathered() -> Value:
            async with self._pool.acquire() as connection:
                return await gather(connection)

        return gathered


async def _commands(connection: Any) -> tuple[dict[str, int], dict[str, Any] | None]:
    counted, oldest = await queue.live(connection)
    found = await command_listing.described(connection, [oldest] if oldest else [], who=False)
    return counted, found[0] if found else None


async def _service(connection: Any) -> Service:
    late = await metrics.sql.lateness.one(connection)
    return Service(
        await sweeper.status(connection),
        late["timed_out"],
        late["buckets"] or [0] * len(sweeper.LATENESS_BOUNDS),
        await recent.gaps(connection),
    )


async def _audit(connection: Any) -> Audit:
    return Audit(
        await sequencer.health(connection),
        await faults.passed_over(connection),
        await metrics.sql.months_ahead.value(connection),
        await events.last_examination(connection),
    )


async def _trouble(connection: Any) -> Trouble:
    return Trouble(
        await rules.firing(connection), await targets.list_targets(connection), await forwarding.listed(connection)
    )
