"""What timed out in the last day, hour by hour, and how late it was noticed. Reads only.

Bounded by the day: its cost follows from how many commands timed out in it, and not from how long the history is.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from redflag.database import queries

sql = queries.load(__file__, "recent.sql")

HOURS = 24
HOUR = datetime.timedelta(hours=1)
# Of more types the rarer ones are counted together: nobody tells more colours apart
TYPES = 5
OTHER = "other types"


@dataclass(frozen=True)
class Hour:
    """One hour: when it began, timeouts in the order of `Day.types`, and their lateness in milliseconds, None where none was."""

    began_at: datetime.datetime
    timed_out: list[int]
    median_ms: float | None = None
    most_ms: float | None = None


@dataclass(frozen=True)
class Day:
    """The last 24 hours, the oldest first, and the types that timed out in them, the most frequent first."""

    types: list[str]
    hours: list[Hour]

    @property
    def timed_out(self) -> int:
        """How many there were in all."""
        return sum(sum(hour.timed_out) for hour in self.hours)

    @property
    def by_type(self) -> list[int]:
        """How many there were of each type."""
        return [sum(hour.timed_out[place] for hour in self.hours) for place in range(len(self.types))]

    @property
    def most_ms(self) -> float | None:
        """How late the latest of them was, in milliseconds."""
        return max((hour.most_ms for hour in self.hours if hour.most_ms is not None), default=None)


async def last_day(connection: Any) -> Day:
    """The timeouts of the last 24 hours; the hour that runs is the last one."""
    rows = await sql.by_hour.all(connection)
    ends = await sql.this_hour.value(connection)
    totals: dict[str, int] = {}
    for row in rows:
        if not row["of_all"]:
            totals[row["command_type"]] = totals.get(row["command_type"], 0) + row["timed_out"]
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    # One type too many is named rather than called others
    named = ranked if len(ranked) <= TYPES + 1 else ranked[:TYPES]
    types = [*named, OTHER] if len(named) < len(ranked) else named
    place = {name: named.index(name) if name in named else len(named) for name in ranked}
    begins = [ends - HOUR * back for back in range(HOURS - 1, -1, -1)]
    hours = {at: Hour(at, [0] * len(types)) for at in begins}
    for row in rows:
        hour = hours.get(row["hour"])
        # At the turn of an hour the two statements may speak of different days
        if hour is None:
            continue
        if row["of_all"]:
            hours[row["hour"]] = Hour(hour.began_at, hour.timed_out, row["median_ms"], row["most_ms"])
        else:
            hour.timed_out[place[row["command_type"]]] += row["timed_out"]
    return Day(types, list(hours.values()))


async def gaps(connection: Any, limit: int = 5) -> list[dict[str, Any]]:
    """The last times in which nobody swept, the newest first, and how many commands got more time for each."""
    return [dict(row) for row in await sql.gaps.all(connection, limit=limit)]
