"""A scan that says nothing new is passed over, and never one that would say something."""

from __future__ import annotations

from typing import Any

import pytest

from redflag.audit import redaction
from redflag.errors import NotFound
from redflag.fleet import agents
from redflag.updates import approvals, unchanged
from redflag.updates.states import Status


async def is_known(machine: Any, items: list[Any], *types: str) -> bool:
    """Whether this scan would be passed over now."""
    scan = unchanged.digest(redaction.encode(items), list(types))
    return await unchanged.items(machine.pool, machine.id, scan) is not None


async def settled(machine: Any, items: list[Any], *types: str) -> None:
    """Reports a scan until it is one that says nothing new."""
    for _ in range(2):
        await machine.report(items, *types)
    assert await is_known(machine, items, *types)


async def rows(machine: Any) -> list[Any]:
    """The machine's updates, but for what is another in every row."""
    return [
        tuple(row)
        for row in await machine.pool.fetch(
            "SELECT package_name, status, reason, current_version, available_version, approved_version, command_id IS NULL"
            " FROM updates WHERE agent_id = $1 ORDER BY package_name",
            machine.id,
        )
    ]


async def test_a_scan_is_known_once_it_was_taken_and_touched_nothing(machine: Any, package: Any) -> None:
    items = [package("curl"), package("vim")]
    first = await machine.report(items, "apt")
    assert not await is_known(machine, items, "apt")
    second = await machine.report(items, "apt")
    assert await is_known(machine, items, "apt")
    assert first == second == await machine.report(items, "apt")
    assert not await is_known(machine, items)
    assert not await is_known(machine, [*items, package("git")], "apt")
    assert not await is_known(machine, [package("curl"), package("vim", "2.1")], "apt")


async def test_scans_of_several_types_are_known_side_by_side_and_only_so_many(machine: Any, package: Any) -> None:
    deb, image = [package("curl")], [package("nginx", package_type="docker_image")]
    await machine.report(deb, "apt")
    await machine.report(image, "docker_image")
    await settled(machine, deb, "apt")
    await settled(machine, image, "docker_image")
    assert await is_known(machine, deb, "apt")
    for number in range(20):
        await machine.report(deb, "apt", f"other{number}")
    assert await machine.pool.fetchval("SELECT count(*) FROM update_scans WHERE agent_id = $1", machine.id) <= 8


async def test_a_scan_with_a_bad_item_is_taken_in_full_every_time(machine: Any, package: Any) -> None:
    items = [package("curl"), {"package_name": 7}]
    for _ in range(3):
        assert len((await machine.report(items, "apt")).rejected) == 1
    assert not await is_known(machine, items, "apt")


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("status", list(Status))
async def test_whatever_state_an_update_is_brought_to_the_scan_has_the_effect_it_would_have_had(
    new_machine: Any, package: Any, owner: Any, status: Status, listed: bool
) -> None:
    found = []
    for remembers in (True, False):
        machine = await new_machine()
        await machine.report([package("curl"), package("vim"), package("git")], "apt")
        items = [package("curl"), package("vim")]
        await settled(machine, items, "apt")
        # As a person with psql may: past every guard of the server's
        await owner.execute(
            "UPDATE updates SET status = $2 WHERE agent_id = $1 AND package_name = $3 AND status <> $2",
            machine.id, status, "vim" if listed else "git",
        )  # fmt: skip
        if not remembers:
            await owner.execute("DELETE FROM update_scans WHERE agent_id = $1", machine.id)
        await machine.report(items, "apt")
        found.append(await rows(machine))
    assert found[0] == found[1]


async def test_what_a_person_approves_after_it_was_gone_is_settled_by_the_same_scan(machine: Any, package: Any) -> None:
    await machine.report([package("curl"), package("vim")], "apt")
    async with machine.pool.acquire() as connection:
        row = await machine.row("vim")
        await approvals.reject(connection, machine.actor, [row["id"]])
        items = [package("curl")]
        await settled(machine, items, "apt")
        await approvals.approve(connection, machine.actor, [row["id"]])
    assert not await is_known(machine, items, "apt")
    await machine.report(items, "apt")
    assert await machine.status("vim") == "installed"


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM updates WHERE agent_id = $1 AND package_name = 'vim'",
        "UPDATE updates SET package_name = 'vim-tiny' WHERE agent_id = $1 AND package_name = 'vim'",
        "UPDATE updates SET digest = digest + 1 WHERE agent_id = $1 AND package_name = 'vim'",
        "UPDATE updates SET last_seen_at = now() - interval '61 minutes' WHERE agent_id = $1 AND package_name = 'vim'",
        "INSERT INTO updates (agent_id, package_type, package_name) VALUES ($1, 'apt', 'nano')",
    ],
)
async def test_a_row_that_was_changed_by_hand_is_put_right_by_the_same_scan(
    machine: Any, package: Any, owner: Any, change: str
) -> None:
    items = [package("curl"), package("vim")]
    await settled(machine, items, "apt")
    await owner.execute(change, machine.id)
    await machine.report(items, "apt")
    assert await machine.pool.fetch(
        "SELECT package_name, status FROM updates WHERE agent_id = $1 AND status <> 'installed' ORDER BY package_name",
        machine.id,
    ) == [("curl", "pending"), ("vim", "pending")]
    assert await machine.pool.fetchval(
        "SELECT bool_and(last_seen_at > now() - interval '1 minute') FROM updates WHERE agent_id = $1 AND status = 'pending'",
        machine.id,
    )


async def test_it_holds_until_its_updates_are_to_be_noted_as_seen_again(machine: Any, package: Any, owner: Any) -> None:
    items = [package("curl"), package("vim")]
    await machine.report(items, "apt")
    await owner.execute(
        "UPDATE updates SET last_seen_at = now() - interval '40 minutes' WHERE agent_id = $1 AND package_name = 'vim'",
        machine.id,
    )
    await settled(machine, items, "apt")
    left = await machine.pool.fetchval(
        "SELECT extract(epoch FROM holds_until - now()) / 60 FROM update_scans WHERE agent_id = $1", machine.id
    )
    assert 19 < left <= 20
    await owner.execute("UPDATE update_scans SET holds_until = now() WHERE agent_id = $1", machine.id)
    assert not await is_known(machine, items, "apt")


async def test_an_agent_that_was_removed_is_told_so_for_the_same_scan(machine: Any, package: Any) -> None:
    items = [package("curl")]
    await settled(machine, items, "apt")
    async with machine.pool.acquire() as connection:
        await agents.remove(connection, machine.actor, machine.id)
    with pytest.raises(NotFound):
        await machine.report(items, "apt")


async def test_what_is_taken_for_a_secret_is_part_of_what_makes_a_scan_the_same(monkeypatch: Any) -> None:
    before = unchanged.digest(b"[]", ["apt"])
    monkeypatch.setattr(redaction, "_of_site", [])
    redaction.add_patterns(["hunter[0-9]"])
    assert unchanged.digest(b"[]", ["apt"]) != before
