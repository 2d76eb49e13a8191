"""fsck finds what somebody who owns the database did to it, and names the first thing that is wrong."""

from __future__ import annotations

import base64
import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from databases import connection
from integration.audit.evidence import Place, place
from integration.commands.helpers import make_agent
from redflag.audit import actor as actors
from redflag.audit import canonical, cosignatures, events, fsck, sequencer
from redflag.audit.checkpoint import COSIGNATURE, DASH, Verifier
from redflag.commands import queue, replay, results
from redflag.database.embedded import EmbeddedDatabase

NAME = "fsck"


@pytest_asyncio.fixture(scope="module")
async def here(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Some commands with all their records in two signed checkpoints."""
    async with place(postgres, NAME, tmp_path_factory.mktemp("fsck")) as found:
        agent_id = await make_agent(found.owner)
        await found.owner.execute(
            "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, 300) i"
        )
        async with found.pool.acquire() as server:
            commands = [
                (await queue.enqueue(server, actors.user("alice"), [agent_id], "scan_updates", {"refresh": True}))[0][
                    "id"
                ]
                for _ in range(4)
            ]
            await queue.deliver(server, [queue.Asking(agent_id, actors.agent(agent_id, "192.0.2.7"), 1)])
            await found.seal()
            told = results.Report("success", stdout="all done", metadata={"n": 1.5})
            reporter = actors.agent(agent_id, "192.0.2.7")
            await results.report(server, reporter, agent_id, commands[0], told, max_output=1000)
            await queue.cancel(server, actors.user("alice"), commands[1])
        await found.seal()
        yield found


@pytest_asyncio.fixture(scope="module")
async def superuser(here: Place, postgres: EmbeddedDatabase) -> AsyncIterator[Any]:
    async for opened in connection(postgres.url("postgres", NAME)):
        yield opened


@pytest_asyncio.fixture
async def villain(superuser: Any) -> AsyncIterator[Any]:
    """A superuser who has switched off every trigger, as only who owns the database can; all of it is undone."""
    undone = superuser.transaction(isolation="repeatable_read")
    await undone.start()
    for table in ("update_logs", "agent_commands", "audit_entries", "audit_tiles", "audit_checkpoints"):
        await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    yield superuser
    await undone.rollback()


async def test_a_whole_log_is_found_whole(here):
    told: list[tuple[int, int]] = []
    async with here.pool.acquire() as server, server.transaction(isolation="repeatable_read", readonly=True):
        examined = await fsck.examine(server, here.signer.verifier, lambda done, of: told.append((done, of)))
        assert await replay.first_difference(server) is None
        assert examined.events == await server.fetchval("SELECT count(*) FROM update_logs")
    assert examined.finding is None
    assert (examined.checkpoints, examined.pending, examined.erased, examined.pruned) == (2, 0, 0, 0)
    assert told[-1] == (examined.events, examined.events)


TAMPERINGS = {
    "a message is altered": ("UPDATE update_logs SET message = 'x' WHERE message = 'note 17'", "message"),
    "a result is altered": ("UPDATE update_logs SET result = 'failed' WHERE message = 'note 17'", "result"),
    "an actor is altered": ("UPDATE update_logs SET actor = 'user:mallory' WHERE kind = 'transition' AND result = 'cancelled'", "actor"),
    "a time is altered": ("UPDATE update_logs SET executed_at = executed_at - interval '1 hour' WHERE message = 'note 17'", "executed_at"),
    "a metadata value is altered": ("UPDATE update_logs SET metadata = metadata || '{\"n\": 2.5}' WHERE metadata ? 'n'", "metadata"),
    "an address is altered": (
        "UPDATE update_logs SET metadata = metadata || '{\"address\": \"192.0.2.8\"}' WHERE result = 'success' AND kind = 'transition'",
        "address",
    ),
    "output is blanked": ("UPDATE update_logs SET stdout = NULL WHERE stdout = 'all done'", "stdout"),
    "output is blanked with its salt": ("UPDATE update_logs SET stdout = NULL, salt = NULL WHERE stdout = 'all done'", "lost its salt"),
    "a salt is altered": ("UPDATE update_logs SET salt = sha256(salt) WHERE message = 'note 17'", "message"),
    "a record is removed": ("DELETE FROM update_logs WHERE message = 'note 17'", "is gone"),
    "a record is moved to another time": (
        "UPDATE update_logs SET created_at = created_at - interval '1 second' WHERE message = 'note 17'", "is gone"),
    "the newest record is removed": (
        "DELETE FROM update_logs WHERE id = (SELECT record_id FROM audit_entries ORDER BY position DESC LIMIT 1)", "is gone"),
    "an entry is removed": ("DELETE FROM audit_entries WHERE position = 17", "position of the log is missing"),
    "the last entry is removed": ("DELETE FROM audit_entries WHERE position = (SELECT max(position) FROM audit_entries)", "missing"),
    "two entries change places": (
        "UPDATE audit_entries SET position = CASE position WHEN 17 THEN 1000018 ELSE 1000017 END WHERE position IN (17, 18);"
        "UPDATE audit_entries SET position = position - 1000000 WHERE position > 1000000", "checkpoint"),
    "the log is cut off": (
        "DELETE FROM audit_entries WHERE position >= 100; UPDATE audit_log SET sequenced = 100, integrated = 100",
        "was signed, and the log has 100"),
    "a tile is altered": (
        "UPDATE audit_tiles SET hashes = overlay(hashes PLACING sha256('x') FROM 33) WHERE level = 0 AND index = 0", "tile 0/0"),
    "a higher tile is altered": ("UPDATE audit_tiles SET hashes = sha256('x') WHERE level = 1", "tile 1/0"),
    "a checkpoint is altered": ("UPDATE audit_checkpoints SET root = sha256('x')", "says something else than its note"),
    "a checkpoint is forged": (
        "UPDATE audit_checkpoints SET note = replace(note, 'evidence.example', 'evidence.invalid')", "is not the log's"),
    "a record is inserted past the log": (
        "INSERT INTO update_logs (id, actor, result, message) VALUES (gen_random_uuid(), 'user:bob', 'success', 'x')", "no position"),
    "a record is there once more": (
        """INSERT INTO update_logs (id, created_at, actor, result) SELECT id, created_at - interval '1 second', actor, result
           FROM update_logs WHERE message = 'note 17'""", "no position"),
    "a record that has a position waits for another": (
        "INSERT INTO audit_pending (id, created_at) SELECT record_id, recorded_at FROM audit_entries WHERE position = 17",
        "has a position waits"),
    "what is no record waits for a position": (
        "INSERT INTO audit_pending (id, created_at) VALUES (gen_random_uuid(), now())", "is no record waits"),
    "an entry is put after the last": (
        "INSERT INTO audit_entries SELECT sequenced, gen_random_uuid(), now(), 'x' FROM audit_log", "never given"),
    "a tile is put beside the tree": ("INSERT INTO audit_tiles (level, index, hashes) VALUES (8, 0, sha256('x'))", "tile 8/0"),
    "a tile has one hash more": (
        "UPDATE audit_tiles SET hashes = hashes || sha256('x') WHERE level = 1", "tile 1/0"),
    "a checkpoint of nothing is not of nothing": (
        "INSERT INTO audit_checkpoints (size, root, note) SELECT 0, sha256('x'), note FROM audit_checkpoints LIMIT 1",
        "checkpoint of 0"),
    "a time is none": ("UPDATE update_logs SET executed_at = '30000-01-01' WHERE message = 'note 17'", "cannot be read"),
    "a leaf is none": ("UPDATE audit_entries SET leaf = 'x' WHERE position = 17", "no leaf"),
    "parameters become a JSON null": ("UPDATE update_logs SET params = 'null' WHERE message = 'note 17'", "JSON null"),
}  # fmt: skip


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_a_tampering_is_found_and_named(here, villain, tampering):
    statements, word = TAMPERINGS[tampering]
    for statement in statements.split(";"):
        assert (await villain.execute(statement)).split()[-1] != "0", "the tampering touched nothing"
    finding = (await fsck.examine(villain, here.signer.verifier)).finding
    assert finding is not None
    assert word in finding.what


@pytest.mark.parametrize("tampering", [name for name in TAMPERINGS if name != "a checkpoint is forged"])
async def test_without_the_key_the_same_is_found_but_a_forged_signature(villain, tampering):
    for statement in TAMPERINGS[tampering][0].split(";"):
        await villain.execute(statement)
    assert (await fsck.examine(villain, None)).finding is not None


async def test_a_record_and_its_leaf_altered_together_are_found_by_the_checkpoint(here, villain):
    record = await villain.fetchrow("SELECT * FROM update_logs WHERE message = 'note 17'")
    await villain.execute("UPDATE update_logs SET message = 'note 71' WHERE id = $1", record["id"])
    row = await villain.fetchrow("SELECT * FROM update_logs WHERE id = $1", record["id"])
    await villain.execute("UPDATE audit_entries SET leaf = $1 WHERE record_id = $2", canonical.leaf(row), record["id"])
    finding = (await fsck.examine(villain, here.signer.verifier)).finding
    assert finding is not None
    assert "not those of the checkpoint" in finding.what


async def test_while_records_wait_for_their_place_in_the_tree_the_log_is_whole(here, villain):
    """Between two steps of the sequencer some have a position, and are in no tile yet."""
    await villain.execute(
        """UPDATE audit_log SET integrated = 300, origin = NULL;
           DELETE FROM audit_checkpoints WHERE size > 300;
           UPDATE audit_tiles SET hashes = substr(hashes, 1, 44 * 32) WHERE level = 0 AND index = 1"""
    )
    assert (await fsck.examine(villain, here.signer.verifier)).finding is None
    await villain.execute("UPDATE audit_log SET integrated = 299")
    finding = (await fsck.examine(villain, here.signer.verifier)).finding
    assert finding is not None
    assert "tile 0/1" in finding.what


@pytest.mark.parametrize(("chunk", "most_bytes"), [(1, 1 << 20), (7, 1 << 20), (256, 1 << 20), (4096, 1)])
async def test_however_little_is_read_at_once_the_same_is_found(here, villain, monkeypatch, chunk, most_bytes):
    monkeypatch.setattr(fsck, "CHUNK", chunk)
    monkeypatch.setattr(fsck, "MOST_BYTES", most_bytes)
    examined = await fsck.examine(villain, here.signer.verifier)
    assert (examined.finding, examined.checkpoints) == (None, 2)
    await villain.execute("UPDATE update_logs SET message = 'x' WHERE message = 'note 287'")
    finding = (await fsck.examine(villain, here.signer.verifier)).finding
    assert finding is not None
    assert finding.what.endswith("message")


async def test_a_record_that_waits_for_a_position_and_can_have_none_is_named(here, villain):
    wait = "INSERT INTO audit_pending (created_at, id) SELECT created_at, id FROM update_logs WHERE id = $1"
    add = "INSERT INTO update_logs (actor, result, salt, created_at, action) VALUES ('user:x', 'success', $1, $2, $3) RETURNING id"
    now = await here.now()
    await villain.execute(wait, await villain.fetchval(add, bytes(32), now, "fits"))
    examined = await fsck.examine(villain, here.signer.verifier)
    assert (examined.finding, examined.pending) == (None, 1)
    for odd, why in (
        ((None, now, "has no salt"), "TypeError"),
        ((bytes(32), now, "x" * 9000), "bytes"),
        ((bytes(32), datetime.datetime.max.replace(tzinfo=datetime.UTC), "is of no year"), "out of range"),
    ):
        undone = villain.transaction()
        await undone.start()
        added = await villain.fetchval(add, *odd)
        if odd[2] == "is of no year":
            await villain.execute("UPDATE update_logs SET executed_at = '30000-01-01' WHERE id = $1", added)
        await villain.execute(wait, added)
        finding = (await fsck.examine(villain, here.signer.verifier)).finding
        assert finding is not None
        assert "can have none" in finding.what
        assert why in finding.what
        assert finding.record_id == str(added)
        await undone.rollback()


@pytest.mark.parametrize(
    ("newest", "less", "seen", "missed"),
    [(False, 0, 1, False), (False, 0, 2, True), (True, 0, 2, False), (True, 1, 2, True), (True, 0, 3, True)],
)
async def test_a_checkpoint_that_an_earlier_fsck_saw_and_is_gone_is_missed(here, newest, less, seen, missed):
    """The record of that examination, which is in the log, says how many of up to so many records there were."""
    async with here.pool.acquire() as server:
        undone = server.transaction()
        await undone.start()
        sizes = await server.fetchrow("SELECT min(size), max(size) FROM audit_checkpoints")
        told = {"size": sizes[newest] - less, "checkpoints": seen}
        await events.record(server, actors.service("fsck", "host"), kind="service", action="fsck", **told)
        waits = (await fsck.examine(server, here.signer.verifier)).finding
        await sequencer.sequence(server)
        await sequencer.integrate(server)
        finding = (await fsck.examine(server, here.signer.verifier)).finding
        await undone.rollback()
    assert waits is None
    assert (finding is not None) == missed
    assert finding is None or "were there when the log was examined before" in finding.what


@pytest_asyncio.fixture
async def cosigned(villain: Any) -> Any:
    """Both checkpoints, cosigned by a witness that is a target."""
    for table in ("log_targets", "log_cosignatures"):
        await villain.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    private = Ed25519PrivateKey.generate()
    witness = Verifier("witness.example/w", private.public_key().public_bytes_raw(), COSIGNATURE)
    await villain.execute(
        "INSERT INTO log_targets (kind, name, address, vkey, every) VALUES ('witness', 'w', 'http://127.0.0.1:9', $1, '10 s')",
        witness.vkey(),
    )
    for row in await villain.fetch("SELECT * FROM audit_checkpoints"):
        moment = int(row["published_at"].timestamp())
        text = row["note"].rpartition("\n\n")[0] + "\n"
        signature = private.sign(f"cosignature/v1\ntime {moment}\n{text}".encode())
        line = f"{DASH} {witness.name} {base64.b64encode(witness.id + moment.to_bytes(8, 'big') + signature).decode()}"
        when = datetime.datetime.fromtimestamp(moment, datetime.UTC)
        made = cosignatures.Cosignature(witness.name, witness.id, line, when)
        await cosignatures.keep(villain, row["size"], made)
    return villain


async def test_cosignatures_are_verified_under_the_keys_of_the_targets_though_these_were_removed(here, cosigned):
    await cosigned.execute("UPDATE log_targets SET removed_at = now()")
    examined = await fsck.examine(cosigned, here.signer.verifier)
    assert (examined.finding, examined.cosignatures) == (None, 2)


NEWEST = "(SELECT max(size) FROM audit_checkpoints)"
COSIGNATURES = {
    "a cosignature is another checkpoint's": (
        f"UPDATE log_cosignatures SET line = (SELECT line FROM log_cosignatures WHERE size < {NEWEST}),"
        f" cosigned_at = (SELECT cosigned_at FROM log_cosignatures WHERE size < {NEWEST}) WHERE size = {NEWEST}",
        "is not what it signed"),
    "its time is altered": ("UPDATE log_cosignatures SET cosigned_at = cosigned_at + interval '1 second'", "another time"),
    "its time is none": ("UPDATE log_cosignatures SET cosigned_at = '30000-01-01'", "cannot be read"),
    "it is given to another witness": ("UPDATE log_cosignatures SET witness = 'witness.example/x'", "no target"),
    "it is by another key": ("UPDATE log_cosignatures SET key_id = '\\x00000000'", "no target"),
    "its line is cut": ("UPDATE log_cosignatures SET line = left(line, 40)", "no signature line"),
    "its line is two": ("UPDATE log_cosignatures SET line = line || chr(10) || line", "no signature line"),
    "its line is the log's": (
        "UPDATE log_cosignatures SET line = (SELECT split_part(note, chr(10), 5) FROM audit_checkpoints LIMIT 1)", "no signature line"),
    "its target is taken away": ("DELETE FROM log_targets", "no target"),
    "the key of its target is none": ("UPDATE log_targets SET vkey = 'x'", "no target"),
    "an older checkpoint is taken away": (f"DELETE FROM audit_checkpoints WHERE size < {NEWEST}", "the checkpoint is not"),
    "it is of a checkpoint that never was": ("UPDATE log_cosignatures SET size = -size", "the checkpoint is not"),
    "what was sent is taken away, and its cosignature": (
        f"UPDATE log_targets SET acknowledged_size = (SELECT min(size) FROM audit_checkpoints);"
        f"DELETE FROM log_cosignatures WHERE size < {NEWEST}; DELETE FROM audit_checkpoints WHERE size < {NEWEST}",
        "was sent a checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("tampering", COSIGNATURES)
async def test_what_is_done_to_cosignatures_and_to_checkpoints_that_others_have_is_found(here, cosigned, tampering):
    statements, word = COSIGNATURES[tampering]
    for statement in statements.split(";"):
        assert (await cosigned.execute(statement)).split()[-1] != "0", "the tampering touched nothing"
    finding = (await fsck.examine(cosigned, here.signer.verifier)).finding
    assert finding is not None
    assert word in finding.what


async def test_every_byte_of_a_cosignature_counts(cosigned):
    line = await cosigned.fetchval("SELECT line FROM log_cosignatures ORDER BY size LIMIT 1")
    start, _, told = line.rpartition(" ")
    signed = base64.b64decode(told)
    for at in range(len(signed)):
        bits = bytearray(signed)
        bits[at] ^= 1 << at % 8
        altered = f"{start} {base64.b64encode(bits).decode()}"
        await cosigned.execute("UPDATE log_cosignatures SET line = $1 WHERE line = $2", altered, line)
        assert (await cosignatures.examine(cosigned))[1] is not None, at
        await cosigned.execute("UPDATE log_cosignatures SET line = $1 WHERE line = $2", line, altered)
    assert await cosignatures.examine(cosigned) == (2, None)


REPLAYED = {
    "a status is altered": ("UPDATE agent_commands SET status = 'failed' WHERE status = 'completed'", "its status is failed"),
    "parameters are altered": ("UPDATE agent_commands SET params = '{}' WHERE status = 'completed'", "parameters"),
    "a time is altered": ("UPDATE agent_commands SET completed_at = now() WHERE status = 'completed'", "completed_at"),
    "a type is altered": ("UPDATE agent_commands SET command_type = 'reboot' WHERE status = 'completed'", "its type is reboot"),
    "a version is altered": ("UPDATE agent_commands SET version = 9 WHERE status = 'completed'", "its version is 9"),
    "a command is removed": ("DELETE FROM agent_commands WHERE status = 'completed'", "the command is not"),
    "a transition is removed": ("DELETE FROM update_logs WHERE result = 'sent' AND kind = 'transition'", "a version is missing"),
    "a command was never recorded": (
        "INSERT INTO agent_commands (agent_id, command_type, next_deadline_at, delivery_timeout, execution_timeout)"
        " SELECT id, 'x', now(), '1 s', '1 s' FROM agents", "no record of it"),
}  # fmt: skip


@pytest.mark.parametrize("change", REPLAYED)
async def test_a_command_that_is_not_what_its_records_say_is_named(villain, change):
    statement, word = REPLAYED[change]
    assert (await villain.execute(statement)).split()[-1] != "0"
    difference = await replay.first_difference(villain)
    assert difference is not None
    assert word in difference.what
