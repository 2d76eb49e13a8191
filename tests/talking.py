"""An agent without a host: it talks to a real server as agents do, and says what the test has it say."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass
class Agent:
    """An enrolled agent and the way it talks. `protocol` 0: as RedFlag's own."""

    client: httpx.AsyncClient
    id: str
    token: str
    refresh_token: str
    protocol: int

    @classmethod
    async def enrol(cls, client: httpx.AsyncClient, token: str, *, protocol: int = 1, **more: Any) -> Agent:
        """Enrols with an enrolment token; `more` is what it says of its host."""
        body = {
            "hostname": f"host-{uuid.uuid4().hex[:8]}", "os_type": "linux", "os_version": "12", "os_architecture": "amd64",
            "agent_version": "1.0.0" if protocol else "0.1.18", "registration_token": token, "metadata": {},
        } | ({"protocol": 1} if protocol else {}) | more  # fmt: skip
        answer = await client.post("/api/v1/agents/register", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return cls(client, told["agent_id"], told["token"], told["refresh_token"], protocol)

    async def post(self, what: str, body: Any) -> httpx.Response:
        """POST to a route of its own."""
        return await self.client.post(f"/api/v1/agents/{self.id}/{what}", json=body, headers=self.headers)

    async def check_in(self, **body: Any) -> dict[str, Any]:
        """A check-in, with a body on the GET as agents send it."""
        answer = await self.client.request(
            "GET",
            f"/api/v1/agents/{self.id}/commands",
            json=({"protocol": 1} if self.protocol else {}) | body,
            headers=self.headers,
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    @property
    def headers(self) -> dict[str, str]:
        """Its token."""
        return {"Authorization": f"Bearer {self.token}"}
