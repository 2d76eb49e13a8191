"""Stores the faults that the server's connections met, so that every process, the metrics and `redflag doctor` know of them."""

from __future__ import annotations

from typing import Any

from redflag.database import faults, queries

sql = queries.load(__file__, "faults.sql")


async def store(connection: Any, replica: str) -> int:
    """Writes what waits in memory. What cannot be written now stays, and comes with the next try. Returns how many."""
    taken = list(faults.waiting)
    if not taken:
        return 0
    await sql.store.run(
        connection,
        replica=replica,
        kinds=[fault.kind for fault in taken],
        times=[fault.occurred_at for fault in taken],
        details=[fault.detail for fault in taken],
    )
    for fault in taken:
        if faults.waiting and faults.waiting[0] is fault:
            faults.waiting.popleft()
    return len(taken)
