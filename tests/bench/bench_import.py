"""How long the import of a long history takes: `python tests/bench/bench_import.py [--rows 1000000]`.

Makes a database of RedFlag's shape and one of this project's in an embedded PostgreSQL of its own, with the settings that an
installation has, imports the one into the other, and prints one line, and where the time went.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

from compat.sources import SHAPE, definitions, make_source  # noqa: E402
from databases import make_database  # noqa: E402
from redflag.database.embedded import EmbeddedDatabase  # noqa: E402
from redflag.imports import redflag as importer  # noqa: E402

AGENTS = 1000

# One record in fifty has the look of a secret in its output
FILL = """
INSERT INTO agents (id, hostname, os_type, agent_version, last_seen, created_at)
SELECT ('00000000-0000-4000-8000-' || lpad(g::text, 12, '0'))::uuid, 'host-' || g, 'linux', '0.1.18', now(), now() - interval '1 year'
FROM generate_series(1, {agents}) g;
INSERT INTO update_logs (id, agent_id, action, result, stdout, stderr, exit_code, duration_seconds, executed_at)
SELECT gen_random_uuid(), ('00000000-0000-4000-8000-' || lpad((1 + g % {agents})::text, 12, '0'))::uuid,
  (ARRAY['scan_updates', 'dry_run', 'install', 'update'])[1 + g % 4], CASE WHEN g % 10 = 0 THEN 'failed' ELSE 'success' END,
  'Reading lists... Building dependency tree... ' || g || ' packages upgraded, 0 newly installed, 0 to remove' || chr(10)
    || repeat('Setting up libexample (1.2.3-4) ...' || chr(10), 3)
    || CASE WHEN g % 50 = 0 THEN 'export TOKEN=abcdef' ELSE '' END,
  '', g % 2, g % 90, now() - interval '1 year' + g * interval '1 year' / {rows}
FROM generate_series(1, {rows}) g;
ANALYZE;
"""


async def measure(postgres: EmbeddedDatabase, url: str) -> tuple[importer.Outcome, float, list[tuple[str, float]]]:
    """Imports, and notes when each step began."""
    await make_database(postgres, "bench_target")
    began = time.perf_counter()
    steps: list[tuple[str, float]] = []

    def tell(_done: float, what: str) -> None:
        step = what.split(":", 1)[0]
        if step and (not steps or steps[-1][0] != step):
            steps.append((step, time.perf_counter() - began))

    outcome = await importer.run(postgres.url("redflag_owner", "bench_target"), url, tell=tell)
    return outcome, time.perf_counter() - began, steps


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="records of history")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="redflag-bench-") as folder:
        postgres = EmbeddedDatabase(Path(folder) / "db")
        postgres.init()
        postgres.start()
        try:
            postgres.create_roles()
            url = make_source(postgres, "bench_source", definitions(SHAPE) + FILL.format(rows=rows, agents=AGENTS))
            outcome, seconds, steps = asyncio.run(measure(postgres, url))
        finally:
            postgres.stop("immediate")
    (history,) = [line for line in outcome.lines if line.table == "update_logs"]
    assert history.imported == rows, history
    load = os.getloadavg()[0]
    print(
        f"import of {rows:,} records of history: {seconds:.1f} s, {rows / seconds:,.0f} rows/s"
        f" ({os.cpu_count()} cores, load {load:.1f} at the end; {outcome.cleaned:,} redacted)"
    )
    ends = [at for _, at in steps[1:]] + [seconds]
    for (step, at), end in zip(steps, ends, strict=True):
        if end - at >= 0.5:
            print(f"  {end - at:5.1f} s  {step}")


if __name__ == "__main__":
    main()
