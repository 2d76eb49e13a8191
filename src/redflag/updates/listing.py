"""Updates as people look at them: by agent and package, by package across the fleet, one with its history, and counts.

Reads only. Pages are found by position, never by counting, so that all cost the same; agents that were removed are left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redflag.commands.history import decode_cursor, encode_cursor
from redflag.database import queries
from redflag.errors import InvalidInput, NotFound
from redflag.updates import packages
from redflag.updates.packages import Filter, Key
from redflag.updates.states import OPEN, Severity, Status

sql = queries.load(__file__, "listing.sql")

LIST_LIMIT = 500
# So many that wait for a person are counted one by one
MOST_TO_CONFIRM = 1000
# A decision on an update is looked for in so many of its agent's newest records
DECISIONS_AMONG = 2_000


async def list_updates(
    connection: Any,
    *,
    agent_id: uuid.UUID | None = None,
    text: str | None = None,
    package_type: str | None = None,
    status: Status | None = None,
    severity: Severity | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> dict[str, Any]:
    """A page by package name: {updates, next_cursor}. `text` is a part of the name, whatever its case.

    Raises InvalidInput for a cursor that is none of ours.
    """
    shown = Filter(
        text=text,
        package_type=package_type,
        statuses=(status,) if status else tuple(Status),
        severities=(severity,) if severity else tuple(Severity),
        agent_id=agent_id,
    )
    return await page(connection, shown, cursor=cursor, limit=limit)


async def page(connection: Any, shown: Filter, *, cursor: str | None = None, limit: int = 100) -> dict[str, Any]:
    """As `list_updates`, for a filter."""
    limit = max(1, min(limit, LIST_LIMIT))
    async with connection.transaction(readonly=True):
        after: Any = {"package_name": None, "package_type": None, "agent_id": None}
        if cursor:
            after = await sql.position.one(connection, id=decode_cursor(cursor)[1])
            if after is None:
                raise InvalidInput("The cursor is none of this server's", "Begin again without a cursor")
        read = _of_agent if shown.agent_id else _of_fleet
        updates = await read(connection, shown, after, limit)
    more = len(updates) > limit
    updates = updates[:limit]
    return {
        "updates": updates,
        "next_cursor": encode_cursor(updates[-1]["first_seen_at"], updates[-1]["id"]) if more else None,
    }


async def _of_agent(connection: Any, shown: Filter, after: Any, limit: int) -> list[dict[str, Any]]:
    await sql.plan_for_these_values.value(connection)
    rows = await sql.list_updates.all(
        connection,
        agent_id=shown.agent_id,
        text=shown.pattern,
        package_type=shown.package_type,
        statuses=list(shown.statuses),
        severities=list(shown.severities),
        after_name=after["package_name"],
        after_type=after["package_type"],
        limit=limit + 1,
    )
    return [dict(row) for row in rows]


async def _of_fleet(connection: Any, shown: Filter, after: Any, limit: int) -> list[dict[str, Any]]:
    here = (after["package_name"], after["package_type"], after["agent_id"])
    return await packages.updates_after(connection, shown, after=here if after["agent_id"] else None, limit=limit + 1)


async def list_packages(
    connection: Any,
    *,
    text: str | None = None,
    package_type: str | None = None,
    after: Key | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Packages across the fleet by name, from the (package_name, package_type) of the last one seen: the versions that are offered, the
    worst severity, the CVEs, how many agents in all and by status, exactly."""
    shown = Filter(text=text, package_type=package_type)
    async with connection.transaction(readonly=True):
        keys = await packages.find(connection, shown, after=after, limit=max(1, min(limit, LIST_LIMIT)))
        found = await packages.summaries(connection, keys)
    for one in found:
        del one["capped"]
    return found


async def show(connection: Any, update_id: uuid.UUID) -> dict[str, Any]:
    """One update with the history of its versions, the newest first. Raises NotFound."""
    row = await sql.update.one(connection, id=update_id)
    if row is None:
        raise NotFound(f"No update {update_id}", "See `redflag updates list`")
    versions = await sql.versions.all(
        connection, agent_id=row["agent_id"], package_type=row["package_type"], package_name=row["package_name"]
    )
    return dict(row) | {"versions": [dict(one) for one in versions]}


@dataclass(frozen=True)
class Open:
    """Updates of the whole fleet by (status, severity), and how many of them wait for a yes to their dependencies."""

    counted: dict[tuple[Status, Severity], int]
    to_confirm: int

    def of(self, *statuses: Status) -> dict[Severity, int]:
        """Those in one of the states, by severity, the worst first; every severity."""
        return {
            severity: sum(self.counted.get((status, severity), 0) for status in statuses)
            for severity in reversed(Severity)
        }


async def open_updates(connection: Any) -> Open:
    """What is open across the fleet. Its cost follows from how many updates there are: not for every request."""
    rows = await sql.counts.all(connection)
    counted = {(Status(row["status"]), Severity(row["severity"])): row["updates"] for row in rows}
    to_confirm = 0
    if any(counted.get((Status.DEPENDENCIES, severity)) for severity in Severity):
        to_confirm = await sql.to_confirm.value(connection, most=MOST_TO_CONFIRM)
    return Open(counted, to_confirm)


async def counts(connection: Any, *, agent_id: uuid.UUID | None = None) -> dict[str, dict[str, int]]:
    """How many updates there are: {by_status, by_severity}, every word of both; by severity those that are still open."""
    if agent_id is None:
        rows = await sql.counts.all(connection)
    else:
        rows = await sql.counts_of_agent.all(connection, agent_id=agent_id)
    by_status = dict.fromkeys(map(str, Status), 0)
    by_severity = dict.fromkeys(map(str, Severity), 0)
    for row in rows:
        by_status[row["status"]] += row["updates"]
        if row["status"] in OPEN:
            by_severity[row["severity"]] = by_severity.get(row["severity"], 0) + row["updates"]
    return {"by_status": by_status, "by_severity": by_severity}


async def open_of_agents(connection: Any, agents: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[Severity, int]]:
    """How many open updates each of these agents has, by severity, the worst first; agents without any are left out."""
    rows = await sql.open_of_agents.all(connection, agents=list(agents), open=list(OPEN))
    found: dict[uuid.UUID, dict[Severity, int]] = {}
    for severity in reversed(Severity):
        for row in rows:
            if row["severity"] == severity:
                found.setdefault(row["agent_id"], {})[severity] = row["updates"]
    return found


async def worst_of_agent(connection: Any, agent_id: uuid.UUID, limit: int = 10) -> list[dict[str, Any]]:
    """The open updates of an agent, the worst first."""
    rows = await sql.worst_of_agent.all(
        connection, agent_id=agent_id, open=list(OPEN), severities=list(Severity), limit=limit
    )
    return [dict(row) for row in rows]


async def decisions(connection: Any, update: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of what became of an update, of its agent's newest ones, the newest first: who decided what, and what followed."""
    rows = await sql.decisions.all(
        connection, agent_id=update["agent_id"], update_id=str(update["id"]), among=DECISIONS_AMONG
    )
    return [dict(row) for row in rows]


async def last_scan(connection: Any) -> Any:
    """When the last scan of any agent succeeded; None: there was none among the newest records of scans."""
    return await sql.last_scan.value(connection)
