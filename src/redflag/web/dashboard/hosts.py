"""What a host says of itself, in words: facts, and what of it is used up. Whatever it says is taken as no more than a claim: what is
no number is no bar, and what has no word here is shown under the host's own name for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from redflag import words

_GIB = 1024**3
_LONGEST = 300
# What is told in a place of its own, or of no use to people
_ELSEWHERE = frozenset({
    "cpu_model", "cpu_cores", "cpu_threads", "cpu_percent", "memory_total", "memory_percent", "memory_used_gb", "memory_total_gb",
    "disk_total", "disk_used", "disk_percent", "disk_used_gb", "disk_total_gb", "ip_address", "processes", "uptime", "version",
    "os_version", "hostname",
})  # fmt: skip
_WORDS = {
    "boot_id": "Boot",
    "kernel": "Kernel",
    "python": "Python",
    "implementation": "Agent written in",
    "installation_time": "Agent installed",
}


@dataclass(frozen=True)
class Bar:
    """How much of something is used: `share` of 100, and the amounts in words."""

    name: str
    share: float
    words: str

    @property
    def urgency(self) -> str:
        """How little is left, as bars are coloured."""
        return "high" if self.share >= 90 else "medium" if self.share >= 75 else "low"


@dataclass(frozen=True)
class Host:
    """What a host says of itself."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)


def describe(metadata: dict[str, Any], metrics: dict[str, Any]) -> Host:
    """What a host said when it last told what it is, and at its last check-in."""
    said = metadata | metrics
    facts = [
        ("Processor", _processor(said)),
        ("Address it names", _text(said.get("ip_address"))),
        ("Up for", _text(said.get("uptime"))),
        ("Processes", _count(said.get("processes"))),
    ]
    memory = _bar("Memory", said, "memory", _number(said.get("memory_total")), None)
    disk = _bar("Disk", said, "disk", _number(said.get("disk_total")), _number(said.get("disk_used")))
    others = [
        (_WORDS.get(name, name.replace("_", " ").capitalize())[:100], _text(value))
        for name, value in sorted(metadata.items())
        if name not in _ELSEWHERE and isinstance(value, str | int | float) and _text(value)
    ]
    return Host([fact for fact in facts if fact[1]], [bar for bar in (memory, disk) if bar], others[:50])


def _bar(name: str, said: dict[str, Any], what: str, total: float | None, used: float | None) -> Bar | None:
    """A bar from the last check-in, else from what the host told of itself before."""
    used_gb, total_gb = _number(said.get(f"{what}_used_gb")), _number(said.get(f"{what}_total_gb"))
    if used_gb is not None and total_gb:
        used, total = used_gb * _GIB, total_gb * _GIB
    share = _number(said.get(f"{what}_percent"))
    if used is not None and total:
        share = 100 * used / total
    if share is None:
        return Bar(name, 0, f"{words.size(int(total))} in all, use unknown") if total else None
    share = min(100.0, max(0.0, share))
    amounts = f" ({words.size(int(used))} of {words.size(int(total))})" if used is not None and total else ""
    return Bar(name, share, f"{share:.0f} % used{amounts}")


def _processor(said: dict[str, Any]) -> str:
    cores, threads = _count(said.get("cpu_cores")), _count(said.get("cpu_threads"))
    told = [_text(said.get("cpu_model"))]
    if cores:
        told.append(f"{cores} cores" if cores != "1" else "1 core")
    if threads and threads != cores:
        told.append(f"{threads} threads")
    return ", ".join(part for part in told if part)


def _number(value: Any) -> float | None:
    """A number that is not negative and finite, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18 or math.isnan(value):
        return None
    return float(value)


def _count(value: Any) -> str:
    number = _number(value)
    return f"{int(number):,}" if number else ""


def _text(value: Any) -> str:
    return str(value).strip()[:_LONGEST] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
