"""RedFlag's own agents as the tests play them, and the place that they talk to."""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from compat.sources import Target
from redflag.audit import actor as actors
from redflag.commands import queue

TESTER = actors.service("tests", "here")
UNREPORTED = "this agent version does not report on this command type"
GO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass
class Place:
    """A server and its database."""

    client: httpx.AsyncClient
    url: str
    target: Target
    server: Any
    registration_token: str

    async def enqueue(self, agent_id: str, command_type: str, params: dict[str, Any]) -> str:
        """A command for an agent; returns its id."""
        (row,) = await queue.enqueue(self.server, TESTER, [uuid.UUID(agent_id)], command_type, params)
        return str(row["id"])

    async def command(self, command_id: str) -> Any:
        """A command as it is now."""
        return await self.target.owner.fetchrow("SELECT * FROM agent_commands WHERE id = $1", uuid.UUID(command_id))

    async def end_record(self, command_id: str) -> Any:
        """The record of its end."""
        return await self.target.owner.fetchrow(
            "SELECT * FROM update_logs WHERE command_id = $1 AND kind = 'transition' ORDER BY version DESC LIMIT 1",
            uuid.UUID(command_id),
        )

    async def let_time_pass(self, *command_ids: str) -> None:
        """Moves their deadlines into the past, and waits until the sweeper has come by."""
        ids = [uuid.UUID(one) for one in command_ids]
        await self.target.owner.execute(
            "UPDATE agent_commands SET next_deadline_at = now() - interval '1 s' WHERE id = ANY ($1) AND next_deadline_at IS NOT NULL",
            ids,
        )
        for _ in range(500):
            if not await self.target.value(
                "SELECT count(*) FROM agent_commands WHERE id = ANY ($1) AND next_deadline_at IS NOT NULL", ids
            ):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the sweeper did not come by")


@dataclass
class Agent:
    """One of RedFlag's own agents, enrolled here."""

    place: Place
    id: str
    token: str
    refresh_token: str

    async def post(self, call: str, body: Any) -> httpx.Response:
        """POST to a route of its own."""
        return await self.place.client.post(
            f"/api/v1/agents/{self.id}/{call}", json=body, headers={"Authorization": f"Bearer {self.token}"}
        )

    async def check_in(self, **body: Any) -> dict[str, Any]:
        """A check-in, with a body on the GET."""
        answer = await self.place.client.request(
            "GET", f"/api/v1/agents/{self.id}/commands", json={"memory_percent": 4.7, "version": "0.1.18"} | body,
            headers={"Authorization": f"Bearer {self.token}"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def handed(self, command_type: str, **params: Any) -> str:
        """Has a command handed out to it; returns its id."""
        command_id = await self.place.enqueue(self.id, command_type, params)
        assert command_id in [one["id"] for one in (await self.check_in())["commands"]]
        return command_id

    async def report(self, command_id: str, action: str, result: str = "success", **more: Any) -> httpx.Response:
        """Reports a command's end."""
        return await self.post(
            "logs",
            {"command_id": command_id, "action": action, "result": result, "stdout": "", "stderr": "", "exit_code": 0,
             "duration_seconds": 0} | more,
        )  # fmt: skip


async def enrol(place: Place, **more: Any) -> Agent:
    """An agent of RedFlag's, enrolled as it enrols."""
    body = {
        "hostname": f"host-{uuid.uuid4().hex[:8]}", "os_type": "linux", "os_version": "Debian GNU/Linux 12 (bookworm)",
        "os_architecture": "amd64", "agent_version": "0.1.18",
        "registration_token": place.registration_token, "metadata": {"cpu_cores": "2"},
    } | more  # fmt: skip
    answer = await place.client.post(
        "/api/v1/agents/register", json=body, headers={"Authorization": f"Bearer {place.registration_token}"}
    )
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return Agent(place, told["agent_id"], told["token"], told["refresh_token"])
