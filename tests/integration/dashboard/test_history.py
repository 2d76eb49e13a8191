"""History and audit trail: the record in sentences, filters in the address, records with their proof, and what is handed out."""

from __future__ import annotations

import asyncio
import datetime
import html
import io
import re
import urllib.parse
import uuid
import zipfile
from typing import Any

import pytest
import pytest_asyncio

import redflag_verify
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.audit import erasure
from redflag.commands import queue
from redflag.commands.history import encode_cursor
from redflag.web.dashboard import history
from redflag.web.dashboard.history_record import exact, flat


@pytest_asyncio.fixture
async def host(pool) -> tuple[str, uuid.UUID]:
    """An agent: what it is called, and its id."""
    name = f"host-{uuid.uuid4().hex[:8]}"
    async with pool.acquire() as connection:
        act = actors.service("tests", "here").act("agent_enrolled")
        found = await connection.fetchval(
            "INSERT INTO agents (hostname, protocol, act) VALUES ($1, 1, $2) RETURNING id", name, act
        )
    return name, found


async def _enqueue(pool: Any, agent: uuid.UUID, person: str = "anna", **params: Any) -> uuid.UUID:
    async with pool.acquire() as connection:
        made = await queue.enqueue(connection, actors.user(person), [agent], "scan_updates", params)
    found: uuid.UUID = await pool.fetchval("SELECT id FROM agent_commands WHERE agent_id = $1 ORDER BY id DESC", agent)
    assert made
    return found


async def _until(what: Any) -> Any:
    """What a question is answered with, once it is not nothing."""
    async with asyncio.timeout(30):
        while True:
            if found := await what():
                return found
            await asyncio.sleep(0.05)


async def _timed_out(pool: Any, owner: Any, agent: uuid.UUID) -> uuid.UUID:
    """A command whose time is over, as the sweep found it; its record's id."""
    command = await _enqueue(pool, agent)
    await owner.execute("UPDATE agent_commands SET next_deadline_at = now() WHERE id = $1", command)
    found: uuid.UUID = await _until(
        lambda: owner.fetchval(
            "SELECT id FROM update_logs WHERE command_id = $1 AND result = 'timed_out'", command
        )
    )  # fmt: skip
    return found


async def _covered(pool: Any, record: uuid.UUID) -> int:
    """The position of a record, once a checkpoint covers it."""
    return int(
        await _until(
            lambda: pool.fetchval(
                """SELECT position + 1 FROM audit_entries WHERE record_id = $1
                     AND position < (SELECT max(size) FROM audit_checkpoints)""",
                record,
            )
        )
    ) - 1  # fmt: skip


def _sentences(text: str) -> list[str]:
    """What a page tells, row by row."""
    found = re.findall(r'<a class="event-what"[^>]*>(.*?)</a>', text, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", one)).strip() for one in found]


async def test_a_timeout_is_told_in_a_sentence_with_who_found_it_and_how_late(admin, pool, owner, host):
    name, agent = host
    await _timed_out(pool, owner, agent)
    text = await admin.page(f"/history?agent_id={agent}&result=timed_out")
    (told,) = _sentences(text)
    assert re.fullmatch(
        rf"{name}: scan_updates timed out after [\d.]+ s: it was not delivered within 30 min 0 s; detected by tests, [\d.]+ s late",
        told,
    )
    assert f'href="/agents/{agent}"' in text
    assert 'href="/commands/' in text
    assert "timeout service on tests" in text


async def test_who_acted_is_said_by_name(admin, pool, host):
    _, agent = host
    await _enqueue(pool, agent, "berta")
    assert "by berta" in await admin.page(f"/history?agent_id={agent}")


async def test_each_filter_narrows_and_can_be_taken_away(admin, pool, owner, host):
    name, agent = host
    await _timed_out(pool, owner, agent)
    command = await owner.fetchval(
        "SELECT command_id FROM update_logs WHERE agent_id = $1 AND command_id IS NOT NULL", agent
    )
    both = await admin.page(f"/history?agent_id={agent}&command_id={command}")
    assert len(_sentences(both)) == 2
    for query, expected in (
        ({"result": "timed_out"}, 1),
        ({"kind": "transition"}, 2),
        ({"kind": "change"}, 1),
        ({"action": "agent_enrolled"}, 1),
        ({"actor": "anna"}, 1),
        ({"actor": "user:anna"}, 1),
        ({"people": "yes"}, 1),
        ({"command_type": "scan_updates"}, 2),
        ({"text": "NOT DELIVERED"}, 1),
        ({"since": "1h"}, 3),
        ({"until": "1h"}, 0),
        ({"since": "2020-01-01T00:00", "until": "2020-01-02"}, 0),
    ):
        path = f"/history?{urllib.parse.urlencode({'agent_id': str(agent)} | query)}"
        text = await admin.page(path)
        assert len(_sentences(text)) == expected, query
        chips = re.findall(r'class="chip" href="([^"]+)"', text)
        without = f"/history?{urllib.parse.urlencode({'agent_id': str(agent)} | dict(list(query.items())[1:]))}"
        assert without in map(html.unescape, chips), query
        assert name in text


async def test_an_agent_is_found_by_its_name_and_stands_in_the_address_by_its_id(admin, host):
    name, agent = host
    answer = await admin.get("/history", params={"agent_id": name.upper(), "kind": "change"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/history?kind=change&agent_id={agent}"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("result=nonsense", "no result"),
        ("kind=nonsense", "no kind"),
        ("command_id=12", "command's id"),
        ("agent_id=nobody-of-this-name", "No agent is called"),
        ("since=yesterday", "no time"),
        ("until=0001-01-01T00:00:00%2B23:00", "no time"),
        ("cursor=zzz", "cursor"),
        ("text=a%00b", "no text"),
        ("actor=" + "x" * 400, "too long"),
        ("text=abc&since=400d", "31 days"),
    ],
)
async def test_a_filter_that_cannot_be_read_is_said_and_nothing_breaks(admin, query, said):
    assert said in html.unescape(await admin.page(f"/history?{query}", 422))
    assert (await admin.get(f"/history/new?{query}")).status_code == 422


async def test_every_page_is_reached_and_none_shows_a_record_twice(admin, pool, host, monkeypatch):
    monkeypatch.setattr(history, "EVENTS", 3)
    _, agent = host
    for _ in range(7):
        await _enqueue(pool, agent)
    path: str | None = f"/history?agent_id={agent}"
    seen: list[str] = []
    while path:
        text = await admin.page(path)
        seen += re.findall(r'class="event-what" href="/history/([^"]+)"', text)
        older = re.search(r'href="([^"]+)" rel="next"', text)
        path = html.unescape(older[1]) if older else None
        assert ('hx-get="/history/new' in text) == (len(seen) <= 3)
    assert len(seen) == len(set(seen)) == 8


async def test_what_came_since_is_counted_and_no_reading_is_recorded_for_it(admin, pool, host):
    _, agent = host
    text = await admin.page(f"/history?agent_id={agent}")
    new = html.unescape(re.search(r'hx-get="(/history/new[^"]+)"', text)[1])
    assert (await admin.get(new)).status_code == 204
    before = await pool.fetchval("SELECT count(*) FROM update_logs WHERE action = 'history_read'")
    await _enqueue(pool, agent)
    said = await admin.page(new)
    assert "1 new record: show" in " ".join(said.split())
    assert f'href="/history?agent_id={agent}"' in said
    await _enqueue(pool, agent)
    assert "2 new records: show" in " ".join((await admin.page(new)).split())
    assert await pool.fetchval("SELECT count(*) FROM update_logs WHERE action = 'history_read'") == before


async def test_that_it_was_read_is_no_news(admin):
    text = await admin.page("/history?kind=access&action=history_read")
    new = html.unescape(re.search(r'hx-get="(/history/new[^"]+)"', text)[1])
    await admin.page(f"/history?action=history_read&actor={uuid.uuid4()}")
    assert (await admin.get(new)).status_code == 204


async def test_reading_is_recorded_with_the_persons_name_once_for_a_filter(person, pool, host):
    somebody = await person(Role.AUDITOR)
    _, agent = host
    for _ in range(3):
        await somebody.page(f"/history?agent_id={agent}&result=failed")
    rows = await pool.fetch(
        "SELECT message FROM update_logs WHERE action = 'history_read' AND actor = $1", f"user:{somebody.name}"
    )
    assert [row["message"] for row in rows] == [f"agent_id={agent} result=failed"]


async def test_a_record_is_shown_whole_and_what_a_host_wrote_is_text(admin, pool, owner, host):
    _, agent = host
    command = await _enqueue(pool, agent, reason="<i>why</i>", nested={"deep": [{"a": 1}, {"a": None}]})
    record = await owner.fetchval("SELECT id FROM update_logs WHERE command_id = $1", command)
    text = await admin.page(f"/history/{record}")
    assert "&lt;i&gt;why&lt;/i&gt;" in text
    assert "<i>why" not in text
    assert "nested → deep 1 → a" in text
    assert f"/commands/{command}" in text
    assert f"/agents/{agent}" in text
    assert "request id" in text
    brief = await admin.page(f"/history/{record}/brief")
    assert "<html" not in brief
    assert f'href="/history/{record}"' in brief


async def test_a_record_tells_its_place_once_a_checkpoint_covers_it(admin, pool, owner, host):
    _, agent = host
    command = await _enqueue(pool, agent)
    record = await owner.fetchval("SELECT id FROM update_logs WHERE command_id = $1", command)
    position = await _covered(pool, record)
    place = await admin.region(f"/history/{record}", "place")
    assert f"<dd>{position:,}</dd>" in place
    assert "by no witness yet" in place
    assert "data-verify" in place


async def test_a_record_that_there_is_not_is_not_found(admin):
    for path in ("", "/brief", "/proof"):
        assert (await admin.get(f"/history/{uuid.uuid4()}{path}")).status_code == 404


async def test_what_was_erased_is_said_and_who_did_it_is_linked(admin, pool, owner, host):
    _, agent = host
    record = await _timed_out(pool, owner, agent)
    await _covered(pool, record)
    async with pool.acquire() as connection:
        erased = await erasure.erase(connection, actors.user("anna"), record, ["message", "actor"], "asked for it")
    text = await admin.page(f"/history/{record}")
    assert text.count(f'href="/history/{erased.erasure_id}"') == 2
    assert 'data-text="message"' not in text
    assert 'data-text="actor"' not in text
    assert "asked for it" in await admin.page(f"/history/{erased.erasure_id}")


async def test_a_proof_is_a_file_that_the_offline_verifier_takes(person, pool, owner, host):
    somebody = await person(Role.OPERATOR)
    _, agent = host
    record = await _timed_out(pool, owner, agent)
    position = await _covered(pool, record)
    answer = await somebody.get(f"/history/{record}/proof")
    assert f'filename="{record}.tlog-proof"' in answer.headers["content-disposition"]
    page = await somebody.page(f"/history/{record}")
    vkey = html.unescape(re.search(r'data-key="([^"]+)"', page)[1])
    trust = redflag_verify.Trust(redflag_verify.Key.parse(vkey, redflag_verify.ED25519))
    report = redflag_verify.Report()
    redflag_verify.verify_proof(answer.content, trust, report)
    assert report.facts["position"] == position
    script = await somebody.get("/history/redflag_verify.py")
    assert script.text.startswith("#!/usr/bin/env python3")
    assert f"{record}.tlog-proof --key" in page


async def test_a_consistency_proof_is_given_to_whoever_reads_history(person, admin, role_token, pool, owner, host):
    _, agent = host
    await _covered(pool, await _timed_out(pool, owner, agent))
    somebody = await person(Role.OPERATOR)
    sizes = [row["size"] for row in await pool.fetch("SELECT size FROM audit_checkpoints ORDER BY size LIMIT 2")]
    old, size = sizes[0], sizes[-1]
    own = await somebody.get(f"/history/consistency?old={old}&size={size}")
    api = await admin.get(
        f"/api/v1/audit/consistency?old={old}&size={size}", headers={"Authorization": f"Bearer {role_token}"}
    )
    assert own.text == api.text
    assert (await somebody.get("/history/consistency?old=9000000000&size=1")).status_code == 404
    assert (await somebody.get("/history/consistency?old=-1")).status_code == 422


async def test_an_operator_sees_how_the_log_stands_and_an_auditor_what_can_be_taken_out(person):
    operator, auditor = await person(Role.OPERATOR), await person(Role.AUDITOR)
    for somebody, takes in ((operator, False), (auditor, True)):
        text = await somebody.page("/history/audit?result=timed_out")
        assert "in the tree" in text
        assert "SHA-256" in text
        assert ("/history/audit/bundle" in text) == takes
        assert ("/history/audit/report" in text) == takes
    assert 'name="result" value="timed_out"' in text
    log = await auditor.region("/history/audit", "log")
    assert "in the tree" in log


async def _exported(pool: Any, person: Any) -> list[str]:
    rows = await pool.fetch(
        "SELECT message FROM update_logs WHERE action = 'audit_exported' AND actor = $1 ORDER BY executed_at",
        f"user:{person.name}",
    )
    return [row["message"] for row in rows]


async def test_what_is_handed_out_is_that_of_the_filter_and_recorded_with_the_persons_name(person, pool, owner, host):
    auditor = await person(Role.AUDITOR)
    _, agent = host
    record = await _timed_out(pool, owner, agent)
    await _covered(pool, record)
    exported = await auditor.get(f"/history/audit/export?format=csv&agent_id={agent}&result=timed_out&since=1h")
    assert exported.headers["content-type"].startswith("text/csv")
    assert exported.text.count(str(record)) >= 1
    assert len(exported.text.splitlines()) == 2
    bundle = await auditor.get(f"/history/audit/bundle?agent_id={agent}")
    assert bundle.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as opened:
        assert str(record) in opened.read("entries.jsonl").decode()
    report = await auditor.get("/history/audit/report?since=1d&format=pdf")
    assert report.content.startswith(b"%PDF")
    assert "attachment" in report.headers["content-disposition"]
    said = await _exported(pool, auditor)
    assert len(said) == 3
    assert said[0].startswith("csv since=")
    assert said[1].startswith("evidence bundle of")
    assert said[2].startswith("report since=")


async def test_a_report_is_read_in_the_browser_and_can_run_nothing(person):
    auditor = await person(Role.AUDITOR)
    answer = await auditor.get("/history/audit/report?since=1d")
    assert answer.status_code == 200
    assert "content-disposition" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "<h1>Audit report" in answer.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("report", "since when"),
        ("report?since=2d&until=3d", "period"),
        ("report?since=4000d", "days"),
        ("report?since=1d&format=exe", "no format"),
        ("export?format=exe", "no format"),
        ("export?text=abc", "cannot be narrowed by text"),
        ("bundle?people=yes", "cannot be narrowed by by people"),
        ("bundle?since=1d&until=2d", "ends before it begins"),
        ("export?result=nonsense", "no result"),
    ],
)
async def test_what_cannot_be_handed_out_is_said_on_a_page(admin, path, said):
    text = await admin.page(f"/history/audit/{path}", 422)
    assert said in html.unescape(text)


async def test_another_sites_page_cannot_have_it_written(admin):
    for path in ("bundle", "export", "report?since=1d"):
        answer = await admin.get(f"/history/audit/{path}", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403


async def test_a_list_that_is_empty_says_what_would_be_there(admin):
    text = await admin.page("/history?action=nothing_is_called_so")
    assert "Nothing of this kind is recorded" in text
    nobody = encode_cursor(datetime.datetime.now(datetime.UTC), uuid.UUID(int=0))
    assert "Nothing" in await admin.page(f"/history?action=nothing_is_called_so&cursor={nobody}")


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (None, []),
        ({}, [("value", "none")]),
        ({"a": None, "b": True, "c": False, "d": 1}, [("a", "nothing"), ("b", "yes"), ("c", "no"), ("d", "1")]),
        ({"a": ["x", "y"], "b": [], "c": {}}, [("a", "x, y"), ("b", "none"), ("c", "none")]),
        ({"a": {"b": [{"c": 1}]}}, [("a → b 1 → c", "1")]),
        ("text", [("value", "text")]),
    ],
)
def test_json_is_told_line_by_line(value, lines):
    assert flat(value) == lines


def test_a_text_reaches_the_browser_to_the_letter():
    assert exact("a\r\nb\r<&") == "a&#13;\nb&#13;&lt;&amp;"
