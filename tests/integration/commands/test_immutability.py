"""What is in the record stays as it was written, and nobody writes into it under another's name."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from typing import Any

import asyncpg
import pytest

from integration.commands.helpers import make_command, records, refusal

ROLES = ("server", "owner", "superuser", "replica")
KEPT = "RF003"
NOT_YOURS = "RF004"
NO_ACTOR = "RF002"
NO_RIGHT = "42501"


@pytest.fixture
def connections(server: Any, owner: Any, superuser: Any) -> dict[str, Any]:
    return {"server": server, "owner": owner, "superuser": superuser, "replica": superuser}


async def tried(connection: Any, role: str, statement: str, *arguments: Any) -> asyncpg.PostgresError | None:
    """What the database says, in a transaction that is rolled back."""
    whole = connection.transaction()
    await whole.start()
    try:
        if role == "replica":
            await connection.execute("SET LOCAL session_replication_role = replica")
        return await refusal(connection, statement, *arguments)
    finally:
        await whole.rollback()


async def partitions(connection: Any) -> list[str]:
    rows = await connection.fetch(
        "SELECT relid::regclass::text AS name FROM pg_partition_tree('update_logs') WHERE level > 0 ORDER BY 1"
    )
    return [row["name"] for row in rows]


CHANGES = {
    "UPDATE": "UPDATE update_logs SET message = 'x' WHERE command_id = $1",
    "UPDATE of its month": "UPDATE {month} SET message = 'x' WHERE command_id = $1",
    "UPDATE of nothing": "UPDATE update_logs SET message = message WHERE command_id = $1 AND false",
    "UPDATE by MERGE": """MERGE INTO update_logs u USING (SELECT $1::uuid AS id) s ON u.command_id = s.id
                          WHEN MATCHED THEN UPDATE SET message = 'x'""",
    "UPDATE by an upsert": """INSERT INTO update_logs (id, created_at, result)
                              SELECT id, created_at, result FROM update_logs WHERE command_id = $1
                              ON CONFLICT (id, created_at) DO UPDATE SET message = 'x'""",
    "UPDATE that moves it to another month": "UPDATE update_logs SET created_at = created_at + interval '1 month' WHERE command_id = $1",
    "DELETE": "DELETE FROM update_logs WHERE command_id = $1",
    "DELETE from its month": "DELETE FROM {month} WHERE command_id = $1",
    "DELETE of nothing": "DELETE FROM update_logs WHERE command_id = $1 AND false",
    "DELETE by MERGE": "MERGE INTO update_logs u USING (SELECT $1::uuid AS id) s ON u.command_id = s.id WHEN MATCHED THEN DELETE",
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("role", ROLES)
async def test_a_record_is_never_changed_nor_removed(
    role: str, what: str, connections: dict[str, Any], owner: Any, agent_id: uuid.UUID
) -> None:
    command_id = await make_command(owner, agent_id)
    before = await records(owner, command_id, None)
    month = await owner.fetchval("SELECT tableoid::regclass::text FROM update_logs WHERE command_id = $1", command_id)
    error = await tried(connections[role], role, CHANGES[what].format(month=month), command_id)
    assert error is not None
    if role == "server":
        assert error.sqlstate == NO_RIGHT
    else:
        assert error.sqlstate == KEPT
        assert "update_logs is append-only" in str(error)
    assert await records(owner, command_id, None) == before


@pytest.mark.parametrize("role", ROLES)
async def test_neither_the_whole_nor_any_part_of_it_is_truncated(
    role: str, connections: dict[str, Any], owner: Any
) -> None:
    for table in ("update_logs", "ONLY update_logs_default", *await partitions(owner)):
        for cascade in ("", " CASCADE"):
            error = await tried(connections[role], role, f"TRUNCATE {table}{cascade}")
            assert error is not None, table
            assert error.sqlstate == (NO_RIGHT if role == "server" else KEPT), (table, error)


async def test_the_server_has_no_right_to_change_any_part_of_the_record(owner: Any) -> None:
    for table in ("update_logs", *await partitions(owner)):
        may = await owner.fetchval(
            """SELECT has_table_privilege('redflag_server', $1, 'UPDATE, DELETE, TRUNCATE, TRIGGER, MAINTAIN')
                 OR has_any_column_privilege('redflag_server', $1, 'UPDATE')""",
            table,
        )
        assert may is False, table
    assert not await owner.fetchval("SELECT has_schema_privilege('redflag_server', current_schema(), 'CREATE')")
    assert not await owner.fetchval(
        "SELECT has_database_privilege('redflag_server', current_database(), 'CREATE, TEMPORARY')"
    )
    assert not await owner.fetchval("SELECT pg_has_role('redflag_server', 'redflag_owner', 'MEMBER')")


@pytest.mark.parametrize("role", ["owner", "superuser", "replica"])
async def test_what_is_written_by_hand_is_a_note_of_that_role_whatever_it_claims(
    role: str, connections: dict[str, Any], owner: Any, agent_id: uuid.UUID
) -> None:
    command_id = await make_command(owner, agent_id)
    connection = connections[role]
    salt = b"\x00" * 32
    whole = connection.transaction()
    await whole.start()
    try:
        if role == "replica":
            await connection.execute("SET LOCAL session_replication_role = replica")
        note = await connection.fetchrow(
            """INSERT INTO update_logs (kind, actor, version, command_id, agent_id, result, salt, salts, message)
               VALUES ('transition', 'user:alice', 2, $1, $2, 'success', $3, '{}', 'forged') RETURNING *""",
            command_id, agent_id, salt,
        )  # fmt: skip
        session = "redflag_owner" if role == "owner" else "postgres"
        assert (note["kind"], note["actor"], note["version"]) == ("note", f"db:{session}", None)
        assert note["salt"] != salt
        assert len(note["salt"]) == 32
        assert note["salts"] is None
        assert note["metadata"]["application"] == "redflag"
        assert [record["version"] for record in await records(connection, command_id)] == [1]
    finally:
        await whole.rollback()


async def test_a_note_put_straight_into_a_month_is_no_other(owner: Any) -> None:
    month = await owner.fetchval("SELECT 'update_logs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
    note = await owner.fetchrow(
        f"""INSERT INTO {month} (kind, actor, version, command_id, result) VALUES ('transition', 'user:alice', 1, uuidv7(), 'success')
            RETURNING id, created_at, kind, actor, version"""
    )
    assert (note["kind"], note["actor"], note["version"]) == ("note", "db:redflag_owner", None)
    assert await owner.fetchval(
        "SELECT true FROM audit_pending WHERE id = $1 AND created_at = $2", note["id"], note["created_at"]
    )


@pytest.mark.parametrize("kind", ["transition", "note", None])
async def test_the_server_writes_neither_transitions_nor_notes(kind: str | None, server: Any) -> None:
    statement = (
        "INSERT INTO update_logs (actor, command_id, version, result) VALUES ('user:alice', uuidv7(), 1, 'success')"
    )
    if kind:
        statement = statement.replace("(actor,", "(kind, actor,").replace("('user", f"('{kind}', 'user")
    error = await refusal(server, statement)
    assert error is not None
    assert error.sqlstate == NOT_YOURS


async def test_the_server_says_who_did_what_it_records(server: Any) -> None:
    error = await refusal(server, "INSERT INTO update_logs (kind, result) VALUES ('access', 'denied')")
    assert error is not None
    assert error.sqlstate == NO_ACTOR


async def test_the_server_cannot_choose_a_salt(server: Any) -> None:
    row = await server.fetchrow(
        """INSERT INTO update_logs (kind, actor, result, salt, salts) VALUES ('access', 'user:alice', 'denied', $1, '{"message": "00"}')
           RETURNING salt, salts""",
        b"\x00" * 32,
    )
    assert row["salt"] != b"\x00" * 32
    assert len(row["salt"]) == 32
    assert row["salts"] is None


@pytest.mark.parametrize(
    "away", [datetime.timedelta(days=-400), datetime.timedelta(seconds=-30), datetime.timedelta(days=40)]
)
@pytest.mark.parametrize("role", ["server", "owner", "superuser"])
async def test_nobody_chooses_when_something_was_recorded(
    role: str, away: datetime.timedelta, connections: dict[str, Any]
) -> None:
    error = await tried(
        connections[role], role,
        "INSERT INTO update_logs (kind, actor, result, created_at) VALUES ('access', 'user:alice', 'denied', now() + $1::interval)", away,
    )  # fmt: skip
    assert error is not None
    assert error.sqlstate == NOT_YOURS


async def test_when_it_happened_may_be_said(owner: Any) -> None:
    row = await owner.fetchrow(
        "INSERT INTO update_logs (result, executed_at) VALUES ('success', now() - interval '3 days') RETURNING executed_at, created_at"
    )
    assert row["created_at"] - row["executed_at"] > datetime.timedelta(days=2)


async def test_every_record_is_in_the_outbox_once(owner: Any, agent_id: uuid.UUID) -> None:
    async with owner.transaction():
        command_id = await make_command(owner, agent_id)
        await owner.execute("UPDATE agent_commands SET status = 'sent' WHERE id = $1", command_id)
        await owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 10)")
        recorded, waiting = await owner.fetchrow(
            """WITH mine AS (SELECT created_at, id FROM update_logs WHERE xmin = pg_current_xact_id()::xid)
               SELECT (SELECT count(*) FROM mine),
                      (SELECT count(*) FROM audit_pending p JOIN mine ON (mine.created_at, mine.id) = (p.created_at, p.id))"""
        )
        assert recorded == waiting == 12
        assert await owner.fetchval("SELECT count(*) FROM audit_pending WHERE xmin = pg_current_xact_id()::xid") == 12


GUARDS = """
SELECT t.tgname, t.tgenabled, t.tgtype FROM pg_trigger t WHERE t.tgrelid = $1::regclass AND NOT t.tgisinternal ORDER BY t.tgname
"""
ROW, BEFORE, INSERT, DELETE, UPDATE, TRUNCATE = 1, 2, 4, 8, 16, 32


async def assert_guarded(connection: Any, table: str) -> None:
    guards = {row["tgname"]: (row["tgenabled"], row["tgtype"]) for row in await connection.fetch(GUARDS, table)}
    assert guards == {
        "update_logs_admit": (b"A", ROW | BEFORE | INSERT),
        "update_logs_refuse_row": (b"A", ROW | BEFORE | DELETE | UPDATE),
        "update_logs_refuse_statement": (b"A", BEFORE | DELETE | UPDATE | TRUNCATE),
    }, table


async def test_every_part_of_the_record_has_every_guard(owner: Any) -> None:
    for table in ("update_logs", *await partitions(owner)):
        await assert_guarded(owner, table)


async def test_new_months_are_made_with_their_guards_and_counted(owner: Any, server: Any) -> None:
    # The server has no right to make tables, and may have these made
    whole = server.transaction()
    await whole.start()
    try:
        before = set(await partitions(server))
        assert await server.fetchval("SELECT update_logs_make_partitions(12)") == 12
        assert set(await partitions(server)) == before
        assert await server.fetchval("SELECT update_logs_make_partitions(15)") == 15
        new = set(await partitions(server)) - before
        assert len(new) == 3
        for table in new:
            await assert_guarded(server, table)
            owner_of = await server.fetchval(
                "SELECT relowner::regrole::text FROM pg_class WHERE oid = $1::regclass", table
            )
            assert owner_of == "redflag_owner"
            assert not await server.fetchval("SELECT has_table_privilege($1, 'UPDATE, DELETE, TRUNCATE')", table)
            assert (await refusal(server, f"INSERT INTO {table} (result) VALUES ('success')")) is not None
    finally:
        await whole.rollback()


async def test_the_months_lie_end_to_end_in_utc(owner: Any) -> None:
    whole = owner.transaction()
    await whole.start()
    try:
        await owner.execute("SET LOCAL timezone = 'Pacific/Auckland'")
        await owner.execute("SELECT update_logs_make_partitions(14)")
        await owner.execute("SET LOCAL timezone = 'UTC'")
        bounds = [
            row["bound"]
            for row in await owner.fetch(
                """SELECT pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = 'update_logs'::regclass AND c.relname <> 'update_logs_default' ORDER BY c.relname"""
            )
        ]
        ends = [bound.split("TO ")[1] for bound in bounds]
        begins = [bound.split("FROM ")[1].split(" TO")[0] for bound in bounds]
        assert begins[1:] == ends[:-1]
        assert all("-01 00:00:00+00" in begin for begin in begins)
    finally:
        await whole.rollback()


async def test_without_a_month_records_go_to_the_default_and_are_guarded_there(owner: Any, agent_id: uuid.UUID) -> None:
    whole = owner.transaction()
    await whole.start()
    try:
        month = await owner.fetchval("SELECT 'update_logs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
        await owner.execute(f"ALTER TABLE update_logs DETACH PARTITION {month}")
        await owner.execute(f"DROP TABLE {month}")
        command_id = await make_command(owner, agent_id)
        where = await owner.fetchval(
            "SELECT tableoid::regclass::text FROM update_logs WHERE command_id = $1", command_id
        )
        assert where == "update_logs_default"
        for what, statement in CHANGES.items():
            error = await refusal(owner, statement.format(month="update_logs_default"), command_id)
            assert error is not None, what
            assert error.sqlstate == KEPT, what
        for table in ("update_logs_default", "update_logs"):
            error = await refusal(owner, f"TRUNCATE {table}")
            assert error is not None
            assert error.sqlstate == KEPT
        # Its month cannot be made any more, for its records lie in the default; those ahead are made all the same
        last = await owner.fetchval(
            "SELECT 'update_logs_' || to_char(now() AT TIME ZONE 'UTC' + interval '12 months', 'YYYY_MM')"
        )
        await owner.execute(f"DROP TABLE {last}")
        assert await owner.fetchval("SELECT update_logs_make_partitions(12)") == 12
        assert last in await partitions(owner)
        assert month not in await partitions(owner)
    finally:
        await whole.rollback()


async def test_the_months_ahead_are_counted_up_to_the_first_that_is_missing(owner: Any) -> None:
    whole = owner.transaction()
    await whole.start()
    try:
        third = await owner.fetchval(
            "SELECT 'update_logs_' || to_char(now() AT TIME ZONE 'UTC' + interval '3 months', 'YYYY_MM')"
        )
        await owner.execute(f"DROP TABLE {third}")
        assert await owner.fetchval("SELECT update_logs_make_partitions(0)") == 2
        assert await owner.fetchval("SELECT update_logs_make_partitions(3)") == 12
    finally:
        await whole.rollback()


async def test_several_servers_that_make_months_at_once_do_not_get_in_each_others_way(pool: Any) -> None:
    async def make() -> int:
        async with pool.acquire() as connection:
            return await connection.fetchval("SELECT update_logs_make_partitions(12)")

    assert await asyncio.gather(*(make() for _ in range(6))) == [12] * 6
