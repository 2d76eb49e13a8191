"""Times as people say and type them: "3 min ago", "in 12 s", "2 h 0 min 3 s"; 30m, 2h, 3d, or ISO 8601.

What depends on the clock is given it: only `now` reads it.
"""

from __future__ import annotations

import datetime
import re

from redflag.errors import InvalidInput

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(min|[smhdw])\s*")
LONGEST_SECONDS = 366 * 86400.0
# So long ago, at the most: records may be kept for decades
LONGEST_AGO = 36_500 * 86400.0


def duration(text: str, longest: float = LONGEST_SECONDS) -> float:
    """Seconds of a length of time such as 90s, 30m, 2h, 1h30m or 3d, up to the longest. Raises InvalidInput."""
    rest, seconds = text.strip().lower(), 0.0
    while matched := _PART.match(rest):
        seconds += float(matched[1]) * _UNITS[matched[2]]
        rest = rest[matched.end() :]
    if rest or not 0 < seconds <= longest:
        most = f"{longest / 86400:.0f}d"
        raise InvalidInput(f"{text[:50]!r} is no length of time", f"Give one such as 90s, 30m, 2h or 3d, up to {most}")
    return seconds


def moment(text: str, now: datetime.datetime, zone: datetime.tzinfo | None = None) -> datetime.datetime:
    """A point in time: so long ago (2h, 3d), or ISO 8601; without a zone it is in the one given, else in this machine's.

    Raises InvalidInput, also for what lies beyond the calendar.
    """
    if _PART.match(text.strip().lower()):
        return now - datetime.timedelta(seconds=duration(text, LONGEST_AGO))
    try:
        given = datetime.datetime.fromisoformat(text.strip())
        return given.replace(tzinfo=zone) if zone is not None and given.tzinfo is None else given.astimezone()
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{text[:50]!r} is no time", "Give one such as 2h or 3d ago, or 2030-01-31T12:00:00+00:00"
        ) from None


def read(value: str | None) -> datetime.datetime | None:
    """A time as the API writes it."""
    return None if value is None else datetime.datetime.fromisoformat(value)


def length(seconds: float) -> str:
    """A length of time in the two largest units that say something: 4.2 s, 3 min 5 s, 2 h, 3 d 4 h."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            more = whole % size // small
            return f"{whole // size} {unit}" + (f" {more} {smaller}" if more else "")
    return f"{whole} s"


def exact(seconds: float) -> str:
    """A length of time with all of its units: 1 h 30 min 5 s, 0.5 s."""
    left, told = seconds, []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if left >= size:
            told.append(f"{int(left // size)} {unit}")
            left %= size
    if left or not told:
        told.append(f"{left:g} s")
    return " ".join(told)


def rough(seconds: float) -> str:
    """A length of time in its largest unit: 12 s, 3 min, 5 h, 2 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def distance(seconds: float) -> str:
    """How far away a moment is, `seconds` from now: "in 12 s", "3 min ago", "now"."""
    if -1 < seconds < 1:
        return "now"
    return f"in {rough(seconds)}" if seconds > 0 else f"{rough(-seconds)} ago"


def when(value: str | None, now: datetime.datetime, never: str = "never") -> str:
    """A time of the API's as a distance from now."""
    at = read(value)
    return never if at is None else distance((at - now).total_seconds())


def clock(value: str | None) -> str:
    """A time of the API's as date and clock in this machine's zone, to the second."""
    at = read(value)
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def count(number: int, one: str, many: str = "") -> str:
    """1 agent, 2 agents, 1,234 agents."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Bytes in the largest unit that fits: 512 B, 1.5 GiB."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def recent(value: str | None, now: datetime.datetime) -> str:
    """A time of the API's: as a distance within a day, else as date and clock."""
    at = read(value)
    if at is None:
        return "never"
    away = (at - now).total_seconds()
    return distance(away) if abs(away) < 86400 else clock(value)


def now() -> datetime.datetime:
    """This machine's clock, the one that the commands hand to the functions above."""
    return datetime.datetime.now(datetime.UTC)
