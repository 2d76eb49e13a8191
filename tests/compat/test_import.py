"""A RedFlag v0.1.18 comes over: every row of it is accounted for, and its agents and people go on."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import bcrypt
import httpx
import pytest
import pytest_asyncio

from compat.sources import SHAPE, Moved, checksums, columns_of, definitions, make_source, serving, target
from redflag.access.sessions import log_in
from redflag.database import pool as pools
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict, DatabaseUnreachable, InvalidInput, NotAuthenticated, NotPermitted
from redflag.imports import redflag as importer
from redflag.imports import source

AGENT = uuid.UUID("8f02ebe3-7b65-4b0e-9585-969e69d325d2")
TOKEN = "ab" * 32
PASSWORD = "correct horse battery"
# The password in clear text is the test's own; everything else is as it was given
KNOWN = f"""
UPDATE refresh_tokens SET expires_at = now() + interval '90 days';
INSERT INTO refresh_tokens VALUES ('{uuid.uuid4()}', '{AGENT}', '{hashlib.sha256(TOKEN.encode()).hexdigest()}',
  now() + interval '90 days', now(), now(), false);
UPDATE users SET password_hash = '{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}';
"""


@pytest.fixture(scope="module")
def given(postgres: EmbeddedDatabase, shared: Path) -> str:
    """The small database of a real RedFlag, with a token and a password that the tests know."""
    folder = shared / "redflag-0.1.18"
    return make_source(
        postgres, "redflag_given", definitions(columns_of(folder)) + (folder / "data.sql").read_text() + KNOWN
    )


@pytest_asyncio.fixture(scope="module")
async def moved(postgres: EmbeddedDatabase, given: str) -> AsyncIterator[Moved]:
    """The given database, imported once."""
    async with target(postgres, "from_given") as into:
        before = await checksums(given)
        yield Moved(given, into, await importer.run(into.owner_dsn, given), before)


async def test_every_row_of_the_given_database_is_accounted_for(moved: Moved) -> None:
    assert {line.table: (line.read, line.imported, line.there, line.skipped) for line in moved.outcome.lines} == {
        "agents": (1, 1, 0, {}),
        "agent_tags": (0, 0, 0, {}),
        "refresh_tokens": (2, 2, 0, {}),
        "registration_tokens": (3, 3, 0, {}),
        "registration_token_usage": (1, 1, 0, {}),
        "users": (1, 1, 0, {}),
        "agent_commands": (6, 6, 0, {}),
        "update_logs": (23, 23, 0, {}),
        "current_package_state": (5, 5, 0, {}),
        "update_packages": (0, 0, 0, {}),
        "update_version_history": (1, 1, 0, {}),
        "update_events": (5, 5, 0, {}),
    }
    assert all(line.adds_up() for line in moved.outcome.lines)
    assert (moved.outcome.expired, moved.outcome.reconstructed, moved.outcome.missing) == (3, 3, [])
    assert moved.outcome.source == "RedFlag 0.1.18, redflag_given on this machine"


async def test_what_is_counted_is_there(moved: Moved) -> None:
    value = moved.target.value
    assert await value("SELECT count(*) FROM agents WHERE id = $1 AND protocol = 0 AND hostname = 'h1'", AGENT) == 1
    assert await value("SELECT count(*) FROM agent_tokens WHERE purpose = 'refresh' AND revoked_at IS NULL") == 2
    assert await value("SELECT array_agg(seats || '/' || seats_used ORDER BY label) FROM enrolment_tokens") == [
        "5/1",
        "1/0",
        "50/2",
    ]
    assert await value("SELECT role FROM users WHERE username = 'admin'") == "admin"
    assert await value("SELECT count(*) FROM agent_commands") == 6
    assert await value("SELECT count(*) FROM update_versions") == 6
    assert await value("SELECT count(*) FROM updates") == 5
    # 23 of the history, 6 commands, 3 reconstructed, 1 seat that was taken, 1 agent, 3 tokens, 1 user, and the import itself
    assert await value("SELECT count(*) FROM update_logs WHERE kind = 'import'") == 39
    assert await value("SELECT count(*) FROM update_logs WHERE kind <> 'import'") == 0
    assert await value("SELECT count(*) FROM audit_pending") == 39


async def test_every_record_says_who_imported_it_and_from_where(moved: Moved) -> None:
    rows = await moved.target.owner.fetch(
        "SELECT DISTINCT actor, metadata ->> 'imported_from' AS origin FROM update_logs"
    )
    assert [(row["actor"], row["origin"]) for row in rows] == [("db:redflag_owner", moved.outcome.source)]
    assert not await moved.target.value("SELECT count(*) FROM update_logs WHERE metadata ? 'forced'")


async def test_the_history_keeps_its_ids_its_times_and_its_words(moved: Moved) -> None:
    row = await moved.target.owner.fetchrow(
        "SELECT * FROM update_logs WHERE id = '6a8266eb-85d7-406d-8c94-e9c546329aea'"
    )
    assert row["executed_at"] == datetime.datetime(2026, 11, 23, 20, 48, 52, 757728, tzinfo=datetime.UTC)
    assert (row["action"], row["result"], row["stdout"], row["exit_code"]) == ("update", "success", "done", 0)
    assert (row["kind"], row["agent_id"], row["version"]) == ("import", AGENT, None)
    assert row["metadata"]["original_id"] == str(row["id"])
    counted = await moved.target.owner.fetch(
        "SELECT result, count(*) AS n FROM update_logs WHERE metadata ? 'original_id' AND action <> 'enrolment_token_used' GROUP BY 1"
    )
    assert {one["result"]: one["n"] for one in counted} == {"success": 11, "failed": 6, "partial": 6}


async def test_one_record_of_an_import_is_the_beginning_of_each_command(moved: Moved) -> None:
    rows = await moved.target.owner.fetch(
        """SELECT c.id, c.status, c.version, l.kind, l.result, l.version AS recorded, l.command_type, l.params, l.metadata
           FROM agent_commands c JOIN update_logs l ON l.command_id = c.id AND l.version IS NOT NULL"""
    )
    assert len(rows) == 6
    assert {(row["version"], row["recorded"], row["kind"]) for row in rows} == {(1, 1, "import")}
    assert all(row["result"] == row["status"] == "timed_out" and row["params"] is not None for row in rows)
    said = sorted((row["metadata"]["imported"]["status"], row["metadata"]["timeout_reason"]) for row in rows)
    assert said == [
        ("pending", "expired before import"),
        ("pending", "expired before import"),
        ("running", "expired before import"),
        ("timed_out", "no_response"),
        ("timed_out", "no_response"),
        ("timed_out", "no_response"),
    ]


async def test_a_timeout_that_redflag_could_not_record_is_reconstructed_at_its_time(moved: Moved) -> None:
    rows = await moved.target.owner.fetch(
        "SELECT * FROM update_logs WHERE (metadata ->> 'reconstructed')::boolean ORDER BY executed_at"
    )
    assert len(rows) == 3
    first = rows[0]
    assert str(first["command_id"]) == "e9c42220-c026-4ac9-8817-9f68528c6305"
    # Nine digits of a second, as Go writes them
    assert first["executed_at"] == datetime.datetime(2026, 11, 23, 20, 50, 56, 722123, tzinfo=datetime.UTC)
    assert (first["kind"], first["result"], first["version"]) == ("import", "timed_out", None)
    assert first["metadata"]["timeout_duration"] == "2h0m0s"
    assert first["metadata"]["detected_by"] == "RedFlag"
    assert first["metadata"]["stuck_seconds"] == pytest.approx(7225.074, abs=0.001)
    assert first["message"] == "timed out in RedFlag after 2 h 0 min 25 s"
    live = await moved.target.owner.fetchrow("SELECT * FROM agent_commands WHERE id = $1", first["command_id"])
    assert live["completed_at"] == first["executed_at"]


async def test_updates_keep_what_was_decided_about_them(moved: Moved) -> None:
    rows = await moved.target.owner.fetch("SELECT * FROM updates")
    found = {row["package_name"]: row for row in rows}
    assert {name: row["status"] for name, row in found.items()} == {
        "h": "pending",
        "mnull": "pending",
        "b": "dependencies",
        "nginx:latest": "pending",
        "a": "failed",
    }
    assert str(found["a"]["id"]) == "4dc7bed1-60d8-4062-a64a-1f74e838f039"
    assert found["a"]["reason"] == "operation timed out"
    assert found["b"]["dependencies"] == ["x", "y"]
    assert found["b"]["severity"] == "important"
    assert found["b"]["first_seen_at"] == datetime.datetime(2026, 11, 23, 20, 48, 52, 626392, tzinfo=datetime.UTC)
    version = await moved.target.owner.fetchrow("SELECT * FROM update_versions WHERE event = 'failed'")
    assert str(version["command_id"]) == "a1dc0af8-ddc9-4fd8-be90-d9b675a2f3b9"
    assert version["reason"] == "operation timed out"


async def test_the_agent_keeps_what_was_known_of_it(moved: Moved) -> None:
    row = await moved.target.owner.fetchrow(
        "SELECT a.*, p.last_seen, p.metrics FROM agents a JOIN agent_presence p ON p.agent_id = a.id"
    )
    assert (row["os_type"], row["os_version"], row["agent_version"]) == ("linux", "Debian 12", "0.1.18")
    assert row["metadata"]["cpu_model"] == "x"
    assert row["metrics"]["memory_percent"] == 43.2
    assert row["last_seen"] == datetime.datetime(2026, 11, 23, 20, 48, 52, 820311, tzinfo=datetime.UTC)


async def test_nothing_was_written_to_the_source(moved: Moved) -> None:
    assert await checksums(moved.source) == moved.before


async def test_run_again_it_adds_nothing_and_says_so(moved: Moved) -> None:
    before = await checksums(moved.target.owner_dsn)
    again = await importer.run(moved.target.owner_dsn, moved.source)
    assert again.imported == 0
    assert all(line.there == line.read and not line.skipped for line in again.lines)
    assert (again.expired, again.reconstructed) == (0, 0)
    assert await checksums(moved.target.owner_dsn) == before


async def test_an_imported_agent_renews_its_token_and_completes_a_command(moved: Moved, tmp_path: Path) -> None:
    async with serving(moved.target.server_dsn, tmp_path) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        renewed = await client.post("/api/v1/agents/renew", json={"agent_id": str(AGENT), "refresh_token": TOKEN})
        assert renewed.status_code == 200, renewed.text
        headers = {"Authorization": f"Bearer {renewed.json()['token']}"}
        path = f"/api/v1/agents/{AGENT}"

        async def check_in() -> list[dict[str, Any]]:
            answer = await client.request(
                "GET", f"{path}/commands", headers=headers, json={"memory_percent": 4.7, "version": "0.1.18"}
            )
            assert answer.status_code == 200, answer.text
            commands: list[dict[str, Any]] = answer.json()["commands"]
            return commands

        assert await check_in() == []  # what had expired before the import is never delivered
        command_id = await moved.target.value(
            "INSERT INTO agent_commands (agent_id, command_type) VALUES ($1, 'scan_updates') RETURNING id", AGENT
        )
        assert [one["id"] for one in await check_in()] == [str(command_id)]
        told = {"command_id": str(command_id), "action": "scan_updates", "result": "success", "stdout": "found 2",
                "stderr": "", "exit_code": 0, "duration_seconds": 1}  # fmt: skip
        reported = await client.post(f"{path}/logs", json=told, headers=headers)
        assert reported.status_code == 200, reported.text
        late = {**told, "command_id": "4d8c9165-3db9-4528-9db6-0960c1085277"}
        assert (await client.post(f"{path}/logs", json=late, headers=headers)).json()["status"] == "late"
    assert await moved.target.value("SELECT status FROM agent_commands WHERE id = $1", command_id) == "completed"
    kinds = await moved.target.owner.fetch(
        "SELECT kind FROM update_logs WHERE command_id = '4d8c9165-3db9-4528-9db6-0960c1085277' ORDER BY executed_at"
    )
    assert [row["kind"] for row in kinds] == ["import", "late_result"]


async def test_somebody_with_a_bcrypt_password_logs_in_and_has_argon2_afterwards(moved: Moved) -> None:
    hashed = "SELECT password_hash FROM users WHERE username = 'admin'"
    assert (await moved.target.value(hashed)).startswith("$2b$")
    connections = await pools.open_pool(moved.target.server_dsn, size=2)
    try:
        with pytest.raises(NotAuthenticated):
            await log_in(connections, "admin", "wrong", "192.0.2.1")
        session = await log_in(connections, "admin", PASSWORD, "192.0.2.1")
        assert (session.username, session.must_change_password) == ("admin", False)
        assert (await moved.target.value(hashed)).startswith("$argon2id$")
        assert (await log_in(connections, "admin", PASSWORD, "192.0.2.1")).role == "admin"
    finally:
        await connections.close()


async def test_a_dry_run_tells_all_and_changes_nothing(postgres: EmbeddedDatabase, given: str, moved: Moved) -> None:
    async with target(postgres, "dry_run") as into:
        before = await checksums(into.owner_dsn)
        outcome = await importer.run(into.owner_dsn, given, dry_run=True)
        assert outcome.dry_run
        assert outcome.lines == moved.outcome.lines
        assert await checksums(into.owner_dsn) == before


async def test_times_without_zone_are_read_in_the_zone_that_is_given(postgres: EmbeddedDatabase, given: str) -> None:
    async with target(postgres, "in_berlin") as into:
        await importer.run(into.owner_dsn, given, zone="Europe/Berlin")
        moment = datetime.datetime(2026, 11, 23, 19, 47, 51, 252034, tzinfo=datetime.UTC)
        assert (
            await into.value("SELECT executed_at FROM update_logs WHERE id = '1e637c28-ce4b-44bc-b4a2-b3f6d2f53f86'")
            == moment
        )
        seen = datetime.datetime(2026, 11, 23, 19, 48, 52, 820311, tzinfo=datetime.UTC)
        assert await into.value("SELECT last_seen FROM agent_presence WHERE agent_id = $1", AGENT) == seen
        # What has a zone is not moved
        found = datetime.datetime(2026, 11, 23, 20, 50, 0, 123457, tzinfo=datetime.UTC)
        assert await into.value("SELECT last_seen_at FROM updates WHERE package_name = 'a'") == found
        with pytest.raises(InvalidInput, match="no time zone"):
            await importer.run(into.owner_dsn, given, zone="Europe/Atlantis")


def test_every_table_of_redflag_is_imported_or_left_out_with_a_reason(shared: Path) -> None:
    tables = columns_of(shared / "redflag-0.1.18")
    assert set(tables) == set(source.COLUMNS) | set(source.LEFT_OUT)
    assert not set(source.COLUMNS) & set(source.LEFT_OUT)
    assert set(importer.ORDER) == set(importer.SQL) == set(source.COLUMNS)
    assert all(len(why) > 20 for why in source.LEFT_OUT.values())


def test_every_column_that_is_read_is_one_of_redflags(shared: Path) -> None:
    tables = columns_of(shared / "redflag-0.1.18")
    for table, columns in source.COLUMNS.items():
        for column, kind in columns.items():
            assert tables[table][column][0].split("(")[0] == kind, f"{table}.{column}"


async def test_an_agent_that_was_removed_here_does_not_get_its_tokens_back(
    postgres: EmbeddedDatabase, given: str
) -> None:
    async with target(postgres, "removed") as into:
        await importer.run(into.owner_dsn, given)
        await into.owner.execute("DELETE FROM agent_tokens")
        again = await importer.run(into.owner_dsn, given)
        (line,) = [line for line in again.lines if line.table == "refresh_tokens"]
        assert line.skipped == {"its agent was here before, and keeps the tokens that it has here": 2}
        assert await into.value("SELECT count(*) FROM agent_tokens") == 0


# What is refused


async def test_two_imports_do_not_run_at_once(postgres: EmbeddedDatabase, given: str, moved: Moved) -> None:
    held = await pools.connect(moved.target.owner_dsn)
    try:
        async with held.transaction():
            assert await importer.staging.lock.value(held)
            with pytest.raises(Conflict, match="Another import"):
                await importer.run(moved.target.owner_dsn, given)
    finally:
        await held.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("DROP TABLE users", "it has no table users"),
        ("ALTER TABLE agents DROP COLUMN current_version", "its table agents has no column current_version"),
        (
            "ALTER TABLE update_logs ALTER executed_at TYPE timestamptz",
            "its column update_logs.executed_at is timestamp with time zone, not timestamp without time zone",
        ),
    ],
)
async def test_what_is_no_redflag_of_this_version_is_refused(
    postgres: EmbeddedDatabase, moved: Moved, change: str, why: str
) -> None:
    name = f"no_redflag_{uuid.uuid4().hex[:8]}"
    url = make_source(postgres, name, definitions(SHAPE) + change)
    with pytest.raises(InvalidInput, match=why) as refused:
        await importer.run(moved.target.owner_dsn, url)
    assert "v0.1.18" in refused.value.next_step


async def test_tables_that_may_be_missing_are_told(postgres: EmbeddedDatabase) -> None:
    url = make_source(
        postgres, "redflag_smaller", definitions(SHAPE) + "DROP TABLE agent_tags; DROP TABLE update_packages;"
    )
    async with target(postgres, "from_smaller") as into:
        outcome = await importer.run(into.owner_dsn, url)
        assert outcome.missing == ["agent_tags", "update_packages"]
        assert outcome.imported == 0
        assert await into.value("SELECT count(*) FROM update_logs") == 0


async def test_a_source_that_does_not_answer_is_said_so(moved: Moved) -> None:
    with pytest.raises(DatabaseUnreachable, match="--from") as refused:
        await importer.run(moved.target.owner_dsn, "postgresql://somebody:hunter2@127.0.0.1:1/redflag")
    assert "hunter2" not in str(refused.value)


async def test_the_servers_role_cannot_import(moved: Moved) -> None:
    with pytest.raises(NotPermitted, match="owner"):
        await importer.run(moved.target.server_dsn, moved.source)


async def test_only_members_of_the_owner_are_believed_to_import(moved: Moved) -> None:
    connection = await pools.connect(moved.target.server_dsn)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL redflag.importing = 'on'")
            with pytest.raises(asyncpg.PostgresError, match="is not the server's to write"):
                async with connection.transaction():
                    await connection.execute("INSERT INTO update_logs (kind, result) VALUES ('import', 'success')")
            with pytest.raises(asyncpg.PostgresError, match="begins as pending"):
                await connection.execute(
                    """INSERT INTO agent_commands (agent_id, command_type, status, act)
                       VALUES ($1, 'reboot', 'completed', '{"actor": "user:x"}')""",
                    AGENT,
                )
    finally:
        await connection.close()


async def test_an_import_changes_nothing_that_was_recorded_and_names_nobody_else(moved: Moved) -> None:
    owner = moved.target.owner
    whole = owner.transaction()
    await whole.start()
    try:
        await owner.execute("SET LOCAL redflag.importing = 'on'")
        for statement in ("UPDATE update_logs SET message = 'x'", "DELETE FROM update_logs", "TRUNCATE update_logs"):
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                async with owner.transaction():
                    await owner.execute(statement)
        row = await owner.fetchrow(
            """INSERT INTO update_logs (kind, actor, version, result) VALUES ('transition', 'user:admin', 7, 'success')
               RETURNING kind, actor, version"""
        )
        assert tuple(row) == ("import", "db:redflag_owner", None)
        command_id = await owner.fetchval(
            """INSERT INTO agent_commands (agent_id, command_type, act)
               VALUES ($1, 'reboot', '{"actor": "user:admin", "forced": true}') RETURNING id""",
            AGENT,
        )
        # A change during an import is a change like any other
        await owner.execute("UPDATE agent_commands SET status = 'running' WHERE id = $1", command_id)
        rows = await owner.fetch(
            "SELECT kind, actor, metadata ? 'forced' AS forced FROM update_logs WHERE command_id = $1 ORDER BY version",
            command_id,
        )
        assert [tuple(one) for one in rows] == [
            ("import", "db:redflag_owner", False), ("transition", "db:redflag_owner", True),
        ]  # fmt: skip
    finally:
        await whole.rollback()


async def test_by_hand_and_without_an_import_it_is_a_note_as_before(moved: Moved) -> None:
    owner = moved.target.owner
    whole = owner.transaction()
    await whole.start()
    try:
        row = await owner.fetchrow(
            "INSERT INTO update_logs (kind, result) VALUES ('import', 'success') RETURNING kind, metadata"
        )
        assert row["kind"] == "note"
        assert "imported_from" not in row["metadata"]
        await owner.execute("INSERT INTO agents (hostname) VALUES ('by hand')")
        assert await owner.fetchval("SELECT kind FROM update_logs WHERE message LIKE 'agent by hand%'") == "change"
    finally:
        await whole.rollback()
