"""Updates as people look at them: by agent and package, by package across the fleet, one with its history, and counts.

Reads only. Pages are found by position, never by counting, so that all cost the same; agents that were removed are left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from redflag.commands.history import decode_cursor, encode_cursor
from redflag.database import queries
from redflag.errors import InvalidInput, NotFound
from redflag.updates.states import OPEN, Severity, Status

sql = queries.load(__file__, "listing.sql")

LIST_LIMIT = 500


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
    limit = max(1, min(limit, LIST_LIMIT))
    async with connection.transaction(readonly=True):
        after: Any = {"package_name": None, "package_type": None, "agent_id": None}
        if cursor:
            after = await sql.position.one(connection, id=decode_cursor(cursor)[1])
            if after is None:
                raise InvalidInput("The cursor is none of this server's", "Begin again without a cursor")
        await sql.plan_for_these_values.value(connection)
        rows = await sql.list_updates.all(
            connection,
            agent_id=agent_id,
            text=_pattern(text),
            package_type=package_type,
            status=status,
            severity=severity,
            after_name=after["package_name"],
            after_type=after["package_type"],
            after_agent=after["agent_id"],
            limit=limit + 1,
        )
    updates = [dict(row) for row in rows[:limit]]
    more = len(rows) > limit
    return {
        "updates": updates,
        "next_cursor": encode_cursor(updates[-1]["first_seen_at"], updates[-1]["id"]) if more else None,
    }


async def list_packages(
    connection: Any,
    *,
    text: str | None = None,
    package_type: str | None = None,
    after: tuple[str, str] | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Packages across the fleet by name, from the (package_name, package_type) of the last one seen: the versions that are offered, the
    worst severity, how many agents in all and by status."""
    after_name, after_type = after or (None, None)
    async with connection.transaction(readonly=True):
        await sql.plan_for_these_values.value(connection)
        rows = await sql.list_packages.all(
            connection,
            text=_pattern(text),
            package_type=package_type,
            severities=list(Severity),
            after_name=after_name,
            after_type=after_type,
            limit=max(1, min(limit, LIST_LIMIT)),
        )
    return [dict(row) for row in rows]


async def show(connection: Any, update_id: uuid.UUID) -> dict[str, Any]:
    """One update with the history of its versions, the newest first. Raises NotFound."""
    row = await sql.update.one(connection, id=update_id)
    if row is None:
        raise NotFound(f"No update {update_id}", "See `redflag updates list`")
    versions = await sql.versions.all(
        connection, agent_id=row["agent_id"], package_type=row["package_type"], package_name=row["package_name"]
    )
    return dict(row) | {"versions": [dict(one) for one in versions]}


async def counts(connection: Any, *, agent_id: uuid.UUID | None = None) -> dict[str, dict[str, int]]:
    """How many updates there are: {by_status, by_severity}, every word of both; by severity those that are still open."""
    rows = await sql.counts.all(connection, agent_id=agent_id)
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


def _pattern(text: str | None) -> str | None:
    if not text:
        return None
    return "%" + text.replace("\x00", "").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
