"""Erasing what is personal: it is gone, it is recorded, every proof still holds, and nothing else passes through that door."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from databases import connection
from integration.audit.evidence import Place, place, verify
from integration.commands.helpers import make_agent, refusal, until
from redflag.audit import actor as actors
from redflag.audit import bundle, canonical, erasure, events, fsck, holds, proofs
from redflag.audit.export.reading import Selection
from redflag.commands import history, queue, replay, results
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict, InvalidInput, NotFound
from unit.verify.helpers import verifier

NAME = "erasure"
REASON = "request 17 under article 17"
DPO = "user:dpo"


@pytest_asyncio.fixture(scope="module")
async def here(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with place(postgres, NAME, tmp_path_factory.mktemp("erasure")) as found:
        yield found


@pytest_asyncio.fixture
async def server(here: Place) -> AsyncIterator[Any]:
    async with here.pool.acquire() as one:
        yield one


@pytest_asyncio.fixture(scope="module")
async def superuser(here: Place, postgres: EmbeddedDatabase) -> AsyncIterator[Any]:
    async for opened in connection(postgres.url("postgres", NAME)):
        yield opened


@pytest_asyncio.fixture
async def villain(superuser: Any) -> AsyncIterator[Any]:
    """A superuser with every trigger off, in a transaction that is rolled back."""
    undone = superuser.transaction()
    await undone.start()
    for table in ("update_logs", "agent_commands", "audit_entries", "audit_pending", "audit_erasures"):
        await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    yield superuser
    await undone.rollback()


def dpo() -> actors.Actor:
    """Who erases, in a request of their own."""
    return actors.Actor(DPO, address="192.0.2.9")


async def ended(here: Place, *, who: str = "alice", said: str | None = None) -> tuple[uuid.UUID, str]:
    """A command that alice sent and an agent reported on, all in a checkpoint; and the words that are in its report only."""
    said = said or f"words-{uuid.uuid4().hex[:12]}"
    agent = await make_agent(here.owner)
    async with here.pool.acquire() as server:
        rows = await queue.enqueue(server, actors.user(who, "198.51.100.7"), [agent], "scan_updates", {"for": said})
        command = rows[0]["id"]
        await queue.deliver(server, [queue.Asking(agent, actors.agent(agent, "192.0.2.7"), 1)])
        told = results.Report("success", "scan", f"out {said}", f"err {said}", 0, 3, f"told {said}", {"note": said})
        await results.report(server, actors.agent(agent, "192.0.2.7"), agent, command, told, max_output=1000)
    await here.seal()
    return command, said


async def record_of(connection: Any, command: uuid.UUID, result: str = "success") -> Any:
    """The record of a command's change, as it is now."""
    return await connection.fetchrow(
        "SELECT * FROM update_logs WHERE command_id = $1 AND kind = 'transition' AND result = $2", command, result
    )


async def finding(connection: Any, here: Place) -> fsck.Finding | None:
    """What fsck finds, in the transaction that there is or one of its own."""
    if connection.is_in_transaction():
        return (await fsck.examine(connection, here.signer.verifier)).finding
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return (await fsck.examine(connection, here.signer.verifier)).finding


async def require_whole(here: Place, server: Any) -> None:
    """fsck and replay have nothing to say."""
    await here.seal()
    assert await finding(server, here) is None
    assert await replay.first_difference(server) is None


async def test_what_is_erased_is_gone_and_its_erasure_is_recorded_by_who_did_it(here, server):
    command, said = await ended(here)
    before = await record_of(server, command)
    leaf = await server.fetchval("SELECT leaf FROM audit_entries WHERE record_id = $1", before["id"])

    done = await erasure.erase(server, dpo(), before["id"], ["stdout", "message"], REASON)

    after = await record_of(server, command)
    assert (after["stdout"], after["message"], after["salt"]) == (None, None, None)
    assert set(after["salts"]) == {"actor", "address", "metadata", "stderr"}
    assert after["salts"]["stderr"] == canonical.salt_of(before["salt"], "stderr").hex()
    unchanged = set(before.keys()) - {"stdout", "message", "salt", "salts"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert await server.fetchval("SELECT leaf FROM audit_entries WHERE record_id = $1", before["id"]) == leaf

    told = await server.fetchrow("SELECT * FROM update_logs WHERE id = $1", done.erasure_id)
    assert (told["kind"], told["actor"], told["result"], told["command_id"]) == ("erasure", DPO, "success", command)
    assert told["metadata"]["record_id"] == str(before["id"])
    assert told["metadata"]["fields"] == done.fields == ["message", "stdout"]
    assert told["metadata"]["position"] == done.position
    assert told["metadata"]["address"] == "192.0.2.9"
    assert told["message"].endswith(REASON)
    assert (
        await server.fetchval("SELECT count(*) FROM update_logs WHERE kind = 'erasure' AND command_id = $1", command)
        == 1
    )
    kept = await server.fetchrow("SELECT * FROM audit_erasures WHERE logged_id = $1", done.erasure_id)
    assert (kept["act"], kept["reason"]) == (None, None)

    row = await server.fetchrow("SELECT * FROM agent_commands WHERE id = $1", command)
    assert "stdout" not in row["result"]
    assert "message" not in row["result"]
    assert row["result"]["stderr"] == f"err {said}"
    assert row["version"] == 3
    await require_whole(here, server)


async def test_a_proof_of_an_erased_record_verifies_and_shows_what_remains(here, server):
    command, _ = await ended(here)
    record = await record_of(server, command)
    await erasure.erase(server, dpo(), record["id"], ["stdout", "actor"], REASON)
    await here.seal()
    proof = await proofs.of_record(server, record["id"])
    assert set(proof.values) == {"address", "message", "metadata", "stderr"}
    key = verifier.Key.parse(here.signer.verifier.vkey(), verifier.ED25519)
    report = verifier.Report()
    verifier.verify_proof(proof.text().encode(), verifier.Trust(key), report)
    assert any("stdout" in told for told in report.not_checked)


async def test_a_bundle_with_erased_records_in_it_verifies(here, server, tmp_path):
    command, said = await ended(here)
    record = await record_of(server, command)
    await erasure.erase(server, dpo(), record["id"], ["stdout", "actor", "address"], REASON)
    await here.seal()
    file = tmp_path / "evidence.zip"
    with file.open("w+b") as out:
        await bundle.write(server, here.signer, out, Selection(command_id=command))
    ran = verify(file, here.signer)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"out {said}".encode() not in file.read_bytes()


@pytest.mark.parametrize("field", erasure.FIELDS)
async def test_each_field_can_be_erased_alone(here, server, field):
    command, said = await ended(here)
    record = await record_of(server, command, "pending" if field == "params" else "success")
    await erasure.erase(server, dpo(), record["id"], [field], REASON)
    now = await server.fetchrow("SELECT * FROM update_logs WHERE id = $1", record["id"])
    row = await server.fetchrow("SELECT * FROM agent_commands WHERE id = $1", command)
    assert field not in now["salts"]
    if field == "actor":
        assert now["actor"] == "agent:erased" == row["act"]["actor"]
        assert row["act"]["address"] == "192.0.2.7"
    elif field == "address":
        assert "address" not in now["metadata"]
        assert "address" not in row["act"]
        assert now["metadata"]["note"] == said
    elif field == "metadata":
        assert now["metadata"] == {"address": "192.0.2.7"}
        assert set(row["act"]) == {"actor", "address"}
        assert "metadata" not in row["result"]
    else:
        assert now[field] is None
        assert (row["params"] if field == "params" else row["result"].get(field)) in ({}, None)
    await require_whole(here, server)


async def test_all_that_is_personal_can_be_erased_and_is_nowhere_in_the_database_any_more(here, server, superuser):
    command, said = await ended(here)
    for record in await server.fetch("SELECT id, params FROM update_logs WHERE command_id = $1", command):
        leaf = await server.fetchval("SELECT leaf FROM audit_entries WHERE record_id = $1", record["id"])
        await erasure.erase(server, dpo(), record["id"], list(canonical.decoder.decode(leaf)["commitments"]), REASON)
    tables = await superuser.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    for table in tables:
        found = await superuser.fetch(f"SELECT one::text FROM {table['name']} one WHERE one::text LIKE $1", f"%{said}%")
        assert found == [], table
    digest = results.Report("success", "scan", f"out {said}", f"err {said}", 0, 3).digest()
    assert not await server.fetchval(
        "SELECT c::text LIKE $2 FROM agent_commands c WHERE id = $1", command, f"%{digest}%"
    )
    await require_whole(here, server)


async def test_a_record_can_be_erased_from_again(here, server):
    command, _ = await ended(here)
    record = await record_of(server, command)
    await erasure.erase(server, dpo(), record["id"], ["stdout"], REASON)
    await erasure.erase(server, dpo(), record["id"], ["stderr", "address"], REASON)
    now = await record_of(server, command)
    assert set(now["salts"]) == {"actor", "message", "metadata"}
    assert now["salts"]["actor"] == canonical.salt_of(record["salt"], "actor").hex()
    await require_whole(here, server)
    with pytest.raises(Conflict, match=r"tderr of record .* has been erased already"):
        await erasure.erase(server, dpo(), record["id"], ["stderr"], REASON)


async def test_of_two_that_erase_the_same_at_once_one_does(here):
    command, _ = await ended(here)
    record = (await record_of(here.owner, command))["id"]

    async def erase() -> str:
        async with here.pool.acquire() as mine:
            try:
                await erasure.erase(mine, dpo(), record, ["stdout"], REASON)
            except Conflict as refused:
                return refused.what
        return "done"

    assert sorted(one.split()[-1] for one in await asyncio.gather(erase(), erase())) == ["already", "done"]


async def test_a_late_result_is_erased_and_a_guess_at_it_cannot_be_confirmed(here, server):
    command, said = await ended(here)
    agent = await server.fetchval("SELECT agent_id FROM agent_commands WHERE id = $1", command)
    late = results.Report("failed", "scan", f"late {said}", "", 1, 3)
    await results.report(server, actors.agent(agent), agent, command, late, max_output=1000)
    await here.seal()
    record = await server.fetchval("SELECT id FROM update_logs WHERE command_id = $1 AND kind = 'late_result'", command)
    await erasure.erase(server, dpo(), record, ["stdout"], REASON)
    assert await server.fetchval("SELECT late_reports FROM agent_commands WHERE id = $1", command) == ["erased"]
    assert (await server.fetchval("SELECT result FROM agent_commands WHERE id = $1", command))[
        "stdout"
    ] == f"out {said}"
    await require_whole(here, server)


async def test_a_command_keeps_the_parameters_of_a_record_that_set_them_later(here, server):
    agent = await make_agent(here.owner)
    command = (await queue.enqueue(server, actors.user("alice"), [agent], "scan_updates", {"first": 1}))[0]["id"]
    await here.owner.execute("UPDATE agent_commands SET params = '{\"second\": 2}' WHERE id = $1", command)
    await queue.cancel(server, actors.user("alice"), command)
    await here.seal()
    records = await server.fetch(
        "SELECT id FROM update_logs WHERE command_id = $1 AND params IS NOT NULL ORDER BY version", command
    )
    await erasure.erase(server, dpo(), records[0]["id"], ["params"], REASON)
    assert await server.fetchval("SELECT params FROM agent_commands WHERE id = $1", command) == {"second": 2}
    await require_whole(here, server)
    await erasure.erase(server, dpo(), records[1]["id"], ["params"], REASON)
    assert await server.fetchval("SELECT params FROM agent_commands WHERE id = $1", command) == {}
    await require_whole(here, server)


async def test_the_record_of_an_erasure_loses_who_erased_but_never_what(here, server):
    command, _ = await ended(here)
    done = await erasure.erase(server, dpo(), (await record_of(server, command))["id"], ["stdout"], REASON)
    await here.seal()
    with pytest.raises(Conflict, match="whose metadata fsck needs"):
        await erasure.erase(server, dpo(), done.erasure_id, ["metadata"], REASON)
    await erasure.erase(server, dpo(), done.erasure_id, ["actor", "address", "message"], REASON)
    assert await server.fetchval("SELECT actor FROM update_logs WHERE id = $1", done.erasure_id) == "user:erased"
    await require_whole(here, server)


async def test_what_cannot_be_erased_is_refused_with_what_to_do(here, server):
    command, _ = await ended(here)
    record = (await record_of(server, command))["id"]
    agent = await make_agent(here.owner)
    live = (await queue.enqueue(server, actors.user("alice"), [agent], "scan_updates"))[0]["id"]
    fresh = await server.fetchval("SELECT id FROM update_logs WHERE command_id = $1", live)
    with pytest.raises(Conflict, match=r"has no position in the log yet\. Try again in two seconds"):
        await erasure.erase(server, dpo(), fresh, ["actor"], REASON)
    await here.seal()
    with pytest.raises(Conflict, match=r"still live.*End it first"):
        await erasure.erase(server, dpo(), fresh, ["actor"], REASON)
    with pytest.raises(NotFound, match="There is no record"):
        await erasure.erase(server, dpo(), uuid.uuid4(), ["stdout"], REASON)
    with pytest.raises(Conflict, match="has no params"):
        await erasure.erase(server, dpo(), record, ["stdout", "params"], REASON)
    for fields, reason in (([], REASON), (["salt"], REASON), (["stdout"], ""), (["stdout"], "x" * 1001)):
        with pytest.raises(InvalidInput):
            await erasure.erase(server, dpo(), record, fields, reason)
    assert (await record_of(server, command))["stdout"] is not None
    assert not await server.fetchval("SELECT EXISTS (SELECT FROM audit_erasures WHERE record_id = $1)", record)


async def test_the_erasure_fails_whole_if_its_record_cannot_be_written(here, superuser):
    command, _ = await ended(here)
    record = await record_of(superuser, command)
    undone = superuser.transaction()
    await undone.start()
    await superuser.execute("ALTER TABLE update_logs ADD CONSTRAINT none CHECK (kind <> 'erasure') NOT VALID")
    error = await refusal(
        superuser, "INSERT INTO audit_erasures (record_id, fields, reason) VALUES ($1, '{stdout}', 'x')", record["id"]
    )
    assert isinstance(error, asyncpg.CheckViolationError)
    assert (await record_of(superuser, command))["stdout"] == record["stdout"]
    await undone.rollback()


# The door, and who tries it

ERASE = "INSERT INTO audit_erasures (record_id, fields, reason, act) VALUES ($1, '{stdout}', 'x', $2)"


@pytest.mark.parametrize("role", ["server", "owner", "superuser", "replica"])
async def test_everybody_erases_by_the_same_door_and_under_their_own_name(here, server, superuser, role):
    command, _ = await ended(here)
    record = (await record_of(server, command))["id"]
    one = {"server": server, "owner": here.owner, "superuser": superuser, "replica": superuser}[role]
    undone = one.transaction()
    await undone.start()
    if role == "replica":
        await one.execute("SET LOCAL session_replication_role = replica")
    await one.execute(ERASE, record, {"actor": "user:mallory"})
    assert (await record_of(one, command))["stdout"] is None
    who = await one.fetchval("SELECT actor FROM update_logs WHERE kind = 'erasure' AND command_id = $1", command)
    assert who == {"server": "user:mallory", "owner": "db:redflag_owner"}.get(role, "db:postgres")
    for statement in (
        "UPDATE update_logs SET stdout = NULL WHERE id = $1", "UPDATE update_logs SET salt = NULL WHERE id = $1",
        "DELETE FROM update_logs WHERE id = $1",
        "UPDATE audit_erasures SET fields = '{stderr}' WHERE record_id = $1", "DELETE FROM audit_erasures WHERE record_id = $1",
    ):  # fmt: skip
        error = await refusal(one, statement, record)
        assert error is not None, statement
        assert error.sqlstate == ("42501" if role == "server" else "RF003"), statement
    await undone.rollback()


async def test_nobody_but_the_server_says_who_erased_and_the_server_says_it_always(here, server):
    command, _ = await ended(here)
    record = (await record_of(server, command))["id"]
    error = await refusal(server, ERASE, record, {})
    assert error is not None
    assert error.sqlstate == "RF002"
    # What the row says of its own making is the database's to fill
    forged = """INSERT INTO audit_erasures (record_id, fields, reason, act, xid, logged_id)
                VALUES ($1, '{stdout}', 'x', $2, '1', uuidv7()) RETURNING xid::text, logged_id"""
    undone = server.transaction()
    await undone.start()
    row = await server.fetchrow(forged, record, {"actor": "user:alice"})
    assert row["xid"] == await server.fetchval("SELECT pg_current_xact_id()::text")
    assert await server.fetchval("SELECT kind FROM update_logs WHERE id = $1", row["logged_id"]) == "erasure"
    await undone.rollback()


SNEAK = """
CREATE TABLE sneak (record uuid);
CREATE FUNCTION sneak() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE update_logs SET {0} WHERE id = NEW.record;
  RETURN NULL;
END $$;
CREATE TRIGGER sneak AFTER INSERT ON sneak FOR EACH ROW EXECUTE FUNCTION sneak();
"""


async def test_a_trigger_of_the_owners_own_gets_nothing_else_through_in_the_transaction_of_an_erasure(here):
    owner = here.owner
    one, other = (await ended(here))[0], (await ended(here))[0]
    undone = owner.transaction()
    await undone.start()
    named, spared = await record_of(owner, one), await record_of(owner, other)
    await owner.execute(
        SNEAK.format(
            "stderr = NULL, result = 'failed', actor = 'user:mallory', salts = '{}', created_at = created_at + interval '40 days'"
        )
    )
    for record in (named, spared):
        error = await refusal(owner, "INSERT INTO sneak VALUES ($1)", record["id"])
        assert error is not None
        assert error.sqlstate == "RF003"
    await owner.execute(ERASE, named["id"], None)
    erased = await record_of(owner, one)
    # Of the record that is named, all that an UPDATE can do is what the erasure did
    await owner.execute("INSERT INTO sneak VALUES ($1)", named["id"])
    assert await record_of(owner, one) == erased
    error = await refusal(owner, "INSERT INTO sneak VALUES ($1)", spared["id"])
    assert error is not None
    assert error.sqlstate == "RF003"
    assert await record_of(owner, other) == spared
    await undone.rollback()


async def test_in_a_later_transaction_the_door_is_shut_again(here):
    owner = here.owner
    command, _ = await ended(here)
    record = (await record_of(owner, command))["id"]
    async with here.pool.acquire() as server:
        await erasure.erase(server, dpo(), record, ["stdout"], REASON)
    undone = owner.transaction()
    await undone.start()
    await owner.execute(SNEAK.format("stdout = 'forged'"))
    error = await refusal(owner, "INSERT INTO sneak VALUES ($1)", record)
    assert error is not None
    assert error.sqlstate == "RF003"
    await undone.rollback()


async def test_a_command_loses_what_is_named_and_changes_in_nothing_else_by_an_erasure(here):
    owner = here.owner
    command, _ = await ended(here)
    record = (await record_of(owner, command))["id"]
    undone = owner.transaction()
    await undone.start()
    await owner.execute(
        """
        CREATE TABLE sneak (id uuid);
        CREATE FUNCTION sneak() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          UPDATE agent_commands SET status = 'failed', params = '{"forged": true}' WHERE id = NEW.id;
          RETURN NULL;
        END $$;
        CREATE TRIGGER sneak AFTER INSERT ON sneak FOR EACH ROW EXECUTE FUNCTION sneak();
        """
    )
    await owner.execute(ERASE, record, None)
    # It is a change like any other: forced, with a version and a record of its own
    await owner.execute("INSERT INTO sneak VALUES ($1)", command)
    row = await owner.fetchrow("SELECT status, version FROM agent_commands WHERE id = $1", command)
    assert (row["status"], row["version"]) == ("failed", 4)
    forced = await owner.fetchval(
        "SELECT metadata ->> 'forced' FROM update_logs WHERE command_id = $1 AND version = 4", command
    )
    assert forced == "true"
    await undone.rollback()


# fsck accepts exactly what an erasure in the log names

NO_ERASURE = "lost its salt, and no erasure names it"
TAMPERINGS = {
    "another output is blanked with its salt": (
        "UPDATE update_logs SET stdout = NULL, salt = NULL WHERE id = $2", NO_ERASURE),
    "another output is blanked, and looks as if it had been erased": (
        "UPDATE update_logs SET stdout = NULL, salt = NULL, salts = '{}' WHERE id = $2", NO_ERASURE),
    "another field of the erased record is blanked": ("UPDATE update_logs SET stderr = NULL WHERE id = $1", "stderr"),
    "another field of the erased record is blanked with its salt": (
        "UPDATE update_logs SET stderr = NULL, salts = salts - 'stderr' WHERE id = $1", "lost its salt of stderr"),
    "another field of the erased record is altered": ("UPDATE update_logs SET stderr = 'x' WHERE id = $1", "stderr"),
    "a plain field of the erased record is altered": ("UPDATE update_logs SET result = 'failed' WHERE id = $1", "result"),
    "the actor of the erased record is altered": ("UPDATE update_logs SET actor = 'agent:x' WHERE id = $1", "actor"),
    "what was erased is put back": ("UPDATE update_logs SET stdout = 'x' WHERE id = $1", "there is one"),
    "what was erased is put back with its salt": (
        "UPDATE update_logs SET salt = sha256('x'), salts = NULL WHERE id = $1", "its salt is there"),
    "a salt of what was erased is put back": (
        "UPDATE update_logs SET salts = salts || jsonb_build_object('stdout', encode(sha256('x'), 'hex')) WHERE id = $1",
        "has a salt of stdout"),
    "a salt that remains is altered": (
        """UPDATE update_logs SET salts = salts || jsonb_build_object('stderr', encode(sha256('x'), 'hex')) WHERE id = $1""", "stderr"),
    "a salt that remains is none": ("""UPDATE update_logs SET salts = salts || '{"stderr": "no"}' WHERE id = $1""", "makes no leaf"),
    "the salts are no object": ("""UPDATE update_logs SET salts = '[1]' WHERE id = $1""", "makes no leaf"),
    "the record of the erasure is removed": (
        "DELETE FROM update_logs WHERE kind = 'erasure' AND metadata ->> 'record_id' = $1::uuid::text", NO_ERASURE),
    "the record of the erasure is no erasure any more": (
        "UPDATE update_logs SET kind = 'note' WHERE kind = 'erasure' AND metadata ->> 'record_id' = $1::uuid::text",
        NO_ERASURE),
    "the record of the erasure names another field as well, which is blanked": (
        """UPDATE update_logs SET metadata = metadata || '{"fields": ["stderr", "stdout"]}'
             WHERE metadata ->> 'record_id' = $1::uuid::text;
           UPDATE update_logs SET stderr = NULL, salts = salts - 'stderr' WHERE id = $1""",
        "says something else than what was logged: metadata"),
    "the list of erasures is emptied": ("DELETE FROM audit_erasures WHERE record_id = $1", NO_ERASURE),
    "an erasure is listed that nobody recorded": (
        """UPDATE update_logs SET stdout = NULL, salt = NULL, salts = '{}' WHERE id = $2;
           INSERT INTO audit_erasures (record_id, recorded_at, fields, logged_id, logged_at, xid)
             VALUES ($2, now(), '{stdout}', uuidv7(), now(), '1')""",
        NO_ERASURE),
    "an erasure is recorded past the log": (
        """UPDATE update_logs SET stdout = NULL, salt = NULL, salts = '{}' WHERE id = $2;
           WITH forged AS (INSERT INTO update_logs (kind, actor, result, metadata, salt)
             VALUES ('erasure', 'user:dpo', 'success', jsonb_build_object('record_id', $2::uuid, 'fields', '{stdout}'::text[]), sha256('x'))
             RETURNING id, created_at)
           INSERT INTO audit_erasures (record_id, recorded_at, fields, logged_id, logged_at, xid)
             SELECT $2, now(), '{stdout}', id, created_at, '1' FROM forged""", NO_ERASURE),
    "salts stand beside the root": ("UPDATE update_logs SET salts = '{}' WHERE id = $2", "and no erasure names it"),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def two(here: Place) -> tuple[uuid.UUID, uuid.UUID]:
    """A record of which stdout was erased, and another that is whole."""
    found = [(await record_of(here.owner, (await ended(here))[0]))["id"] for _ in range(2)]
    async with here.pool.acquire() as server:
        await erasure.erase(server, dpo(), found[0], ["stdout"], REASON)
        await require_whole(here, server)
    return found[0], found[1]


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_no_erasure_names_is_found(here, two, villain, tampering):
    statements, words = TAMPERINGS[tampering]
    for statement in statements.split(";"):
        arguments = [one for number, one in enumerate(two, 1) if f"${number}" in statement]
        if "$2" in statement and "$1" not in statement:
            only = statement.replace("$2", "$1")
            assert not (await villain.execute(only, *arguments)).endswith(" 0"), statement
        else:
            assert not (await villain.execute(statement, *arguments)).endswith(" 0"), statement
    found = await finding(villain, here)
    assert found is not None
    assert words in found.what


async def test_until_the_erasure_is_in_the_log_fsck_says_to_wait(here, server):
    command, _ = await ended(here)
    record = (await record_of(server, command))["id"]
    await erasure.erase(server, dpo(), record, ["stdout"], REASON)
    found = await finding(server, here)
    assert found is not None
    assert "run fsck again in two seconds" in found.what
    assert found.record_id == str(record)
    await require_whole(here, server)


async def test_a_command_without_its_parameters_is_not_retried(here, server):
    command, _ = await ended(here)
    await erasure.erase(server, dpo(), (await record_of(server, command, "pending"))["id"], ["params"], REASON)
    with pytest.raises(Conflict, match="were erased"):
        await queue.retry(server, dpo(), command)
    other, said = await ended(here)
    assert (await queue.retry(server, dpo(), other))["params"] == {"for": said}


@pytest_asyncio.fixture(scope="module")
async def without_parameters(here: Place) -> uuid.UUID:
    """A command whose parameters were erased."""
    command, _ = await ended(here)
    async with here.pool.acquire() as server:
        await erasure.erase(server, dpo(), (await record_of(server, command, "pending"))["id"], ["params"], REASON)
    return command


async def test_a_command_whose_erased_parameters_come_back_is_named(without_parameters, villain):
    await villain.execute("UPDATE agent_commands SET params = '{\"x\": 1}' WHERE id = $1", without_parameters)
    found = await replay.first_difference(villain)
    assert found is not None
    assert (found.command_id, found.what) == (without_parameters, "its parameters are others than were recorded")


# Everything under a name


async def test_a_person_is_erased_from_all_records_under_their_name(here, server):
    name = f"user:leaver-{uuid.uuid4().hex[:6]}"
    who = name.partition(":")[2]
    done = [(await ended(here, who=who))[0] for _ in range(2)]
    for _ in range(3):
        await events.record(server, actors.user(who, "203.0.113.5"), kind="access", action="login")
    await events.record(server, actors.Actor(name), kind="access", action="login")  # without an address
    agent = await make_agent(here.owner)
    await queue.enqueue(server, actors.user(who), [agent], "scan_updates")  # live
    await here.seal()
    await events.record(server, actors.user(who), kind="access", action="login")  # no position yet
    counted = await erasure.survey(server, name)
    assert (counted.erasable, counted.waiting, counted.held, counted.live) == (6, 1, 0, 1)

    assert await erasure.erase_actor(server, dpo(), name, REASON, most=4) == 4
    assert await erasure.erase_actor(server, dpo(), name, REASON, most=4) == 2

    counted = await erasure.survey(server, name)
    assert (counted.erasable, counted.waiting, counted.live) == (0, 1, 1)
    rows = await server.fetch(
        "SELECT actor, metadata FROM update_logs WHERE command_id = ANY ($1) AND result = 'pending'", done
    )
    assert [(row["actor"], "address" in row["metadata"]) for row in rows] == [("user:erased", False)] * 2
    assert not await server.fetchval(
        "SELECT EXISTS (SELECT FROM update_logs WHERE metadata::text LIKE '%203.0.113.5%')"
    )
    await require_whole(here, server)


async def test_the_name_goes_from_the_rows_that_keep_who_changed_them_last(here, server):
    who = f"leaver-{uuid.uuid4().hex[:6]}"
    agent = await make_agent(here.owner)
    await server.execute(
        "UPDATE agents SET name = 'x', act = $2 WHERE id = $1", agent, actors.user(who, "203.0.113.6").act()
    )
    await here.seal()
    before = await server.fetchval("SELECT count(*) FROM update_logs WHERE agent_id = $1", agent)
    await erasure.erase_actor(server, dpo(), f"user:{who}", REASON)
    assert await server.fetchval("SELECT act FROM agents WHERE id = $1", agent) == {"actor": "user:erased"}
    # Of these only the erasure has a record
    assert await server.fetchval("SELECT count(*) FROM update_logs WHERE agent_id = $1", agent) == before + 1


async def test_who_erases_themselves_is_not_erased_for_ever(here, server):
    who = f"admin-{uuid.uuid4().hex[:6]}"
    await events.record(server, actors.user(who), kind="access", action="login")
    await here.seal()
    assert await erasure.erase_actor(server, actors.user(who), f"user:{who}", REASON) == 1
    await here.seal()
    assert (await erasure.survey(server, f"user:{who}")).erasable == 1  # the erasure itself


@pytest.mark.parametrize("name", ["alice", "user:", "", f"agent:{uuid.UUID(int=1)}"])
async def test_only_names_of_people_and_programs_are_erased_in_bulk(server, name):
    with pytest.raises(InvalidInput):
        await erasure.survey(server, name)
    with pytest.raises(InvalidInput):
        await erasure.erase_actor(server, dpo(), name, REASON)


# Legal holds


@contextlib.asynccontextmanager
async def held(server: Any, **what: Any) -> AsyncIterator[dict[str, Any]]:
    """A hold, released in the end."""
    hold = await holds.place(server, dpo(), f"case-{uuid.uuid4().hex[:6]}", "litigation", **what)
    try:
        yield hold
    finally:
        if await server.fetchval("SELECT released_at FROM legal_holds WHERE id = $1", hold["id"]) is None:
            await holds.release(server, dpo(), hold["id"])


async def test_a_hold_stands_against_erasure_until_it_is_released(here, server):
    command, _ = await ended(here)
    record = await record_of(server, command)
    now = record["created_at"]
    minute = datetime.timedelta(minutes=1)
    covering: list[dict[str, Any]] = [
        {}, {"command_id": command}, {"agent_id": record["agent_id"]}, {"held_actor": record["actor"]}, {"since": now},
        {"until": now + minute},
        {"since": now - minute, "until": now + minute, "command_id": command, "agent_id": record["agent_id"],
         "held_actor": record["actor"]},
    ]  # fmt: skip
    for what in covering:
        async with held(server, **what) as hold:
            with pytest.raises(Conflict, match=f"under the legal hold {hold['name']}"):
                await erasure.erase(server, dpo(), record["id"], ["stdout"], REASON)
    sparing: list[dict[str, Any]] = [
        {"until": now}, {"since": now + minute}, {"command_id": uuid.uuid4()}, {"agent_id": uuid.uuid4()}, {"held_actor": "user:nobody"},
        {"command_id": command, "held_actor": "user:nobody"},
    ]  # fmt: skip
    async with contextlib.AsyncExitStack() as all_of_them:
        for what in sparing:
            await all_of_them.enter_async_context(held(server, **what))
        await erasure.erase(server, dpo(), record["id"], ["stdout"], REASON)


async def test_in_bulk_what_is_held_is_passed_over_and_counted(here, server):
    who = f"held-{uuid.uuid4().hex[:6]}"
    kept, _ = await ended(here, who=who)
    gone, _ = await ended(here, who=who)
    async with held(server, command_id=kept) as hold:
        counted = await erasure.survey(server, f"user:{who}")
        assert (counted.erasable, counted.held, counted.holds) == (1, 1, [hold["name"]])
        assert await erasure.erase_actor(server, dpo(), f"user:{who}", REASON) == 1
    assert (await record_of(server, kept, "pending"))["actor"] == f"user:{who}"
    assert (await record_of(server, gone, "pending"))["actor"] == "user:erased"


async def test_a_hold_that_is_being_placed_waits_for_the_erasure_and_the_next_erasure_for_the_hold(here):
    command, _ = await ended(here)
    record = (await record_of(here.owner, command))["id"]
    async with here.pool.acquire() as one, here.pool.acquire() as other:
        undone = one.transaction()
        await undone.start()
        await erasure.erase(one, dpo(), record, ["stdout"], REASON)
        placing = asyncio.create_task(holds.place(other, dpo(), f"race-{record}", "x", command_id=command))
        await until(
            here.owner, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'legal_holds'::regclass AND NOT granted)"
        )
        await undone.rollback()
        hold = await placing
        with pytest.raises(Conflict, match="under the legal hold"):
            await erasure.erase(one, dpo(), record, ["stdout"], REASON)
        await holds.release(one, dpo(), hold["id"])


async def test_placing_and_releasing_a_hold_are_recorded_and_a_hold_is_never_changed(here, server, superuser):
    hold = await holds.place(server, dpo(), "Case 12", "subpoena 12/2026", held_actor="user:carol")
    with pytest.raises(Conflict, match="in force already"):
        await holds.place(server, dpo(), "case 12", "again")
    for one, role in ((here.owner, "owner"), (superuser, "superuser"), (superuser, "replica")):
        for statement in (
            "UPDATE legal_holds SET actor = 'user:nobody' WHERE id = $1", "UPDATE legal_holds SET until = now() WHERE id = $1",
            "DELETE FROM legal_holds WHERE id = $1", "TRUNCATE legal_holds",
        ):  # fmt: skip
            undone = one.transaction()
            await undone.start()
            if role == "replica":
                await one.execute("SET LOCAL session_replication_role = replica")
            error = await refusal(one, statement, *([hold["id"]] if "$1" in statement else []))
            await undone.rollback()
            assert error is not None, (role, statement)
            assert error.sqlstate == "RF003", (role, statement)
    assert hold["id"] in {one["id"] for one in await holds.list_holds(server)}
    assert (await holds.release(server, dpo(), hold["id"]))["released_at"] is not None
    with pytest.raises(Conflict, match="released already"):
        await holds.release(server, dpo(), hold["id"])
    assert await refusal(here.owner, "UPDATE legal_holds SET released_at = NULL WHERE id = $1", hold["id"]) is not None
    with pytest.raises(NotFound):
        await holds.release(server, dpo(), uuid.uuid4())
    assert hold["id"] not in {one["id"] for one in await holds.list_holds(server)}
    assert hold["id"] in {one["id"] for one in await holds.list_holds(server, released=True)}
    told = await server.fetch(
        "SELECT actor, action, message FROM update_logs WHERE metadata ->> 'subject_id' = $1 ORDER BY created_at",
        str(hold["id"]),
    )
    assert [(row["actor"], row["action"]) for row in told] == [(DPO, "legal_hold_created"), (DPO, "legal_hold_changed")]
    assert "subpoena 12/2026" in told[0]["message"]


async def test_a_hold_says_what_it_is_for(server):
    with pytest.raises(InvalidInput):
        await holds.place(server, dpo(), "", "reason")
    with pytest.raises(InvalidInput):
        await holds.place(server, dpo(), "name", " ")
    now = datetime.datetime.now(datetime.UTC)
    with pytest.raises(InvalidInput, match="ends before it begins"):
        await holds.place(server, dpo(), "name", "reason", since=now, until=now)


async def test_the_history_shows_that_something_was_erased(here, server):
    command, _ = await ended(here)
    await erasure.erase(server, dpo(), (await record_of(server, command))["id"], ["stdout"], REASON)
    told = await history.of_command(server, command)
    assert [event["kind"] for event in told][-1] == "erasure"
