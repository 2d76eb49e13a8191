"""Packages across the fleet: which there are, how many agents have an update of each, and which updates a filter means.

Promises: what a list costs follows from what it shows, not from how many updates there are. The index `updates_shown` has each
state and severity as a group in the order of packages; every statement here merges these few groups and reads of each no more
than it shows. A part of a name is looked for in the names of the packages, one look for each, however many agents have it.
Agents that were removed are left out. Reads only.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redflag.database import queries
from redflag.updates.states import Severity, Status

sql = queries.load(__file__, "packages.sql")

Key = tuple[str, str]  # name and type, the order in which packages are listed

MOST_PACKAGES = 1_000
# Groups are counted so far on a page; where there are more, it says so
COUNTED = 500
# Of so many updates of each group a page reads the versions and CVEs
SAMPLE = 10
_ALL = 2**31 - 1


@dataclass(frozen=True)
class Filter:
    """Which updates are meant. `text` is a part of the package's name, whatever its case."""

    text: str | None = None
    package_type: str | None = None
    statuses: tuple[Status, ...] = tuple(Status)
    severities: tuple[Severity, ...] = tuple(Severity)
    agent_id: uuid.UUID | None = None

    @property
    def pattern(self) -> str | None:
        """The text for ILIKE."""
        return pattern(self.text)


def pattern(text: str | None) -> str | None:
    """A text to be found anywhere, for ILIKE; None for none."""
    return queries.containing(text) if text else None


async def find(connection: Any, shown: Filter, *, after: Key | None = None, limit: int = 100) -> list[Key]:
    """The next packages that have updates which match, in the order of their names. `agent_id` is not looked at."""
    name, kind = after or (None, None)
    groups = _groups(shown)
    if shown.text or shown.package_type:
        rows = await sql.find_packages.all(
            connection,
            text=shown.pattern,
            package_type=shown.package_type,
            after_name=name,
            after_type=kind,
            limit=limit,
            **groups,
        )
    else:
        rows = await sql.next_packages.all(connection, after_name=name, after_type=kind, limit=limit, **groups)
    return [(row["package_name"], row["package_type"]) for row in rows]


async def summaries(
    connection: Any,
    keys: Sequence[Key],
    *,
    statuses: Iterable[Status] = tuple(Status),
    most: int | None = None,
    sample: int | None = None,
) -> list[dict[str, Any]]:
    """Of each package: agents in all and by status, and of those in `statuses` the worst severity, the versions offered and the CVEs.

    With `most` no state and severity is counted further than that, and `capped` says where there are more; with `sample`
    versions and CVEs are those of so many updates of each.
    """
    among = frozenset(statuses)
    made: dict[Key, dict[str, Any]] = {
        key: {
            "package_name": key[0],
            "package_type": key[1],
            "agents": 0,
            "by_status": {},
            "severity": Severity.UNKNOWN,
            "versions": set(),
            "cve_list": set(),
            "capped": set(),
        }
        for key in keys
    }
    rows = await sql.groups.all(
        connection,
        **_packages(keys),
        all_statuses=list(Status),
        statuses=sorted(among),
        severities=list(Severity),
        most=most or _ALL,
        sample=sample or _ALL,
    )
    order = list(Severity)
    for row in rows:
        one = made[row["package_name"], row["package_type"]]
        one["agents"] += row["agents"]
        one["by_status"][row["status"]] = one["by_status"].get(row["status"], 0) + row["agents"]
        if most and row["agents"] >= most:
            one["capped"].add(row["status"])
        if row["status"] in among:
            one["severity"] = max(one["severity"], Severity(row["severity"]), key=order.index)
            one["versions"].update(row["versions"] or ())
            one["cve_list"].update(row["cves"] or ())
    return [one | {"versions": sorted(one["versions"]), "cve_list": sorted(one["cve_list"])} for one in made.values()]


async def updates_of(
    connection: Any, keys: Sequence[Key], shown: Filter, *, after: uuid.UUID | None = None, limit: int
) -> list[dict[str, Any]]:
    """Updates of these packages that match, by package and agent; `after`: of the first package only those of later agents."""
    places = await sql.keys_of.all(connection, after_agent=after, limit=limit, **_packages(keys), **_groups(shown))
    return [dict(row) for row in await sql.updates_at.all(connection, **_places(places))]


async def updates_after(
    connection: Any, shown: Filter, *, after: tuple[str, str, uuid.UUID] | None = None, limit: int
) -> list[dict[str, Any]]:
    """The next updates across the fleet that match, by package and agent. `agent_id` is not looked at."""
    name, kind, agent = after or (None, None, None)
    if shown.text or shown.package_type:
        # Each package that is found has an update at least, so that a page needs no more packages than updates
        here = [after[:2]] if after else []
        keys = here + await find(connection, shown, after=here[0] if here else None, limit=limit)
        return await updates_of(connection, keys, shown, after=agent, limit=limit)
    places = await sql.next_keys.all(
        connection, after_name=name, after_type=kind, after_agent=agent, limit=limit, **_groups(shown)
    )
    return [dict(row) for row in await sql.updates_at.all(connection, **_places(places))]


async def matching(connection: Any, shown: Filter, *, keys: Sequence[Key] | None = None, limit: int) -> list[uuid.UUID]:
    """The ids of updates that match, by package and agent, `limit` at the most; `keys`: of these packages only."""
    if shown.agent_id is not None:
        rows = await sql.ids_on.all(
            connection,
            agent_id=shown.agent_id,
            text=shown.pattern,
            package_type=shown.package_type,
            limit=limit,
            **_groups(shown),
        )
        return [row["id"] for row in rows]
    if keys is None and (shown.text or shown.package_type):
        keys = await find(connection, shown, limit=MOST_PACKAGES)
    if keys is None:
        places = await sql.next_keys.all(
            connection, after_name=None, after_type=None, after_agent=None, limit=limit, **_groups(shown)
        )
    else:
        places = await sql.keys_of.all(connection, after_agent=None, limit=limit, **_packages(keys), **_groups(shown))
    return [row["id"] for row in await sql.ids_at.all(connection, **_places(places))]


def _groups(shown: Filter) -> dict[str, Any]:
    return {"statuses": list(shown.statuses), "severities": list(shown.severities)}


def _packages(keys: Sequence[Key]) -> dict[str, Any]:
    return {"names": [name for name, _ in keys], "types": [kind for _, kind in keys]}


def _places(rows: Sequence[Any]) -> dict[str, Any]:
    return {
        "names": [row["package_name"] for row in rows],
        "types": [row["package_type"] for row in rows],
        "agents": [row["agent_id"] for row in rows],
    }
