"""What RedFlag's own agent was recorded to say, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redflag.audit.actor import user
from redflag.updates import approvals, dependencies


def recorded(shared: Path, call: str) -> list[dict[str, Any]]:
    """The bodies that the agent posted to a call."""
    lines = (shared / "agent-wire" / "redflag-0.1.18.jsonl").read_text().splitlines()
    requests = [json.loads(line)["request"] for line in lines]
    return [one["body"] for one in requests if one["method"] == "POST" and one["path"].endswith(f"/{call}")]


async def test_its_scan_and_its_dry_runs_are_understood(machine: Any, pool: Any, shared: Path) -> None:
    (scan,) = recorded(shared, "updates")
    reported = await machine.report(scan["updates"])
    assert (reported.count, reported.rejected) == (2, [])
    curl = await machine.row("curl")
    assert (curl["current_version"], curl["available_version"]) == ("7.88.1-10+deb12u8", "7.88.1-10+deb12u12")
    assert (curl["severity"], curl["cve_list"], curl["metadata"]) == ("important", [], {"architecture": "amd64"})

    ids = [(await machine.row(name))["id"] for name in ("curl", "vim")]
    async with pool.acquire() as connection:
        await approvals.approve(connection, user("ada"), ids)
        await approvals.install(connection, user("ada"), ids)
        # Its update ids are those of another server: the package's name decides
        answers = [
            await dependencies.report(connection, machine.actor, machine.id, body)
            for body in recorded(shared, "dependencies")
        ]
    assert [one["status"] for one in answers] == ["installing", "dependencies"]
    assert answers[0]["message"] == "no dependencies found - installation command created automatically"
    assert answers[1]["message"] == "dependencies reported and status updated"
    assert answers[1]["dependencies"] == ["vim-common", "vim-runtime"]
