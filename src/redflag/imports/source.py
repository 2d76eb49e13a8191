"""The RedFlag database that is read: which tables and columns it must have, and what becomes of each table.

Promises: it is read in one READ ONLY REPEATABLE READ transaction, so that what is read belongs together and nothing is
written. A database that is not RedFlag v0.1.18's is refused before a row is read, with the first thing that is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from redflag.database import queries
from redflag.errors import DatabaseUnreachable, InvalidInput

sql = queries.load(__file__, "source.sql")

VERSION = "0.1.18"
_TIME, _ZONED = "timestamp without time zone", "timestamp with time zone"
_TEXT, _NAME = "text", "character varying"

# Every column that is read, with its type: a RedFlag that is older lacks some, a newer one has others
COLUMNS: dict[str, dict[str, str]] = {
    "agents": {
        "id": "uuid", "hostname": _NAME, "os_type": _NAME, "os_version": _NAME, "os_architecture": _NAME, "agent_version": _NAME,
        "last_seen": _TIME, "metadata": "jsonb", "created_at": _TIME, "current_version": _NAME, "reboot_required": "boolean",
        "last_reboot_at": _TIME, "reboot_reason": _TEXT,
    },
    "agent_tags": {"agent_id": "uuid", "tag": _NAME},
    "refresh_tokens": {
        "id": "uuid", "agent_id": "uuid", "token_hash": _NAME, "expires_at": _TIME, "created_at": _TIME, "revoked": "boolean",
    },
    "registration_tokens": {
        "id": "uuid", "token": _NAME, "label": _NAME, "expires_at": _TIME, "created_at": _TIME, "revoked": "boolean", "revoked_at": _TIME,
        "status": _NAME, "created_by": _NAME, "max_seats": "integer", "seats_used": "integer",
    },
    "registration_token_usage": {"id": "uuid", "token_id": "uuid", "agent_id": "uuid", "used_at": _TIME},
    "users": {
        "id": "uuid", "username": _NAME, "password_hash": _NAME, "role": _NAME, "created_at": _TIME, "last_login": _TIME,
    },
    "agent_commands": {
        "id": "uuid", "agent_id": "uuid", "command_type": _NAME, "params": "jsonb", "status": _NAME, "created_at": _TIME,
        "sent_at": _TIME, "completed_at": _TIME, "result": "jsonb", "retried_from_id": "uuid", "source": _NAME,
    },
    "update_logs": {
        "id": "uuid", "agent_id": "uuid", "update_package_id": "uuid", "action": _NAME, "result": _NAME, "stdout": _TEXT, "stderr": _TEXT,
        "exit_code": "integer", "duration_seconds": "integer", "executed_at": _TIME,
    },
    "current_package_state": {
        "id": "uuid", "agent_id": "uuid", "package_type": _NAME, "package_name": _TEXT, "current_version": _TEXT,
        "available_version": _TEXT, "severity": _NAME, "repository_source": _TEXT, "metadata": "jsonb", "last_discovered_at": _ZONED,
        "last_updated_at": _ZONED, "status": _NAME,
    },
    "update_packages": {
        "id": "uuid", "agent_id": "uuid", "package_type": _NAME, "package_name": _NAME, "package_description": _TEXT,
        "current_version": _NAME, "available_version": _NAME, "severity": _NAME, "cve_list": "text[]", "kb_id": _NAME,
        "repository_source": _NAME, "size_bytes": "bigint", "status": _NAME, "discovered_at": _TIME, "approved_by": _NAME,
        "approved_at": _TIME, "scheduled_for": _TIME, "installed_at": _TIME, "error_message": _TEXT, "metadata": "jsonb",
    },
    "update_version_history": {
        "id": "uuid", "agent_id": "uuid", "package_type": _NAME, "package_name": _TEXT, "version_from": _TEXT, "version_to": _TEXT,
        "severity": _NAME, "metadata": "jsonb", "update_initiated_at": _ZONED, "update_completed_at": _ZONED, "update_status": _NAME,
        "failure_reason": _TEXT,
    },
    "update_events": {
        "id": "uuid", "agent_id": "uuid", "package_type": _NAME, "package_name": _TEXT, "version_from": _TEXT, "version_to": _TEXT,
        "severity": _NAME, "event_type": _NAME, "created_at": _ZONED,
    },
}  # fmt: skip

# What every RedFlag database has, and nobody needs here
LEFT_OUT: dict[str, str] = {
    "agent_specs": "RedFlag's agents never fill it: what is known of a host is in the agent's metadata",
    "update_batches": "how RedFlag took in a scan's report, row counts only; the scans are in the history and the versions",
    "schema_migrations": "RedFlag's own schema, not its data",
}

# A database without them holds nothing that would be in them
OPTIONAL = frozenset({"agent_tags", "registration_token_usage", "update_packages"})


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    """A connection in a transaction that sees one moment and can write nothing. Raises DatabaseUnreachable."""
    try:
        connection = await asyncpg.connect(url, timeout=10, server_settings={"application_name": "redflag import"})
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise DatabaseUnreachable(
            f"The RedFlag database does not answer: {error or type(error).__name__}",
            "Check the address given with --from: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, as this machine reaches it",
        ) from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close()


def name_of(url: str, database: str) -> str:
    """How a source is called in records: what it is and where, without the password."""
    return f"RedFlag {VERSION}, {database} on {urlsplit(url).hostname or 'this machine'}"


async def examine(connection: Any) -> dict[str, int]:
    """How many rows each table has that is read; a table that may be missing, and is, is left out. Raises InvalidInput."""
    found: dict[str, dict[str, str]] = {}
    for row in await sql.columns.all(connection, tables=list(COLUMNS)):
        found.setdefault(row["table_name"], {})[row["column_name"]] = row["type"]
    for table, wanted in COLUMNS.items():
        if table not in found and table not in OPTIONAL:
            raise _refused(f"it has no table {table}")
        if missing := [column for column in wanted if table in found and column not in found[table]]:
            raise _refused(f"its table {table} has no column {missing[0]}")
    for table, kinds in found.items():
        for column, kind in COLUMNS[table].items():
            if kinds[column] != kind:
                raise _refused(f"its column {table}.{column} is {kinds[column]}, not {kind}")
    return {table: await getattr(sql, f"count_{table}").value(connection) for table in COLUMNS if table in found}


def _refused(why: str) -> InvalidInput:
    return InvalidInput(
        f"That is no database of RedFlag v{VERSION}: {why}",
        f"Give the database of a RedFlag that was updated to v{VERSION}, not older and not newer",
    )
