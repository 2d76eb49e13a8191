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


async def passed_over(connection: Any, most: int = 10) -> list[dict[str, Any]]:
    """Records that the log cannot take, the oldest first: `id`, for how many `seconds` each waits, and `why`, if that was said.

    Those of a transaction that was open for longer than a minute are among them for a moment when it ends.
    """
    return [dict(row) for row in await sql.passed_over.all(connection, most=most)]
