"""The quirks of RedFlag's own agents, by their numbers in the protocol, and where the protocol is lenient and where it is not."""

from __future__ import annotations

import asyncio
import datetime
import re
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest

from compat.agents import UNREPORTED, Agent, Place, enrol
from redflag.errors import InvalidInput
from redflag.web.connections import SHORTEST_SECONDS

THROW_AWAY = {"metadata": {"rapid_polling_enabled": True, "rapid_polling_until": "2026-11-23T21:26:14Z"}}


async def test_quirk_1_a_401_says_unauthorized_on_the_wire_and_one_renewal_helps(place: Place, agent: Agent) -> None:
    address = urlsplit(place.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    request = (
        f"GET /api/v1/agents/{agent.id}/commands HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "User-Agent: Go-http-client/1.1\r\nContent-Length: 2\r\nAuthorization: Bearer {}\r\n"
        "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{{}}"
    )

    async def ask(token: str) -> bytes:
        writer.write(request.format(token).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        return head

    try:
        assert (await ask("stale")).startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        for _ in range(2):  # the refresh token stays the same
            renewed = await place.client.post(
                "/api/v1/agents/renew", json={"agent_id": agent.id, "refresh_token": agent.refresh_token}
            )
            assert renewed.status_code == 200
        assert (await ask(renewed.json()["token"])).startswith(b"HTTP/1.1 200 OK\r\n")  # on the same connection
    finally:
        writer.close()
        await writer.wait_closed()


async def test_quirk_1_a_renewal_that_is_wrong_is_refused(place: Place, agent: Agent) -> None:
    async def renew(body: dict[str, Any]) -> int:
        return (await place.client.post("/api/v1/agents/renew", json=body)).status_code

    assert await renew({"agent_id": agent.id, "refresh_token": "0" * 64}) == 401
    assert await renew({"agent_id": str(uuid.uuid4()), "refresh_token": agent.refresh_token}) == 404
    assert await renew({"agent_id": "nobody", "refresh_token": agent.refresh_token}) == 400


async def test_quirk_2_the_server_keeps_connections_longer_than_the_agents_longest_pause() -> None:
    assert SHORTEST_SECONDS > 35


async def test_quirk_3_its_rate_is_changed_by_heartbeat_commands_only(agent: Agent) -> None:
    claimed = {
        "rapid_polling_enabled": True,
        "rapid_polling_until": "2099-01-01T00:00:00Z",
        "rapid_polling_duration_minutes": 9,
    }
    assert "rapid_polling" not in await agent.check_in(metadata=claimed)
    on = await agent.handed("enable_heartbeat", duration_minutes=5)
    assert "rapid_polling" not in await agent.check_in()
    await agent.report(on, "enable_heartbeat")
    until = datetime.datetime.fromisoformat((await agent.check_in())["rapid_polling"]["until"])
    assert 4 < (until - datetime.datetime.now(datetime.UTC)).total_seconds() / 60 <= 5
    off = await agent.handed("disable_heartbeat")
    await agent.report(off, "disable_heartbeat")
    assert "rapid_polling" not in await agent.check_in()


@pytest.mark.parametrize(
    "metadata", [THROW_AWAY["metadata"], {"rapid_polling_enabled": False, "rapid_polling_until": ""}]
)
async def test_quirk_4_nothing_is_handed_out_to_a_check_in_that_is_thrown_away(
    place: Place, agent: Agent, metadata: dict[str, Any]
) -> None:
    command_id = await place.enqueue(agent.id, "scan_updates", {})
    assert (await agent.check_in(metadata=metadata))["commands"] == []
    assert (await place.command(command_id))["status"] == "pending"
    rapid = {"rapid_polling_duration_minutes": 4, "rapid_polling_enabled": True, "rapid_polling_until": "x"}
    assert [one["id"] for one in (await agent.check_in(metadata=rapid))["commands"]] == [command_id]


@pytest.mark.parametrize(
    ("command_type", "reason"),
    [
        ("scan_updates", "no_response"), ("dry_run_update", "no_response"), ("install_updates", "no_response"),
        ("confirm_dependencies", "no_response"), ("enable_heartbeat", "no_response"),
        ("disable_heartbeat", "no_response"), ("reboot", "no_response"),
        ("collect_specs", UNREPORTED), ("rollback_update", UNREPORTED), ("update_agent", UNREPORTED), ("never_heard_of", UNREPORTED),
    ],
)  # fmt: skip
async def test_quirk_5_silence_on_a_type_it_does_not_know_is_told_from_silence(
    place: Place, agent: Agent, command_type: str, reason: str
) -> None:
    params = {"update_id": str(uuid.uuid4())} if command_type == "dry_run_update" else {}
    command_id = await agent.handed(command_type, **params)
    await place.let_time_pass(command_id)
    assert (await place.end_record(command_id))["metadata"]["timeout_reason"] == reason


async def test_quirk_5_what_was_not_delivered_or_belongs_to_an_agent_of_ours_has_its_own_reason(
    place: Place, agent: Agent
) -> None:
    waiting = await place.enqueue(agent.id, "collect_specs", {})
    ours = await enrol(place, protocol=1)
    held = await ours.place.enqueue(ours.id, "collect_specs", {})
    assert [one["id"] for one in (await ours.check_in(protocol=1))["commands"]] == [held]
    await ours.post("progress", {"running": [held]})
    await place.let_time_pass(waiting, held)
    assert (await place.end_record(waiting))["metadata"]["timeout_reason"] == "not_delivered"
    assert (await place.end_record(held))["metadata"]["timeout_reason"] == "no_response"


@pytest.mark.parametrize(
    ("result", "status", "recorded"),
    [("failure", "failed", "failed"), ("failed", "failed", "failed"), ("success", "completed", "success"), ("no idea", "failed", "error")],
)  # fmt: skip
async def test_quirk_6_results_are_mapped_and_kept_verbatim(
    place: Place, agent: Agent, result: str, status: str, recorded: str
) -> None:
    command_id = await agent.handed("scan_updates")
    assert (await agent.report(command_id, "scan_updates", result)).status_code == 200
    record = await place.end_record(command_id)
    assert ((await place.command(command_id))["status"], record["result"]) == (status, recorded)
    assert record["metadata"].get("reported_result", recorded) == result


@pytest.mark.parametrize(
    "action", ["scan_updates", "dry_run", "update", "upgrade", "install_multiple", "install_with_dependencies", "install",
               "pull", "pull_multiple", "enable_heartbeat", "disable_heartbeat", "reboot", ""],
)  # fmt: skip
async def test_quirk_6_every_action_ends_its_command(place: Place, agent: Agent, action: str) -> None:
    command_id = await agent.handed("install_updates", package_type="apt")
    assert (await agent.report(command_id, action)).status_code == 200
    assert (await place.command(command_id))["status"] == "completed"
    assert (await place.end_record(command_id))["action"] == action


async def test_quirk_6_every_package_type_is_taken(place: Place, agent: Agent) -> None:
    types = ["apt", "dnf", "docker_image", "windows_update", "winget"]
    updates = [
        {"package_type": one, "package_name": one, "current_version": "1", "available_version": "2", "severity": "low"}
        for one in types
    ]
    answer = await agent.post(
        "updates", {"command_id": None, "timestamp": "2026-11-23T21:21:14.597744534Z", "updates": updates}
    )
    assert (answer.status_code, answer.json()["count"], answer.json()["rejected"]) == (200, 5, [])


async def test_quirk_7_a_dry_run_without_an_update_id_is_never_enqueued(place: Place, agent: Agent) -> None:
    for params in ({}, {"update_id": None}, {"update_id": 7}):
        with pytest.raises(InvalidInput, match="update_id"):
            await place.enqueue(agent.id, "dry_run_update", {"package_type": "apt", "package_name": "curl"} | params)


async def test_quirk_8_update_all_is_never_enqueued_and_the_type_alone_upgrades_everything(
    place: Place, agent: Agent
) -> None:
    with pytest.raises(InvalidInput, match="update_all"):
        await place.enqueue(agent.id, "install_updates", {"action": "update_all", "package_type": "apt"})
    await place.enqueue(agent.id, "install_updates", {"package_type": "apt"})
    assert (await agent.check_in())["commands"][0]["params"] == {"package_type": "apt"}


async def test_quirk_9_the_updates_of_a_scan_come_after_its_end(place: Place, agent: Agent) -> None:
    command_id = await agent.handed("scan_updates")
    assert (await agent.report(command_id, "scan_updates")).status_code == 200
    body = {"command_id": command_id, "timestamp": "2026-11-23T21:21:14.597744534Z",
            "updates": [{"package_type": "apt", "package_name": "vim", "current_version": "1", "available_version": "2",
                         "severity": "low"}]}  # fmt: skip
    assert (await agent.post("updates", body)).json()["count"] == 1


async def test_quirk_9_a_dry_run_whose_dependencies_are_not_taken_is_ended_by_its_deadline(
    place: Place, agent: Agent
) -> None:
    command_id = await agent.handed(
        "dry_run_update", update_id=str(uuid.uuid4()), package_type="apt", package_name="nothing"
    )
    told = {
        "package_name": "nothing",
        "package_type": "apt",
        "dependencies": [],
        "update_id": "x",
        "dry_run_result": {"success": True},
    }
    assert (await agent.post("dependencies", told)).status_code == 404
    await place.let_time_pass(command_id)
    assert (await place.command(command_id))["status"] == "timed_out"


async def test_quirk_10_the_windows_service_says_another_version_and_has_a_longer_heartbeat(place: Place) -> None:
    windows = await enrol(place, os_type="windows", os_version="Windows 11", agent_version="0.1.16")
    command_id = await windows.handed("enable_heartbeat")
    await windows.report(command_id, "enable_heartbeat")
    until = datetime.datetime.fromisoformat((await windows.check_in(version="0.1.16"))["rapid_polling"]["until"])
    assert 59 < (until - datetime.datetime.now(datetime.UTC)).total_seconds() / 60 <= 60
    assert await place.target.value("SELECT agent_version FROM agents WHERE id = $1", uuid.UUID(windows.id)) == "0.1.16"


# Where the protocol is lenient, and where it is not


async def test_a_mac_may_enrol(place: Place) -> None:
    mac = await enrol(place, os_type="darwin", os_version="14.5", os_architecture="arm64")
    assert await place.target.value("SELECT os_type FROM agents WHERE id = $1", uuid.UUID(mac.id)) == "darwin"


async def test_empty_versions_null_lists_and_unknown_severities_are_taken(place: Place, agent: Agent) -> None:
    odd = {"package_type": "apt", "package_name": "odd", "package_description": None, "current_version": "1", "available_version": "",
           "severity": "dire", "cve_list": None, "kb_id": "", "repository_source": "", "size_bytes": 0, "metadata": None}  # fmt: skip
    answer = await agent.post(
        "updates", {"command_id": str(uuid.uuid4()), "timestamp": "2026-11-23T21:21:14.597744534Z", "updates": [odd]}
    )
    assert (answer.status_code, answer.json()["count"]) == (200, 1)
    row = await place.target.owner.fetchrow("SELECT * FROM updates WHERE agent_id = $1", uuid.UUID(agent.id))
    assert (row["available_version"], row["severity"], row["cve_list"]) == ("", "unknown", [])
    assert row["metadata"]["reported_severity"] == "dire"
    assert (await agent.post("updates", {"updates": None})).status_code == 200
    told = {
        "package_name": "odd",
        "package_type": "apt",
        "dependencies": None,
        "update_id": str(row["id"]),
        "dry_run_result": None,
    }
    assert (await agent.post("dependencies", told)).status_code == 200


async def test_nul_bytes_in_output_are_taken(place: Place, agent: Agent) -> None:
    command_id = await agent.handed("scan_updates")
    assert (await agent.report(command_id, "scan_updates", stdout="a\x00b")).status_code == 200
    assert (await place.end_record(command_id))["stdout"] == "a\ufffdb"


async def test_system_info_with_nine_digits_of_a_second_is_taken(agent: Agent) -> None:
    told = {
        "timestamp": "2026-11-23T21:21:14.540248204Z",
        "cpu_model": "x",
        "cpu_cores": 2,
        "memory_total": 2**40,
        "metadata": {},
    }
    assert (await agent.post("system-info", told)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
async def test_a_check_in_with_any_body_is_answered(place: Place, agent: Agent, body: bytes) -> None:
    answer = await place.client.request(
        "GET", f"/api/v1/agents/{agent.id}/commands", content=body, headers={"Authorization": f"Bearer {agent.token}"}
    )
    assert (answer.status_code, answer.json()["commands"]) == (200, [])


async def test_at_most_ten_commands_come_at_once_the_oldest_first(place: Place, agent: Agent) -> None:
    ids = [await place.enqueue(agent.id, "scan_updates", {}) for _ in range(12)]
    assert [one["id"] for one in (await agent.check_in())["commands"]] == ids[:10]
    assert [one["id"] for one in (await agent.check_in())["commands"]] == ids[10:]


async def test_an_agent_speaks_for_its_own_commands_only(place: Place, agent: Agent) -> None:
    other = await enrol(place)
    command_id = await other.handed("scan_updates")
    assert (await agent.report(command_id, "scan_updates")).status_code == 404
    answer = await place.client.post(
        f"/api/v1/agents/{other.id}/logs", json={"command_id": command_id, "action": "", "result": "success"},
        headers={"Authorization": f"Bearer {agent.token}"},
    )  # fmt: skip
    assert answer.status_code == 403
    assert (await place.command(command_id))["status"] == "sent"
