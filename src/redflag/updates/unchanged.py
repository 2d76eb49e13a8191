"""Scans that say nothing new, which most of them do: told by one look, without taking their packages apart.

Promises: a scan is passed over only if the very same content was taken in full before, touched no update of the agent, and
would touch none now: all that its effect depends on is as it was then. That is compared, not noted by whoever changes it, so
that no change can be forgotten, whoever makes it: each update of the agent by its name, digest, status and when it was seen
last (`updates_state`). While one of them works, or waits for what a scan alone can say, no scan is passed over. When its updates
are to be noted as seen again, once an hour, it is taken in full. If the database refuses, the scan is as good as new.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

import redflag
from redflag.audit import redaction
from redflag.database import queries

sql = queries.load(__file__, "unchanged.sql")


def digest(told: bytes, package_types: Sequence[str]) -> bytes:
    """Of a scan as the agent sent it, and of what decides how it is read: this release, and what is taken for a secret."""
    how = redaction.encode([redflag.__version__, redaction.patterns(), package_types])
    return hashlib.sha256(hashlib.sha256(how).digest() + told).digest()


async def items(connection: Any, agent_id: uuid.UUID, scan: bytes) -> int | None:
    """How many items a scan of this digest has, if it would change nothing now. None: it is to be taken in full."""
    found: int | None = await sql.items.value(connection, agent_id=agent_id, digest=scan)
    return found


async def remember(connection: Any, agent_id: uuid.UUID, scan: bytes, count: int, state: int) -> None:
    """A scan of so many items that touched no update, in this state of them. In the transaction that found it so."""
    await sql.remember.run(connection, agent_id=agent_id, digest=scan, items=count, state=state)
