"""The benchmarks of the goals: `python tests/bench/run.py [--quick] [--only NAME …] [--to FILE] [--merge] [--write-docs]`.

Each subject makes what it needs in a PostgreSQL that is thrown away. Every figure is printed as it is found, with its goal, its ratio
to what the same machine did in the same run without our part, and who spent the processor on it. All of them go to results.json.
A figure that misses its goal is reported as it is; the exit code is 0 all the same, or 1 with --strict.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

import uvloop  # noqa: E402

from bench import (  # noqa: E402
    check_ins,
    dashboard,
    deadlines,
    deliveries,
    held,
    history,
    open_loop,
    pages,
    record,
    reports,
    results,
    scans,
)  # fmt: skip
from bench.harness import NOISY_LOAD, ROOT, Bench  # noqa: E402
from redflag.database.embedded import EmbeddedDatabase  # noqa: E402

FILES = 80_000
SUBJECTS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (check_ins, deliveries, open_loop, held, reports, scans, deadlines, record, history, dashboard)
}


def main() -> None:
    """One run."""
    given = _arguments()
    if given.pages:
        pages.write(results.read(given.to), ROOT)
        return
    _raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="redflag-bench-") as folder:
        postgres = EmbeddedDatabase(Path(folder) / "db")
        postgres.init()
        postgres.start()
        try:
            postgres.create_roles()
            run = _measure(Bench(postgres, Path(folder), quick=given.quick), given.only or list(SUBJECTS))
        finally:
            postgres.stop("immediate")
    if given.merge and given.to.exists():
        run = results.merge(results.read(given.to), run)
    results.write(run, given.to)
    print(f"{len(run.results)} figures in {run.seconds:.0f} s, written to {given.to}")
    if given.write_docs:
        pages.write(run, ROOT)
    missed = [one.name for one in run.results if one.ok is False]
    if missed:
        print(f"Missed: {', '.join(missed)}")
    sys.exit(1 if missed and given.strict else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        default=os.environ.get("QUICK", "") not in {"", "0"},
        help="a short version of all",
    )
    parser.add_argument("--only", action="append", choices=list(SUBJECTS), help="this subject; may be given again")
    parser.add_argument(
        "--to", type=Path, default=ROOT / "build" / "bench" / "results.json", help="where the results go"
    )
    parser.add_argument("--merge", action="store_true", help="keep what the file holds of other subjects")
    parser.add_argument("--write-docs", action="store_true", help="also write the pages and plots in docs")
    parser.add_argument("--pages", action="store_true", help="measure nothing; write the pages and plots from the file")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    return parser.parse_args()


def _raise_file_limit() -> None:
    """Enough files for 66,000 connections, here and in what is started from here; as many as there may be if that is too much."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((FILES, max(hard, FILES)), (hard, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return


def _measure(bench: Bench, subjects: list[str]) -> results.Run:
    facts = bench.run.machine
    load = facts["load_at_start"]
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    if load > NOISY_LOAD:
        print(f"The machine is busy (load {load}): figures will be worse than they are on an idle one.", flush=True)
    began = time.perf_counter()

    async def measure() -> None:
        async with bench.database("facts") as database:
            facts["postgresql"] = await database.superuser.fetchval("SHOW server_version")
        for name in subjects:
            print(f"{name}", flush=True)
            since = time.perf_counter()
            try:
                await SUBJECTS[name].run(bench)
            except Exception as error:  # the other subjects are worth having all the same
                print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
                said = f"{name}: {type(error).__name__}: {error}"[:300]
                bench.run.results.append(
                    results.Result(name=f"{name}.failed", title=said, value=1, unit="", goal=0, better="less")
                )
            bench.say(f"{name} took {time.perf_counter() - since:.0f} s")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure())
    bench.run.seconds = round(time.perf_counter() - began, 1)
    return bench.run


if __name__ == "__main__":
    main()
