"""An agent that scans, examines and installs, as tests drive it, and the records that this leaves."""

from __future__ import annotations

import uuid
from typing import Any

from redflag.audit import redaction
from redflag.audit.actor import Actor, agent, user
from redflag.commands import queue
from redflag.commands.results import Outcome, Report
from redflag.updates import dependencies, inventory, outcomes
from redflag.updates.inventory import Reported

Json = dict[str, Any]


def item(name: str, available: str = "2.0", *, current: str = "1.0", **more: Any) -> Json:
    """A package as RedFlag's own agents report it."""
    told: Json = {
        "package_type": "apt", "package_name": name, "package_description": "", "current_version": current, "available_version": available,
        "severity": "important", "cve_list": None, "kb_id": "", "repository_source": "stable-security", "size_bytes": 0,
        "metadata": {"architecture": "amd64"},
    }  # fmt: skip
    return told | more


class Machine:
    """An agent in the field, and a view of its updates. Every call is a request of its own."""

    def __init__(self, pool: Any, agent_id: uuid.UUID) -> None:
        self.pool = pool
        self.id = agent_id

    @property
    def actor(self) -> Actor:
        """The agent, in a new request."""
        return agent(self.id)

    async def enqueue_scan(self) -> uuid.UUID:
        """A scan that somebody asks for."""
        async with self.pool.acquire() as connection:
            row = (await queue.enqueue(connection, user("ada"), [self.id], "scan_updates"))[0]
        return row["id"]

    async def check_in(self) -> list[Json]:
        """The commands that the agent is handed now."""
        async with self.pool.acquire() as connection:
            return (await queue.deliver(connection, [queue.Asking(self.id, self.actor)]))[self.id]

    async def report(self, items: list[Any], *types: str, command_id: uuid.UUID | None = None) -> Reported:
        """Posts what a scan found."""
        async with self.pool.acquire() as connection:
            return await inventory.report(
                connection, self.actor, self.id, redaction.encode(items), list(types), command_id
            )

    async def scan(self, items: list[Any], *types: str) -> Reported:
        """A whole scan: enqueued if none waits, handed out, reported and ended. Its log comes first, as RedFlag's agents have it."""
        waiting = [one["id"] for one in await self.check_in() if one["command_type"] == "scan_updates"]
        if not waiting:
            await self.enqueue_scan()
            waiting = [one["id"] for one in await self.check_in() if one["command_type"] == "scan_updates"]
        for command_id in waiting:
            await self.end(command_id, action="scan_updates")
            reported = await self.report(items, *types, command_id=command_id)
        return reported

    async def end(self, command_id: uuid.UUID, result: str = "success", **more: Any) -> Outcome:
        """Posts the end of a command."""
        async with self.pool.acquire() as connection:
            return await outcomes.report_result(
                connection, self.actor, self.id, command_id, Report(result=result, **more), max_output=100_000
            )

    async def tell_dependencies(self, name: str, found: list[str] | None, update_id: Any = None, **more: Any) -> Json:
        """Posts what a dry run found."""
        body: Json = {"package_name": name, "package_type": "apt", "dependencies": found, "update_id": update_id}
        body |= {"dry_run_result": {"success": True, "stdout": "", "exit_code": 0, "is_dry_run": True}} | more
        async with self.pool.acquire() as connection:
            return await dependencies.report(connection, self.actor, self.id, body)

    async def decide(self, decision: Any, *names: str, by: Actor | None = None, **more: Any) -> Any:
        """A person decides on updates of these packages."""
        ids = [(await self.row(name))["id"] for name in names]
        async with self.pool.acquire() as connection:
            return await decision(connection, by or user("ada"), ids, **more)

    async def row(self, name: str) -> Any:
        """The update of a package, or None."""
        return await self.pool.fetchrow(
            "SELECT * FROM updates WHERE agent_id = $1 AND package_name = $2", self.id, name
        )

    async def status(self, name: str) -> str:
        """Its status."""
        return (await self.row(name))["status"]

    async def commands(self, *statuses: str) -> list[Any]:
        """The agent's commands in these states, oldest first."""
        return await self.pool.fetch(
            "SELECT * FROM agent_commands WHERE agent_id = $1 AND status = ANY ($2) ORDER BY created_at, id",
            self.id,
            list(statuses),
        )

    async def history(self, name: str) -> list[tuple[str, str, str]]:
        """What was seen of a package: (event, from, to), in order."""
        rows = await self.pool.fetch(
            "SELECT event, version_from, version_to FROM update_versions WHERE agent_id = $1 AND package_name = $2 ORDER BY seen_at, id",
            self.id, name,
        )  # fmt: skip
        return [(row["event"], row["version_from"], row["version_to"]) for row in rows]

    async def records(self, name: str) -> list[Any]:
        """The audit records of an update, in order."""
        row = await self.row(name)
        return await self.pool.fetch(
            "SELECT * FROM update_logs WHERE agent_id = $1 AND kind = 'change' AND metadata ->> 'subject_id' = $2 ORDER BY created_at, id",
            self.id, str(row["id"]),
        )  # fmt: skip
