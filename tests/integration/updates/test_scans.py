"""What scans say, and what they leave alone."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import asyncpg
import pytest

from redflag.audit.actor import agent, user
from redflag.errors import InvalidInput
from redflag.updates import approvals, inventory


async def versions_of_rows(machine: Any) -> list[Any]:
    """Where each row lies: a row that was written lies elsewhere."""
    return await machine.pool.fetch(
        "SELECT id, ctid::text, xmin::text FROM updates WHERE agent_id = $1 ORDER BY id", machine.id
    )


async def test_a_bad_item_is_told_recorded_and_does_not_lose_the_others(machine: Any, package: Any) -> None:
    command_id = await machine.enqueue_scan()
    items = [package("curl"), {"package_name": 7}, package("vim"), "nonsense", package("git", size_bytes=-5)]
    reported = await machine.report(items, command_id=command_id)
    assert reported.count == 2
    assert [one["index"] for one in reported.rejected] == [1, 3, 4]
    assert [await machine.status(name) for name in ("curl", "vim")] == ["pending", "pending"]
    records = await machine.pool.fetch(
        "SELECT * FROM update_logs WHERE agent_id = $1 AND action = 'scan_items_rejected'", machine.id
    )
    assert len(records) == 1
    assert (records[0]["kind"], records[0]["actor"], records[0]["result"]) == (
        "service",
        f"agent:{machine.id}",
        "partial",
    )
    assert records[0]["command_id"] == command_id
    assert records[0]["metadata"]["count"] == 3
    assert records[0]["metadata"]["reasons"] == reported.rejected


async def test_only_twenty_reasons_are_recorded(machine: Any) -> None:
    assert len((await machine.report([None] * 50)).rejected) == 50
    metadata = await machine.pool.fetchval(
        "SELECT metadata FROM update_logs WHERE agent_id = $1 AND action = 'scan_items_rejected'", machine.id
    )
    assert (metadata["count"], len(metadata["reasons"])) == (50, 20)


async def test_a_known_package_whose_item_is_bad_is_not_taken_for_installed(machine: Any, package: Any) -> None:
    await machine.report([package("curl"), package("vim")])
    await machine.report([package("curl", size_bytes=-1), package("vim")])
    assert await machine.status("curl") == "pending"
    await machine.report([package("vim"), {"package_type": "apt"}], "apt")
    assert await machine.status("curl") == "pending"
    await machine.report([package("vim")], "apt")
    assert await machine.status("curl") == "installed"


async def test_more_items_than_a_report_may_have_are_refused(machine: Any, package: Any) -> None:
    with pytest.raises(InvalidInput):
        await machine.report([package("curl")] * 20_001)


async def test_all_that_an_item_says_is_kept(machine: Any, package: Any) -> None:
    told = package(
        "KB5034441", "", package_type="windows_update", severity="Sehr dringend", cve_list=["CVE-2026-1", "CVE-2026-2"],
        kb_id="KB5034441", size_bytes=2**40, package_description="Sicherheitsupdate", metadata={"a": [1, {"b": None}]},
    )  # fmt: skip
    await machine.report([told])
    row = await machine.row("KB5034441")
    assert (row["severity"], row["available_version"], row["kb_id"], row["size_bytes"]) == (
        "unknown",
        "",
        "KB5034441",
        2**40,
    )
    assert row["cve_list"] == ["CVE-2026-1", "CVE-2026-2"]
    assert row["metadata"] == {"a": [1, {"b": None}], "reported_severity": "Sehr dringend"}
    assert row["description"] == "Sicherheitsupdate"


async def test_the_same_report_again_writes_no_row(machine: Any, package: Any) -> None:
    items = [package(f"p{number}", cve_list=["CVE-2026-1"]) for number in range(50)]
    await machine.report(items)
    before = await versions_of_rows(machine)
    await machine.report(items)
    await machine.report(list(reversed(items)), "apt")
    assert await versions_of_rows(machine) == before
    assert len(await machine.history("p1")) == 1


async def test_a_change_writes_the_row_that_changed_alone(machine: Any, package: Any) -> None:
    items = [package(f"p{number}") for number in range(50)]
    await machine.report(items)
    before = {row["id"]: row["ctid"] for row in await versions_of_rows(machine)}
    items[7] = package("p7", "2.1")
    await machine.report(items)
    after = {row["id"]: row["ctid"] for row in await versions_of_rows(machine)}
    assert [one for one in before if before[one] != after[one]] == [(await machine.row("p7"))["id"]]
    assert await machine.history("p7") == [("available", "1.0", "2.0"), ("available", "1.0", "2.1")]


async def test_when_a_package_was_last_seen_is_kept_to_the_hour(machine: Any, package: Any, owner: Any) -> None:
    await machine.report([package("curl")])
    await owner.execute(
        "UPDATE updates SET last_seen_at = now() - interval '61 minutes' WHERE agent_id = $1", machine.id
    )
    await machine.report([package("curl")])
    age = await machine.pool.fetchval("SELECT now() - last_seen_at FROM updates WHERE agent_id = $1", machine.id)
    assert age.total_seconds() < 60


async def test_a_rescan_keeps_what_a_person_decided(machine: Any, package: Any) -> None:
    names = ["yes", "no", "examined"]
    await machine.report([package(name) for name in names])
    await machine.decide(approvals.approve, "yes")
    await machine.decide(approvals.reject, "no")
    await machine.decide(approvals.dry_run, "examined")
    await machine.scan([package(name, "3.0") for name in names])
    assert [await machine.status(name) for name in names] == ["approved", "rejected", "dependencies"]
    row = await machine.row("yes")
    assert (row["approved_version"], row["available_version"]) == ("2.0", "3.0")
    # Absent: the dry run is still under way, and a refusal outlives its reason
    await machine.scan([], "apt")
    assert [await machine.status(name) for name in names] == ["installed", "rejected", "dependencies"]
    assert (await machine.row("yes"))["reason"] == "no longer offered: up to date or removed"


async def test_what_was_examined_is_examined_again_for_another_version(machine: Any, package: Any) -> None:
    await machine.report([package("curl")])
    await machine.decide(approvals.approve, "curl")
    await machine.tell_dependencies("curl", ["libcurl"])
    await machine.report([package("curl", "3.0")])
    assert (await machine.row("curl"))["dependencies"] is None


async def test_an_approval_is_spent_when_somebody_installs_that_version_by_hand(machine: Any, package: Any) -> None:
    await machine.report([package("curl"), package("vim")])
    await machine.decide(approvals.approve, "curl", "vim")
    await machine.report([package("curl", "3.0", current="2.0"), package("vim", "2.0", current="2.0")])
    row = await machine.row("curl")
    assert (row["status"], row["approved_version"]) == ("pending", None)
    assert await machine.status("vim") == "installed"


async def test_without_types_only_those_that_are_listed_are_complete(machine: Any, package: Any) -> None:
    await machine.report([package("curl"), package("vim"), package("nginx", package_type="docker_image")])
    await machine.report([package("curl")])
    assert [await machine.status(name) for name in ("curl", "vim", "nginx")] == ["pending", "installed", "pending"]
    await machine.report([])
    assert await machine.status("nginx") == "pending"
    await machine.report([], "docker_image")
    assert await machine.status("nginx") == "installed"


async def test_a_scan_changes_the_updates_of_its_agent_alone(new_machine: Any, package: Any) -> None:
    one, two = await new_machine(), await new_machine()
    await one.report([package("curl")])
    await two.report([package("curl")])
    await one.report([], "apt")
    assert (await one.status("curl"), await two.status("curl")) == ("installed", "pending")


async def test_an_installation_whose_end_nobody_told_is_settled_by_a_later_scan(
    machine: Any, package: Any, owner: Any
) -> None:
    await machine.report([package("curl"), package("vim")])
    await owner.execute(
        "UPDATE updates SET status = 'installing', status_at = now() - interval '1 day' WHERE agent_id = $1", machine.id
    )
    await machine.scan([package("curl")])
    assert (await machine.status("curl"), await machine.status("vim")) == ("failed", "installed")


async def test_a_hundred_reports_at_once_lose_nothing(new_machine: Any, package: Any) -> None:
    machines = [await new_machine() for _ in range(10)]

    def items(number: int) -> list[Any]:
        found = [package(f"p{one}", f"{number}.{one}") for one in range(40)] + [
            package(f"only-{number}", package_type="dnf")
        ]
        return found if number % 2 else found[::-1]

    await asyncio.gather(*(machine.report(items(number), "apt") for number in range(10) for machine in machines))
    for machine in machines:
        names = {
            row["package_name"]
            for row in await machine.pool.fetch("SELECT package_name FROM updates WHERE agent_id = $1", machine.id)
        }
        assert names == {f"p{one}" for one in range(40)} | {f"only-{number}" for number in range(10)}


async def test_reports_and_decisions_on_the_same_updates_at_once_never_deadlock(
    machine: Any, package: Any, pool: Any
) -> None:
    names = [f"p{number}" for number in range(60)]
    await machine.report([package(name) for name in names])
    ids = [(await machine.row(name))["id"] for name in names]

    async def decide(round_: int) -> None:
        async with pool.acquire() as connection:
            order = ids if round_ % 2 else ids[::-1]
            await approvals.approve(connection, user("ada"), order)
            await approvals.reject(connection, user("ada"), order)

    async def scan(round_: int) -> None:
        await machine.report([package(name, f"2.{round_}") for name in (names if round_ % 2 else names[::-1])], "apt")

    await asyncio.gather(*(work(round_) for round_ in range(25) for work in (decide, scan)))
    assert {await machine.status(name) for name in names} == {"rejected"}


async def test_a_report_that_waits_for_a_decision_sees_it(machine: Any, package: Any, pool: Any) -> None:
    await machine.report([package("curl"), package("vim")])
    row = await machine.row("curl")
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await approvals.approve(connection, user("ada"), [row["id"]])
        await approvals.install(connection, user("ada"), [row["id"]])
        scan = asyncio.create_task(machine.report([package("vim")], "apt"))
        await _until_somebody_waits_for(pool, await connection.fetchval("SELECT pg_backend_pid()"))
        await transaction.commit()
    await scan
    # Its dry run was enqueued after the scan had begun, so the scan says nothing about it
    assert await machine.status("curl") == "dependencies"


async def test_a_report_that_meets_a_deadlock_is_tried_again(machine: Any, package: Any, pool: Any) -> None:
    await machine.report([package("a"), package("b")])
    first, second = sorted([(await machine.row("a"))["id"], (await machine.row("b"))["id"]])
    async with pool.acquire() as connection:
        try:
            async with connection.transaction():
                await connection.fetch("SELECT FROM updates WHERE id = $1 FOR UPDATE", second)
                scan = asyncio.create_task(machine.report([package("a", "3.0"), package("b", "3.0")]))
                await _until_somebody_waits_for(pool, await connection.fetchval("SELECT pg_backend_pid()"))
                await connection.fetch("SELECT FROM updates WHERE id = $1 FOR UPDATE", first)
        except asyncpg.DeadlockDetectedError:
            pass
    assert (await scan).count == 2
    assert (await machine.row("a"))["available_version"] == "3.0"


async def test_fifteen_hundred_unchanged_packages_cost_little(
    machine: Any, package: Any, pool: Any, capsys: Any
) -> None:
    items = [
        package(
            f"package-{number:04}",
            f"1.{number}-2",
            current=f"1.{number}-1",
            package_description=f"Something useful {number}",
            size_bytes=number,
        )
        for number in range(1500)
    ]
    began = time.perf_counter()
    await machine.report(items, "apt")
    first = time.perf_counter() - began
    before = await versions_of_rows(machine)
    spent = []
    async with pool.acquire() as connection:
        for _ in range(20):
            began = time.perf_counter()
            scan = inventory.examine(items, ["apt"])
            examined = time.perf_counter()
            await inventory._take(connection, agent(machine.id), machine.id, scan, uuid.uuid4())
            spent.append((examined - began, time.perf_counter() - examined))
    assert await versions_of_rows(machine) == before
    examining, taking = (sorted(one[part] * 1000 for one in spent) for part in (0, 1))
    with capsys.disabled():
        print(
            f"\n1500 packages: new {first * 1000:.0f} ms; unchanged: examined in {examining[10]:.1f} ms, "
            f"database {taking[10]:.1f} ms (median of 20, worst {taking[-1]:.1f})"
        )
    assert taking[10] < 100


async def _until_somebody_waits_for(pool: Any, pid: int) -> None:
    for _ in range(1000):
        if await pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))", pid
        ):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")
