"""A database that was rolled back stops the log, and nothing else; and how the log goes on under a new name that names the old."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from databases import connection, own_database
from redflag.audit import actor as actors
from redflag.audit import fsck, merkle, origins, proofs, sequencer, tiles, tree
from redflag.audit.checkpoint import Checkpoint, Signer, Verifier, load_key
from redflag.audit.keeper import Keeper
from redflag.audit.memory import Memory, closed_names
from redflag.audit.origins import RolledBack
from redflag.cli import server as cli_server
from redflag.cli.exits import ExitCode
from redflag.cli.main import main
from redflag.commands import queue
from redflag.database import faults
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict, InvalidInput, SettingsError
from redflag.settings import Settings, settings
from redflag_agent import witness
from redflag_agent.config import parse_log_key
from unit.verify.helpers import verifier as verify

OLD, NEW, THIRD = "example.com/log", "example.com/log-2", "example.com/log-3"


KEPT = ("update_logs", "audit_entries", "audit_tiles", "audit_checkpoints")


@dataclass(frozen=True)
class Past:
    """A log of which a backup was made: the checkpoint in it, and the newest that was signed before the backup was restored."""

    key: Path
    saved: Checkpoint
    lost: Checkpoint

    def signer(self, name: str = OLD) -> Signer:
        return load_key(name, self.key)


async def _records(owner: Any, count: int) -> None:
    await owner.execute(
        "INSERT INTO update_logs (result, message) SELECT 'success', 'n' || i FROM generate_series(1, $1) i", count
    )


async def _back_up(superuser: Any) -> None:
    for table in KEPT:
        await superuser.execute(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")
    await superuser.execute("ALTER TABLE saved_audit_checkpoints DROP COLUMN origin")


async def _restore(superuser: Any, *, empty: bool = False) -> None:
    """The log and its records as they were backed up, or as in a database that was made anew."""
    guards = await superuser.fetch(
        "SELECT format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname) AS again FROM pg_trigger"
        " WHERE tgrelid = ANY ($1::regclass[]) AND NOT tgisinternal",
        [*KEPT, "audit_origins"],
    )
    statements = [f"ALTER TABLE {table} DISABLE TRIGGER ALL; DELETE FROM {table}" for table in (*KEPT, "audit_origins")]
    if not empty:
        statements += [f"INSERT INTO {table} SELECT * FROM saved_{table}" for table in KEPT]
    statements += [
        "DELETE FROM audit_pending",
        "UPDATE audit_log SET origin = (SELECT max(origin) FROM audit_checkpoints),"
        " sequenced = (SELECT count(*) FROM audit_entries), integrated = (SELECT count(*) FROM audit_entries)",
        *(row["again"] for row in guards),
    ]
    async with superuser.transaction():
        await superuser.execute("; ".join(statements))


async def _sign(server: Any, signer: Signer, memory: Memory) -> Checkpoint:
    while await sequencer.sequence(server, memory=memory) > 0:
        pass
    while await sequencer.integrate(server, memory=memory) > 0:
        pass
    signed = await sequencer.publish(server, signer, memory)
    assert signed
    return signed


migrated, dsn_owner, dsn_server, owner, server, pool = own_database("reopen")


@pytest_asyncio.fixture(scope="session")
async def superuser(postgres: EmbeddedDatabase, migrated: None) -> AsyncIterator[Any]:
    async for opened in connection(postgres.url("postgres", "reopen")):
        yield opened


@pytest_asyncio.fixture(scope="session")
async def past(owner: Any, server: Any, superuser: Any, tmp_path_factory: pytest.TempPathFactory) -> Past:
    folder = tmp_path_factory.mktemp("past")
    signer = load_key(OLD, folder / "key")
    memory = Memory(folder / "newest", signer)
    await _records(owner, 300)
    saved = await _sign(server, signer, memory)
    await _back_up(superuser)
    await _records(owner, 40)
    lost = await _sign(server, signer, memory)
    assert lost.size == saved.size + 40
    return Past(folder / "key", saved, lost)


@pytest_asyncio.fixture(autouse=True)
async def _restored(superuser: Any, past: Past) -> None:
    """Each test begins with the restored backup."""
    await _restore(superuser)


@pytest.fixture
def signer(past: Past) -> Signer:
    return past.signer()


class Replica:
    """A server: what it remembers in a folder of its own, and the steps that it takes."""

    def __init__(self, folder: Path, pool: Any, past: Past, remembers: Checkpoint | None) -> None:
        folder.mkdir()
        self.file = folder / "newest-checkpoint"
        if remembers:
            self.file.write_text(remembers.note)
        self.signer = past.signer()
        self.memory = Memory(self.file, self.signer)
        self.failed: list[str] = []
        self.keeper = Keeper(pool, self.signer, self.memory, self.failed.append)

    async def go(self) -> None:
        while await self.keeper.go():
            pass


@pytest.fixture
def replica(tmp_path: Path, pool: Any, past: Past) -> Replica:
    """The server that signed what is lost now."""
    return Replica(tmp_path / "replica", pool, past, past.lost)


@pytest.fixture(autouse=True)
def noted() -> Iterator[Any]:
    """The faults that a test causes, which are nobody else's."""
    faults.waiting.clear()
    yield faults.waiting
    faults.waiting.clear()


async def _reopen(owner: Any, signer: Signer, name: str, known: list[Checkpoint], **more: Any) -> origins.Opened:
    async with owner.transaction():
        return await origins.reopen(owner, signer.verifier.public, name, known, **more)


async def _state(owner: Any) -> tuple[Any, ...]:
    return tuple(
        await owner.fetchrow(
            "SELECT origin, sequenced, integrated, (SELECT count(*) FROM audit_entries) AS entries,"
            " (SELECT count(*) FROM audit_checkpoints) AS checkpoints, (SELECT count(*) FROM audit_tiles) AS tiles FROM audit_log"
        )
    )


async def _whole(server: Any, key: Verifier) -> None:
    async with server.transaction(isolation="repeatable_read", readonly=True):
        examined = await fsck.examine(server, key)
    assert examined.finding is None
    assert examined.pending == 0


async def test_a_server_that_knows_more_than_the_database_takes_no_step_while_records_go_on(
    owner, server, signer, replica, past, noted
):
    before = await _state(owner)
    await _records(owner, 50)
    agent_id = await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ('h', 1) RETURNING id")
    assert await queue.enqueue(server, actors.user("alice"), [agent_id], "scan_updates")
    said = f"has {past.saved.size:,} records in its tree, and this server knows a checkpoint of {past.lost.size:,}"
    for step in (
        sequencer.sequence(server, memory=replica.memory),
        sequencer.integrate(server, memory=replica.memory),
        sequencer.publish(server, signer, replica.memory),
    ):
        with pytest.raises(RolledBack, match=said):
            await step
    for _ in range(3):
        await replica.go()
    assert replica.failed == ["sequence"] * 3
    assert [fault.kind for fault in noted] == ["log_stopped"], "it is said once, not at every try"
    assert said in noted[0].detail
    assert await _state(owner) == before
    assert await owner.fetchval("SELECT count(*) FROM audit_pending") == 52


async def test_a_log_that_stays_stopped_is_said_again_before_its_alert_ends(replica, noted, monkeypatch):
    monkeypatch.setattr("redflag.audit.keeper.SAY_AGAIN_SECONDS", 0.0)
    await replica.go()
    await replica.go()
    assert len(noted) == 2


async def test_a_log_that_was_taken_up_by_a_server_without_memory_is_not_that_of_the_one_that_remembers(
    owner, replica, pool, past, tmp_path
):
    await _records(owner, 90)
    forgetful = Replica(tmp_path / "forgetful", pool, past, None)
    await forgetful.go()
    assert not forgetful.failed
    before = await _state(owner)
    await _records(owner, 1)
    async with pool.acquire() as one:
        with pytest.raises(RolledBack, match="does not begin with the one"):
            await sequencer.sequence(one, memory=replica.memory)
    assert await _state(owner) == before


async def test_a_database_that_is_empty_is_not_the_log_that_is_remembered(
    owner, superuser, server, signer, past, replica
):
    await _restore(superuser, empty=True)
    await _records(owner, 3)
    with pytest.raises(RolledBack, match="has 0 records"):
        await sequencer.sequence(server, memory=replica.memory)
    opened = await _reopen(owner, signer, NEW, [past.lost])
    assert (opened.first_size, opened.previous_origin) == (0, OLD)
    await replica.go()
    assert not replica.failed
    newest = replica.memory.newest
    assert newest is not None
    assert newest.extensions[0] == f"previous {OLD} 0 {base64.b64encode(merkle.EMPTY_ROOT).decode()}"
    await _whole(server, replica.signer.verifier)


async def test_the_log_goes_on_under_a_new_name_that_names_the_old_one(owner, server, signer, replica, past):
    await _records(owner, 50)
    kept = await owner.fetch("SELECT * FROM audit_entries ORDER BY position")
    opened = await _reopen(owner, signer, NEW, [past.lost], reason="restored the backup of Monday")
    assert opened == origins.Opened(NEW, 1, past.saved.size, OLD, past.lost, abandoned=True)
    await replica.go()
    assert not replica.failed
    assert replica.signer.verifier.name == NEW
    newest = replica.memory.newest
    assert newest is not None
    saved, lost = (base64.b64encode(one.root).decode() for one in (past.saved, past.lost))
    assert newest.note.split("\n")[:5] == [
        NEW,
        str(past.saved.size + 51),
        base64.b64encode(await tree.root(server, past.saved.size + 51)).decode(),
        f"previous {OLD} {past.saved.size} {saved}",
        f"abandoned {OLD} {past.lost.size} {lost}",
    ]
    entries = await owner.fetch("SELECT * FROM audit_entries ORDER BY position")
    assert entries[: len(kept)] == kept
    assert len(entries) == len(kept) + 51
    record = await owner.fetchrow("SELECT * FROM update_logs WHERE kind = 'change' AND action = 'log_origin_created'")
    assert record["actor"] == "db:redflag_owner"
    assert record["metadata"]["new"] | {"first_root": "", "known_root": ""} == {
        "origin": NEW, "first_size": past.saved.size, "previous_origin": OLD, "known_origin": OLD, "known_size": past.lost.size,
        "abandoned": True, "reason": "restored the backup of Monday", "first_root": "", "known_root": "",
    }  # fmt: skip
    assert (replica.file.parent / "closed-1-checkpoint").read_text() == past.lost.note
    for name in (OLD, NEW):
        await _whole(server, Verifier(name, signer.verifier.public))


async def test_the_verifier_and_the_agents_follow_a_log_to_its_new_name(owner, server, signer, replica, past, tmp_path):
    await _reopen(owner, signer, NEW, [past.lost])
    await _records(owner, 100)
    await replica.go()
    newest = replica.memory.newest
    assert newest is not None
    trust = verify.Trust(verify.Key.parse(replica.signer.verifier.vkey(), verify.ED25519))
    # The record of the reopening
    record = await owner.fetchval("SELECT id FROM update_logs WHERE action = 'log_origin_created'")
    report = verify.Report()
    verify.verify_proof((await proofs.of_record(server, record)).text().encode(), trust, report)
    assert sum("what it says of a log before it" in line for line in report.not_checked) == 2
    # The whole log, as it is served, and what it has to do with what was saved before
    folder = tmp_path / "log"
    (folder / "tile").mkdir(parents=True)
    (folder / "checkpoint").write_text(await tiles.checkpoint(server))
    level, count = 0, newest.size
    while count:
        for index in range(-(-count // 256)):
            width = min(256, count - index * 256)
            found = {merkle.path(level, index, width): await tiles.tile(server, level, index, width)}
            if level == 0:
                found[merkle.path("entries", index, width)] = await tiles.bundle(server, index, width)
            for path, data in found.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
        level, count = level + 1, count // 256
    older = verify.open_older(past.saved.note.encode(), trust, "older")
    report = verify.Report()
    verify.verify_log(folder, trust, report, verify.Earlier(older))
    assert f"{NEW} says that it goes on from {OLD}, which was closed with {past.saved.size} entries" in report.checked
    with pytest.raises(verify.NotVerified, match="what came after them was given up"):
        verify.verify_log(
            folder, trust, verify.Report(), verify.Earlier(verify.open_older(past.lost.note.encode(), trust, "older"))
        )
    # An agent that holds either
    for held, told in ((past.saved, "goes on as"), (past.lost, "the last 40 were given up")):
        begin = min(held.size, past.saved.size)
        proof = await tree.consistency(server, begin, newest.size)
        key = parse_log_key(signer.verifier.vkey())
        known = verify.Checkpoint(held.origin, held.size, held.root)
        followed, said = witness.examine(key, known, newest.note, proof)
        assert (followed.origin, followed.size) == (NEW, newest.size)
        assert told in said


async def test_every_replica_follows_by_itself_and_sets_aside_what_it_remembered(
    owner, server, signer, pool, past, tmp_path, caplog
):
    one, two = (Replica(tmp_path / name, pool, past, past.lost) for name in ("one", "two"))
    await asyncio.gather(one.go(), two.go())
    assert one.failed or two.failed
    await _reopen(owner, signer, NEW, [past.lost])
    for number in range(6):
        await _records(owner, 5)
        # One at a time and both at once: whoever finds the log's row locked has nothing to do
        await (asyncio.gather(one.go(), two.go()) if number % 2 else (one, two)[number // 2 % 2].go())
    for replica in (one, two):
        replica.failed.clear()
        await replica.go()
        assert not replica.failed
        assert replica.signer.verifier.name == NEW
        assert (replica.file.parent / "closed-1-checkpoint").read_text() == past.lost.note
        assert closed_names(replica.file.parent) == {OLD}
    await _whole(server, one.signer.verifier)
    sizes = [row["size"] for row in await owner.fetch("SELECT size FROM audit_checkpoints WHERE origin = $1", NEW)]
    assert len(sizes) == len(set(sizes))
    assert min(sizes) > past.saved.size
    assert "is in" in caplog.text


async def test_a_server_that_knew_more_of_the_old_log_than_the_new_one_says_keeps_that_and_says_so(
    owner, signer, replica, past, caplog
):
    # Closed on another host, where only the backup's own checkpoint was known
    await _reopen(owner, signer, NEW, [], planned=True)
    await replica.go()
    assert not replica.failed
    assert f"{past.saved.size} records were known of {OLD}, and this server knew {past.lost.size}" in caplog.text
    assert (replica.file.parent / "closed-1-checkpoint").is_file()


async def test_processes_that_share_a_folder_share_what_they_remember(replica, past, tmp_path):
    other = Memory(replica.file, past.signer())
    assert other.newest == past.lost
    assert replica.memory.set_aside() == replica.file.with_name("closed-1-checkpoint")
    assert other.newest == past.lost, "a file that is gone makes nobody forget"
    other.set_aside()
    assert other.newest is None
    replica.memory.remember(past.saved)
    assert other.newest == past.saved
    assert replica.memory.set_aside() == replica.file.with_name("closed-2-checkpoint")


async def test_what_another_key_signed_is_not_remembered(replica, past, tmp_path, server):
    stranger = load_key(OLD, tmp_path / "another-key")
    replica.file.write_text(stranger.sign(past.lost.size, past.lost.root))
    with pytest.raises(Conflict, match="holds no checkpoint that this log's key has signed"):
        await sequencer.sequence(server, memory=replica.memory)


async def test_a_log_that_goes_on_is_not_closed_unless_that_was_planned(owner, server, signer, pool, past, tmp_path):
    with pytest.raises(Conflict, match="goes on: its tree"):
        await _reopen(owner, signer, NEW, [past.saved])
    opened = await _reopen(owner, signer, NEW, [past.saved], planned=True)
    assert not opened.abandoned
    replica = Replica(tmp_path / "replica", pool, past, past.saved)
    await replica.go()
    newest = replica.memory.newest
    assert newest is not None
    root = base64.b64encode(past.saved.root).decode()
    assert newest.extensions == (f"previous {OLD} {past.saved.size} {root}",)
    await _whole(server, replica.signer.verifier)


@pytest.mark.parametrize("name", [OLD, "", "two words", "a+b", "x" * 256, "line\nline", "\x07"])
async def test_a_name_that_is_none_or_that_a_log_had_is_refused(owner, signer, past, name):
    with pytest.raises(InvalidInput, match="cannot name the new log"):
        await _reopen(owner, signer, name, [past.lost])


async def test_a_name_that_only_this_servers_folder_knows_is_refused(owner, signer, past):
    with pytest.raises(InvalidInput, match="was called so before"):
        await _reopen(owner, signer, NEW, [past.lost], taken={NEW})


async def test_a_database_that_contradicts_itself_is_not_reopened(owner, superuser, signer, past):
    for table, statement in (
        (
            "audit_tiles",
            "UPDATE audit_tiles SET hashes = overlay(hashes PLACING sha256('x') FROM 1) WHERE level = 0 AND index = 1",
        ),
    ):
        await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        await superuser.execute(statement)
    with pytest.raises(Conflict, match="contradicts the checkpoint that it holds itself"):
        await _reopen(owner, signer, NEW, [past.lost])


async def test_a_key_that_is_not_the_logs_reopens_nothing(owner, past, tmp_path):
    stranger = load_key(OLD, tmp_path / "another-key")
    with pytest.raises(Conflict, match="is not signed by the key of this server"):
        await _reopen(owner, stranger, NEW, [], planned=True)


async def test_a_backup_from_before_a_reopening_is_noticed_and_the_third_log_names_both(
    owner, superuser, server, pool, signer, replica, past, tmp_path
):
    await _reopen(owner, signer, NEW, [past.lost])
    await replica.go()
    second = replica.memory.newest
    assert second is not None
    await _restore(superuser)
    stopped = Replica(tmp_path / "again", pool, past, second)
    with pytest.raises(RolledBack, match=rf"called {OLD}, and this server remembers .* of {NEW}"):
        await sequencer.sequence(server, memory=stopped.memory)
    with pytest.raises(InvalidInput, match="was called so before"):
        await _reopen(owner, signer, NEW, [second])
    await _reopen(owner, signer, THIRD, [second])
    await stopped.go()
    assert stopped.failed == []
    newest = stopped.memory.newest
    assert newest is not None
    assert [line.split(" ")[:3] for line in newest.extensions] == [
        ["previous", OLD, str(past.saved.size)], ["previous", NEW, str(past.saved.size)], ["abandoned", NEW, str(second.size)],
    ]  # fmt: skip
    await _whole(server, stopped.signer.verifier)


async def test_a_log_that_was_renamed_twice_names_all_that_it_was_called(owner, server, signer, pool, past, tmp_path):
    replica = Replica(tmp_path / "replica", pool, past, past.saved)
    for name in (NEW, THIRD):
        await _reopen(owner, signer, name, [], planned=True)
        await replica.go()
    newest = replica.memory.newest
    assert newest is not None
    assert [line.split(" ")[1] for line in newest.extensions] == [NEW, OLD]
    # One that was away for both
    late = Replica(tmp_path / "late", pool, past, past.saved)
    await late.go()
    assert late.failed == []
    assert late.signer.verifier.name == THIRD
    await _whole(server, late.signer.verifier)


async def test_what_the_log_was_called_is_changed_by_nobody_and_said_by_the_owner_only(owner, server, signer, past):
    await _reopen(owner, signer, NEW, [past.lost])
    for statement in ("UPDATE audit_origins SET reason = 'x'", "DELETE FROM audit_origins", "TRUNCATE audit_origins"):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await owner.execute(statement)
        assert refused.value.sqlstate == "RF003"
    values = (
        "INSERT INTO audit_origins SELECT 0, 'x', now(), first_size + $1, first_root, '', known_origin, known_size, known_root, known_note,"
        " abandoned, reason, '' FROM audit_origins"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.execute(values, 0)
    with pytest.raises(asyncpg.PostgresError, match="the tree of the log has"):
        await owner.execute(values, 1)
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(values.replace("known_size,", "known_size + 1,"), 0)


TAMPERINGS = {
    "another beginning": "UPDATE audit_origins SET first_size = first_size - 1",
    "another end of the old log": "UPDATE audit_origins SET abandoned = false",
    "no old log": "DELETE FROM audit_origins; UPDATE audit_log SET origin = 'example.com/log'",
    "a checkpoint of a name that it never had": "UPDATE audit_log SET origin = 'x'; DELETE FROM audit_origins",
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_fsck_finds_what_was_changed_about_the_logs_names(
    owner, superuser, server, signer, replica, past, tampering
):
    await _reopen(owner, signer, NEW, [past.lost])
    await replica.go()
    await superuser.execute("ALTER TABLE audit_origins DISABLE TRIGGER ALL")
    for statement in TAMPERINGS[tampering].split("; "):
        assert (await superuser.execute(statement)).split()[-1] == "1"
    async with server.transaction(isolation="repeatable_read", readonly=True):
        finding = (await fsck.examine(server, Verifier(NEW, signer.verifier.public))).finding
    assert finding is not None
    assert re.search("does not say what the log was called before|was never called", finding.what)


async def test_a_setting_that_contradicts_the_logs_name_is_refused(dsn_server, tmp_path):
    starts = Settings(database_url=dsn_server, var=tmp_path, log_origin=OLD)
    await cli_server.require_schema(starts)
    with pytest.raises(
        SettingsError, match=f"REDFLAG_LOG_ORIGIN says {NEW}, and the log in the database is called {OLD}"
    ):
        await cli_server.require_schema(starts.model_copy(update={"log_origin": NEW}))
    assert origins.choose("", None, "a") == "a"
    assert origins.choose("b", None, "a") == "b"
    assert origins.choose("", "c", "a") == origins.choose("c", "c", "a") == "c"
    with pytest.raises(SettingsError, match="REDFLAG_LOG_ORIGIN says b, and the log in the database is called c"):
        origins.choose("b", "c", "a")


@pytest.fixture
def cli(
    dsn_server: str,
    dsn_owner: str,
    past: Past,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """`redflag audit reopen` on a server whose data folder has the log's key, and remembers nothing."""
    folder = tmp_path / "var" / "log-key"
    folder.mkdir(parents=True)
    shutil.copy(past.key, folder / "key")
    for name, value in (("VAR", tmp_path / "var"), ("DATABASE_URL", dsn_server), ("DATABASE_OWNER_URL", dsn_owner)):
        monkeypatch.setenv(f"REDFLAG_{name}", str(value))
    settings.cache_clear()

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["audit", "reopen", *arguments])
        told = capsys.readouterr()
        return int(code), told.out, told.err

    yield run
    settings.cache_clear()


def test_the_command_explains_what_it_does_asks_and_does_it_once(cli, past, tmp_path):
    remembered = tmp_path / "var" / "log-key" / "newest-checkpoint"
    remembered.write_text(past.lost.note)
    code, _, err = cli("--origin", NEW)
    assert code == ExitCode.USAGE
    assert f"The log {OLD} is closed with the 300 records that its tree has in this database." in err
    assert "is of 340: the last 40 records of it are not here. They are given up, and the new log says so." in err
    assert "Add --yes" in err
    code, out, _ = cli("--origin", NEW, "--reason", "the disk broke", "--yes", "--json")
    assert code == ExitCode.OK
    told = json.loads(out)
    assert (told["origin"], told["first_size"], told["known"]["size"], told["abandoned"]) == (NEW, 300, 340, True)
    assert told["key"] == Verifier(NEW, past.signer().verifier.public).vkey()
    code, _, err = cli("--origin", THIRD, "--yes")
    assert code == ExitCode.CONFLICT
    assert f"The log {NEW} goes on" in err


def test_a_checkpoint_that_was_kept_elsewhere_says_that_the_log_was_rolled_back(cli, past, tmp_path):
    assert cli("--origin", NEW, "--yes")[0] == ExitCode.CONFLICT
    kept = tmp_path / "kept"
    assert cli("--origin", NEW, "--yes", "--checkpoint", str(kept))[0] == ExitCode.USAGE
    kept.write_text(past.lost.note.replace("340", "341"))
    assert cli("--origin", NEW, "--yes", "--checkpoint", str(kept))[0] == ExitCode.CONFLICT
    kept.write_text(past.lost.note)
    code, out, _ = cli("--origin", NEW, "--yes", "--checkpoint", str(kept))
    assert code == ExitCode.OK
    assert f"The log goes on as {NEW}" in out


def test_without_the_logs_key_nothing_is_reopened_and_none_is_made(cli, tmp_path):
    key = tmp_path / "var" / "log-key" / "key"
    key.unlink()
    code, _, err = cli("--origin", NEW, "--yes", "--planned")
    assert code == ExitCode.USAGE
    assert "There is no key of the log" in err
    assert not key.exists()
