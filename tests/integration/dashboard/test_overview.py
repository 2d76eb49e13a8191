"""The overview says how the fleet is and what needs a person, to each as much as they may read."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import Any

import pytest

from integration.commands.helpers import MINUTE, make_agent, make_command
from integration.dashboard.waiting import until
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.audit import events
from redflag.updates import inventory
from redflag.web.dashboard import summary
from redflag.web.dashboard.summary import Summary


def seen(text: str) -> str:
    """What a person reads of a page."""
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


async def test_the_fleet_is_told_at_a_glance_with_what_needs_a_person(admin: Any, owner: Any, pool: Any) -> None:
    agent = await make_agent(owner)
    item = {
        "package_type": "apt", "package_name": f"p-{uuid.uuid4()}", "package_description": "", "current_version": "1",
        "available_version": "2", "severity": "critical", "cve_list": None, "kb_id": "", "repository_source": "", "size_bytes": 0,
        "metadata": {},
    }  # fmt: skip
    async with pool.acquire() as connection:
        await inventory.report(connection, actors.agent(agent), agent, json.dumps([item]).encode(), [], None)
    text = await until(
        lambda: admin.page("/"), "lost</strong>", "for a decision</strong>", "Decide on the critical ones"
    )
    assert 'href="/agents?presence=lost"' in text
    assert 'href="/updates?status=pending&amp;severity=critical"' in text
    assert "Nothing needs you" not in text
    for heading in (
        "Agents",
        "Open updates",
        "Live commands",
        "Audit trail",
        "Timeouts in the last 24 hours",
        "Deadlines",
    ):
        assert re.search(rf"<h2[^>]*>{heading}</h2>", text), heading
    assert "records" in seen(text)
    assert "Last sweep" in text


async def test_the_oldest_waiting_command_is_linked_and_says_why_it_waits(admin: Any, owner: Any) -> None:
    command = await make_command(owner, await make_agent(owner), age=25 * MINUTE)
    text = await until(lambda: admin.region("/", "glance"), f'href="/commands/{command}"')
    assert "its agent has never come by" in text
    await owner.execute("UPDATE agent_commands SET status = 'cancelled' WHERE id = $1", command)


async def test_timeouts_of_the_day_are_told_in_words_and_as_a_table(person: Any, viewer: Any, owner: Any) -> None:
    kind = f"type_{uuid.uuid4().hex[:8]}"
    await make_command(owner, await make_agent(owner), overdue=MINUTE, command_type=kind)
    auditor = await person(Role.AUDITOR)
    text = await until(lambda: auditor.region("/", "glance"), f"1 {kind}")
    assert re.search(rf'<th scope="col"[^>]*data-series[^>]*>{kind}</th>', text)
    assert len(re.findall(r'<th scope="row"><time datetime="[^"]+:00:00\+00:00"', text)) == 24
    assert 'data-value="1"' in text
    assert 'href="/history?result=timed_out"' in text
    text = await viewer.region("/", "glance")
    assert "/history" not in text


async def test_who_may_not_read_the_history_is_told_nothing_of_it(viewer: Any, admin: Any, pool: Any) -> None:
    async with pool.acquire() as connection:
        await events.record(
            connection, actors.service("fsck", "here"), kind="service", action="fsck", result="failed",
            message="leaf 7 is not what was logged", size=7, signatures_checked=True,
        )  # fmt: skip
    text = await until(lambda: admin.page("/"), "leaf 7 is not what was logged", "NOT whole")
    assert 'href="/history?action=fsck"' in text
    text = await viewer.page("/")
    # An alert may advise to run it; what it found is for those who may read what happened
    for hidden in ("leaf 7", "NOT whole", "/history"):
        assert hidden not in text
    assert "Audit trail" in text
    async with pool.acquire() as connection:
        await events.record(
            connection, actors.service("fsck", "here"), kind="service", action="fsck", message="whole", size=8
        )
        await events.record(connection, actors.user("mallory"), kind="service", action="fsck", result="failed")
    text = await until(lambda: admin.region("/", "glance"), "<dd>whole, <time")
    assert "NOT whole" not in text


async def test_only_whoever_may_enrol_is_led_to_it(viewer: Any, admin: Any) -> None:
    assert 'href="/agents/enrol"' in await admin.page("/")
    assert 'href="/agents/enrol"' not in await viewer.page("/")


async def test_a_new_installation_says_the_next_step(admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(*_names: str) -> summary.Seen:
        return summary.Seen(
            {"online": 1, "late": 0, "lost": 0}, None, None, None, None, None, None, None, renewing=True
        )

    monkeypatch.setattr(Summary, "look", lambda _self, *names: one(*names))
    text = await admin.page("/")
    assert "Enrol your second host" in text
    assert "being counted" in text, "what is not known yet is told so"
    assert 'hx-trigger="load delay' in text, "and asked for again"


async def test_parts_are_gathered_once_for_everybody_and_a_slow_one_keeps_nobody(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, asked = asyncio.Event(), []

    async def counted(_connection: Any, _interval: int) -> dict[str, int]:
        asked.append(1)
        await slow.wait()
        return {"online": 3, "late": 0, "lost": 0}

    monkeypatch.setattr(summary.agents, "counts", counted)
    monkeypatch.setattr(summary, "WAIT_SECONDS", 10.0)
    sums = Summary(pool, 60)
    looks = [asyncio.ensure_future(sums.look("commands", "day", "service")) for _ in range(20)]
    assert all(one.commands and one.day and one.service for one in await asyncio.gather(*looks))
    monkeypatch.setattr(summary, "WAIT_SECONDS", 0.0)
    found = await sums.look()
    assert found.agents is None
    assert found.commands is not None
    assert not found.whole
    await asyncio.gather(*(sums.look() for _ in range(20)))
    slow.set()
    monkeypatch.setattr(summary, "WAIT_SECONDS", 10.0)
    found = await sums.look()
    assert found.agents == {"online": 3, "late": 0, "lost": 0}
    assert len(asked) == 1
    assert found.at is not None
    await sums.stop()


async def test_a_region_that_was_told_of_a_change_asks_once_more_when_it_may_be_counted(
    admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one(*_names: str) -> summary.Seen:
        return summary.Seen(None, None, None, None, None, None, None, None, due=1.5)

    monkeypatch.setattr(Summary, "look", lambda _self, *names: one(*names))
    assert 'hx-trigger="load delay:2100ms"' in await admin.region("/", "glance")
    assert 'hx-trigger="load delay' not in await admin.region("/?again=yes", "glance")
    assert 'hx-trigger="load delay' not in await admin.page("/")
