"""The agents as people see them: who they are, what they are called, whether they are there.

An agent that is removed keeps its row, because its history speaks of it; its tokens end, its live commands are cancelled,
in one transaction.
"""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from redflag.access import agent_tokens
from redflag.audit import redaction
from redflag.audit.actor import Actor
from redflag.commands import queue
from redflag.database import queries
from redflag.errors import InvalidInput, NotFound

sql = queries.load(__file__, "agents.sql")

LIST_LIMIT = 500
MOST_TAGS = 50
# Missed check-ins until an agent is called late, and lost
LATE_AFTER = 3
LOST_AFTER = datetime.timedelta(hours=24)


class Presence(enum.StrEnum):
    """How an agent stands: heard of in the last three intervals, in the last day, or not."""

    ONLINE = "online"
    LATE = "late"
    LOST = "lost"


def presence(seconds_since_seen: float | None, check_in_interval: int) -> Presence:
    """What the time since the last check-in means. RedFlag's agents wait up to 30 s more at every check-in."""
    if seconds_since_seen is None or seconds_since_seen > LOST_AFTER.total_seconds():
        return Presence.LOST
    return Presence.ONLINE if seconds_since_seen <= online_seconds(check_in_interval) else Presence.LATE


def online_seconds(check_in_interval: int) -> float:
    """The time within which an agent that is there has come by."""
    return LATE_AFTER * check_in_interval + 30


def like(text: str | None) -> str | None:
    """The pattern that finds a text anywhere; None for none."""
    return queries.containing(text) if text else None


async def show(connection: Any, agent_id: uuid.UUID) -> dict[str, Any]:
    """One agent. Raises NotFound."""
    row = await sql.agent.one(connection, id=agent_id)
    if row is None:
        raise NotFound(f"No agent {agent_id}", "See `redflag agents list`")
    return dict(row)


async def list_agents(
    connection: Any,
    *,
    text: str | None = None,
    tag: str | None = None,
    removed: bool = False,
    after: tuple[datetime.datetime, uuid.UUID] | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Agents in the order of enrolment; `text` is a part of the host name or the name."""
    at, one = after or (None, None)
    rows = await sql.list_agents.all(
        connection, text=like(text), tag=tag, removed=removed, after_at=at, after_id=one, limit=min(limit, LIST_LIMIT)
    )
    return [dict(row) for row in rows]


async def tagged(connection: Any, tag: str, *, limit: int) -> list[uuid.UUID]:
    """The ids of the agents that have a tag, up to so many."""
    return [row["id"] for row in await sql.tagged.all(connection, tag=tag, limit=limit)]


async def named(connection: Any, ids: Sequence[uuid.UUID]) -> list[dict[str, Any]]:
    """Some agents, by what they are called; those that are not there are left out."""
    return [dict(row) for row in await sql.named.all(connection, ids=list(ids))]


async def names(connection: Any, ids: Iterable[uuid.UUID | None]) -> dict[uuid.UUID, str]:
    """What agents are called, by id; None and ids of no agent are left out."""
    wanted = sorted({one for one in ids if one is not None})
    rows = await sql.names.all(connection, ids=wanted) if wanted else []
    return {row["id"]: row["display_name"] for row in rows}


async def called(connection: Any, name: str) -> uuid.UUID:
    """The agent of a host name, or of what people call it. Raises NotFound where there is none, InvalidInput where there are several."""
    rows = await sql.called.all(connection, name=name)
    if not rows:
        raise NotFound(f"No agent is called {name[:100]!r}", "See the list of agents")
    if len(rows) > 1:
        raise InvalidInput(f"Several agents are called {name[:100]!r}", "Give the id of the one that is meant")
    found: uuid.UUID = rows[0]["id"]
    return found


async def rename(
    connection: Any, actor: Actor, agent_id: uuid.UUID, *, name: str | None = None, tags: list[str] | None = None
) -> None:
    """Changes what people call an agent, and its tags. Raises NotFound or InvalidInput."""
    if name is not None and not 1 <= len(name) <= 255:
        raise InvalidInput("A name has 1 to 255 characters", "Choose another")
    if tags is not None and (len(tags) > MOST_TAGS or any(not 1 <= len(tag) <= 100 for tag in tags)):
        raise InvalidInput(f"At most {MOST_TAGS} tags of 1 to 100 characters", "Leave some out")
    clean = None if name is None else redaction.text(name)
    tagged = None if tags is None else sorted({redaction.text(tag) for tag in tags})
    if (
        await sql.rename.value(
            connection, id=agent_id, name=clean, tags=tagged, act=actor.act("agent_renamed" if name else "agent_tagged")
        )
        is None
    ):
        raise NotFound(f"No agent {agent_id}", "See `redflag agents list`")


async def tag(
    connection: Any, actor: Actor, agents: Sequence[uuid.UUID], *, add: Sequence[str] = (), take: Sequence[str] = ()
) -> int:
    """Gives tags to agents and takes others from them; one record for each agent that this changes. Returns how many those are.

    Raises InvalidInput, or NotFound naming the agents that are not there; then none is changed.
    """
    if any(not 1 <= len(one) <= 100 for one in (*add, *take)):
        raise InvalidInput("A tag has 1 to 100 characters", "Choose another")
    async with connection.transaction():
        rows = await sql.tag.all(
            connection,
            agents=list(agents),
            added=[redaction.text(one) for one in add],
            taken=list(take),
            most=MOST_TAGS,
            act=actor.act("agent_tagged"),
        )
        if missing := set(agents) - {row["id"] for row in rows}:
            raise NotFound(
                f"No agent {', '.join(sorted(map(str, missing))[:5])}", "It may have been removed; look again"
            )
        if full := [row["display_name"] for row in rows if row["too_many"]]:
            raise InvalidInput(f"{full[0]} would have more than {MOST_TAGS} tags", "Take others from it first")
    return sum(row["changed"] for row in rows)


async def remove(connection: Any, actor: Actor, agent_id: uuid.UUID) -> list[uuid.UUID]:
    """Removes an agent: no token of its works any more. Returns the live commands that were cancelled. Raises NotFound."""
    async with connection.transaction():
        if await sql.remove.value(connection, id=agent_id, act=actor.act("agent_removed")) is None:
            raise NotFound(f"No agent {agent_id}", "See `redflag agents list --removed`")
        await agent_tokens.revoke_all(connection, agent_id)
        cancelled = await queue.sql.cancel_of_agent.all(
            connection, agent_id=agent_id, reason="the agent was removed", act=actor.act()
        )
    return [row["id"] for row in cancelled]


async def store_facts(
    connection: Any, agent_id: uuid.UUID, facts: dict[str, Any], *, agent_version: str = "", os_version: str = ""
) -> None:
    """Keeps what an agent says about its host, if it is new."""
    if len(redaction.encode(facts)) > 64 * 1024:
        raise InvalidInput("The facts are larger than 64 KiB", "Send fewer")
    clean = redaction.clean(facts)
    await sql.facts.run(
        connection,
        id=agent_id,
        facts=clean,
        agent_version=redaction.short(agent_version, 100),
        os_version=redaction.short(os_version, 200),
    )


async def counts(connection: Any, check_in_interval: int) -> dict[str, int]:
    """How many agents are online, late and lost."""
    row = await sql.online.one(
        connection, online=datetime.timedelta(seconds=online_seconds(check_in_interval)), lost=LOST_AFTER
    )
    return dict(row)
