"""Scan reports of 1,500 packages: one that says nothing new, and a hundred hosts at once."""

from __future__ import annotations

import json

from bench import fill, load
from bench.harness import Bench, trivial_server
from bench.results import Limit, Result

NAME = "scans"
PACKAGES = 1500


async def run(bench: Bench) -> None:
    """Every host reports once, all at once; then one of them again and again, nothing changed; then all at once again."""
    hosts, times = bench.of((20, 20), (100, 200))
    body = _body()
    async with bench.database(NAME) as database:
        await fill.agents(database.superuser, 1000)
        all_at_once = [load.request(number, "updates", body) for number in range(1, hosts + 1)]
        alone = [load.request(1, "updates", body)] * times
        async with trivial_server(bench) as url:
            trivial = await load.requests(url, alone, concurrency=1)
        async with database.server() as server:
            first = await load.requests(server.url, all_at_once, concurrency=hosts)
            kept = await database.superuser.fetchval("SELECT count(*) FROM updates")
            await database.superuser.execute("VACUUM (ANALYZE) updates")
            unchanged = await load.requests(
                server.url, alone, concurrency=1, measured=lambda: database.measured(server)
            )
            again = await load.requests(server.url, all_at_once, concurrency=hosts)
        deadlocks = await database.superuser.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        kept_after = await database.superuser.fetchval("SELECT count(*) FROM updates")
    bench.add(
        Result(
            name="scans.unchanged", title=f"scan report of {PACKAGES:,} packages, nothing changed, median",
            value=unchanged.p50, unit="ms", goal=15.0, better="less",
            limits=[Limit("the trivial endpoint with the same body", trivial.p50)], costs=unchanged.used.each(unchanged.count),
            facts={"p99 ms": unchanged.p99, "worst ms": unchanged.worst, "reports": unchanged.count,
                   "body in bytes": len(body), "errors": unchanged.errors},
        )
    )  # fmt: skip
    lost = (hosts * PACKAGES - kept) + (hosts * PACKAGES - kept_after)
    bench.add(
        Result(
            name="scans.at_once", title=f"{hosts} such reports at once, first seen and unchanged: packages lost, errors and deadlocks",
            value=lost + first.errors + again.errors + deadlocks, unit="", goal=0.0, better="less",
            facts={"packages": kept, "first seen: all after s": first.worst / 1000, "unchanged: all after s": again.worst / 1000,
                   "deadlocks": deadlocks, "failures": first.failures + again.failures},
        )
    )  # fmt: skip


def _body() -> bytes:
    updates = [
        {
            "package_type": "apt",
            "package_name": f"libexample{number}-dev",
            "package_description": f"development files of example {number}, as Debian describes them",
            "current_version": f"1.{number}.0-2+deb12u6",
            "available_version": f"1.{number}.0-2+deb12u7",
            "severity": ("low", "moderate", "important", "critical")[number % 4],
            "cve_list": [f"CVE-2026-{number:05d}"] if number % 10 == 0 else [],
            "repository_source": "bookworm-security",
            "size_bytes": 100_000 + number,
            "metadata": {"architecture": "amd64"},
        }
        for number in range(PACKAGES)
    ]
    return json.dumps({"updates": updates, "package_types": ["apt"]}).encode()
