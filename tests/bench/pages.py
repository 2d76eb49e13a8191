"""docs/reference/benchmarks.md, its plots and docs/explanation/scale.md, written from one results file so that all agree.

python tests/bench/run.py --pages --to docs/reference/benchmarks.json
"""

from __future__ import annotations

from pathlib import Path

from bench import plots, scale
from bench.results import Result, Run, spelt
from bench.results import write as write_results

PAGE = Path("docs/reference/benchmarks.md")
DATA = Path("docs/reference/benchmarks.json")
SCALE = Path("docs/explanation/scale.md")
PLOTS = Path("docs/images")


def write(run: Run, root: Path) -> None:
    """Writes the results, the pages and the plots."""
    run.scale = scale.calculate(run)
    write_results(run, root / DATA)
    for place, text in texts(run).items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)


def texts(run: Run) -> dict[Path, str]:
    """Every file that follows from a run, by its place in the project."""
    drawn = {PLOTS / f"bench-{name}.svg": plots.draw(curve) for name, curve in sorted(run.curves.items())}
    said = scale.texts(run)
    return {
        PAGE: _page(run),
        SCALE: said.page,
        **drawn,
        **{PLOTS / f"bench-{name}.svg": one for name, one in said.plots.items()},
    }


def _page(run: Run) -> str:
    machine = run.machine
    short = " It is a short run (`QUICK=1`): fewer rows and less time than the goals speak of." if run.quick else ""
    busy = (
        f" The machine was busy with other things (load {machine['load_at_start']}), so that the figures are worse than on an idle one."
        if machine["load_at_start"] > 0.5
        else ""
    )
    missed = [one for one in run.results if one.ok is False]
    verdict = (
        "Every goal was reached."
        if not missed
        else f"{len(missed)} of {sum(one.ok is not None for one in run.results)} goals were missed: "
        + ", ".join(f"`{one.name}`" for one in missed) + "."
    )  # fmt: skip
    lines = [
        "# Benchmarks",
        "",
        "<!-- Written by `python tests/bench/run.py --pages --to docs/reference/benchmarks.json`; change it there. -->",
        "",
        f"`make bench` measures all of this on a database that is thrown away; `make bench QUICK=1` measures a short version."
        f" This run is of {run.began_at:%Y-%m-%d} and took {run.seconds / 60:.0f} minutes.{short}{busy} {verdict}",
        "",
        "Server, PostgreSQL and load generator share the machine. Commits are durable, and the settings are those of an installation.",
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in machine.items()),
        "",
        "## Figures",
        "The ratio is to what the same machine did in the same run without our part: a trivial endpoint of the same HTTP server, or the"
        " same statement straight from asyncpg.",
        "",
        "| what | goal | figure | | ratio | to |",
        "|---|---|---|---|---|---|",
        *(_row(one) for one in run.results),
        "",
        "## Where the time goes",
        "Microseconds of processor for each request or record, by who spent them, and bytes of write-ahead log.",
        "",
        "| what | server | PostgreSQL | load generator | WAL, bytes |",
        "|---|---|---|---|---|",
        *(_costs(one) for one in run.results if one.costs),
        "",
        "## Plots",
        *(f"![{curve.title}](../images/bench-{name}.svg)\n" for name, curve in sorted(run.curves.items())),
        "## What else was seen",
        *(_facts(one) for one in run.results if one.facts),
        "",
        "`tests/bench/bench_import.py` measures the import of a long history by itself. What several servers carry is calculated in"
        " [docs/explanation/scale.md](../explanation/scale.md).",
        "",
    ]
    return "\n".join(lines)


def _row(one: Result) -> str:
    judged = {True: "reached", False: "**missed**", None: ""}[one.ok]
    ratios = [
        (f"{one.value / limit.value:.2f}", f"{limit.name} ({spelt(limit.value)})")
        for limit in one.limits
        if limit.value
    ]
    ratio, to = ("<br>".join(column) for column in zip(*ratios, strict=True)) if ratios else ("", "")
    return f"| {one.title} | {one.goal_text} | {f'{spelt(one.value)} {one.unit}'.strip()} | {judged} | {ratio} | {to} |"


def _costs(one: Result) -> str:
    cells = [
        spelt(one.costs[name]) if one.costs.get(name) else "" for name in ("server", "postgres", "load", "wal_bytes")
    ]
    return f"| {one.title} | " + " | ".join(cells) + " |"


def _facts(one: Result) -> str:
    said = "; ".join(
        f"{name} {spelt(value) if isinstance(value, int | float) and not isinstance(value, bool) else value}"
        for name, value in one.facts.items()
        if value not in ("", None)
    )
    return f"- {one.title}: {said}"
