"""Updates as people look at them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from redflag.errors import InvalidInput, NotFound
from redflag.updates import approvals, listing
from redflag.updates.states import Severity, Status


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
