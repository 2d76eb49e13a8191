"""The life of an update, as agents and people live it."""

from __future__ import annotations

from typing import Any

import pytest

from redflag.audit.actor import user
from redflag.commands import queue
from redflag.errors import Conflict, NotFound
from redflag.timeouts.sweeper import Sweeper
from redflag.updates import approvals, outcomes
from redflag.updates.states import TRANSITIONS, Status


async def run(machine: Any, command_type: str) -> Any:
    """The agent is handed the one command of this type."""
    found = [one for one in await machine.check_in() if one["command_type"] == command_type]
    assert len(found) == 1
    return found[0]


async def test_an_approved_update_without_dependencies_is_examined_installed_and_confirmed_by_the_next_scan(
    machine: Any, package: Any
) -> None:
    await machine.scan([package("curl"), package("vim")])
    await machine.decide(approvals.approve, "curl")
    row = await machine.row("curl")
    assert (row["status"], row["approved_version"]) == ("approved", "2.0")

    assert (await machine.decide(approvals.install, "curl")).only()["command_type"] == "dry_run_update"
    row = await machine.row("curl")
    assert (row["status"], row["install_wanted_by"]) == ("dependencies", "user:ada")
    examination = await run(machine, "dry_run_update")
    assert examination["params"] == {"package_type": "apt", "package_name": "curl", "update_id": str(row["id"])}

    told = await machine.tell_dependencies("curl", None, str(row["id"]))
    assert told["status"] == "installing"
    assert told["message"] == "no dependencies found - installation command created automatically"
    await machine.end(examination["id"], action="dry_run")
    assert await machine.status("curl") == "installing"

    installation = await run(machine, "install_updates")
    assert installation["id"] == told["command_id"]
    assert installation["params"] == {"package_type": "apt", "package_name": "curl", "update_id": str(row["id"])}
    assert [one["source"] for one in await machine.commands("sent")] == ["automatic"]
    await machine.end(installation["id"], action="install")
    assert await machine.status("curl") == "unconfirmed"
    waiting = await machine.commands("pending")
    assert [(one["command_type"], one["source"]) for one in waiting] == [("scan_updates", "automatic")]

    await machine.scan([package("vim")])
    row = await machine.row("curl")
    assert (row["status"], row["reason"]) == ("installed", "confirmed by a scan: no longer listed as an update")
    assert await machine.status("vim") == "pending"
    assert await machine.history("curl") == [("available", "1.0", "2.0"), ("installed", "1.0", "2.0")]

    records = await machine.records("curl")
    assert [(one["metadata"]["old"]["status"], one["metadata"]["new"]["status"]) for one in records] == [
        ("pending", "approved"), ("approved", "dependencies"), ("dependencies", "installing"), ("installing", "unconfirmed"),
        ("unconfirmed", "installed"),
    ]  # fmt: skip
    me = f"agent:{machine.id}"
    assert [one["actor"] for one in records] == ["user:ada", "user:ada", me, me, me]
    assert records[0]["metadata"]["new"]["approved_version"] == "2.0"
    assert records[2]["metadata"]["wanted_by"] == "user:ada"
    assert records[2]["metadata"]["command_id"] == str(installation["id"])
    assert all(one["message"].startswith("update curl: status: ") for one in records)


async def test_dependencies_wait_for_a_person_who_confirms_them(machine: Any, package: Any) -> None:
    await machine.scan([package("vim")])
    await machine.decide(approvals.approve, "vim")
    await machine.decide(approvals.install, "vim")
    examination = await run(machine, "dry_run_update")
    row = await machine.row("vim")
    told = await machine.tell_dependencies("vim", ["vim-common", "", "vim-runtime", "vim-common"], str(row["id"]))
    assert (told["status"], told["dependencies"], told["command_id"]) == (
        "dependencies",
        ["vim-common", "vim-runtime"],
        None,
    )
    await machine.end(examination["id"], action="dry_run")
    row = await machine.row("vim")
    assert (row["status"], row["reason"]) == ("dependencies", "waits for the confirmation of its dependencies")
    assert await machine.commands("pending") == []

    refused = (await machine.decide(approvals.install, "vim")).refused
    assert "confirm it" in refused[0]["why"]
    await machine.decide(approvals.confirm, "vim", by=user("grace"))
    installation = await run(machine, "confirm_dependencies")
    assert installation["params"]["dependencies"] == ["vim-common", "vim-runtime"]
    assert installation["params"]["package_name"] == "vim"
    await machine.end(installation["id"], action="")
    assert await machine.status("vim") == "unconfirmed"
    assert [one["actor"] for one in await machine.records("vim")] == [
        "user:ada",
        "user:ada",
        "user:grace",
        f"agent:{machine.id}",
    ]


async def test_a_dry_run_that_nobody_wanted_more_of_leaves_the_update_where_it_was(machine: Any, package: Any) -> None:
    await machine.scan([package("vim"), package("curl")])
    await machine.decide(approvals.approve, "vim")
    await machine.decide(approvals.dry_run, "vim", "curl")
    assert {await machine.status("vim"), await machine.status("curl")} == {"dependencies"}
    for examination in await machine.check_in():
        name = examination["params"]["package_name"]
        await machine.tell_dependencies(name, ["libfoo"], examination["params"]["update_id"])
        await machine.end(examination["id"], action="dry_run")
    assert (await machine.status("vim"), await machine.status("curl")) == ("approved", "pending")
    # What is known is not examined again
    assert (await machine.decide(approvals.install, "vim")).only()["command_type"] == "confirm_dependencies"
    assert (await run(machine, "confirm_dependencies"))["params"]["dependencies"] == ["libfoo"]


async def test_an_installation_that_changed_nothing_fails_when_a_later_scan_still_lists_it(
    machine: Any, package: Any
) -> None:
    await _installed_unconfirmed(machine, package, "curl")
    await machine.scan([package("curl")])
    row = await machine.row("curl")
    assert (row["status"], row["reason"]) == ("failed", "still listed as an update after the installation")
    assert (await machine.history("curl"))[-1] == ("failed", "1.0", "2.0")


async def test_a_scan_handed_out_before_the_installation_ended_says_nothing_about_it(
    machine: Any, package: Any
) -> None:
    await machine.scan([package("curl")])
    early = await machine.enqueue_scan()
    await machine.check_in()
    await _installed_unconfirmed(machine, package, "curl", scanned=True)
    await machine.report([package("curl")], command_id=early)
    await machine.report([package("curl")])
    assert await machine.status("curl") == "unconfirmed"


async def test_an_installed_version_with_a_newer_one_behind_it_is_pending_again(machine: Any, package: Any) -> None:
    await _installed_unconfirmed(machine, package, "curl")
    await machine.scan([package("curl", "3.0", current="2.0")])
    row = await machine.row("curl")
    assert (row["status"], row["reason"], row["approved_version"]) == (
        "pending",
        "2.0 is installed, 3.0 is available",
        None,
    )
    assert await machine.history("curl") == [
        ("available", "1.0", "2.0"),
        ("installed", "1.0", "2.0"),
        ("available", "2.0", "3.0"),
    ]


async def test_a_new_version_of_an_installed_package_is_pending(machine: Any, package: Any) -> None:
    await _installed_unconfirmed(machine, package, "curl")
    await machine.scan([], "apt")
    assert await machine.status("curl") == "installed"
    await machine.scan([package("curl", "3.0", current="2.0")])
    row = await machine.row("curl")
    assert (row["status"], row["dependencies"], row["approved_version"]) == ("pending", None, None)
    assert row["reason"] == "2.0 is installed, 3.0 is available"
    await machine.scan([], "apt")
    await machine.scan([package("curl", "4.0", current="2.0")])
    assert (await machine.row("curl"))["reason"] == "4.0 became available"
    await machine.scan([], "apt")
    await machine.scan([package("curl", "4.0", current="2.0")])
    assert (await machine.row("curl"))["reason"] == "offered again"


async def test_a_failed_installation_says_why_without_secrets_and_may_be_tried_again(
    machine: Any, package: Any
) -> None:
    await machine.scan([package("curl")])
    command = await _begin_installation(machine, "curl")
    await machine.end(
        command["id"], "failed", action="install", stderr="\nE: no route, password=hunter2\nmore\n", exit_code=100
    )
    row = await machine.row("curl")
    assert (row["status"], row["reason"]) == ("failed", "the installation failed: E: no route, password=[redacted]")
    assert (await machine.history("curl"))[-1] == ("failed", "1.0", "2.0")
    assert await machine.commands("pending") == []
    await machine.scan([package("curl")])
    assert await machine.status("curl") == "failed"
    await machine.decide(approvals.approve, "curl")
    # It was examined before: no second dry run
    assert (await machine.decide(approvals.install, "curl")).only()["command_type"] == "install_updates"


async def test_a_dry_run_that_fails_or_tells_nothing_fails_the_update(machine: Any, package: Any) -> None:
    await machine.scan([package("curl"), package("vim"), package("git")])
    await machine.decide(approvals.dry_run, "curl", "vim", "git")
    for command in await machine.check_in():
        name = command["params"]["package_name"]
        if name == "curl":
            await machine.end(command["id"], "failed", action="dry_run", message="held back")
        elif name == "vim":
            await machine.end(command["id"], action="dry_run")
        else:
            result = {"success": False, "error_message": "held back"}
            await machine.tell_dependencies(name, None, command["params"]["update_id"], dry_run_result=result)
    assert (await machine.row("curl"))["reason"] == "the dry run failed: held back"
    assert (await machine.row("vim"))["reason"] == "the dry run ended without telling the dependencies"
    assert (await machine.row("git"))["reason"] == "the dry run failed: held back"
    assert {await machine.status(name) for name in ("curl", "vim", "git")} == {"failed"}


async def test_the_same_report_again_changes_nothing(machine: Any, package: Any) -> None:
    await machine.scan([package("curl")])
    command = await _begin_installation(machine, "curl")
    for _ in range(3):
        await machine.end(command["id"], action="install")
    assert len(await machine.commands("pending")) == 1
    records = len(await machine.records("curl"))
    await machine.scan([])
    await machine.end(command["id"], action="install")
    assert len(await machine.records("curl")) == records
    assert await machine.status("curl") == "unconfirmed"


async def test_a_report_under_another_name_has_its_effect(machine: Any, package: Any) -> None:
    await machine.scan([package("curl")])
    command = await _begin_installation(machine, "curl")
    await machine.end(command["id"], action="scan_updates")
    assert await machine.status("curl") == "unconfirmed"


async def test_a_timeout_fails_the_update_and_a_late_success_takes_that_back(
    machine: Any, package: Any, pool: Any, owner: Any
) -> None:
    await machine.scan([package("curl")])
    command = await _begin_installation(machine, "curl")
    await owner.execute("UPDATE agent_commands SET sent_at = now() - interval '3 hours' WHERE id = $1", command["id"])
    await Sweeper(pool, "here", gap=86_400).sweep()
    assert (await machine.row("curl"))["status"] == "failed"
    assert (await machine.end(command["id"], action="install")).received == "late"
    row = await machine.row("curl")
    assert (row["status"], row["reason"]) == ("unconfirmed", "reported as installed after the timeout")
    assert [one["command_type"] for one in await machine.commands("pending")] == ["scan_updates"]


async def test_cancelling_takes_updates_back_to_where_they_were(machine: Any, package: Any, pool: Any) -> None:
    await machine.scan([package("curl"), package("vim"), package("git")])
    installing = await _begin_installation(machine, "curl")
    await machine.decide(approvals.approve, "vim")
    await machine.decide(approvals.install, "vim")
    await machine.decide(approvals.dry_run, "git")
    ids = [installing["id"], (await machine.row("vim"))["command_id"], (await machine.row("git"))["command_id"]]
    async with pool.acquire() as connection, connection.transaction():
        for one in ids:
            await queue.cancel(connection, user("ada"), one)
        assert await outcomes.command_cancelled(connection, user("ada"), ids) == 3
        assert await outcomes.command_cancelled(connection, user("ada"), ids) == 0
    assert [await machine.status(name) for name in ("curl", "vim", "git")] == ["approved", "approved", "pending"]
    # What its dry run tells afterwards starts nothing
    told = await machine.tell_dependencies("vim", [], str((await machine.row("vim"))["id"]))
    assert (told["status"], told["command_id"]) == ("approved", None)


async def test_only_what_is_approved_is_installed(machine: Any, package: Any, pool: Any) -> None:
    await machine.scan([package("curl")])
    decision = await machine.decide(approvals.install, "curl")
    assert decision.done == []
    with pytest.raises(Conflict, match="approve it first"):
        decision.only()
    async with pool.acquire() as connection:
        missing = await approvals.install(connection, user("ada"), [machine.id])
    with pytest.raises(NotFound):
        missing.only()


async def test_many_are_decided_at_once_and_what_is_refused_says_why(machine: Any, package: Any, pool: Any) -> None:
    names = [f"p{number}" for number in range(300)]
    await machine.scan([package(name) for name in names])
    assert len((await machine.decide(approvals.approve, *names)).done) == 300
    await machine.decide(approvals.reject, "p0", reason="breaks the shop")
    assert (await machine.row("p0"))["reason"] == "breaks the shop"
    decision = await machine.decide(approvals.install, *names)
    assert len(decision.done) == 299
    assert [(one["status"], one["why"]) for one in decision.refused] == [
        ("rejected", "It is rejected: approve it first")
    ]
    assert len(await machine.commands("pending")) == 299
    linked = await pool.fetchval(
        """SELECT count(*) FROM updates u JOIN agent_commands c ON c.id = u.command_id AND c.params ->> 'update_id' = u.id::text
           WHERE u.agent_id = $1""",
        machine.id,
    )
    assert linked == 299


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize(
    "decision", [approvals.approve, approvals.reject, approvals.dry_run, approvals.install, approvals.confirm]
)
async def test_a_decision_on_any_state_is_done_or_refused_and_never_an_error(
    machine: Any, package: Any, owner: Any, status: Status, decision: Any
) -> None:
    await machine.report([package("curl")])
    await owner.execute("UPDATE updates SET status = $2 WHERE agent_id = $1", machine.id, status)
    made = await machine.decide(decision, "curl")
    assert len(made.done) + len(made.refused) == 1
    now = Status(await machine.status("curl"))
    if made.done:
        assert now == made.done[0]["status"]
        assert now in TRANSITIONS[status] | {status}
    else:
        assert now == status
        assert made.refused[0]["why"]


async def test_nothing_begins_on_an_agent_that_was_removed(machine: Any, package: Any, owner: Any) -> None:
    await machine.scan([package("curl")])
    await machine.decide(approvals.approve, "curl")
    await owner.execute("UPDATE agents SET removed_at = now() WHERE id = $1", machine.id)
    assert (await machine.decide(approvals.install, "curl")).refused[0]["why"] == "Its agent was removed"
    with pytest.raises(NotFound):
        await machine.report([package("curl")])


async def test_an_agent_tells_dependencies_of_its_own_updates_only(new_machine: Any, package: Any) -> None:
    mine, other = await new_machine(), await new_machine()
    await mine.scan([package("curl")])
    await other.scan([package("curl"), package("vim")])
    theirs = await other.row("vim")
    with pytest.raises(NotFound):
        await mine.tell_dependencies("vim", ["x"], str(theirs["id"]))
    # An id that is none of its own: the package's name decides
    told = await mine.tell_dependencies("curl", ["x"], str(theirs["id"]))
    assert told["update_id"] == (await mine.row("curl"))["id"]
    assert (await mine.tell_dependencies("curl", ["y"], "no id at all"))["dependencies"] == ["y"]
    assert (await other.row("vim"))["dependencies"] is None


async def test_after_a_successful_installation_one_scan_waits_not_many(machine: Any, package: Any) -> None:
    names = [f"p{number}" for number in range(5)]
    await machine.scan([package(name) for name in names])
    await machine.decide(approvals.approve, *names)
    await machine.decide(approvals.install, *names)
    for command in await machine.check_in():
        await machine.tell_dependencies(command["params"]["package_name"], [], command["params"]["update_id"])
        await machine.end(command["id"], action="dry_run")
    for command in await machine.check_in():
        await machine.end(
            command["id"], "partial" if command["params"]["package_name"] == "p0" else "success", action="install"
        )
    assert {await machine.status(name) for name in names} == {"unconfirmed"}
    assert [one["command_type"] for one in await machine.commands("pending")] == ["scan_updates"]


async def _begin_installation(machine: Any, name: str) -> Any:
    await machine.decide(approvals.approve, name)
    await machine.decide(approvals.install, name)
    examination = await run(machine, "dry_run_update")
    await machine.tell_dependencies(name, [], examination["params"]["update_id"])
    await machine.end(examination["id"], action="dry_run")
    return await run(machine, "install_updates")


async def _installed_unconfirmed(machine: Any, package: Any, name: str, *, scanned: bool = False) -> None:
    if not scanned:
        await machine.scan([package(name)])
    command = await _begin_installation(machine, name)
    await machine.end(command["id"], action="install")
    assert await machine.status(name) == "unconfirmed"
