"""What goes past the framework is answered as what goes through it, and in one piece."""

from __future__ import annotations

import asyncio
import gc
import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest

SECURITY = ("content-type", "cache-control", "x-content-type-options", "x-frame-options", "content-security-policy")


def package(name: str) -> dict[str, Any]:
    """An item of a scan."""
    return {"package_type": "apt", "package_name": name, "current_version": "1", "available_version": "2"}


CALLS = [
    ("GET", "commands", b'{"protocol": 1}'),
    ("POST", "progress", b'{"received": [], "running": [], "progress": []}'),
    ("POST", "logs", json.dumps({"command_id": str(uuid.UUID(int=7)), "action": "scan_updates", "result": "success"}).encode()),
    ("POST", "updates", json.dumps({"updates": [package("curl"), {"package_name": 7}], "package_types": ["apt"]}).encode()),
    ("POST", "updates", b'{"updates": null}'),
    ("POST", "dependencies", b'{"package_name": "curl", "package_type": "apt", "dependencies": null}'),
    ("POST", "system-info", b'{"cpu_cores": 4, "metadata": {}}'),
    ("POST", "log-alarm", b'{"reason": "nothing"}'),
]  # fmt: skip
ODD = [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 50_000, b'{"updates": 7}', b'{"updates": {}}',
       b'{"updates": ["\xff"]}', b'{"updates": ["\\x"]}', b'{"package_types": 5}', b'{"command_id": 5, "updates": []}']  # fmt: skip


@pytest.mark.parametrize(("method", "name", "body"), CALLS)
async def test_a_call_is_answered_alike_whether_its_token_is_remembered_or_not(enrol, method, name, body):
    agent = await enrol()
    first, second, third = [
        await agent.client.request(method, f"/api/v1/agents/{agent.id}/{name}", content=body, headers=agent.headers)
        for _ in range(3)
    ]
    # What an agent is told of the log, and of an alarm that it raised before, is not the same each time
    told = [
        {key: value for key, value in one.json().items() if key not in {"log", "status"}} for one in (second, third)
    ]
    assert told[0] == told[1]
    assert first.status_code == second.status_code == third.status_code
    assert first.json().keys() - {"log"} == second.json().keys() - {"log"}
    for header in SECURITY:
        assert first.headers[header] == second.headers[header]
    assert second.headers["date"]


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("name", ["progress", "logs", "updates", "dependencies", "system-info", "log-alarm"])
async def test_odd_bodies_are_answered_alike(enrol, name, body):
    seen = []
    for remembered in (False, True):
        agent = await enrol()
        if remembered:
            await agent.check_in()
        answer = await agent.client.post(f"/api/v1/agents/{agent.id}/{name}", content=body, headers=agent.headers)
        seen.append((answer.status_code, answer.json(), [answer.headers[header] for header in SECURITY]))
    assert seen[0] == seen[1]
    assert seen[0][0] in {200, 400, 404, 413}


async def _said(base_url: str, *parts: bytes) -> tuple[list[bytes], bool]:
    """What comes back on a connection on which these parts are said one after the other: an answer for each, whole in one
    packet; and whether the connection is closed after that."""
    where = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    answers = []
    for part in parts:
        writer.write(part)
        answers.append(await asyncio.wait_for(reader.read(65_536), 20))
    try:
        closed = await asyncio.wait_for(reader.read(1), 0.3) == b""
    except TimeoutError:
        closed = False
    writer.close()
    return answers, closed


def _request(agent: Any, *, version: str = "1.1", more: str = "", body: bytes = b'{"protocol": 0}') -> bytes:
    return (
        f"GET /api/v1/agents/{agent.id}/commands HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    ).encode() + body


async def test_an_answer_is_one_piece_and_the_connection_stays(enrol, base_url):
    agent = await enrol()
    await agent.check_in()
    answers, closed = await _said(base_url, _request(agent), _request(agent))
    assert not closed
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body) == {"commands": []}
        assert b"content-length: %d\r\n" % len(body) in head.lower() + b"\r\n"


@pytest.mark.parametrize(("version", "more"), [("1.0", ""), ("1.1", "Connection: close\r\n")])
async def test_whoever_wants_the_connection_closed_has_it_closed(enrol, base_url, version, more):
    agent = await enrol()
    await agent.check_in()
    (answer,), closed = await _said(base_url, _request(agent, version=version, more=more))
    assert closed
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b'{"commands":[]}')


async def test_calls_that_are_sent_without_waiting_are_answered_in_their_order(enrol, admin, base_url):
    agent = await enrol(0)
    await agent.check_in()
    made = await admin.post("/api/v1/commands", json={"agent_ids": [agent.id], "command_type": "scan_updates"})
    where = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(_request(agent) + _request(agent, more="Connection: close\r\n"))
    said = await asyncio.wait_for(reader.read(-1), 20)
    writer.close()
    first, second = said.split(b"HTTP/1.1 200 OK")[1:]
    assert made.json()["commands"][0]["id"].encode() in first
    assert second.endswith(b'{"commands":[]}')


async def test_a_body_that_comes_after_its_head_is_waited_for(enrol, base_url):
    agent = await enrol()
    await agent.check_in()
    where = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head, _, body = _request(agent).partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    await writer.drain()
    # Until the server has begun with it: it must not answer
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    writer.write(body)
    assert (await asyncio.wait_for(reader.read(65_536), 20)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_what_was_answered_is_freed_without_the_collector_of_garbage(enrol, base_url):
    agent = await enrol()
    await agent.check_in()
    gc.collect()
    gc.disable()
    try:
        # Every connection that is open in this process still has its last one
        before = _cycles()
        answers, _ = await _said(base_url, *[_request(agent)] * 20)
        left = _cycles() - before
    finally:
        gc.enable()
    assert len(answers) == 20
    assert left < 10


def _cycles() -> int:
    return sum(type(one).__name__ == "RequestResponseCycle" for one in gc.get_objects())
