"""A call that is held: a command reaches an agent at once, and nobody is held for nothing."""

from __future__ import annotations

import asyncio
import time

import httpx


async def _held(agent, wait: int, **body):
    return await agent.client.request(
        "GET", f"/api/v1/agents/{agent.id}/commands?wait={wait}", json={"protocol": 1} | body, headers=agent.headers
    )


async def test_a_command_reaches_an_agent_whose_call_is_held(admin, enrol):
    agent = await enrol()
    began = time.monotonic()
    waiting = asyncio.create_task(_held(agent, 20))
    await asyncio.sleep(0.2)  # so that the call is there first; if it were not, it would be answered all the same
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    answer = (await waiting).json()
    assert [one["id"] for one in answer["commands"]] == [made.json()["commands"][0]["id"]]
    assert time.monotonic() - began < 5
    assert answer["wait"] == 30


async def test_an_agent_is_told_at_once_that_what_it_runs_was_cancelled(admin, enrol):
    agent = await enrol()
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    command = made.json()["commands"][0]["id"]
    await agent.check_in()
    await agent.post("progress", {"running": [command]})
    waiting = asyncio.create_task(_held(agent, 20, held=[command]))
    await asyncio.sleep(0.2)
    await admin.post(f"/api/v1/commands/{command}/cancel", json={})
    assert (await waiting).json()["ended"] == [command]


async def test_a_call_for_which_nothing_comes_is_answered_when_its_time_is_over(enrol):
    agent = await enrol()
    began = time.monotonic()
    assert (await _held(agent, 1)).json()["commands"] == []
    assert 0.9 < time.monotonic() - began < 5


async def test_redflags_own_agents_and_nonsense_are_never_held(enrol):
    old, new = await enrol(protocol=0), await enrol()
    began = time.monotonic()
    answer = await old.client.request("GET", f"/api/v1/agents/{old.id}/commands?wait=20", headers=old.headers)
    assert answer.json() == {"commands": []}
    for nonsense in ("-1", "x", "", "1e9", "²"):
        answer = await new.client.request(
            "GET",
            f"/api/v1/agents/{new.id}/commands",
            params={"wait": nonsense},
            json={"protocol": 1},
            headers=new.headers,
        )
        assert answer.status_code == 200
    assert time.monotonic() - began < 5


async def test_an_agent_that_has_gone_is_handed_nothing(admin, enrol, base_url):
    agent = await enrol()
    async with httpx.AsyncClient(base_url=base_url, timeout=0.3) as impatient:
        try:
            await impatient.request(
                "GET", f"/api/v1/agents/{agent.id}/commands?wait=20", json={"protocol": 1}, headers=agent.headers
            )
        except httpx.ReadTimeout:
            pass
        else:
            raise AssertionError("the call should have been held")
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    command = made.json()["commands"][0]["id"]
    await asyncio.sleep(1.2)  # two rounds in which a call that is still held would be woken
    shown = await admin.get(f"/api/v1/commands/{command}")
    assert shown.json()["command"]["status"] == "pending"
    assert [one["id"] for one in (await agent.check_in())["commands"]] == [command]
