"""Agents at the pages: found among many, acted on by whoever may, enrolled by one command, and looked at one by one."""

from __future__ import annotations

import html
import re
import uuid

import pytest

from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.commands import queue
from talking import Agent

NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def enrol(admin, nobody):
    """Makes agents whose host names have a word in common, and returns the word with them."""

    async def make(count=1, *, protocol=1, first_scan="", **more):
        word = uuid.uuid4().hex[:8]
        answer = await admin.act("/agents/enrol", label=word, seats=count, hours=24, first_scan=first_scan)
        token = re.search(r"sh -s -- ([0-9a-f]+)", answer.text)[1]
        made = [
            await Agent.enrol(nobody, token, protocol=protocol, hostname=f"{word}-{n}", **more) for n in range(count)
        ]
        return word, made

    return make


def _shown(text):
    """The agents of a list, in its order."""
    return re.findall(r'href="/agents/([0-9a-f-]{36})"', text)


async def _records(pool, agent_id, action):
    return await pool.fetch(
        "SELECT actor, metadata FROM update_logs WHERE agent_id = $1 AND action = $2 ORDER BY executed_at",
        uuid.UUID(agent_id), action,
    )  # fmt: skip


async def test_the_list_names_agents_with_what_there_is_to_do(viewer, enrol, pool):
    word, (agent,) = await enrol(os_version="Debian GNU/Linux 12 (bookworm)")
    await agent.check_in()
    async with pool.acquire() as connection:
        await queue.enqueue(connection, actors.user("anna"), [uuid.UUID(agent.id)], "reboot", {})
    await agent.post(
        "updates",
        {
            "command_id": None,
            "updates": [
                {"package_type": "apt", "package_name": name, "available_version": "2", "severity": severity}
                for name, severity in (("a", "critical"), ("b", "low"), ("c", "low"))
            ],
        },
    )
    text = await viewer.page(f"/agents?text={word.upper()}")
    assert _shown(text) == [agent.id]
    for told in ("online", "Debian GNU/Linux 12 (bookworm)", "1 critical", "2 low", "1 command"):
        assert told in text, told
    assert "data-bulk" not in text
    assert "/agents/enrol" not in text


async def test_filters_stand_in_the_address_and_fit_or_say_that_nothing_does(admin, enrol, pool):
    word, (one, two, three) = await enrol(3, os_version=f"System {uuid.uuid4().hex[:6]}")
    await one.check_in()
    await two.check_in()
    tag = f"tag {uuid.uuid4().hex[:6]} & more"
    await admin.act(f"/agents/{two.id}/rename", name=f"{word} relay", tags=f"{tag}\nother")
    await pool.execute(
        "UPDATE agent_presence SET last_seen = now() - interval '2 hours' WHERE agent_id = $1", uuid.UUID(two.id)
    )
    await admin.act(f"/agents/{three.id}/remove")
    both = {"text": word}
    for asked, expected in (
        ({}, [two.id, one.id]),
        ({"presence": "online"}, [one.id]),
        ({"presence": "late"}, [two.id]),
        ({"presence": "lost"}, []),
        ({"tag": tag}, [two.id]),
        ({"tag": "nobody has it"}, []),
        ({"version": "1.0.0"}, [two.id, one.id]),
        ({"version": "redflag 1.0.0"}, []),
        ({"removed": "1"}, [three.id]),
        ({"presence": "", "tag": "", "system": "", "version": "", "sort": "", "removed": ""}, [two.id, one.id]),
    ):
        answer = await admin.get("/agents", params=both | asked)
        assert answer.status_code == 200
        assert _shown(answer.text) == expected, asked
        assert expected or "No agent fits" in answer.text
    assert _shown(await admin.page(f"/agents?system={html.escape('System')}")) == []
    answer = await admin.get(
        "/agents", params={"tag": tag, "presence": ""}, headers={"HX-Request": "true", "HX-Target": "rows"}
    )
    assert "presence" not in answer.headers["hx-replace-url"]
    assert _shown(await admin.page(answer.headers["hx-replace-url"])) == [two.id]


@pytest.mark.parametrize("sort", ["name", "-name", "enrolled", "-enrolled", "seen", "-seen"])
async def test_every_order_pages_through_all_of_them_once(admin, enrol, pool, sort, monkeypatch):
    monkeypatch.setattr("redflag.fleet.finding.CANDIDATES", 3)
    monkeypatch.setattr("redflag.fleet.finding.PAGE_LIMIT", 2)
    word, made = await enrol(5)
    for number in (3, 1, 4, 0):
        await made[number].check_in()
    seen, path = [], f"/agents?text={word}&sort={sort}"
    while path:
        text = await admin.page(path)
        seen += _shown(text)
        more = re.search(r'href="([^"]+)" rel="next"', text)
        path = html.unescape(more[1]) if more else ""
    ids = [agent.id for agent in made]
    # Whoever not come by yet is last, however it is ordered
    heard = [ids[number] for number in (3, 1, 4, 0)]
    assert seen == {
        "name": ids, "-name": ids[::-1], "enrolled": ids, "-enrolled": ids[::-1],
        "seen": [*heard, ids[2]], "-seen": [*heard[::-1], ids[2]],
    }[sort]  # fmt: skip


@pytest.mark.parametrize("asked", [
    "presence=near", "sort=size", "cursor=zzz", "cursor=AAAA", "text=%00", "tag=%00", "text=" + "x" * 201, "sort=removed",
])  # fmt: skip
async def test_what_cannot_be_asked_is_refused_in_words(admin, asked):
    answer = await admin.get(f"/agents?{asked}", headers={"Accept": "text/html"})
    assert answer.status_code == (200 if asked == "sort=removed" else 422)
    for path in ("/agents/nonsense", f"/agents/{NOBODY}", f"/agents/{NOBODY}/timeline", f"/agents/enrol/{NOBODY}"):
        assert (await admin.get(path)).status_code in {404, 422}


async def test_whoever_may_chooses_agents_and_scans_restarts_tags_and_removes_them(person, enrol, pool):
    operator = await person(Role.OPERATOR)
    _word, made = await enrol(3)
    ids = [agent.id for agent in made]
    assert "3 hosts will be scanned" in (await operator.act("/agents/scan", agent=ids)).headers["hx-trigger"]
    await operator.act("/agents/reboot", agent=ids[:1])
    commands = await pool.fetch(
        "SELECT command_type, act ->> 'actor' AS actor FROM agent_commands WHERE agent_id = ANY ($1::uuid[]) ORDER BY 1",
        ids,
    )
    assert [tuple(row) for row in commands] == [
        (kind, f"user:{operator.name}") for kind in ("reboot", "scan_updates", "scan_updates", "scan_updates")
    ]
    await operator.act("/agents/tags", agent=ids, tag_name="web", how="add")
    assert (
        "1 agent"
        in (await operator.act("/agents/tags", agent=ids[:1], tag_name="web", how="take")).headers["hx-trigger"]
    )
    assert (
        "already"
        in (await operator.act("/agents/tags", agent=ids[1:], tag_name="web", how="add")).headers["hx-trigger"]
    )
    assert [len(await _records(pool, one, "agent_tagged")) for one in ids] == [2, 1, 1]
    told = (await operator.act("/agents/remove", agent=ids)).headers["hx-trigger"]
    assert "3 agents removed, and 4 live commands cancelled" in told
    for one in ids:
        assert [row["actor"] for row in await _records(pool, one, "agent_removed")] == [f"user:{operator.name}"]


async def test_an_act_on_agents_is_whole_or_refused(admin, enrol, pool):
    _word, (one, two) = await enrol(2)
    await admin.act(f"/agents/{two.id}/remove")
    both = [one.id, two.id]
    for path in ("/agents/scan", "/agents/reboot", "/agents/remove"):
        await admin.act(path, 404, agent=both)
    await admin.act("/agents/tags", 404, agent=both, tag_name="web", how="add")
    for path in ("/agents/scan", "/agents/reboot", "/agents/remove", "/agents/tags"):
        for chosen in ([], ["nonsense"], [str(uuid.uuid4()) for _ in range(501)]):
            await admin.act(path, 422, agent=chosen)
    for name, how in (("", "add"), ("x" * 101, "add"), ("a\0b", "add"), ("web", "hide")):
        await admin.act("/agents/tags", 422, agent=[one.id], tag_name=name, how=how)
    assert await pool.fetchval("SELECT count(*) FROM agent_commands WHERE agent_id = ANY ($1::uuid[])", both) == 0
    assert await pool.fetchval("SELECT tags FROM agents WHERE id = $1", uuid.UUID(one.id)) == []


async def test_an_agent_has_no_more_tags_than_it_may(admin, enrol):
    _word, (agent,) = await enrol()
    await admin.act(f"/agents/{agent.id}/rename", tags="\n".join(f"tag {n}" for n in range(50)))
    answer = await admin.act("/agents/tags", 422, agent=[agent.id], tag_name="one more", how="add")
    assert "more than 50 tags" in answer.text
    await admin.act(f"/agents/{agent.id}/rename", 422, tags="\n".join(f"tag {n}" for n in range(51)))


async def test_an_agents_page_says_in_words_what_its_host_says(viewer, enrol):
    _word, (agent,) = await enrol()
    await agent.check_in(memory_used_gb=12.0, memory_total_gb=16.0, disk_percent=95, uptime="3d 4h 12m")
    await agent.post(
        "system-info",
        {
            "cpu_model": "A <b>processor</b>", "cpu_cores": 1, "cpu_threads": 2, "processes": 1234, "ip_address": "10.0.0.5",
            "disk_total": 100 * 1024**3, "disk_used": 95 * 1024**3, "metadata": {"kernel": "6.1", "odd": {"a": 1}, "n": True},
        },
    )  # fmt: skip
    text = await viewer.page(f"/agents/{agent.id}")
    for told in (
        "75 % used (12.0 GiB of 16.0 GiB)", "95 % used (95.0 GiB of 100 GiB)", "A &lt;b&gt;processor&lt;/b&gt;, 1 core, 2 threads",
        "1,234", "10.0.0.5", "3d 4h 12m", "6.1", "online", "Nothing waits for this agent",
    ):  # fmt: skip
        assert told in text, told
    assert "Timeline" not in text
    assert "Scan now" not in text
    assert not re.search(r"\sstyle=|\son[a-z]+=", text)
    for region in ("head", "facts", "work"):
        assert "<html" not in await viewer.region(f"/agents/{agent.id}", region)


@pytest.mark.parametrize("said", [
    {"memory_used_gb": -1, "memory_total_gb": 0, "disk_percent": "many"}, {"memory_percent": 1e300, "disk_percent": 4000},
    {"memory_total_gb": 1e30, "memory_used_gb": 1e30}, {"uptime": "x" * 200},
])  # fmt: skip
async def test_nonsense_that_a_host_says_is_no_error(viewer, enrol, said):
    _word, (agent,) = await enrol()
    await agent.check_in(**said)
    await agent.post(
        "system-info", {"cpu_cores": -3, "cpu_threads": [], "processes": "x", "disk_total": 1e308, "memory_total": 1e17}
    )
    await viewer.page(f"/agents/{agent.id}")


async def test_what_an_agent_has_to_do_and_did_stands_on_its_page(admin, enrol):
    _word, (agent,) = await enrol()
    assert "No command of this agent has ended yet" in await admin.page(f"/agents/{agent.id}")
    await admin.act(f"/agents/{agent.id}/scan")
    text = await admin.region(f"/agents/{agent.id}", "work")
    assert "scan_updates" in text
    assert "data-deadline" in text
    (command,) = (await agent.check_in())["commands"]
    await agent.post("logs", {"command_id": command["id"], "action": "scan_updates", "result": "success"})
    text = await admin.region(f"/agents/{agent.id}", "work")
    assert "data-deadline" not in text
    assert "completed" in text
    assert "Up to date, as far as its last scan saw" in text


async def test_a_timeline_tells_in_sentences_and_reading_it_is_recorded(person, viewer, enrol, pool):
    auditor = await person(Role.AUDITOR)
    _word, (agent,) = await enrol(first_scan="yes")
    text = await auditor.page(f"/agents/{agent.id}/timeline")
    assert "scan_updates was enqueued" in text
    assert "by this agent" in text
    assert f"/history?agent_id={agent.id}" in text
    await auditor.region(f"/agents/{agent.id}/timeline", "events")
    assert await pool.fetchval(
        "SELECT count(*) FROM update_logs WHERE action = 'history_read' AND actor = $1 AND message = $2",
        f"user:{auditor.name}", f"agent_id={agent.id}",
    ) == 1  # fmt: skip
    await viewer.page(f"/agents/{agent.id}/timeline", 403)


async def test_an_agent_is_renamed_and_tagged_with_the_persons_name_in_the_record(admin, enrol, pool):
    word, (agent,) = await enrol()
    await admin.act(f"/agents/{agent.id}/rename", name="Mail relay <1>", tags=" web \n\nweb\nfra 1")
    text = await admin.page(f"/agents/{agent.id}")
    assert "Mail relay &lt;1&gt;" in text
    assert f"host name {word}-0" in text
    (row,) = await _records(pool, agent.id, "agent_renamed")
    assert row["actor"] == f"user:{admin.name}"
    assert row["metadata"]["new"] == {"name": "Mail relay <1>", "tags": ["fra 1", "web"]}
    await admin.act(f"/agents/{agent.id}/rename", name="", tags="web")
    assert "Mail relay" not in await admin.region(f"/agents/{agent.id}", "head")
    for wrong in ({"name": "x" * 256}, {"tags": "x" * 101}, {"name": "a\0b"}):
        await admin.act(f"/agents/{agent.id}/rename", 422, **wrong)


async def test_one_of_redflags_agents_can_be_asked_to_come_by_rapidly(admin, enrol, pool):
    _word, (theirs,) = await enrol(protocol=0)
    _word, (ours,) = await enrol()
    assert "Rapid check-ins" in await admin.page(f"/agents/{theirs.id}")
    assert "Rapid check-ins" not in await admin.page(f"/agents/{ours.id}")
    await admin.act(f"/agents/{theirs.id}/rapid", minutes=30)
    await admin.act(f"/agents/{theirs.id}/rapid", minutes=0)
    for wrong in ("", "7", "-1", "ten"):
        await admin.act(f"/agents/{theirs.id}/rapid", 422, minutes=wrong)
    rows = await pool.fetch(
        "SELECT command_type, params FROM agent_commands WHERE agent_id = $1 ORDER BY created_at", uuid.UUID(theirs.id)
    )
    assert [tuple(row) for row in rows] == [("enable_heartbeat", {"duration_minutes": 30}), ("disable_heartbeat", {})]


async def test_a_removed_agent_keeps_its_page_and_its_history_and_offers_nothing(admin, enrol):
    word, (agent,) = await enrol()
    await admin.act(f"/agents/{agent.id}/scan")
    await admin.act(f"/agents/{agent.id}/remove")
    assert _shown(await admin.page(f"/agents?text={word}")) == []
    text = await admin.page(f"/agents/{agent.id}")
    assert "This agent was removed on" in text
    assert "Scan now" not in text
    assert "cancelled" in text
    assert "was cancelled" in await admin.page(f"/agents/{agent.id}/timeline")
    await admin.act(f"/agents/{agent.id}/scan", 404)
    await admin.act(f"/agents/{agent.id}/remove", 404)
    await admin.act(f"/agents/{agent.id}/rename", 404, name="back")


async def test_a_host_arrives_on_the_page_and_is_scanned_as_it_comes(admin, nobody, pool):
    label = f"rack {uuid.uuid4().hex[:8]}"
    answer = await admin.act("/agents/enrol", label=label, seats=2, hours=24, first_scan="yes")
    token = re.search(r"sh -s -- ([0-9a-f]+)", answer.text)[1]
    path = re.search(r'hx-get="(/agents/enrol/[0-9a-f-]{36})"', answer.text)[1]
    assert "/agent/install.sh | sudo sh -s -- " in html.unescape(answer.text)
    assert "No host has arrived yet" in await admin.region(path, "came")
    agent = await Agent.enrol(nobody, token, hostname="arrives-here")
    assert "1 host has arrived" in await admin.region(path, "came")
    arrived = await admin.region(path, "arrived")
    assert "arrives-here" in arrived
    assert "not come by yet" in arrived
    (command,) = (await agent.check_in())["commands"]
    assert command["type"] == "scan_updates"
    assert "handed out" in await admin.region(path, "arrived")
    await agent.post("logs", {"command_id": command["id"], "action": "scan_updates", "result": "success"})
    arrived = await admin.region(path, "arrived")
    assert "up to date" in arrived
    assert "online" in arrived
    assert token not in await admin.page(path)
    text = await admin.region("/agents/enrol", "open")
    assert label in text
    assert token not in text
    assert "1 of 2" in text
    await admin.act(f"{path}/revoke")
    assert label not in await admin.region("/agents/enrol", "open")
    assert "Revoked" in await admin.region(path, "came")
    await admin.act(f"{path}/revoke", 404)


async def test_an_enrolment_without_a_scan_enqueues_nothing_and_offers_one(admin, enrol, pool):
    word, (agent,) = await enrol()
    token = await pool.fetchval("SELECT enrolled_with FROM agents WHERE id = $1", uuid.UUID(agent.id))
    assert await pool.fetchval("SELECT label FROM enrolment_tokens WHERE id = $1", token) == word
    assert (await agent.check_in())["commands"] == []
    assert f"/agents/{agent.id}/scan" in await admin.region(f"/agents/enrol/{token}", "arrived")


async def test_without_script_the_command_is_shown_all_the_same(admin):
    answer = await admin.post("/agents/enrol", data={"csrf": admin.csrf, "label": "", "seats": "1", "hours": "1"})
    assert answer.status_code == 200
    assert "<html" in answer.text
    assert "sudo sh -s -- " in answer.text


@pytest.mark.parametrize("wrong", [
    {"seats": 0, "hours": 1}, {"seats": 100_001, "hours": 1}, {"seats": 1, "hours": 0}, {"seats": 1, "hours": 8761},
    {"seats": "²", "hours": 1},
    {"seats": 1, "hours": "1e3"}, {"hours": 1}, {"seats": 1, "hours": 1, "label": "x" * 256}, {"seats": 1, "hours": 1, "label": "a\0"},
])  # fmt: skip
async def test_an_enrolment_that_cannot_be_is_refused(admin, wrong):
    await admin.act("/agents/enrol", 422, **wrong)


async def test_the_page_says_that_no_other_host_reaches_this_address(admin):
    text = await admin.page("/agents/enrol")
    assert "which only this very host reaches" in text
    assert "REDFLAG_PUBLIC_URL" in text
