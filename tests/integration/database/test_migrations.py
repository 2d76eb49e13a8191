"""Migrations: in order, once, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from redflag.database import migrate, pool
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import MigrationError


@pytest_asyncio.fixture
async def empty(postgres: EmbeddedDatabase) -> AsyncIterator[str]:
    """An empty database of the owner's: its name."""
    name = f"migrations_{uuid.uuid4().hex[:8]}"
    postgres.run_tool(
        "psql", "-qc", f"CREATE DATABASE {name} OWNER redflag_owner", role="postgres", database="postgres"
    )
    yield name
    postgres.run_tool("psql", "-qc", f"DROP DATABASE {name} WITH (FORCE)", role="postgres", database="postgres")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    return Path(shutil.copytree(migrate.FOLDER, tmp_path / "migrations"))


async def _states(dsn: str, folder: Path = migrate.FOLDER) -> dict[str, list[int]]:
    connection = await pool.connect(dsn)
    try:
        found: dict[str, list[int]] = {}
        for state in await migrate.status(connection, folder):
            found.setdefault(state.state, []).append(state.version)
        return found
    finally:
        await connection.close()


async def _value(dsn: str, query: str) -> Any:
    connection = await pool.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_all_are_applied_once_and_a_second_run_applies_nothing(postgres, empty):
    dsn = postgres.url("redflag_owner", empty)
    numbers = [migration.version for migration in migrate.available()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert await _states(dsn) == {"pending": numbers}
    assert [one.version for one in await migrate.migrate(dsn, "redflag_server")] == numbers
    assert await migrate.migrate(dsn, "redflag_server") == []
    assert await _states(dsn) == {"applied": numbers}


async def test_of_several_migrators_at_once_one_applies_each_file(postgres, empty):
    dsn = postgres.url("redflag_owner", empty)
    done = await asyncio.gather(*[migrate.migrate(dsn, "redflag_server") for _ in range(4)])
    assert sorted(one.version for applied in done for one in applied) == [one.version for one in migrate.available()]


async def test_a_file_that_was_applied_and_has_changed_is_refused(postgres, empty, folder):
    dsn = postgres.url("redflag_owner", empty)
    await migrate.migrate(dsn, "redflag_server", folder)
    first = folder / "0001_record.sql"
    first.write_text(first.read_text() + "-- a later thought\n")
    with pytest.raises(MigrationError, match=r"0001 \(record\) was applied on .* its file has changed"):
        await migrate.migrate(dsn, "redflag_server", folder)


async def test_a_migration_that_fails_leaves_nothing_behind_and_the_server_does_not_start(postgres, empty, folder):
    dsn = postgres.url("redflag_owner", empty)
    await migrate.migrate(dsn, "redflag_server", folder)
    number = len(migrate.available()) + 1
    broken = folder / f"{number:04}_broken.sql"
    broken.write_text("CREATE TABLE half_made (id int); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match=f"{number:04} .* failed and was rolled back: division by zero"):
        await migrate.migrate(dsn, "redflag_server", folder)
    assert await _value(dsn, "SELECT to_regclass('half_made')") is None
    server = await pool.connect(postgres.url("redflag_server", empty))
    try:
        await migrate.require_current(server)  # what is there is whole for the release before
        states = await migrate.status(server, folder)
        assert [state.version for state in states if state.state == "pending"] == [number]
    finally:
        await server.close()


async def test_the_server_does_not_start_on_an_empty_database_nor_on_a_newer_one(postgres, empty):
    dsn, server_dsn = postgres.url("redflag_owner", empty), postgres.url("redflag_server", empty)
    server = await pool.connect(server_dsn)
    try:
        with pytest.raises(MigrationError, match="have not been applied"):
            await migrate.require_current(server)
        await migrate.migrate(dsn, "redflag_server")
        await migrate.require_current(server)
        owner = await pool.connect(dsn)
        await owner.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'of_tomorrow', 'x')")
        await owner.close()
        with pytest.raises(MigrationError, match=r"9999 \(of_tomorrow\), which this release does not know"):
            await migrate.require_current(server)
    finally:
        await server.close()


async def test_the_server_does_not_start_as_the_owner_or_a_superuser(migrated, owner, superuser):
    for connection in (owner, superuser):
        with pytest.raises(MigrationError, match="a role that is not its own"):
            await migrate.require_current(connection)


async def test_the_servers_role_has_no_right_that_it_is_not_given(migrated, owner):
    refused = await owner.fetch(
        """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND (
          (c.relname LIKE 'update_logs%'
              AND has_table_privilege('redflag_server', c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES'))
          OR (c.relname = 'schema_migrations'
              AND has_table_privilege('redflag_server', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
          OR (c.relname = 'audit_pending' AND has_table_privilege('redflag_server', c.oid, 'INSERT, TRUNCATE'))
          OR (c.relname IN ('audit_entries', 'audit_checkpoints') AND has_table_privilege('redflag_server', c.oid, 'UPDATE, DELETE'))
          OR (c.relname = 'audit_tiles' AND has_table_privilege('redflag_server', c.oid, 'DELETE'))
          OR (c.relname = 'agent_commands' AND has_table_privilege('redflag_server', c.oid, 'DELETE, TRUNCATE, TRIGGER'))
          OR has_table_privilege('redflag_server', c.oid, 'TRUNCATE, TRIGGER'))
        """
    )
    assert refused == []
    assert not await owner.fetchval("SELECT has_schema_privilege('redflag_server', current_schema(), 'CREATE')")
    assert not await owner.fetchval(
        "SELECT has_database_privilege('redflag_server', current_database(), 'CREATE, TEMPORARY')"
    )


async def test_functions_that_run_as_their_owner_pin_their_search_path(migrated, owner):
    unpinned = await owner.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prosecdef"
        " AND NOT coalesce(array_to_string(proconfig, ',') LIKE '%search_path=%pg_temp%', false)"
    )
    assert unpinned == []


async def test_a_site_can_be_a_schema_of_its_own(postgres, empty):
    owner_dsn = postgres.url("redflag_owner", empty)
    connection = await pool.connect(owner_dsn)
    await connection.execute("CREATE SCHEMA site AUTHORIZATION redflag_owner")
    await connection.close()
    within = "&options=-csearch_path%3Dsite"
    await migrate.migrate(owner_dsn + within, "redflag_server")
    assert await _value(
        owner_dsn, "SELECT to_regclass('site.update_logs') IS NOT NULL AND to_regclass('public.update_logs') IS NULL"
    )
    agent = await _value(owner_dsn + within, "INSERT INTO agents (hostname) VALUES ('h') RETURNING id")
    await _value(
        owner_dsn + within,
        f"INSERT INTO agent_commands (agent_id, command_type) VALUES ('{agent}', 'scan_updates') RETURNING id",
    )
    assert await _value(owner_dsn, "SELECT count(*) FROM site.update_logs WHERE kind = 'transition'") == 1


def test_two_files_of_one_number_or_a_name_that_is_none_are_refused(folder):
    (folder / "0001_again.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="Two migrations have the number 0001"):
        migrate.available(folder)
    (folder / "0001_again.sql").unlink()
    (folder / "notes.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"notes\.sql is not named NNNN_words\.sql"):
        migrate.available(folder)
