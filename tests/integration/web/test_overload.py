"""Past its limit the server says so, says when to come back, and stays up; and check-ins go two ways that answer the same."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from redflag.database import gathering
from redflag.web.app import BodyLimit


async def test_when_too_many_bodies_are_under_way_the_next_is_told_to_come_back(enrol, monkeypatch):
    agent = await enrol()
    monkeypatch.setattr(BodyLimit, "MOST_UNDER_WAY", 1000)
    report = {"command_id": str(uuid.uuid4()), "result": "success", "stdout": "x" * 2000}
    answer = await agent.post("logs", report)
    assert answer.status_code == 503
    assert 5 <= int(answer.headers["retry-after"]) <= 30
    monkeypatch.undo()
    # Nothing of what was refused is still counted
    assert (await agent.post("logs", report)).status_code == 404


async def test_when_too_many_calls_wait_the_next_is_told_to_come_back(enrol, monkeypatch):
    agent = await enrol()
    await agent.check_in()

    async def full(*_arguments: object) -> None:
        raise gathering.Overloaded("9000 calls wait for the database already")

    monkeypatch.setattr("redflag.fleet.checkin.CheckIns.check_in", full)
    answer = await agent.client.request("GET", f"/api/v1/agents/{agent.id}/commands", headers=agent.headers)
    assert answer.status_code == 503
    assert 5 <= int(answer.headers["retry-after"]) <= 30
    assert "wait for the database" in answer.json()["error"]


@pytest.mark.parametrize("protocol", [0, 1])
async def test_the_first_check_in_and_the_ones_after_it_are_answered_alike(admin, enrol, protocol):
    agent = await enrol(protocol)
    path, asked = f"/api/v1/agents/{agent.id}/commands", {"protocol": protocol, "cpu_percent": 1.0}
    # The first goes the ordinary way, because nobody remembers the token yet
    answers = [await agent.client.request("GET", path, json=asked, headers=agent.headers) for _ in range(3)]
    told = [{name: value for name, value in one.json().items() if name != "log"} for one in answers]
    assert told[0] == told[1] == told[2]
    for name in (
        "content-type",
        "cache-control",
        "x-content-type-options",
        "content-security-policy",
        "content-length",
    ):
        assert len({one.headers[name] for one in answers}) == 1, name
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    handed = await agent.client.request("GET", path, json=asked, headers=agent.headers)
    assert [one["id"] for one in handed.json()["commands"]] == [made.json()["commands"][0]["id"]]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":' * 5000, b'{"held": 5}'])
async def test_odd_bodies_of_a_remembered_agent_are_answered_as_those_of_any_other(enrol, body):
    seen = []
    for remembered in (False, True):
        agent = await enrol()
        if remembered:
            await agent.check_in()
        answer = await agent.client.request(
            "GET", f"/api/v1/agents/{agent.id}/commands", content=body, headers=agent.headers
        )
        seen.append((answer.status_code, sorted(answer.json())))
    assert seen[0] == seen[1]
    assert seen[0][0] in {200, 400}


async def test_a_body_that_comes_in_parts_is_read_whole_and_a_large_one_refused(enrol):
    agent = await enrol()

    async def parts(size: int):
        body = json.dumps({"protocol": 1, "padding": "x" * size}).encode()
        for begin in range(0, len(body), 1000):
            yield body[begin : begin + 1000]
            await asyncio.sleep(0)

    path = f"/api/v1/agents/{agent.id}/commands"
    # The first time nobody remembers the token
    for _ in range(2):
        large = await agent.client.request("GET", path, content=parts(200_000), headers=agent.headers)
        assert large.status_code == 413
        small = await agent.client.request("GET", path, content=parts(5000), headers=agent.headers)
        assert (small.status_code, "wait" in small.json()) == (200, True)


async def test_a_remembered_token_opens_no_other_agents_way(enrol):
    one, other = await enrol(), await enrol()
    await one.check_in()
    await other.check_in()
    answer = await one.client.request("GET", f"/api/v1/agents/{other.id}/commands", headers=one.headers)
    assert answer.status_code == 403
