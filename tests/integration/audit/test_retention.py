"""Retention: the log loses its beginning, and everything that was ever signed can still be proven."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from databases import connection, connections, run_as_superuser
from integration.audit.evidence import Place, place, verify
from integration.commands.helpers import make_agent, refusal
from redflag.alerts import metrics
from redflag.audit import actor as actors
from redflag.audit import erasure, fsck, holds, merkle, origins, proofs, pruning, retention, snapshots, tiles, tree
from redflag.audit.checkpoint import open_note
from redflag.audit.memory import Memory
from redflag.commands import queue, replay, results
from redflag.commands.states import RESULTS
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict, InvalidInput, NotFound
from unit.verify.helpers import verifier, write_log

ADDRESS = "192.0.2.7"
TEMPLATE = "retention_template"


def person() -> actors.Actor:
    """Somebody in a request of their own."""
    return actors.user("admin", "192.0.2.9")


def agent_of(agent: uuid.UUID) -> actors.Actor:
    """An agent in a request of its own."""
    return actors.agent(agent, ADDRESS)


async def fill(here: Place) -> None:
    """Commands of every kind around a time, `known["then"]`; what lies before it is well over two tiles."""
    agent = await make_agent(here.owner)
    here.known["agent"] = agent
    async with here.pool.acquire() as server:
        for name in ("ended", "late", "crossing", "waiting", "erased", "forced"):
            here.known[name] = (
                await queue.enqueue(server, person(), [agent], "scan_updates", {"for": name, "share": 1.50})
            )[0]["id"]
        await queue.deliver(server, [queue.Asking(agent, agent_of(agent), 1)])
        for name in ("ended", "late", "erased", "forced"):
            told = results.Report("success", stdout=f"out of {name}", metadata={"n": 1.5})
            await results.report(server, agent_of(agent), agent, here.known[name], told, max_output=1000)
        await here.owner.execute(
            """INSERT INTO updates (agent_id, package_type, package_name, command_id) VALUES ($1, 'apt', 'curl', $2)""",
            agent,
            here.known["ended"],
        )
        await here.seal()
        params = await server.fetchval(
            "SELECT id FROM update_logs WHERE command_id = $1 AND version = 1", here.known["erased"]
        )
        await erasure.erase(server, person(), params, ["params"], "request 1")
        await here.owner.execute(
            "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, 600) i"
        )
        await here.seal()
        here.known["then"] = await here.now()
        # Some more, so that the tile in which this time lies is not pruned
        await here.owner.execute(
            "INSERT INTO update_logs (result, message) SELECT 'success', 'later' FROM generate_series(1, 300)"
        )
        told = results.Report("success", stdout="out of crossing")
        await results.report(server, agent_of(agent), agent, here.known["crossing"], told, max_output=1000)
        late = results.Report("failed", stdout="too late")
        await results.report(server, agent_of(agent), agent, here.known["late"], late, max_output=1000)
        await here.owner.execute("UPDATE agent_commands SET status = 'cancelled' WHERE id = $1", here.known["forced"])
        await here.seal()


@pytest_asyncio.fixture(scope="module")
async def template(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A history that is made once, to be copied."""
    async with place(postgres, TEMPLATE, tmp_path_factory.mktemp("retention")) as found:
        await fill(found)
    return found


@contextlib.asynccontextmanager
async def copied(postgres: EmbeddedDatabase, template: Place, folder: Path) -> AsyncIterator[Place]:
    """A copy of the history in a database of its own."""
    name = f"retention_{uuid.uuid4().hex[:8]}"
    run_as_superuser(postgres, f"CREATE DATABASE {name} OWNER redflag_owner TEMPLATE {TEMPLATE}")
    async for owner in connection(postgres.url("redflag_owner", name)):
        async for pool in connections(postgres.url("redflag_server", name), 3):
            memory = Memory(folder / "newest", template.signer)
            yield Place(
                owner, pool, template.signer, memory, template.known | {"name": name, "archive": folder / "archive"}
            )


@pytest_asyncio.fixture
async def here(postgres: EmbeddedDatabase, template: Place, tmp_path: Path) -> AsyncIterator[Place]:
    async with copied(postgres, template, tmp_path) as found:
        yield found


def pruner(here: Place, connection: Any, tell: Any = lambda _what: None) -> retention.Pruner:
    """Whoever prunes, into the folder of the test."""
    return retention.Pruner(
        connection, here.signer, here.memory, archive(here), actors.service("retention", "here"), tell
    )


def archive(here: Place) -> Path:
    """Where bundles go."""
    folder: Path = here.known["archive"]
    return folder


async def require_whole(here: Place, connection: Any) -> fsck.Examined:
    """fsck and replay have nothing to say."""
    if not connection.is_in_transaction():
        await here.seal()
    async with connection.transaction():
        examined = await fsck.examine(connection, here.signer.verifier)
        assert examined.finding is None
        assert await replay.first_difference(connection) is None
    return examined


async def commands(connection: Any, here: Place) -> set[str]:
    """Which of the known commands are there."""
    ids = {row["id"] for row in await connection.fetch("SELECT id FROM agent_commands")}
    return {name for name, one in here.known.items() if one in ids}


async def served(connection: Any, folder: Path, pruned: int) -> None:
    """The log as a stranger fetches it, from its minimum index on."""
    files = {"checkpoint": (await tiles.checkpoint(connection)).encode()}
    size = int(files["checkpoint"].split(b"\n")[1])
    level, count = 0, size
    while count:
        for index in range((count + 255) // 256):
            width = min(256, count - index * 256)
            files[merkle.path(level, index, width)] = await tiles.tile(connection, level, index, width)
            if level == 0 and index * 256 >= pruned:
                files[merkle.path("entries", index, width)] = await tiles.bundle(connection, index, width)
        level, count = level + 1, count // 256
    write_log(folder, files)


async def test_what_is_past_its_retention_goes_and_everything_later_is_proven_as_before(here, tmp_path):
    owner = here.owner
    signed = [row["note"] for row in await owner.fetch("SELECT note FROM audit_checkpoints ORDER BY size")]
    before = {
        row["record_id"]: row["position"] for row in await owner.fetch("SELECT record_id, position FROM audit_entries")
    }
    totals = await metrics.sql.records.all(owner)

    done = await pruner(here, owner).prune(here.known["then"])

    assert done.first == 0
    assert done.end % 256 == 0
    assert done.end >= 512
    assert done.held is None
    assert await owner.fetchval("SELECT min(position) FROM audit_entries") == done.end
    assert await owner.fetchval("SELECT pruned FROM audit_log") == done.end
    left = {row["id"] for row in await owner.fetch("SELECT id FROM update_logs WHERE kind <> 'snapshot'")}
    assert left == {record for record, position in before.items() if position >= done.end}
    # Commands that ended before go with their records; what still lives, changed later, or came late stays
    assert await commands(owner, here) == {"late", "crossing", "waiting", "forced"}
    assert await owner.fetchval("SELECT command_id FROM updates WHERE package_name = 'curl'") is None

    told = await owner.fetchrow("SELECT * FROM update_logs WHERE kind = 'snapshot'")
    assert (told["actor"], told["metadata"]["position"], told["metadata"]["first"]) == ("db:redflag_owner", done.end, 0)
    assert told["metadata"]["bundle"] == done.bundles[0].name
    assert told["metadata"]["commands"] == 6
    assert told["metadata"]["kept"] == 4

    examined = await require_whole(here, owner)
    assert (examined.pruned, examined.checkpoints) == (done.end, len(signed) + 1)
    async with here.pool.acquire() as server:
        newest = (await origins.sql.newest_signed.one(server))["size"]
        root = await tree.root(server, newest)
        for note in signed:
            old = open_note(note, here.signer.verifier)
            hashes = await tree.consistency(server, old.size, newest)
            assert merkle.verify_consistency(old.size, old.root, newest, root, hashes)
        proof = await proofs.of_record(server, next(one for one, position in before.items() if position == done.end))
        trust = verifier.Trust(verifier.Key.parse(here.signer.verifier.vkey(), verifier.ED25519))
        verifier.verify_proof(proof.text().encode(), trust, verifier.Report())
        with pytest.raises(NotFound, match=rf"Entries below {done.end} were pruned: this is the log's minimum index"):
            await tiles.bundle(server, 0, 256)
        await served(server, tmp_path / "log", done.end)
        report, earlier = verifier.Report(), verifier.open_checkpoint(signed[0].encode(), trust, verifier.Report())
        verifier.verify_log(tmp_path / "log", trust, report, verifier.Earlier(earlier), pruned=done.end)
        assert any("only that the tree still counts them" in one for one in report.not_checked)
    now = {(row["kind"], row["result"]): row["records"] for row in await metrics.sql.records.all(owner)}
    assert all(now[row["kind"], row["result"]] >= row["records"] for row in totals)


async def test_the_archive_holds_what_was_pruned_and_a_stranger_can_verify_it(here):
    done = await pruner(here, here.owner).prune(here.known["then"])
    (file,) = done.bundles
    assert [one.name for one in archive(here).iterdir()] == [file.name]
    assert file.stat().st_mode & 0o077 == 0
    ran = verify(file, here.signer)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"no position is missing from 0 to {done.end - 1}" in ran.stdout
    row = await here.owner.fetchrow("SELECT * FROM audit_snapshots")
    assert (row["bundle"], row["act"]) == (file.name, None)
    assert snapshots.is_signed_by(row["note"], here.signer.verifier)


async def test_it_goes_on_step_by_step_and_each_step_begins_with_the_last_ones_snapshot(here):
    done = await pruner(here, here.owner).prune(here.known["then"], step=256)
    assert (done.first, done.end) == (0, 512)
    assert [one.name for one in done.bundles] == [
        "log-000000000000-000000000255.zip",
        "log-000000000256-000000000511.zip",
    ]
    await require_whole(here, here.owner)
    async with here.pool.acquire() as server:
        for name in ("crossing", "late", "waiting", "forced"):
            assert await queue.show(server, here.known[name])
        agent = here.known["agent"]
        await queue.cancel(server, person(), here.known["waiting"])
        await here.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 300)")
        await here.seal()
    again = await pruner(here, here.owner).prune(await here.now())
    assert again.first == 512
    assert again.end >= 1024
    assert await commands(here.owner, here) <= {"waiting"}
    states = await here.owner.fetch("SELECT DISTINCT snapshot FROM audit_snapshot_states")
    assert {row["snapshot"] for row in states} <= {again.end}
    await require_whole(here, here.owner)
    assert agent


async def test_nothing_is_pruned_that_is_not_a_whole_tile_before_the_time_and_in_a_checkpoint(here):
    owner = here.owner
    first = await owner.fetchval("SELECT min(recorded_at) FROM audit_entries")
    for before in (first, first + datetime.timedelta(microseconds=1)):
        done = await pruner(here, owner).prune(before)
        assert (done.first, done.end, done.bundles) == (0, 0, [])
    await owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 600)")
    async with here.pool.acquire() as server:
        signed = (await origins.sql.newest_signed.one(server))["size"]
        found = await retention.plan(server, await here.now())
        assert (found.first, found.end) == (0, signed - signed % 256)
    assert not archive(here).exists()


class Stop(Exception):
    """Somebody pulls the plug."""


async def test_stopped_anywhere_the_log_is_whole_and_pruning_goes_on_where_it_was(here, monkeypatch):
    owner = here.owner
    monkeypatch.setattr(retention, "BATCH", 100)
    said: list[str] = []
    for _ in range(100):

        def tell(what: str) -> None:
            if what not in said or "removed" in what:
                said.append(what)
                raise Stop

        with contextlib.suppress(Stop):
            done = await pruner(here, owner, tell).prune(here.known["then"])
            break
        async with owner.transaction():
            examined = await fsck.examine(owner, here.signer.verifier)
            found = examined.finding
            assert found is None, said[-1]
            assert await replay.first_difference(owner) is None, said[-1]
        assert await owner.fetchval("SELECT claimed_until IS NULL AND last_error IS NOT NULL FROM log_retention")
    else:
        raise AssertionError(said)
    # Once in each phase, and after each of six batches of records, one of commands and one of states
    assert len(said) == 6 + 7, said
    assert done.bundles == []  # the last one had only the rest to do
    assert await owner.fetchval("SELECT pruned FROM audit_log") == 512
    assert await owner.fetchval("SELECT count(*) FROM audit_snapshots") == 1
    assert await owner.fetchval("SELECT count(*) FROM update_logs WHERE kind = 'snapshot'") == 1
    assert await commands(owner, here) == {"late", "crossing", "waiting", "forced"}
    assert [one.name for one in archive(here).iterdir()] == ["log-000000000000-000000000511.zip"]
    assert await owner.fetchval("SELECT last_error FROM log_retention") is None
    await require_whole(here, owner)


async def test_of_two_who_prune_at_once_one_does(here):
    async def prune() -> int | str:
        async with here.pool.acquire() as mine:
            try:
                return (await pruner(here, mine).prune()).end
            except Conflict as refused:
                return refused.what

    async with here.pool.acquire() as one:
        first = pruner(here, one)
        assert await retention.sql.claim.value(one, who=first._who, lease=retention.LEASE)
        assert await prune() == "The log is being pruned right now"
        await retention.sql.release.run(one, who=first._who, error=None)
        assert await prune() == 0


# Legal holds


async def test_a_hold_ends_the_pruning_before_the_first_record_that_it_covers(here):
    async with here.pool.acquire() as server:
        position = 300
        at = await server.fetchval("SELECT recorded_at FROM audit_entries WHERE position = $1", position)
        hold = await holds.place(
            server, person(), "case 12", "subpoena", since=at, until=at + datetime.timedelta(microseconds=1)
        )
        done = await pruner(here, here.owner).prune(here.known["then"])
        assert (done.end, done.held) == (256, "the legal hold case 12")
        again = await pruner(here, here.owner).prune(here.known["then"])
        assert (again.first, again.end, again.held) == (256, 256, "the legal hold case 12")
        error = await refusal(here.owner, SNAPSHOT, 512)
        assert error is not None
        assert "under the legal hold case 12" in str(error)
        await holds.release(server, person(), hold["id"])
        assert (await pruner(here, here.owner).prune(here.known["then"])).end == 512
        await require_whole(here, server)


async def test_a_hold_that_comes_in_the_middle_stops_the_rest_from_going(here, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 100)

    def stop(what: str) -> None:
        if what.startswith("100 rows"):
            raise Stop

    with contextlib.suppress(Stop):
        await pruner(here, here.owner, stop).prune(here.known["then"])
    left = await here.owner.fetchval("SELECT count(*) FROM update_logs")
    async with here.pool.acquire() as server:
        hold = await holds.place(server, person(), "case 13", "subpoena")
        with pytest.raises(Conflict, match="under the legal hold case 13"):
            await pruner(here, here.owner).prune(here.known["then"])
        assert (
            await here.owner.fetchval(
                "SELECT count(*) FROM update_logs WHERE metadata ->> 'subject' IS DISTINCT FROM 'legal_hold'"
            )
            == left
        )
        await require_whole(here, server)
        assert await tiles.bundle(server, 1, 256)  # served for as long as it is there
        await holds.release(server, person(), hold["id"])
        await pruner(here, here.owner).prune(here.known["then"])
        assert await here.owner.fetchval("SELECT min(position) FROM audit_entries") == 512
        await require_whole(here, server)


async def test_what_a_forwarder_has_not_sent_on_yet_stays(here):
    forwarder = await here.owner.fetchval(
        """INSERT INTO log_forwarders (name, host, port, transport, body, facility, max_message, position, handed)
           VALUES ('siem', 'h', 514, 'tcp', 'ocsf', 13, 65536, 300, 300) RETURNING id"""
    )
    done = await pruner(here, here.owner).prune(here.known["then"])
    assert (done.end, done.held) == (256, "the forwarder siem, which has not sent it on yet")
    await here.owner.execute("UPDATE log_forwarders SET enabled = false WHERE id = $1", forwarder)
    assert (await pruner(here, here.owner).prune(here.known["then"])).end == 512


# Rules that the database holds, whoever asks

SNAPSHOT = """INSERT INTO audit_snapshots (position, states, kept_states, bundle, bundle_sha256, note, act)
              VALUES ($1, sha256('x'), sha256('x'), 'b', sha256('x'), 'n', '{"actor": "user:mallory"}')"""


async def test_the_server_prunes_within_its_policy_only(here):
    async with here.pool.acquire() as server:
        undone = server.transaction()
        await undone.start()
        for keep in (None, "400 days"):
            await server.execute("UPDATE log_retention SET keep = $1::text::interval, act = $2", keep, person().act())
            error = await refusal(server, SNAPSHOT, 256)
            assert error is not None
            assert "not past its retention" in str(error)
        await undone.rollback()
        assert (await pruner(here, server).prune()).end == 0
        with pytest.raises(Conflict, match="not past its retention"):
            await pruner(here, server).prune(here.known["then"])
        assert await server.fetchval("SELECT count(*) FROM audit_snapshot_states") == 0
    for statement in (
        "DELETE FROM update_logs", "DELETE FROM audit_entries", "DELETE FROM agent_commands", "INSERT INTO audit_prunings VALUES ('1')",
        "UPDATE audit_snapshot_states SET version = 9", "DELETE FROM audit_snapshots", "TRUNCATE audit_snapshot_states",
    ):  # fmt: skip
        async with here.pool.acquire() as server:
            error = await refusal(server, statement)
            assert error is not None, statement
            assert error.sqlstate == "42501", statement


PRUNING = "INSERT INTO audit_prunings VALUES (pg_current_xact_id()); "
KEPT = {
    "the log's beginning is moved": "UPDATE audit_log SET pruned = 256",
    "the log's beginning is moved back": "UPDATE audit_log SET pruned = 0",
    "a snapshot is altered": "UPDATE audit_snapshots SET kept_states = sha256('x')",
    "a snapshot is removed": "DELETE FROM audit_snapshots",
    "snapshots are truncated": "TRUNCATE audit_snapshots",
    "a state is altered": "UPDATE audit_snapshot_states SET version = 9",
    "a state is removed": "DELETE FROM audit_snapshot_states",
    "states are truncated": "TRUNCATE audit_snapshot_states",
    "a state is added": """INSERT INTO audit_snapshot_states
      (snapshot, command_id, archived, version, status, agent_id, command_type, params_salt, params_hash)
      SELECT position, uuidv7(), true, 1, 'pending', uuidv7(), 'x', '', '' FROM audit_snapshots""",
    "a record is removed as if pruning": PRUNING + "DELETE FROM update_logs WHERE message = 'later'",
    "an entry is removed as if pruning": PRUNING + "DELETE FROM audit_entries WHERE position = 600",
    "a command is removed as if pruning": PRUNING + "DELETE FROM agent_commands",
    "the record is truncated as if pruning": PRUNING + "TRUNCATE update_logs",
    "entries are truncated as if pruning": PRUNING + "TRUNCATE audit_entries",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def pruned(
    postgres: EmbeddedDatabase, template: Place, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """A log that was pruned to 512."""
    async with copied(postgres, template, tmp_path_factory.mktemp("pruned")) as found:
        await pruner(found, found.owner).prune(found.known["then"])
        await found.seal()
        yield found


@pytest_asyncio.fixture(scope="module")
async def superuser(pruned: Place, postgres: EmbeddedDatabase) -> AsyncIterator[Any]:
    async for opened in connection(postgres.url("postgres", pruned.known["name"])):
        yield opened


@pytest.mark.parametrize("what", KEPT)
@pytest.mark.parametrize("role", ["owner", "superuser", "replica"])
async def test_nobody_removes_more_than_a_snapshot_lets_go(pruned, superuser, role, what):
    one = pruned.owner if role == "owner" else superuser
    undone = one.transaction()
    await undone.start()
    if role == "replica":
        await one.execute("SET LOCAL session_replication_role = replica")
    *before, statement = KEPT[what].split("; ")
    for each in before:
        await one.execute(each)
    error = await refusal(one, statement)
    await undone.rollback()
    assert error is not None
    assert error.sqlstate == "RF003", error


async def test_a_snapshot_stands_where_it_may_or_not_at_all(pruned):
    for position in (256, 512, 1_000_192, 700):
        error = await refusal(pruned.owner, SNAPSHOT, position)
        assert error is not None, position
        assert isinstance(error, asyncpg.CheckViolationError) or error.sqlstate == "RF006", (position, error)


async def test_a_command_that_is_being_pruned_is_not_changed_any_more_and_its_records_not_erased(here):
    def stop(what: str) -> None:
        if what == "waiting for the next checkpoint":
            raise Stop

    with contextlib.suppress(Stop):
        await pruner(here, here.owner, stop).prune(here.known["then"])
    error = await refusal(here.owner, "UPDATE agent_commands SET status = 'failed' WHERE id = $1", here.known["ended"])
    assert error is not None
    assert "is being pruned" in str(error)
    async with here.pool.acquire() as server:
        record = await server.fetchval(
            "SELECT id FROM update_logs WHERE command_id = $1 AND stdout IS NOT NULL", here.known["ended"]
        )
        with pytest.raises(Conflict, match="past its retention and is being pruned"):
            await erasure.erase(server, person(), record, ["stdout"], "request 2")
        await require_whole(here, server)
    # What still lives goes on as ever
    async with here.pool.acquire() as server:
        await queue.cancel(server, person(), here.known["waiting"])
        await pruner(here, here.owner).prune(here.known["then"])
        await require_whole(here, server)


async def test_an_agent_that_reports_on_a_pruned_command_is_told_to_drop_it(pruned):
    async with pruned.pool.acquire() as server:
        agent = pruned.known["agent"]
        with pytest.raises(NotFound, match="Drop the report"):
            await results.report(
                server, agent_of(agent), agent, pruned.known["ended"], results.Report("success"), max_output=1000
            )


# What was done to the database is found: before it is pruned, and after

ENDED = "(SELECT command_id FROM update_logs WHERE stdout = 'out of ended')"
DAMAGES = {
    "a record is altered": (
        "UPDATE update_logs SET result = 'failed' WHERE message = 'note 17'", "position [0-9]+: the record says something else"),
    "output is altered": ("UPDATE update_logs SET stdout = 'x' WHERE stdout = 'out of ended'", "stdout"),
    "a record and its leaf are altered": (
        """UPDATE audit_entries
             SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), '"result":"success"', '"result":"failed"'), 'UTF8')
             WHERE record_id IN (SELECT id FROM update_logs WHERE message = 'note 17');
           UPDATE update_logs SET result = 'failed' WHERE message = 'note 17'""", "does not verify"),
    "a command is altered": ("UPDATE agent_commands SET status = 'failed' WHERE id = " + ENDED,
                             "is not what its records say"),
    "a command is removed": ("DELETE FROM agent_commands WHERE id = " + ENDED,
                             "is not what its records say"),
    "parameters are altered": ("UPDATE agent_commands SET params = '{}' WHERE id = " + ENDED,
                               "is not what its records say"),
}  # fmt: skip
GUARDED = (
    "update_logs",
    "agent_commands",
    "audit_entries",
    "audit_log",
    "audit_snapshots",
    "audit_snapshot_states",
    "audit_erasures",
)


async def test_what_is_damaged_is_not_pruned(here, postgres):
    async for villain in connection(postgres.url("postgres", here.known["name"])):
        tables = ("update_logs", "agent_commands", "audit_entries")
        for table in tables:
            await villain.execute(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")
        for what, (statements, words) in DAMAGES.items():
            await unguarded(villain, statements.split(";"))
            with pytest.raises(Conflict, match=words):
                await pruner(here, here.owner).prune(here.known["then"])
            assert await here.owner.fetchval("SELECT count(*) FROM audit_snapshots") == 0, what
            assert await here.owner.fetchval("SELECT count(*) FROM audit_snapshot_states") == 0, what
            await unguarded(villain, [f"DELETE FROM {table}" for table in tables])
            await unguarded(villain, [f"INSERT INTO {table} SELECT * FROM saved_{table}" for table in tables])
        assert (await pruner(here, here.owner).prune(here.known["then"])).end == 512
        await require_whole(here, villain)


async def unguarded(villain: Any, statements: list[str]) -> None:
    """Statements with every trigger off, which are on again afterwards."""
    async with villain.transaction():
        for table in GUARDED:
            await villain.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for statement in statements:
            assert not (await villain.execute(statement)).endswith(" 0"), statement
        await enable_always(villain)


async def enable_always(villain: Any) -> None:
    """Every trigger as the migrations made it."""
    for row in await villain.fetch(
        """SELECT tgrelid::regclass::text AS made_on, tgname FROM pg_trigger
           WHERE NOT tgisinternal AND tgrelid::regclass::text = ANY ($1) OR tgrelid IN (SELECT inhrelid FROM pg_inherits)""", GUARDED
    ):  # fmt: skip
        await villain.execute(f"ALTER TABLE {row['made_on']} ENABLE ALWAYS TRIGGER {row['tgname']}")


TAMPERINGS = {
    "a snapshot state is altered": (
        "UPDATE audit_snapshot_states SET status = 'failed' WHERE status = 'sent'", "are not those of the snapshot"),
    "a snapshot state is altered with its command": (
        """UPDATE audit_snapshot_states SET sent_at = now(); UPDATE agent_commands SET sent_at = now()""", "are not those of the snapshot"),
    "parameters of a state are altered": (
        "UPDATE audit_snapshot_states SET params_hash = sha256('x')", "are not those of the snapshot"),
    "a snapshot state is removed with its command": (
        """DELETE FROM agent_commands WHERE status = 'sent';
           DELETE FROM audit_snapshot_states t WHERE NOT EXISTS (SELECT FROM agent_commands WHERE id = t.command_id)""",
        "are not those of the snapshot"),
    "a snapshot state is added": (
        """INSERT INTO audit_snapshot_states SELECT snapshot, uuidv7(), false, version, status, agent_id, command_type, sent_at,
             completed_at, params_salt, params_hash FROM audit_snapshot_states LIMIT 1""", "are not those of the snapshot"),
    "the hash of the states is altered": (
        "UPDATE audit_snapshots SET kept_states = sha256('x')", "says something else than its record: kept_states"),
    "the bundle's hash is altered": ("UPDATE audit_snapshots SET bundle_sha256 = sha256('x')", "bundle_sha256"),
    "the snapshot is removed": ("DELETE FROM audit_snapshots", "no snapshot says that it was pruned"),
    "the snapshot's record is removed": (
        "DELETE FROM update_logs WHERE kind = 'snapshot'", "record of the snapshot at 512 is not in the log"),
    "the snapshot's record is altered": (
        "UPDATE update_logs SET metadata = metadata || '{\"kept\": 1}' WHERE kind = 'snapshot'",
        "says something else than its record: kept"),
    "the snapshot and its record are altered alike": (
        """UPDATE audit_snapshots SET bundle = 'other';
           UPDATE update_logs SET metadata = metadata || '{"bundle": "other"}' WHERE kind = 'snapshot'""",
        "says something else than what was logged: metadata"),
    "the snapshot's note is another's": (
        "UPDATE audit_snapshots SET note = (SELECT note FROM audit_checkpoints LIMIT 1)", "note says something else"),
    "the snapshot's signature is forged": (
        "UPDATE audit_snapshots SET note = left(note, -10) || 'AAAAAAAA=' || E'\\n'", "not signed by the log's key"),
    "it is pruned further by hand": (
        """DELETE FROM update_logs WHERE id IN (SELECT record_id FROM audit_entries WHERE position < 768);
           DELETE FROM audit_entries WHERE position < 768""", "position of the log is missing"),
    "it is pruned further by hand, and the log begins there": (
        """DELETE FROM update_logs WHERE id IN (SELECT record_id FROM audit_entries WHERE position < 768);
           DELETE FROM audit_entries WHERE position < 768; UPDATE audit_log SET pruned = 768""", "no snapshot says that it was pruned"),
    "it is pruned further by hand, with a snapshot that nobody signed": (
        """DELETE FROM update_logs WHERE id IN (SELECT record_id FROM audit_entries WHERE position < 768);
           DELETE FROM audit_entries WHERE position < 768; UPDATE audit_log SET pruned = 768;
           UPDATE audit_snapshot_states SET snapshot = 768; UPDATE audit_snapshots SET position = 768;
           UPDATE update_logs SET metadata = metadata || '{"position": 768}' WHERE kind = 'snapshot'""", "note says something else"),
    "it is said that nothing was pruned": ("UPDATE audit_log SET pruned = 0", "position of the log is missing"),
    "a tile over what was pruned is altered": (
        "UPDATE audit_tiles SET hashes = overlay(hashes PLACING sha256('x') FROM 33) WHERE level = 0 AND index = 0",
        "those of the checkpoint"),
    "a tile over what was pruned is removed": ("DELETE FROM audit_tiles WHERE level = 0 AND index = 1", "tile 0/1"),
    "a record before the beginning comes back": (
        "INSERT INTO update_logs (id, actor, result) VALUES (uuidv7(), 'user:bob', 'success')", "no position"),
}  # fmt: skip


@pytest_asyncio.fixture
async def villain(superuser: Any) -> AsyncIterator[Any]:
    """A superuser with every trigger off, in a transaction that is rolled back."""
    undone = superuser.transaction()
    await undone.start()
    for table in (*GUARDED, "audit_tiles"):
        await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    yield superuser
    await undone.rollback()


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_is_done_to_a_pruned_log_is_found(pruned, villain, tampering):
    statements, words = TAMPERINGS[tampering]
    for statement in statements.split(";"):
        assert not (await villain.execute(statement)).endswith(" 0"), statement
    found = (await fsck.examine(villain, pruned.signer.verifier)).finding
    assert found is not None
    assert words in found.what


REPLAYED = {
    "a status is altered": ("UPDATE agent_commands SET status = 'failed' WHERE id = $1", "crossing", "its status is failed"),
    "parameters are altered": ("UPDATE agent_commands SET params = '{}' WHERE id = $1", "crossing", "parameters"),
    "parameters of a command without a later record are altered": (
        "UPDATE agent_commands SET params = '{}' WHERE id = $1", "waiting", "parameters"),
    "a command without a later record is altered": ("UPDATE agent_commands SET sent_at = now() WHERE id = $1", "waiting", "sent_at"),
    "a command is removed": ("DELETE FROM agent_commands WHERE id = $1", "waiting", "the command is not"),
    "a later record is removed": (
        "DELETE FROM update_logs WHERE command_id = $1 AND kind = 'transition'", "crossing", "its version is 3"),
    "a pruned command comes back": (
        """INSERT INTO agent_commands (id, agent_id, command_type, status, delivery_timeout, execution_timeout)
           SELECT $1, id, 'x', 'completed', '1 s', '1 s' FROM agents""", "ended", "no record of it"),
}  # fmt: skip


@pytest.mark.parametrize("change", REPLAYED)
async def test_replay_goes_on_from_the_snapshot(pruned, villain, change):
    statement, name, words = REPLAYED[change]
    assert not (await villain.execute(statement, pruned.known[name])).endswith(" 0")
    difference = await replay.first_difference(villain)
    assert difference is not None
    assert difference.command_id == pruned.known[name]
    assert words in difference.what


# The policy


async def test_how_long_records_are_kept_is_for_ever_until_somebody_says_otherwise(pruned):
    async with pruned.pool.acquire() as server:
        now = await retention.policy(server)
        assert (now["keep"], now["pruned"]) == (None, 512)
        for days in (29, 40_000):
            with pytest.raises(InvalidInput, match="Records are kept for 30 days"):
                await retention.set_policy(server, person(), datetime.timedelta(days=days))
        set_to = await retention.set_policy(server, person(), datetime.timedelta(days=400))
        assert set_to["keep_seconds"] == 400 * 86400
        assert await retention.sql.is_due.value(server)
        assert (await pruner(pruned, server).prune()).end == 512
        assert not await retention.sql.is_due.value(server)
        await retention.set_policy(server, person(), None)
        assert not await retention.sql.is_due.value(server)
        told = await server.fetch(
            "SELECT actor, message FROM update_logs WHERE action = 'retention_changed' ORDER BY created_at"
        )
        assert [row["message"] for row in told] == [
            "retention log: keep: none → 400 days",
            "retention log: keep: 400 days → none",
        ]
        assert {row["actor"] for row in told} == {"user:admin"}
    error = await refusal(pruned.owner, "UPDATE log_retention SET keep = '1 day'")
    assert isinstance(error, asyncpg.CheckViolationError)


async def test_what_was_left_unfinished_is_due_within_the_hour_though_nothing_else_is(here):
    def stop(what: str) -> None:
        if what == "waiting for the next checkpoint":
            raise Stop

    async with here.pool.acquire() as server:
        assert not await retention.sql.is_due.value(server)
        with contextlib.suppress(Stop):
            await pruner(here, here.owner, stop).prune(here.known["then"])
        assert await retention.sql.is_due.value(server)


async def test_a_process_of_its_own_prunes_what_is_past_the_policy_and_goes_on_after_it_was_killed(postgres, tmp_path):
    async with place(postgres, f"daily_{uuid.uuid4().hex[:8]}", tmp_path) as here:
        name = await here.owner.fetchval("SELECT current_database()")
        await here.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 600)")
        async for villain in connection(postgres.url("postgres", name)):
            # As only who owns the database can: the records of long ago
            await villain.execute("ALTER TABLE update_logs DISABLE TRIGGER ALL")
            await villain.execute("UPDATE update_logs SET created_at = created_at - interval '50 days'")
            await villain.execute("DELETE FROM audit_pending")
            await villain.execute("INSERT INTO audit_pending (created_at, id) SELECT created_at, id FROM update_logs")
            await villain.execute("ALTER TABLE update_logs ENABLE TRIGGER ALL")
            await enable_always(villain)
        await here.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 600)")
        await here.seal()
        async with here.pool.acquire() as server:
            await retention.set_policy(server, person(), datetime.timedelta(days=40))
        job = pruning.Job(
            postgres.url("redflag_server", name),
            str(tmp_path / "archive"),
            str(tmp_path),
            "",
            "evidence.example/log",
            "here",
        )
        assert msgspec.json.decode(msgspec.json.encode(job), type=pruning.Job) == job
        folder = tmp_path / "archive"

        async def writes() -> bool:
            return folder.exists() and any(folder.iterdir())

        async def has_a_snapshot() -> bool:
            return bool(await here.owner.fetchval("SELECT count(*) FROM audit_snapshots"))

        for moment in (writes, has_a_snapshot):
            stop = asyncio.Event()
            process = asyncio.create_task(pruning.Daily(here.pool, job).prune(stop))
            async with asyncio.timeout(60):
                while not await moment() and not process.done():  # noqa: ASYNC110 - nothing else tells
                    await asyncio.sleep(0.002)
            stop.set()
            await process
            await require_whole(here, here.owner)
            # Whoever was killed keeps the lease for its time
            await here.owner.execute("UPDATE log_retention SET claimed_until = now()")
        await pruning.Daily(here.pool, job).prune(asyncio.Event())
        assert await here.owner.fetchval("SELECT pruned FROM audit_log") == 512
        assert await here.owner.fetchval("SELECT min(position) FROM audit_entries") == 512
        told = await here.owner.fetch("SELECT actor FROM update_logs WHERE kind = 'snapshot'")
        assert [row["actor"] for row in told] == ["service:retention@here"]
        assert [file.name for file in folder.iterdir()] == ["log-000000000000-000000000511.zip"]
        await require_whole(here, here.owner)


async def test_every_result_stands_for_the_status_that_the_vocabulary_says(pruned):
    for status, results_of in RESULTS.items():
        for result in results_of:
            assert await pruned.owner.fetchval("SELECT command_status_of($1)", result) == status
    assert await pruned.owner.fetchval("SELECT command_status_of('denied')") is None
