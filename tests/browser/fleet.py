"""A fleet to look at: a dozen hosts that talk to a real server as agents do, with updates in every state and commands in every mood."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from integration.commands.helpers import until
from redflag.access import enrolment
from redflag.audit import actor as actors
from redflag.audit.actor import Actor
from redflag.commands import queue
from redflag.updates import approvals
from talking import Agent

PEOPLE = ("anna", "bela", "chris")
HOSTS = (
    ("web-1", ["web", "production"]), ("web-2", ["web", "production"]), ("web-3", ["web", "staging"]), ("db-1", ["database", "production"]),
    ("db-2", ["database", "production"]), ("mail", ["production"]), ("git", ["internal"]), ("ci-1", ["internal"]), ("ci-2", ["internal"]),
    ("nas", ["homelab"]), ("pi-kitchen", ["homelab"]), ("backup", ["production"]),
)  # fmt: skip
PACKAGES = (
    ("openssl", "3.0.15-1~deb12u1", "3.0.17-1~deb12u2", "critical", ["CVE-2025-9230", "CVE-2025-9232"]),
    ("linux-image-amd64", "6.1.128-1", "6.1.137-1", "important", ["CVE-2025-21756"]),
    ("nginx", "1.22.1-9", "1.22.1-9+deb12u2", "moderate", []),
    ("postgresql-15", "15.10-0+deb12u1", "15.12-0+deb12u2", "important", ["CVE-2025-1094"]),
    ("curl", "7.88.1-10+deb12u8", "7.88.1-10+deb12u12", "moderate", []),
    ("tzdata", "2025a-0+deb12u1", "2025b-0+deb12u1", "low", []),
    ("vim", "2:9.0.1378-2", "2:9.0.1378-2+deb12u2", "low", []),
)


@dataclass
class Fleet:
    """The hosts by name, and how to act on them."""

    pool: Any
    agents: dict[str, Agent] = field(default_factory=dict)

    async def command(
        self, host: str, kind: str, who: str, params: dict[str, Any] | None = None, **timeouts: float
    ) -> Any:
        """Enqueues a command; timeouts in seconds."""
        spans = {name: datetime.timedelta(seconds=seconds) for name, seconds in timeouts.items()}
        async with self.pool.acquire() as connection:
            agent = uuid.UUID(self.agents[host].id)
            return (await queue.enqueue(connection, person(who), [agent], kind, params or {}, **spans))[0]["id"]

    async def end(self, host: str, command_id: Any, result: str = "success", **more: Any) -> None:
        """The agent reports an end."""
        body = {
            "command_id": str(command_id),
            "result": result,
            "action": "",
            "exit_code": 0,
            "duration_seconds": 4,
        } | more
        answer = await self.agents[host].post("logs", body)
        assert answer.status_code == 200, answer.text

    async def decide(self, act: Any, package: str, hosts: list[str], who: str, **more: Any) -> None:
        """Somebody decides about a package on some hosts."""
        ids = [self.agents[host].id for host in hosts]
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id FROM updates WHERE package_name = $1 AND agent_id = ANY ($2::uuid[])", package, ids
            )
            await act(connection, person(who), [row["id"] for row in rows], **more)


def person(name: str) -> Actor:
    """Somebody at their desk, in a request of its own."""
    return actors.user(name, "192.0.2.7")


async def make(base_url: str, pool: Any) -> Fleet:
    """The whole of it. It takes a second or two."""
    fleet = Fleet(pool)
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, person("anna"), "the rack in the cellar", 50, 24)
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        for name, tags in HOSTS:
            await _join(fleet, client, token, name, tags)
        await _decide(fleet)
        await _command(fleet)
    return fleet


async def _join(fleet: Fleet, client: httpx.AsyncClient, token: str, name: str, tags: list[str]) -> None:
    agent = await Agent.enrol(
        client, token, hostname=name, os_type="linux", os_version="Debian GNU/Linux 12 (bookworm)"
    )
    fleet.agents[name] = agent
    async with fleet.pool.acquire() as connection:
        await connection.execute(
            "UPDATE agents SET tags = $2, act = $3 WHERE id = $1", agent.id, tags, person("anna").act("agent_tagged")
        )
    number = len(fleet.agents)
    facts = {
        "cpu_model": "AMD EPYC 7313", "cpu_cores": 4, "cpu_threads": 8, "memory_total": 16 * 2**30, "disk_total": 400 * 2**30,
        "disk_used": (40 + 25 * number) * 2**30, "ip_address": f"192.0.2.{20 + number}", "processes": 140 + number,
        "uptime": "12 days, 4:07",
        "os_version": "Debian GNU/Linux 12 (bookworm)",
    }  # fmt: skip
    assert (await agent.post("system-info", facts)).status_code == 200
    scan = await fleet.command(name, "scan_updates", "anna")
    await agent.check_in(memory_percent=30.0 + 4 * number, disk_percent=10.0 + 7 * number, uptime="12 days, 4:07")
    found = [
        {
            "package_type": "apt", "package_name": package, "current_version": old, "available_version": new, "severity": severity,
            "cve_list": cves, "package_description": f"{package} for Debian", "repository_source": "bookworm-security",
            "size_bytes": 400_000 + 12_345 * len(package),
        }
        for place, (package, old, new, severity, cves) in enumerate(PACKAGES)
        if (number + place) % 3
    ]  # fmt: skip
    body = {"command_id": str(scan), "package_types": ["apt"], "updates": found}
    assert (await agent.post("updates", body)).status_code == 200
    await fleet.end(name, scan, stdout=f"{len(found)} updates found\n")


async def _decide(fleet: Fleet) -> None:
    await fleet.decide(approvals.approve, "openssl", ["web-1", "web-2", "db-1", "mail"], "anna")
    await fleet.decide(approvals.reject, "linux-image-amd64", ["nas"], "bela", reason="after the holidays")
    await fleet.decide(approvals.dry_run, "nginx", ["web-2", "web-3"], "bela")
    await fleet.decide(approvals.approve, "curl", ["git", "ci-1"], "chris")
    await fleet.decide(approvals.install, "openssl", ["web-1", "web-2"], "anna")


async def _command(fleet: Fleet) -> None:
    """One running, one that waits for a host that is away, one that failed, one that timed out and succeeded afterwards."""
    running = await fleet.command("ci-2", "install_updates", "chris", {"package_type": "apt"})
    await fleet.agents["ci-2"].check_in()
    said = [{"command_id": str(running), "message": "Unpacking curl (7.88.1-10+deb12u12), 3 of 7"}]
    assert (
        await fleet.agents["ci-2"].post("progress", {"running": [str(running)], "progress": said})
    ).status_code == 200
    await fleet.command("backup", "reboot", "bela")
    await fleet.command("db-2", "scan_updates", "anna")
    failed = await fleet.command("git", "scan_updates", "anna")
    await fleet.agents["git"].check_in()
    await fleet.end(
        "git", failed, "failed", exit_code=100, stderr="E: Could not get lock /var/lib/dpkg/lock-frontend\n"
    )
    late = await fleet.command("nas", "scan_updates", "bela", delivery_timeout=3600, execution_timeout=0.05)
    await fleet.command("pi-kitchen", "reboot", "chris", delivery_timeout=0.05)
    await fleet.agents["nas"].check_in()
    await until(fleet.pool, "SELECT count(*) >= 2 FROM agent_commands WHERE status = 'timed_out'")
    await fleet.end("nas", late, stdout="no updates\n")
