"""Brings a RedFlag v0.1.18 installation over: agents, tokens, people, commands, history, updates.

Promises
- One transaction here: either all of it is there, or nothing. The source is read at one moment and never written to.
- Run again it adds nothing: what has the id of something here is that very thing.
- Every row that was read is imported, there already, or skipped with a reason; if the numbers do not add up, or differ
  from what the source counts itself, the import fails and nothing of it stays.
- Nothing is left out of the record: each command has one record of kind `import`, its version 1; the triggers write it,
  under the importing database role, with where it came from.
- Secrets are taken out before anything is stored for good.

Two imports do not run at once: the second raises Conflict. A source that does not answer is DatabaseUnreachable, one that
is no RedFlag v0.1.18 InvalidInput, and whatever the database refuses DatabaseError; in each case nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

import redflag
from redflag.access.users import USERNAME
from redflag.database import migrate, pool, queries
from redflag.errors import Conflict, DatabaseError, InvalidInput, MigrationError, NotPermitted
from redflag.imports import copying, secrets, source, words
from redflag.updates.states import Severity

staging = queries.load(__file__, "staging.sql")
FILES = {
    "fleet.sql": ("agents", "agent_tags", "refresh_tokens"),
    "access.sql": ("registration_tokens", "registration_token_usage", "users"),
    "commands.sql": ("agent_commands",),
    "history.sql": ("update_logs",),
    "packages.sql": ("current_package_state", "update_packages", "update_version_history", "update_events"),
}
_loaded = {name: queries.load(__file__, name) for name in FILES}
SQL = {table: _loaded[name] for name, tables in FILES.items() for table in tables}

# In this order: an agent before what is its own, commands before the updates that they work on
ORDER = (
    "agents", "agent_tags", "refresh_tokens", "registration_tokens", "registration_token_usage", "users", "agent_commands",
    "update_logs", "current_package_state", "update_packages", "update_version_history", "update_events",
)  # fmt: skip
CLEANED = (
    "agents", "registration_tokens", "agent_commands", "update_logs", "current_package_state", "update_packages",
    "update_version_history",
)  # fmt: skip
THERE = "already there"
# Of what a check-in tells, RedFlag kept these in the agent's metadata
METRICS = [
    "cpu_percent", "memory_percent", "memory_used_gb", "memory_total_gb", "disk_used_gb", "disk_total_gb", "disk_percent", "uptime",
]  # fmt: skip
# Pages of staged history in one statement: some ten thousand records
PAGES = 512

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Line:
    """What became of the rows of one table."""

    table: str
    read: int
    imported: int
    there: int
    skipped: dict[str, int] = field(default_factory=dict)

    def adds_up(self) -> bool:
        """Whether every row is accounted for."""
        return self.read == self.imported + self.there + sum(self.skipped.values())


@dataclass(frozen=True)
class Outcome:
    """An import that was done, or with `dry_run` would have been. `missing`: tables that this source does not have."""

    source: str
    lines: list[Line]
    expired: int
    reconstructed: int
    cleaned: int
    missing: list[str]
    dry_run: bool
    left_out: dict[str, str] = field(default_factory=lambda: dict(source.LEFT_OUT))

    @property
    def imported(self) -> int:
        """How many rows came over."""
        return sum(line.imported for line in self.lines)


async def run(
    owner_dsn: str,
    source_url: str,
    *,
    zone: str = "UTC",
    dry_run: bool = False,
    more_patterns: bool = False,
    longest_output: int = 1024 * 1024,
    tell: Tell = lambda _done, _what: None,
) -> Outcome:
    """Imports from `source_url` into the database of the owner at `owner_dsn`.

    `zone`: the time zone that times without one are in. `dry_run`: everything is done, and then undone. `more_patterns`:
    redaction has patterns of the site's own. `tell` hears the part that is done (0 to 1) and what goes on.
    """
    connection = await pool.connect(owner_dsn, application="redflag import")
    try:
        await _require_ready(connection)
        transaction = connection.transaction()
        await transaction.start()
        try:
            outcome = await _Import(connection, zone, longest_output, more_patterns, tell).run(source_url, dry_run)
        except BaseException:
            await _undo(transaction)
            raise
        if dry_run:
            await transaction.rollback()
        else:
            await transaction.commit()
        return outcome
    finally:
        await connection.close()


async def _undo(transaction: Any) -> None:
    try:
        await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return  # the connection is gone, and the transaction with it


async def _require_ready(connection: Any) -> None:
    states = await migrate.status(connection)
    migrate.refuse_trouble(states)
    if any(state.state == "pending" for state in states):
        raise MigrationError("The database is not this release's yet", "Run `redflag db migrate`, then import again")
    if not await staging.may_import.value(connection):
        raise NotPermitted(
            "An import runs as the owner of the database", "Give the owner's address: REDFLAG_DATABASE_OWNER_URL"
        )


@contextmanager
def _reading(table: str) -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise DatabaseError(
            f"Reading {table} stopped, and nothing was imported: {error}",
            "Let the user of --from read every table of the RedFlag database, then run it again",
        ) from error


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise DatabaseError(
            f"The import stopped at {what}, and nothing of it was kept: {error}",
            "Correct the cause and run it again",
        ) from error


class _Import:
    """One import, in the transaction that it was given."""

    def __init__(self, connection: Any, zone: str, longest: int, more_patterns: bool, tell: Tell) -> None:
        self.connection = connection
        self.tell = tell
        self.longest = longest
        their_statuses, our_statuses = words.columns(words.COMMANDS)
        their_updates, our_updates = words.columns(words.UPDATES)
        their_results, our_results = words.columns(words.RESULTS)
        their_roles, our_roles = words.columns(words.ROLES)
        their_versions, our_versions = words.columns(words.VERSIONS)
        their_events, our_events = words.columns(words.EVENTS)
        self.known: dict[str, Any] = {
            "zone": zone, "suspicious": secrets.suspicious(more_patterns=more_patterns), "longest": longest,
            "version": redflag.__version__, "redflag_version": source.VERSION, "username": f"^{USERNAME.pattern}$",
            "metrics": METRICS, "severities": [str(one) for one in Severity if one != Severity.UNKNOWN],
            "their_results": their_results, "our_results": our_results, "their_roles": their_roles, "our_roles": our_roles,
            "their_versions": their_versions, "our_versions": our_versions, "their_events": their_events, "our_events": our_events,
        }  # fmt: skip
        self.commands = {"their_statuses": their_statuses, "our_statuses": our_statuses}
        self.updates = {"their_statuses": their_updates, "our_statuses": our_updates}
        self.counts: dict[str, int] = {}
        self.total = 1
        self.done = 0.0

    async def run(self, source_url: str, dry_run: bool) -> Outcome:
        if not await staging.lock.value(self.connection):
            raise Conflict("Another import is running", "Wait for its end")
        if not await staging.zone_is_known.value(self.connection, zone=self.known["zone"]):
            raise InvalidInput(
                f"{self.known['zone'][:50]!r} is no time zone",
                "Give one as PostgreSQL has them, such as Europe/Berlin or UTC",
            )
        await self.connection.execute(staging.create.text)
        name = await self._read(source_url)
        await staging.begin.one(self.connection, imported_from=name)
        cleaned = await self._clean()
        imported = {}
        for table in ORDER:
            with _doing(table):
                imported[table] = await self._import(table)
        with _doing("agent_commands"):
            reconstructed = await self._run("agent_commands", "reconstruct_timeouts")
            expired = await SQL["agent_commands"].count_expired.value(self.connection)
        lines = await self._account(imported)
        missing = sorted(set(source.COLUMNS) - set(self.counts))
        outcome = Outcome(name, lines, expired, reconstructed, cleaned, missing, dry_run)
        if outcome.imported:
            said = ", ".join(f"{line.imported} {line.table.replace('_', ' ')}" for line in lines if line.imported)
            await staging.record_import.run(
                self.connection,
                message=f"imported from {name}: {said}",
                metadata={
                    "imported": {line.table: line.imported for line in lines},
                    "reconstructed_timeouts": reconstructed,
                },
            )
        return outcome

    async def _read(self, source_url: str) -> str:
        """Everything into the staging tables, so that the source's transaction is short."""
        async with source.opened(source_url) as origin:
            with _reading("the columns"):
                self.counts = await source.examine(origin)
                name = source.name_of(source_url, await source.sql.database.value(origin))
            self.total = max(1, sum(self.counts.values()))
            for table in ORDER:
                if table not in self.counts:
                    continue
                query = getattr(source.sql, f"read_{table}")
                what = f"reading {table.replace('_', ' ')}"
                self._say(0, what)
                began = self.done
                with _reading(table):
                    read = await copying.copy(
                        origin, query.text, query.arguments(self._given(query)), self.connection, f"staged_{table}",
                        self._sayer(what),
                    )  # fmt: skip
                if read != self.counts[table]:
                    raise DatabaseError(
                        f"{table} has {self.counts[table]} rows, and {read} came over",
                        "Nothing was imported; try again",
                    )
                self.done = began + read * 0.15
        await self.connection.execute(staging.analyze.text)
        return name

    async def _clean(self) -> int:
        cleaned = 0
        for table in CLEANED:
            self._say(0, f"looking for secrets in {table.replace('_', ' ')}")
            sql = SQL[table]
            suspects = getattr(sql, f"suspects_{table}")
            update = getattr(sql, f"clean_{table}")
            cleaned += await secrets.clean(self.connection, suspects, update, self._given(suspects), self.longest)
        return cleaned

    async def _import(self, table: str) -> int:
        self._say(0, f"importing {table.replace('_', ' ')}")
        if table == "agent_tags":  # they came with their agents
            return int(await SQL[table].insert_agent_tags.value(self.connection))
        await self._run(table, f"judge_{table}")
        if table == "agents":
            await self._run("agent_tags", "judge_agent_tags")
        if table == "update_logs":
            return await self._import_history()
        imported = await self._run(table, f"insert_{table}")
        if table == "agents":
            await self._run(table, "insert_presence")
        self._say(self.counts.get(table, 0) * 0.85, "")
        return imported

    async def _import_history(self) -> int:
        sql = SQL["update_logs"]
        pages = await sql.pages_update_logs.value(self.connection)
        imported = 0
        for low in range(0, pages, PAGES):
            imported += await sql.insert_update_logs.run(
                self.connection, **self._given(sql.insert_update_logs) | {"low": (low, 0), "high": (low + PAGES, 0)}
            )
            part = self.counts["update_logs"] * 0.85 * min(PAGES, pages - low) / pages
            self._say(part, f"importing the history: {imported:,} records")
        return imported

    async def _run(self, table: str, name: str) -> int:
        query = getattr(SQL[table], name)
        return int(await query.run(self.connection, **self._given(query, table)))

    def _given(self, query: Any, table: str = "") -> dict[str, Any]:
        known = self.known | (self.commands if table == "agent_commands" else self.updates)
        return {name: known[name] for name in query.order if name in known}

    async def _account(self, imported: dict[str, int]) -> list[Line]:
        fates: dict[str, dict[str | None, int]] = {table: {} for table in ORDER}
        for row in await staging.fates.all(self.connection):
            fates[row["entity"]][row["fate"]] = row["rows"]
        lines = []
        for table in ORDER:
            skipped = {fate: rows for fate, rows in fates[table].items() if fate is not None and fate != THERE}
            line = Line(table, self.counts.get(table, 0), imported[table], fates[table].get(THERE, 0), skipped)
            if not line.adds_up():
                raise DatabaseError(
                    f"Of {line.read} rows of {table} {line.imported} were imported, {line.there} were there already and "
                    f"{sum(skipped.values())} were skipped: that does not add up, and nothing was kept",
                    "This is a fault of RedFlag: please report it",
                )
            lines.append(line)
        return lines

    def _sayer(self, what: str) -> Callable[[int], None]:
        return lambda passed: self._say(0, f"{what}: {passed // 2**20} MiB")

    def _say(self, rows: float, what: str) -> None:
        self.done += rows
        self.tell(min(1.0, self.done / self.total), what)
