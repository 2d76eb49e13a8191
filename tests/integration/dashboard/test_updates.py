"""The pages of updates: what can be updated where, decided on and installed, and how far that is."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import pytest_asyncio

from machines import Machine, item
from redflag.access.roles import Role
from redflag.updates import approvals
from redflag.updates.states import Severity, Status


@pytest_asyncio.fixture
async def machines(owner: Any, pool: Any) -> list[Machine]:
    """Three agents that nobody else uses."""
    made = [
        await owner.fetchval(
            "INSERT INTO agents (hostname, protocol) VALUES ($1, 1) RETURNING id", f"host-{uuid.uuid4().hex[:8]}"
        )
        for _ in range(3)
    ]
    return [Machine(pool, one) for one in made]


@pytest.fixture
def name() -> str:
    """A package that no other test has, with what names may hold."""
    return f"docker.io/acme/{uuid.uuid4().hex[:8]}:latest+x&y"


async def _scanned(machines: list[Machine], name: str, **more: Any) -> None:
    for machine in machines:
        await machine.scan([item(name, **more)])


async def _id(machine: Machine, name: str) -> uuid.UUID:
    return (await machine.row(name))["id"]


def _text(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", markup))


async def test_a_package_is_one_row_with_how_many_agents_are_where(admin, machines, name):
    await _scanned(machines, name, severity="critical", cve_list=["CVE-2026-1", "CVE-2026-2"])
    await machines[0].decide(approvals.approve, name)
    shown = _text(await admin.page(f"/updates?text={name[15:23]}"))
    assert name.replace("&", "&amp;") in shown
    assert "critical 2 CVEs" in shown
    assert re.search(r"1 approved · 2 to decide", shown)
    assert "2.0" in shown


async def test_a_packages_page_names_each_agent_and_its_versions(admin, machines, name):
    await _scanned(machines, name)
    listed = await admin.page(f"/updates?text={name[15:23]}")
    link = re.search(r'href="(/updates/package\?[^"]+)"', listed)
    assert link
    shown = await admin.page(link[1].replace("&amp;", "&"))
    for machine in machines:
        assert f"/agents/{machine.id}" in shown
        assert f"/updates/{await _id(machine, name)}" in shown
    assert "3 agents" in _text(shown)
    assert "no other" not in shown


@pytest.mark.parametrize(
    ("narrowed", "found"),
    [("severity=low", False), ("severity=important", True), ("status=failed", False), ("status=pending", True),
     ("status=all", True), ("type=dnf", False), ("type=apt", True), ("text=nothing-has-this-name", False)],
)  # fmt: skip
async def test_every_filter_narrows_both_lists(admin, machines, name, narrowed, found):
    await _scanned(machines[:1], name)
    for path in ("/updates", "/updates/list"):
        # The text of the filter stands in the address once: this one or the package's
        both = narrowed if "text=" in narrowed else f"{narrowed}&text={name[15:23]}"
        assert (name[15:23] + ":latest" in await admin.region(f"{path}?{both}", "rows")) is found


async def test_a_filter_of_one_agent_shows_its_updates_only(admin, machines, name):
    await _scanned(machines, name)
    shown = await admin.page(f"/updates?agent={machines[0].id}")
    assert str(await _id(machines[0], name)) in shown
    assert str(await _id(machines[1], name)) not in shown


@pytest.mark.parametrize(
    "path",
    ["/updates?severity=nonsense", "/updates?status=nonsense", "/updates?agent=nonsense", "/updates?text=%00",
     "/updates/list?cursor=nonsense",
     f"/updates?text={'x' * 201}", "/updates/package?name=%00&type=apt", "/updates/package?name=x&type=apt&after=nonsense",
     "/updates/nonsense", f"/updates/batches/{uuid.UUID(int=0)}?page=x", f"/updates/batches/{uuid.UUID(int=0)}?status=x"],
)  # fmt: skip
async def test_a_bad_address_is_told_what_is_wrong_with_it(admin, path):
    assert "went wrong here" not in await admin.page(path, 422)


@pytest.mark.parametrize(
    "path",
    ["/updates/package?name=not-there&type=apt", "/updates/package", f"/updates/{uuid.UUID(int=0)}", f"/updates/batches/{uuid.UUID(int=0)}",
     f"/updates?agent={uuid.UUID(int=0)}"],
)  # fmt: skip
async def test_what_is_not_there_is_not_found(admin, path):
    await admin.page(path, 404)


async def test_pages_show_every_package_once(admin, machines):
    mark = uuid.uuid4().hex[:8]
    names = [f"{mark}-{number:03}" for number in range(60)]
    await machines[0].scan([item(one) for one in names])
    for path, each in (
        (f"/updates?text={mark}", r"Choose ({}-\d+)\""),
        (f"/updates/list?text={mark}", r"Choose ({}-\d+) on"),
    ):
        found: list[str] = []
        following = path
        while following:
            shown = await admin.page(following)
            found += re.findall(each.format(mark), shown)
            link = re.search(r'href="([^"]+)" rel="next"', shown)
            following = link[1].replace("&amp;", "&") if link else ""
        assert found == names


async def test_whoever_may_not_decide_sees_no_button_and_no_box(viewer, admin, machines, name):
    await _scanned(machines[:1], name)
    one = await _id(machines[0], name)
    for path in (f"/updates?text={name[15:23]}", "/updates/list", f"/updates/{one}"):
        theirs, ours = await viewer.page(path), await admin.page(path)
        assert "/updates/act" in ours
        assert "/updates/act" not in theirs
        assert "data-one" not in theirs
        assert "checkbox" not in theirs
    await viewer.act("/updates/act", 403, act="approve", update_ids=str(one))
    assert await machines[0].status(name) == "pending"


async def test_who_decided_is_shown_to_whoever_may_read_history_and_that_is_recorded(
    admin, viewer, machines, name, pool
):
    await _scanned(machines[:1], name)
    one = await _id(machines[0], name)
    await admin.act("/updates/act", act="reject", update_ids=str(one), here="yes", reason="breaks the shop")
    shown = _text(await admin.page(f"/updates/{one}"))
    assert re.search(rf"{admin.name}\s*: to decide became rejected", shown)
    assert "breaks the shop" in shown
    assert "Who decided" not in await viewer.page(f"/updates/{one}")
    reads = await pool.fetch(
        "SELECT actor FROM update_logs WHERE action = 'history_read' AND metadata ->> 'query' = $1", f"update={one}"
    )
    assert [row["actor"] for row in reads] == [f"user:{admin.name}"]


@pytest.mark.parametrize(
    ("act", "status", "action"),
    [("approve", "approved", "update_approved"), ("reject", "rejected", "update_rejected"), ("dry_run", "dependencies", "update_examined")],
)  # fmt: skip
async def test_an_act_leaves_its_record_with_the_persons_name(admin, machines, name, act, status, action):
    await _scanned(machines[:1], name)
    answer = await admin.act(
        "/updates/act", act=act, update_ids=str(await _id(machines[0], name)), here="yes", reason="so"
    )
    assert "live:updates" in answer.headers["hx-trigger"]
    assert await machines[0].status(name) == status
    record = (await machines[0].records(name))[-1]
    assert (record["actor"], record["action"]) == (f"user:{admin.name}", action)


async def test_packages_are_decided_on_in_all_agents_and_what_becomes_of_them_stands_on_one_page(
    admin, viewer, machines, name
):
    await _scanned(machines, name)
    await machines[2].decide(approvals.reject, name)
    value = re.search(r'name="packages" value="([^"]+)"', await admin.page(f"/updates?text={name[15:23]}"))
    assert value
    answer = await admin.act("/updates/act", act="approve", packages=value[1].replace("&amp;", "&"))
    # Rejected ones were not shown, and were not meant
    assert [await machine.status(name) for machine in machines] == ["approved", "approved", "rejected"]
    batch = answer.headers["hx-redirect"]
    shown = _text(await admin.page(batch))
    assert "Progress of 2 updates" in shown
    assert f"2 updates approved by {admin.name}" in shown
    assert "Install 2 approved updates" in shown
    seen = await viewer.page(batch)
    assert "2 updates approved" in _text(seen)
    assert admin.name not in seen, "who decided is in the history, which a viewer does not read"
    assert "/updates/act" not in seen


async def test_a_batch_goes_from_the_dry_run_to_installed(admin, machines, name):
    await _scanned(machines, name)
    ids = [str(await _id(machine, name)) for machine in machines]
    batch = (await admin.act("/updates/act", act="dry_run", update_ids=ids)).headers["hx-redirect"]
    assert "3 dry runs are under way" in _text(await admin.region(batch, "progress"))
    needs = (["libfoo", "libbar"], ["libfoo", "libbar"], [])
    for machine, found in zip(machines, needs, strict=True):
        for command in await machine.check_in():
            await machine.tell_dependencies(name, found, command["params"]["update_id"])
            await machine.end(command["id"], action="dry_run")
    shown = _text(await admin.region(batch, "progress"))
    assert "libfoo, libbar 2 agents" in shown
    assert "nothing else 1 agent" in shown
    number = batch.rpartition("/")[2]
    await admin.act("/updates/act", act="approve", batch=number, of="pending")
    assert {await machine.status(name) for machine in machines} == {"approved"}
    await admin.act("/updates/act", act="install", batch=number, of="approved")
    shown = _text(await admin.region(batch, "progress"))
    assert "3 installing" in shown
    assert "3 updates sent to be installed" in shown
    for machine in machines:
        for command in await machine.check_in():
            await machine.end(command["id"], action="install")
    assert "0 of 3 settled" in _text(await admin.region(batch, "settled"))
    await machines[0].scan([item("other")])
    await machines[1].scan([item(name)])
    shown = _text(await admin.region(batch, "progress"))
    assert "1 installed" in shown
    assert "1 failed" in shown
    assert "still listed as an update after the installation" in shown
    assert "Approve 1 that failed again" in shown
    assert "2 of 3 settled" in _text(await admin.region(batch, "settled"))
    only = await admin.region(f"{batch}?status=failed", "progress")
    assert str(machines[1].id) in only
    assert str(machines[0].id) not in only


async def test_what_needs_others_waits_in_the_batch_and_is_installed_with_them(admin, machines, name):
    await _scanned(machines[:1], name)
    one = str(await _id(machines[0], name))
    batch = (await admin.act("/updates/act", act="approve", update_ids=one)).headers["hx-redirect"]
    number = batch.rpartition("/")[2]
    await admin.act("/updates/act", act="install", batch=number, of="approved")
    for command in await machines[0].check_in():
        await machines[0].tell_dependencies(name, ["libfoo"], command["params"]["update_id"])
        await machines[0].end(command["id"], action="dry_run")
    assert "Install 1 update with dependencies" in _text(await admin.region(batch, "progress"))
    await admin.act("/updates/act", act="confirm", batch=number, of="dependencies")
    (command,) = await machines[0].check_in()
    assert (command["command_type"], command["params"]["dependencies"]) == ("confirm_dependencies", ["libfoo"])


async def test_what_was_refused_is_told_in_words(admin, machines, name):
    await _scanned(machines, name)
    await machines[0].decide(approvals.approve, name)
    ids = [str(await _id(machine, name)) for machine in machines] + [str(uuid.uuid4())]
    batch = (await admin.act("/updates/act", act="install", update_ids=ids)).headers["hx-redirect"]
    shown = _text(await admin.page(batch))
    assert "Not done, and why" in shown
    assert "Nobody has approved it: approve it first : 2 updates" in shown
    host = await admin.page(f"/updates/{ids[1]}")
    assert re.search(r"on (host-\w+)", host)[1] in shown
    assert ids[3] not in shown


async def test_all_that_match_a_filter_are_meant_and_no_others(admin, machines):
    mark = uuid.uuid4().hex[:8]
    await machines[0].scan(
        [item(f"{mark}-{number}", severity="critical" if number < 40 else "low") for number in range(70)]
    )
    answer = await admin.act("/updates/act", act="approve", everything="yes", text=mark, severity="critical")
    counted = await machines[0].pool.fetch(
        "SELECT severity, status, count(*) FROM updates WHERE agent_id = $1 GROUP BY 1, 2", machines[0].id
    )
    assert {tuple(row) for row in counted} == {("critical", "approved", 40), ("low", "pending", 30)}
    assert "Progress of 40 updates" in await admin.page(answer.headers["hx-redirect"])
    answer = await admin.act("/updates/act", act="approve", everything="yes", agent=str(machines[0].id), severity="low")
    assert "Progress of 30 updates" in await admin.page(answer.headers["hx-redirect"])
    answer = await admin.act("/updates/act", act="confirm", everything="yes", text=mark)
    assert "nothing to install with dependencies" in answer.headers["hx-trigger"]


@pytest.mark.parametrize(
    "fields",
    [{}, {"act": "approve"}, {"act": "nonsense", "update_ids": str(uuid.uuid4())}, {"act": "approve", "update_ids": "nonsense"},
     {"act": "approve", "packages": "nonsense"}, {"act": "approve", "packages": "type=apt&name=%00"},
     {"act": "approve", "batch": "nonsense"},
     {"act": "reject", "update_ids": str(uuid.uuid4()), "reason": "x" * 501},
     {"act": "approve", "everything": "yes", "severity": "nonsense"}],
)  # fmt: skip
async def test_a_form_that_says_nothing_sensible_changes_nothing_and_says_so(admin, fields):
    answer = await admin.act("/updates/act", 422, **fields)
    assert answer.json()["detail"]


async def test_a_batch_that_is_not_there_is_not_found(admin):
    await admin.act("/updates/act", 404, act="approve", batch=str(uuid.uuid4()))


async def test_an_empty_list_says_what_to_do_next(person):
    somebody = await person(Role.OPERATOR)
    shown = await somebody.region("/updates?text=nothing-has-this-name", "rows")
    assert "Nothing matches" in shown
    assert 'href="/updates"' in shown


async def test_every_state_has_its_next_step_and_every_severity_its_badge(admin, machines, name, owner):
    await _scanned(machines[:1], name)
    one = await _id(machines[0], name)
    for status in Status:
        for severity in Severity:
            await owner.execute("UPDATE updates SET status = $2, severity = $3 WHERE id = $1", one, status, severity)
        for path in (f"/updates/{one}", f"/updates/list?status={status}&text={name[15:23]}"):
            assert "unknown" not in _text(await admin.page(path)).lower().split("severity")[0]


async def test_what_a_host_says_is_text_and_never_markup(admin, machines):
    name = f"<script>alert({uuid.uuid4().hex[:6]})</script>"
    metadata = {
        "changelog": "one\n<b>two</b>",
        "origin": "<i>x</i>",
        "held": True,
        "names": ["a", "b"],
        "more": {"a": 1},
    }
    await machines[0].scan([item(name, package_description="<img src=x>", metadata=metadata, size_bytes=2_000_000)])
    one = await _id(machines[0], name)
    for path in ("/updates?text=<script>alert", "/updates/list?text=<script>alert", f"/updates/{one}"):
        shown = await admin.page(path)
        assert "<script>alert" not in shown
        assert "<img src=x>" not in shown
    assert "1.9 MiB" in shown
    assert "&lt;b&gt;two" in shown
