"""Migrations: numbered SQL files, applied in order, each in a transaction of its own.

Promises: one migrator at a time (an advisory lock); a statement that waits for a lock or runs for too long gives up
instead of stopping the fleet; a file that was applied and has changed since is refused; after every run the server's
role has exactly the rights that `roles.sql` gives. A migration that fails changes nothing, and the server does not
start on a schema that is not whole.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from redflag.database import pool, queries
from redflag.database.version import require_version
from redflag.errors import MigrationError

FOLDER = Path(__file__).with_name("migrations")
ROLES = Path(__file__).with_name("roles.sql")
# Statements of a migration: a lock that does not come within this time is given up, so that agents keep checking in
LOCK_TIMEOUT = "10s"
STATEMENT_TIMEOUT = "15min"

sql = queries.load(__file__, "migrate.sql")


@dataclass(frozen=True)
class Migration:
    """A file of the folder; `checksum` is the SHA-256 of its bytes in hex."""

    version: int
    name: str
    text: str
    checksum: str


@dataclass(frozen=True)
class State:
    """A migration and whether this database has it: applied, pending, changed (since it was applied) or unknown (to this release)."""

    version: int
    name: str
    state: str
    applied_at: Any = None


def available(folder: Path = FOLDER) -> list[Migration]:
    """The files in order. Raises MigrationError if two have one number or a name is not NNNN_words.sql."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        matched = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", path.name)
        if not matched:
            raise MigrationError(f"The migration {path.name} is not named NNNN_words.sql", "Rename it")
        version = int(matched[1])
        if version in found:
            raise MigrationError(
                f"Two migrations have the number {matched[1]}", "Give one of them the next free number"
            )
        data = path.read_bytes()
        found[version] = Migration(version, matched[2], data.decode(), hashlib.sha256(data).hexdigest())
    return [found[version] for version in sorted(found)]


async def status(connection: Any, folder: Path = FOLDER) -> list[State]:
    """Every migration of this release and of this database, in order."""
    applied = {}
    if await sql.has_migrations.value(connection):
        applied = {row["version"]: row for row in await sql.applied.all(connection)}
    states = []
    for migration in available(folder):
        row = applied.pop(migration.version, None)
        if row is None:
            states.append(State(migration.version, migration.name, "pending"))
        else:
            same = row["checksum"] == migration.checksum
            states.append(State(migration.version, migration.name, "applied" if same else "changed", row["applied_at"]))
    states += [State(version, row["name"], "unknown", row["applied_at"]) for version, row in applied.items()]
    return sorted(states, key=lambda state: state.version)


def refuse_trouble(states: list[State]) -> None:
    """Raises MigrationError when an applied file has changed, or the database is newer than this release."""
    for state in states:
        if state.state == "changed":
            raise MigrationError(
                f"Migration {state.version:04} ({state.name}) was applied on {state.applied_at:%Y-%m-%d} and its file has changed since",
                "Restore the file of the release; put what you want to change into a migration of its own",
            )
        if state.state == "unknown":
            raise MigrationError(
                f"The database has migration {state.version:04} ({state.name}), which this release does not know",
                "Start the release that made it, or restore a backup from before",
            )


async def require_current(connection: Any) -> None:
    """What the server asks at start: raises MigrationError unless the schema is whole and this release's."""
    states = await status(connection)
    refuse_trouble(states)
    if pending := [state for state in states if state.state == "pending"]:
        raise MigrationError(f"{len(pending)} migrations have not been applied", "Run `redflag db migrate`")
    if not await sql.is_server.value(connection):
        raise MigrationError(
            "The server is connected as a role that is not its own: it owns the tables, is a superuser, or migrations ran for another",
            "Point REDFLAG_DATABASE_URL at the server's own role and run `redflag db migrate`",
        )


async def migrate(owner_dsn: str, server_role: str, folder: Path = FOLDER) -> list[Migration]:
    """Applies what is missing, as the owner, and sets the rights of the server's role. Returns what was applied."""
    connection = await pool.connect(owner_dsn, application="redflag migrate")
    try:
        require_version(pool.number(connection))
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('redflag migrate ' || current_schema(), 0))")
        await sql.create_migrations.run(connection)
        states = await status(connection, folder)
        refuse_trouble(states)
        pending = {state.version for state in states if state.state == "pending"}
        done = []
        for migration in available(folder):
            if migration.version in pending:
                await _apply(connection, migration)
                done.append(migration)
        async with connection.transaction():
            await sql.pin_search_path.run(connection)
            await sql.name_server_role.run(connection, role=server_role)
            await connection.execute(ROLES.read_text())
        return done
    finally:
        await connection.close()


async def _apply(connection: Any, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await sql.pin_search_path.run(connection)
            await sql.set_timeouts.run(connection, lock_timeout=LOCK_TIMEOUT, statement_timeout=STATEMENT_TIMEOUT)
            await connection.execute(migration.text)
            await sql.record_migration.run(
                connection, version=migration.version, name=migration.name, checksum=migration.checksum
            )
    except asyncpg.PostgresError as error:
        raise MigrationError(
            f"Migration {migration.version:04} ({migration.name}) failed and was rolled back: {error}",
            "The database is as it was before. Correct the cause and run `redflag db migrate` again",
        ) from error
