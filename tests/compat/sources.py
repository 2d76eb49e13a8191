"""RedFlag databases for the tests: the given one, and others of the same shape with rows of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from databases import make_database
from redflag.database import pool
from redflag.database.embedded import EmbeddedDatabase
from redflag.imports import source
from redflag.imports.redflag import Line, Outcome
from redflag.settings import Settings
from redflag.web.app import make_app
from redflag.web.connections import Connection


def columns_of(given: Path) -> dict[str, dict[str, tuple[str, bool]]]:
    """columns.tsv: table → column → its type, and whether it may be NULL."""
    tables: dict[str, dict[str, tuple[str, bool]]] = {}
    with (given / "columns.tsv").open(newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            tables.setdefault(row["table"], {})[row["column"]] = (row["type"], row["nullable"] == "YES")
    return tables


def definitions(tables: Mapping[str, Mapping[str, tuple[str, bool]]]) -> str:
    """The tables as SQL, with the keys that RedFlag's have."""
    return "".join(
        f"CREATE TABLE {table} ("
        + ", ".join(f"{name} {kind}{'' if null else ' NOT NULL'}" for name, (kind, null) in columns.items())
        + (", PRIMARY KEY (id)" if "id" in columns else "")
        + ");\n"
        for table, columns in tables.items()
    )


def make_source(postgres: EmbeddedDatabase, name: str, script: str) -> str:
    """A database of RedFlag's, made and filled by a psql script. Returns its address."""
    postgres.run_tool("psql", "-qc", f"CREATE DATABASE {name}", role="postgres", database="postgres")
    postgres.run_tool("psql", "-qv", "ON_ERROR_STOP=1", role="postgres", database=name, stdin=script)
    return postgres.url("postgres", name)


# The tables that are read, with the columns that are read of them
SHAPE = {table: {name: (kind, True) for name, kind in columns.items()} for table, columns in source.COLUMNS.items()}


class Target:
    """A migrated database of this project's, to import into."""

    def __init__(self, postgres: EmbeddedDatabase, name: str) -> None:
        self.name = name
        self.owner_dsn = postgres.url("redflag_owner", name)
        self.server_dsn = postgres.url("redflag_server", name)
        self.owner: Any = None

    async def value(self, query: str, *arguments: Any) -> Any:
        """One value, as the owner sees it."""
        return await self.owner.fetchval(query, *arguments)


@contextlib.asynccontextmanager
async def target(postgres: EmbeddedDatabase, name: str) -> AsyncIterator[Target]:
    """A fresh one, with a connection of its owner's."""
    await make_database(postgres, name)
    made = Target(postgres, name)
    made.owner = await pool.connect(made.owner_dsn)
    try:
        yield made
    finally:
        await made.owner.close()


@dataclass
class Moved:
    """A source, the target that it was imported into, and what the import said."""

    source: str
    target: Target
    outcome: Outcome
    before: dict[str, tuple[int, str]]

    def line(self, table: str) -> Line:
        """What became of a table."""
        return next(line for line in self.outcome.lines if line.table == table)


@contextlib.asynccontextmanager
async def serving(dsn: str, folder: Path) -> AsyncIterator[str]:
    """A real server on this database, with its sweeper and its data folder; the address it listens at."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = make_app(Settings(port=port, var=folder, replica="tests", enrolment_tries=1000), dsn)
    server = uvicorn.Server(uvicorn.Config(app, http=Connection, log_level="warning", timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


async def checksums(dsn: str) -> dict[str, tuple[int, str]]:
    """Of every table its rows and a digest of them, whatever their order."""
    connection = await pool.connect(dsn)
    try:
        names = await connection.fetch(
            """SELECT c.oid::regclass::text AS name FROM pg_class c
               WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace ORDER BY 1"""
        )
        found = {}
        for row in names:
            told = await connection.fetchrow(
                f"SELECT count(*) AS rows, coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') AS digest FROM {row['name']} t"
            )
            found[row["name"]] = (told["rows"], told["digest"])
        return found
    finally:
        await connection.close()
