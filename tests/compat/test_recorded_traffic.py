"""What an unmodified RedFlag v0.1.18 agent was recorded to say is answered as it expects.

The exchanges run once, in order, against a real server; our ids and tokens stand where RedFlag's stood. What RedFlag handed
out is enqueued here first.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from compat.agents import GO_TIME, UNREPORTED, Place

EXCHANGES = 35


@dataclass
class Answered:
    """An exchange as it was recorded, what it became, and what this server said."""

    request: dict[str, Any]
    then: dict[str, Any]
    status: int
    body: dict[str, Any]
    expected: list[dict[str, Any]] = field(default_factory=list)

    @property
    def call(self) -> str:
        """The last part of its path."""
        return str(self.request["path"]).rsplit("/", 1)[-1]


class Replay:
    """Says what the agent said, with our ids and tokens in the place of RedFlag's."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ours: dict[str, str] = {}  # of agent, commands and updates
        self.commands: dict[str, str] = {}  # RedFlag's id → ours
        self.token = self.refresh_token = ""
        self.waiting: list[dict[str, Any]] = []

    def mapped(self, value: Any) -> Any:
        """The value with our ids in it."""
        if isinstance(value, dict):
            return {name: self.mapped(item) for name, item in value.items()}
        return self.ours.get(value, value) if isinstance(value, str) else value

    async def say(self, exchange: dict[str, Any]) -> Answered:
        """One exchange."""
        request, then = exchange["request"], exchange["redflag_answered"]
        expected = await self._before(request, then)
        headers = dict(request["headers"])
        body = self.mapped(request["body"])
        if "Authorization" in headers:
            # RedFlag had been given another key when it answered 401: the agent's token was no longer good
            headers["Authorization"] = f"Bearer {'0' * 64 if then['status'] == 401 else self.token}"
        if request["path"].endswith("/register"):
            headers["Authorization"] = f"Bearer {self.place.registration_token}"
            body["registration_token"] = self.place.registration_token
        if request["path"].endswith("/renew"):
            body["refresh_token"] = self.refresh_token
        path = request["path"]
        for theirs, ours in self.ours.items():
            path = path.replace(theirs, ours)
        answer = await self.place.client.request(request["method"], path, json=body, headers=headers)
        answered = Answered(request, then, answer.status_code, answer.json(), expected)
        await self._after(answered)
        return answered

    async def _before(self, request: dict[str, Any], then: dict[str, Any]) -> list[dict[str, Any]]:
        """Enqueues what RedFlag handed out. Returns what this server is to hand out: what waits, unless it would be thrown away."""
        if not request["path"].endswith("/commands") or then["status"] != 200:
            return []
        for theirs in then["body"]["commands"]:
            params = self.mapped(theirs["params"])
            if params.get("action") == "update_all":
                params = {"package_type": params["package_type"]}  # what it would have meant
            ours = await self.place.enqueue(self.ours[AGENT], theirs["type"], params)
            self.ours[theirs["id"]] = self.commands[theirs["id"]] = ours
            self.waiting.append({"id": ours, "type": theirs["type"], "params": params})
        metadata = request["body"].get("metadata")
        if metadata is not None and "rapid_polling_duration_minutes" not in metadata:
            return []
        handed, self.waiting = self.waiting, []
        return handed

    async def _after(self, answered: Answered) -> None:
        if answered.call == "register":
            self.ours[AGENT] = answered.body["agent_id"]
            self.token, self.refresh_token = answered.body["token"], answered.body["refresh_token"]
        elif answered.call == "renew":
            self.token = answered.body["token"]
        elif answered.call == "updates":
            for name, theirs in UPDATES.items():
                ours = await self.place.target.value(
                    "SELECT id FROM updates WHERE agent_id = $1 AND package_name = $2",
                    uuid.UUID(self.ours[AGENT]),
                    name,
                )
                self.ours[theirs] = str(ours)


AGENT = "a214f306-25fc-46b8-a8a3-6c2683792883"
UPDATES = {"curl": "b2e80e49-5fc0-4b1b-a1ac-57db0ee64925", "vim": "fa69f073-fbae-4b56-8010-8b4c8d339b52"}


@dataclass
class Replayed:
    """All that was said, and our ids of the commands."""

    answers: list[Answered]
    commands: dict[str, str]
    agent_id: str


@pytest_asyncio.fixture(scope="module")
async def replayed(place: Place, shared: Path) -> Replayed:
    """The whole recording, once."""
    lines = (shared / "agent-wire" / "redflag-0.1.18.jsonl").read_text().splitlines()
    assert len(lines) == EXCHANGES
    replay = Replay(place)
    answers = [await replay.say(json.loads(line)) for line in lines]
    return Replayed(answers, replay.commands, replay.ours[AGENT])


@pytest.mark.parametrize("number", range(EXCHANGES))
async def test_each_recorded_exchange_is_answered_as_the_agent_expects(replayed: Replayed, number: int) -> None:
    one = replayed.answers[number]
    # The two that RedFlag refused for their empty action are taken
    assert one.status == (200 if one.then["status"] == 400 else one.then["status"]), one.body
    if one.status != 200:
        assert one.body["error"]
        return
    if one.call == "register":
        assert uuid.UUID(one.body["agent_id"])
        assert len(one.body["token"]) > 40
        assert len(one.body["refresh_token"]) > 40
        assert 30 <= one.body["config"]["check_in_interval"] <= 3600
    elif one.call == "renew":
        assert len(one.body["token"]) > 40
    elif one.call == "commands":
        handed = one.body["commands"]
        assert all(set(command) == {"id", "type", "params"} for command in handed)
        # Once it has installed something it is asked for a scan, which confirms it; RedFlag did not ask
        assert [c for c in handed if c["id"] in replayed.commands.values()] == one.expected
        assert {c["type"] for c in handed if c["id"] not in replayed.commands.values()} <= {"scan_updates"}
        if "rapid_polling" in one.body:
            assert one.body["rapid_polling"]["enabled"] is True
            assert GO_TIME.fullmatch(one.body["rapid_polling"]["until"])


async def test_all_that_redflag_handed_out_is_handed_out_once(replayed: Replayed) -> None:
    handed = [
        command["id"]
        for one in replayed.answers
        if one.call == "commands" and one.status == 200
        for command in one.body["commands"]
    ]
    assert len(handed) == len(set(handed))
    assert set(handed) >= set(replayed.commands.values())
    assert len(replayed.commands) == 14


async def test_every_report_of_the_recording_ends_its_command(replayed: Replayed, place: Place) -> None:
    reports = [one for one in replayed.answers if one.call == "logs"]
    assert len(reports) == 9
    for one in reports:
        command_id = replayed.commands[one.request["body"]["command_id"]]
        assert one.body["status"] == "recorded"
        assert (await place.command(command_id))["status"] == "completed"
        record = await place.end_record(command_id)
        assert (record["result"], record["actor"]) == ("success", f"agent:{replayed.agent_id}")
        assert record["action"] == one.request["body"]["action"]
        assert record["stdout"] == one.request["body"]["stdout"]


async def test_the_scan_and_the_dry_runs_of_the_recording_are_kept(replayed: Replayed, place: Place) -> None:
    rows = await place.target.owner.fetch("SELECT * FROM updates WHERE agent_id = $1", uuid.UUID(replayed.agent_id))
    found = {row["package_name"]: row for row in rows}
    assert set(found) == {"curl", "vim"}
    assert found["curl"]["available_version"] == "7.88.1-10+deb12u12"
    assert (found["curl"]["dependencies"], found["vim"]["dependencies"]) == ([], ["vim-common", "vim-runtime"])
    assert found["curl"]["cve_list"] == []  # null, as Go sends an empty list


async def test_the_host_of_the_recording_is_known(replayed: Replayed, place: Place) -> None:
    row = await place.target.owner.fetchrow(
        "SELECT a.*, p.metrics FROM agents a JOIN agent_presence p ON p.agent_id = a.id WHERE a.id = $1",
        uuid.UUID(replayed.agent_id),
    )
    assert (row["hostname"], row["protocol"], row["agent_version"]) == ("vm", 0, "0.1.18")
    assert row["metadata"]["cpu_cores"] == 2
    assert row["metrics"]["disk_percent"] == 29


async def test_what_its_agent_never_answers_ends_by_timeout_and_says_why(replayed: Replayed, place: Place) -> None:
    never = {
        "28dcbcde-0df4-46bd-bf5e-d587f52091af": UNREPORTED,  # collect_specs
        "cee4c2fd-d9b6-460e-a31a-635a80d67203": UNREPORTED,  # rollback_update
        "08f7574b-8551-45b3-8ede-82d99012c979": UNREPORTED,  # update_agent
        "f76a8f7b-3239-4276-b9c7-2ea9a5b810d8": "no_response",  # install_updates of a package type that it has no installer for
    }
    ids = {replayed.commands[theirs]: reason for theirs, reason in never.items()}
    assert {(await place.command(one))["status"] for one in ids} == {"sent"}
    await place.let_time_pass(*ids)
    for command_id, reason in ids.items():
        record = await place.end_record(command_id)
        assert record["result"] == "timed_out"
        assert record["metadata"]["timeout_reason"] == reason
        assert record["metadata"]["deadline_kind"] == "execution"
        assert (UNREPORTED in record["message"]) == (reason == UNREPORTED)
