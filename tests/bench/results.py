"""What a benchmark found, as it is written to results.json and read from it: one shape for the runner, the pages and the model."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """What the same machine did in the same run without our part: the trivial endpoint, or the bare statement."""

    name: str
    value: float


class Result(msgspec.Struct, kw_only=True):
    """One figure. `goal` None: stated, not judged. `limits`: the first is the one that `ratio` is about.

    `costs`: microseconds of processor for each request or record, by who spent them. `facts`: further figures, by name.
    """

    name: str
    title: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["more", "less"] = "more"
    limits: list[Limit] = []
    costs: dict[str, float] = {}
    facts: dict[str, Any] = {}
    ok: bool | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        self.value = rounded(self.value)
        self.costs = {name: rounded(value) for name, value in self.costs.items()}
        self.facts = {name: rounded(value) if isinstance(value, float) else value for name, value in self.facts.items()}
        self.limits = [Limit(one.name, rounded(one.value)) for one in self.limits]
        if self.goal is not None:
            self.ok = self.value >= self.goal if self.better == "more" else self.value <= self.goal
        if self.limits and self.limits[0].value:
            self.ratio = rounded(self.value / self.limits[0].value)

    @property
    def goal_text(self) -> str:
        """The goal as people write it."""
        if self.goal is None:
            return "stated"
        return f"{'≥' if self.better == 'more' else '≤'} {spelt(self.goal)} {self.unit}".strip()


class Curve(msgspec.Struct, kw_only=True):
    """Lines of one plot: by name, points (x, y)."""

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False
    marks: dict[str, float] = {}  # horizontal or vertical lines: "y: goal 250 ms" → 250


class Run(msgspec.Struct, kw_only=True):
    """All of one run."""

    machine: dict[str, Any]
    quick: bool
    began_at: datetime.datetime
    seconds: float = 0.0
    results: list[Result] = []
    curves: dict[str, Curve] = {}
    scale: dict[str, Any] = {}  # what `scale` calculated from the others

    def of(self, name: str) -> Result:
        """A result by its name. Raises KeyError."""
        for one in self.results:
            if one.name == name:
                return one
        raise KeyError(name)


def read(path: Path) -> Run:
    """A run that was written."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def write(run: Run, path: Path) -> None:
    """Writes a run, for programs and for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def merge(old: Run, new: Run) -> Run:
    """The old run with what the new one measured again; the machine and its load are the new one's."""
    again = {one.name for one in new.results}
    kept = [one for one in old.results if one.name not in again]
    return Run(
        machine=new.machine,
        quick=old.quick and new.quick,
        began_at=new.began_at,
        seconds=old.seconds + new.seconds,
        results=kept + new.results,
        curves=old.curves | new.curves,
    )


def rounded(value: float) -> float:
    """Four significant digits: no figure here is better than that."""
    return float(f"{value:.4g}")


def spelt(value: float) -> str:
    """A number as people read it."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
