"""Open pages are told what changed, for as long as their session lasts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace

import httpx
import pytest

from redflag.access.roles import PERMISSIONS, Role
from redflag.audit import actor as actors
from redflag.commands import queue
from redflag.errors import Overloaded
from redflag.web.dashboard import live, pushed


async def _events(person):
    """Events of the stream, one after the other."""
    async with person.stream("GET", "/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])


async def test_a_page_is_told_that_commands_changed(admin, pool):
    events = _events(admin)
    assert (await anext(events))[0] == "pulse"
    async with pool.acquire() as connection:
        agent = await connection.fetchval(
            "INSERT INTO agents (hostname, protocol, act) VALUES ('live', 1, $1) RETURNING id",
            actors.service("tests", "here").act("agent_enrolled"),
        )
    seen: set[str] = set()
    async with asyncio.timeout(20):
        enqueued = False
        async for name, told in events:
            assert name == "pulse"
            seen |= set(told["subjects"])
            if not enqueued:
                async with pool.acquire() as connection:
                    await queue.enqueue(connection, actors.user("anna"), [agent], "scan_updates", {})
                enqueued = True
            if {"commands", "records", "agents", "presence"} <= seen:
                break
    await events.aclose()


async def test_a_stream_ends_with_its_session(person, pool):
    somebody = await person(Role.VIEWER)
    events = _events(somebody)
    await anext(events)
    async with pool.acquire() as connection:
        await connection.execute(
            "UPDATE sessions SET ended_at = now() FROM users u WHERE u.id = user_id AND u.username = $1", somebody.name
        )
    async with asyncio.timeout(30):
        names = [name async for name, _ in events]
    assert names[-1] == "bye"


async def test_nobody_is_taken_in_past_the_limit_and_a_stop_ends_all(pool, monkeypatch):
    monkeypatch.setattr(live, "MOST", 1)
    pulse = live.Pulse(pool)
    first = pulse.listen()
    waiting = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await anext(pulse.listen())
    pulse.tell({"commands"})
    assert await waiting == {"commands"}
    pulse.release()
    assert [subjects async for subjects in first] in ([], [set()])
    assert len(pulse) == 0


async def test_many_pages_make_beats_come_less_often(pool):
    pulse = live.Pulse(pool)
    listening = [pulse.listen() for _ in range(200)]
    waits = [asyncio.ensure_future(anext(one)) for one in listening]
    await asyncio.sleep(0)
    assert pulse.beat_seconds == 5.0
    pulse.release()
    await asyncio.gather(*waits)
    for one in listening:
        await one.aclose()


async def test_one_person_does_not_take_the_streams_of_all(person, viewer, base_url):
    greedy = await person(Role.VIEWER)
    limits = httpx.Limits(max_connections=None)
    async with (
        contextlib.AsyncExitStack() as held,
        httpx.AsyncClient(base_url=base_url, cookies=greedy.cookies, limits=limits, timeout=30) as many,
    ):
        open_now = []
        for _ in range(130):
            answer = await held.enter_async_context(many.stream("GET", "/live"))
            if answer.status_code != 200:
                break
            open_now.append(answer.aiter_bytes())
            await anext(open_now[-1])
        assert answer.status_code == 503
        assert len(open_now) == live.MOST_OF_ONE
        assert answer.headers["retry-after"]
        events = _events(viewer)
        assert (await anext(events))[0] == "pulse"
        await events.aclose()


async def _first_region(somebody):
    async with somebody.stream("GET", "/live?region=glance") as answer:
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: ") and name == "region":
                return json.loads(line[6:])
    raise AssertionError("the stream ended")


async def test_a_region_is_sent_along_with_the_stream_to_each_as_they_may_see_it(admin, viewer):
    async with asyncio.timeout(30):
        told, less = await asyncio.gather(_first_region(admin), _first_region(viewer))
    assert told["id"] == less["id"] == "glance"
    assert "What needs a person now" in told["html"]
    assert "Last fsck" in told["html"]
    assert "Last fsck" not in less["html"]


async def test_a_region_is_drawn_once_for_all_who_may_see_the_same():
    drawn = []

    async def draw(visitor):
        drawn.append(visitor.principal.role)
        await asyncio.sleep(0)
        return f"for {visitor.principal.role}"

    def visitor(role: Role):
        return SimpleNamespace(principal=SimpleNamespace(role=role, permissions=PERMISSIONS[role]))

    regions = pushed.Pushed({"glance": draw})
    people = [visitor(Role.ADMIN), visitor(Role.VIEWER), visitor(Role.ADMIN)] * 20
    told = await asyncio.gather(*(regions.event("glance", one) for one in people))
    assert sorted(drawn) == [Role.ADMIN, Role.VIEWER]
    assert len(set(told)) == 2
    assert told[0] == b'event: region\ndata: {"id":"glance","html":"for admin"}\n\n'


async def test_a_region_that_there_is_not_is_not_sent(admin):
    async with admin.stream("GET", "/live?region=secrets") as answer:
        assert answer.status_code == 200
        seen = []
        async with asyncio.timeout(30):
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    seen.append(line[7:])
                if len(seen) == 3:
                    break
    assert seen == ["pulse"] * 3
