"""Updates as people look at them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from redflag.audit.actor import user
from redflag.errors import InvalidInput, NotFound
from redflag.fleet import agents
from redflag.updates import approvals, listing, packages
from redflag.updates.packages import Filter
from redflag.updates.states import OPEN, Severity, Status


async def pages(pool: Any, **shown: Any) -> list[dict[str, Any]]:
    """All updates of a filter, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    async with pool.acquire() as connection:
        while True:
            page = await listing.list_updates(connection, cursor=cursor, limit=7, **shown)
            assert len(page["updates"]) <= 7
            found += page["updates"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found


async def test_pages_show_every_update_once_by_name(pool: Any, machine: Any, package: Any) -> None:
    names = [f"p{number:02}" for number in range(30)]
    await machine.report([package(name) for name in reversed(names)])
    assert [one["package_name"] for one in await pages(pool, agent_id=machine.id)] == names


async def test_every_filter_narrows_the_list(pool: Any, machine: Any, package: Any) -> None:
    await machine.report(
        [package("Curl_x", severity="critical"), package("curlyx"), package("vim", package_type="dnf"), package("100%")]
    )
    await machine.decide(approvals.approve, "vim")

    async def names(**shown: Any) -> list[str]:
        return [one["package_name"] for one in await pages(pool, agent_id=machine.id, **shown)]

    assert set(await names(text="URL")) == {"Curl_x", "curlyx"}
    assert await names(text="l_x") == ["Curl_x"]
    assert await names(text="0%") == ["100%"]
    assert await names(package_type="dnf") == ["vim"]
    assert await names(status=Status.APPROVED) == ["vim"]
    assert await names(severity=Severity.CRITICAL) == ["Curl_x"]
    assert await names(text="x", severity=Severity.CRITICAL, status=Status.APPROVED) == []


async def test_a_cursor_of_somebody_else_is_refused(pool: Any) -> None:
    async with pool.acquire() as connection:
        with pytest.raises(InvalidInput):
            await listing.list_updates(connection, cursor="nonsense")


async def test_packages_are_grouped_across_the_fleet(pool: Any, new_machine: Any, package: Any) -> None:
    name = f"pkg-{uuid.uuid4()}"
    machines = [await new_machine() for _ in range(4)]
    for number, machine in enumerate(machines):
        await machine.report([package(name, "2.0" if number else "3.0", severity="critical" if number == 1 else "low")])
    await machines[0].decide(approvals.approve, name)
    async with pool.acquire() as connection:
        packages = await listing.list_packages(connection, text=name.upper())
        assert packages == [
            {"package_name": name, "package_type": "apt", "agents": 4, "by_status": {"approved": 1, "pending": 3}, "severity": "critical",
             "versions": ["2.0", "3.0"], "cve_list": []}
        ]  # fmt: skip
        assert await listing.list_packages(connection, text=name, after=(name, "apt")) == []
        assert await listing.list_packages(connection, text=name, package_type="dnf") == []


async def test_updates_of_an_agent_that_was_removed_are_in_no_list_and_come_back_with_it(
    pool: Any, new_machine: Any, package: Any, owner: Any
) -> None:
    name = f"pkg-{uuid.uuid4()}"
    gone, stays = await new_machine(), await new_machine()
    for machine in (gone, stays):
        await machine.report([package(name)])
    await owner.execute("UPDATE agents SET removed_at = now() WHERE id = $1", gone.id)
    async with pool.acquire() as connection:
        assert [one["agents"] for one in await listing.list_packages(connection, text=name)] == [1]
        assert await packages.matching(connection, Filter(text=name), limit=10) == [(await stays.row(name))["id"]]
    assert [one["agent_id"] for one in await pages(pool, text=name)] == [stays.id]
    await owner.execute("UPDATE agents SET removed_at = NULL WHERE id = $1", gone.id)
    assert {one["agent_id"] for one in await pages(pool, text=name)} == {gone.id, stays.id}


async def test_counts_stop_where_they_are_told_to_and_say_so(pool: Any, new_machine: Any, package: Any) -> None:
    name = f"pkg-{uuid.uuid4()}"
    for number in range(4):
        await (await new_machine()).report([package(name, f"{number}.0", cve_list=[f"CVE-{number}"])])
    async with pool.acquire() as connection:
        (some,) = await packages.summaries(connection, [(name, "apt")], most=2, sample=3)
        (exact,) = await packages.summaries(connection, [(name, "apt")])
    assert (some["agents"], some["capped"], len(some["versions"]), len(some["cve_list"])) == (2, {Status.PENDING}, 3, 3)
    assert (exact["agents"], exact["capped"], len(exact["versions"]), len(exact["cve_list"])) == (4, set(), 4, 4)


async def test_pages_across_the_fleet_go_by_package_and_agent_whatever_their_state(
    pool: Any, new_machine: Any, package: Any
) -> None:
    mark = uuid.uuid4().hex
    machines = [await new_machine() for _ in range(5)]
    for machine in machines:
        await machine.report([package(f"{mark}-{n}", severity=list(Severity)[n]) for n in range(5)])
    await machines[2].decide(approvals.approve, *(f"{mark}-{n}" for n in range(3)))
    shown = await pages(pool, text=mark)
    keys = [(one["package_name"], one["agent_id"]) for one in shown]
    assert keys == sorted((f"{mark}-{n}", machine.id) for n in range(5) for machine in machines)
    everything = [one["id"] for one in await pages(pool)]
    assert len(everything) == len(set(everything)) >= 25
    approved = await pages(pool, text=mark, status=Status.APPROVED)
    assert [one["package_name"] for one in approved] == [f"{mark}-{n}" for n in range(3)]
    assert [one["package_name"] for one in await pages(pool, text=mark, severity=Severity.CRITICAL)] == [
        f"{mark}-4"
    ] * 5


async def test_one_update_is_shown_with_its_versions(pool: Any, machine: Any, package: Any) -> None:
    await machine.report([package("curl")])
    await machine.report([package("curl", "3.0")])
    async with pool.acquire() as connection:
        shown = await listing.show(connection, (await machine.row("curl"))["id"])
        assert [one["version_to"] for one in shown["versions"]] == ["3.0", "2.0"]
        with pytest.raises(NotFound):
            await listing.show(connection, uuid.uuid4())


async def test_counts_have_every_word_and_severities_of_what_is_open(pool: Any, machine: Any, package: Any) -> None:
    await machine.report([package("curl", severity="critical"), package("vim"), package("git", severity="critical")])
    await machine.decide(approvals.reject, "git")
    async with pool.acquire() as connection:
        counted = await listing.counts(connection, agent_id=machine.id)
        everywhere = await listing.counts(connection)
    assert counted["by_status"] == dict.fromkeys(map(str, Status), 0) | {"pending": 2, "rejected": 1}
    assert counted["by_severity"] == dict.fromkeys(map(str, Severity), 0) | {"critical": 1, "important": 1}
    assert everywhere["by_status"]["rejected"] >= 1


async def test_the_whole_fleet_is_counted_without_what_was_removed(pool: Any, new_machine: Any, package: Any) -> None:
    async with pool.acquire() as connection:
        before = await listing.open_updates(connection)
    stays, goes = await new_machine(), await new_machine()
    for machine in (stays, goes):
        await machine.report([package("curl", severity="critical"), package("vim", severity="low")])
    await stays.decide(approvals.approve, "vim")
    await stays.decide(approvals.install, "vim")
    async with pool.acquire() as connection:
        await agents.remove(connection, user("ada"), goes.id)
        after = await listing.open_updates(connection)
        assert after.of(Status.PENDING)[Severity.CRITICAL] == before.of(Status.PENDING)[Severity.CRITICAL] + 1
        assert sum(after.of(*OPEN).values()) == sum(before.of(*OPEN).values()) + 2
        assert next(iter(after.of(Status.PENDING))) == Severity.CRITICAL
        assert after.to_confirm == before.to_confirm, "its dry run has not answered yet"
    await stays.tell_dependencies("vim", ["libvim"])
    async with pool.acquire() as connection:
        assert (await listing.open_updates(connection)).to_confirm == before.to_confirm + 1
