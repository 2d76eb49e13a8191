"""Which PostgreSQL is new enough: 18, for uuidv7() and the planner that the queries were measured with."""

from __future__ import annotations

from redflag.errors import DatabaseTooOld

OLDEST_VERSION = 18


def require_version(server_version_num: int) -> None:
    """Raise DatabaseTooOld unless PostgreSQL is version 18 or newer. Takes the number of `SHOW server_version_num`."""
    major, rest = divmod(server_version_num, 10_000)
    if major < OLDEST_VERSION:
        minor = str(rest) if major >= 10 else f"{rest // 100}.{rest % 100}"
        raise DatabaseTooOld(
            f"This database is PostgreSQL {major}.{minor}, and RedFlag needs {OLDEST_VERSION} or newer",
            "Upgrade it, or leave REDFLAG_DATABASE_URL empty to use the embedded one",
        )
