"""Replay: the transitions in the record must arrive at exactly the commands that there are.

It begins with nothing, or with the states of the snapshot to which the log was pruned (`audit.snapshots`); fsck vouches for these.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from redflag.commands.states import RESULTS
from redflag.database import queries

sql = queries.load(__file__, "replay.sql")


@dataclass(frozen=True)
class Difference:
    """A command that is not what its records say, and in what."""

    command_id: uuid.UUID
    record_id: uuid.UUID | None
    what: str


async def first_difference(connection: Any) -> Difference | None:
    """The first command, by creation, that differs from its records; None if all agree. One statement over everything."""
    meant = [(result, status) for status, results in RESULTS.items() for result in results]
    row = await sql.first_difference.one(
        connection,
        pruned=await sql.pruned.value(connection),
        results=[result for result, _ in meant],
        statuses=[status for _, status in meant],
    )
    return None if row is None else Difference(row["command_id"], row["record_id"], row["difference"])
