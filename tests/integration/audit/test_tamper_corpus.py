"""A corpus of tamperings by a superuser with every trigger and constraint off: fsck finds each one and names the place.

Who sees only the log as tiles finds, with a checkpoint that was saved before, each one that changes anything that is served:
leaves, their order, tiles, the newest checkpoint. What a leaf holds as a commitment only, the columns that lead from an
entry to its record, and older checkpoints are not served: there only fsck can tell, and no proof and no evidence that is
made afterwards shows anything else than what was recorded.

What is random has a seed (REDFLAG_SEED), and a failure names the row, the column and the bit.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from databases import connection, make_database
from integration.audit import tamperings
from integration.audit.corpus import Corpus, fill, flip, look, tamper, unlock
from redflag.audit import canonical, sequencer
from redflag.audit.checkpoint import load_key
from redflag.commands import replay
from redflag.database.embedded import EmbeddedDatabase
from unit.verify.helpers import verifier

SEED = int(os.environ.get("REDFLAG_SEED", "20260101"))

# How many bits of each column are flipped, each in a tampering of its own
RECORD = (
    "id", "created_at", "executed_at", "kind", "command_id", "agent_id", "version", "command_type", "action", "actor", "result",
    "message", "metadata", "params", "sent_at", "completed_at", "stdout", "stderr", "exit_code", "duration_seconds", "salt", "salts",
)  # fmt: skip
LOG = {
    "audit_entries": {"position": 24, "record_id": 24, "recorded_at": 24, "leaf": 64},
    "audit_tiles": {"level": 16, "index": 24, "hashes": 64},
    "audit_checkpoints": {"size": 24, "root": 24, "note": 64},
}
COMMAND = ("status", "command_type", "params", "agent_id", "sent_at", "completed_at", "version")
FLIPS = [
    *(("update_logs", column, 30) for column in RECORD),
    *((table, column, times) for table, columns in LOG.items() for column, times in columns.items()),
]
# What stands in a leaf as a commitment only, and the salt of those
SALTED = {*canonical.COMMITTED, "metadata", "salt"}
# What no signature covers: when a checkpoint was stored
ELSEWHERE = {("audit_checkpoints", "published_at")}


@pytest_asyncio.fixture(scope="module")
async def corpus(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corpus]:
    name, folder = f"corpus_{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("corpus")
    await make_database(postgres, name)
    signer = load_key("example.com/log", folder / "key")
    memory = sequencer.Memory(folder / "newest", signer)
    async for server in connection(postgres.url("redflag_server", name)):
        async for owner in connection(postgres.url("redflag_owner", name)):
            await fill(server, owner, signer, memory)
    async for villain in connection(postgres.url("postgres", name)):
        await unlock(villain)
        found = Corpus(villain, signer, folder / "log")
        async with villain.transaction(isolation="repeatable_read"):
            await look(found)
            yield found


def place(corpus: Corpus, table: str, column: str, row: Any, bit: int) -> int | None:
    """The position that fsck has to name."""
    if table in {"update_logs", "audit_entries"}:
        position = corpus.records.index(row["id"] if table == "update_logs" else row["record_id"])
        # Without its record, an erasure is first noticed where it erased something
        return None if b'"kind":"erasure"' in corpus.leaves[position] else position
    if (table, column) == ("audit_tiles", "hashes") and row["level"] == 0:
        return int(row["index"]) * 256 + bit // 256
    return None


def is_served(corpus: Corpus, table: str, column: str, row: Any) -> bool:
    """Whether the log serves this, so that nobody needs the database to find it altered."""
    return (
        table == "audit_tiles"
        or (table == "audit_entries" and column in {"leaf", "position"})
        or (table == "audit_checkpoints" and column == "note" and row["size"] == corpus.size)
    )


@pytest.mark.parametrize(("table", "column", "times"), FLIPS)
async def test_each_flipped_bit_is_found(corpus, table, column, times):
    rng = random.Random(f"{SEED} {table}.{column}")
    for _ in range(times):
        async with corpus.tampering():
            row, bit = await flip(corpus, rng, table, column)
            case = f"seed {SEED}: {table}.{column}, bit {bit} of {row['bytes']!r}, in {dict(row)}"
            finding = await corpus.fsck(case)
            assert finding is not None, case
            expected = place(corpus, table, column, row, bit)
            assert expected is None or finding.position == expected, f"{finding}; {case}"
            if table == "update_logs":
                proven = await corpus.prove(row["id"])
                refused = isinstance(proven, str)
                assert refused or (column not in SALTED and proven == corpus.logged(row["id"])), case
            else:
                served = await corpus.serve()
                assert served != corpus.served or not is_served(corpus, table, column, row), case
                assert served == corpus.served or corpus.refused(served, corpus.notes[-1]), case


async def test_it_flips_at_least_a_thousand_bits_in_every_column_of_the_record_and_the_log(corpus):
    assert sum(times for _, _, times in FLIPS) >= 1000
    flipped = {(table, column) for table, column, _ in FLIPS}
    assert flipped | ELSEWHERE == {one for one in corpus.types if one[0] in {"update_logs", *LOG}}


@pytest.mark.parametrize("column", RECORD)
async def test_no_evidence_that_is_made_afterwards_shows_anything_else_than_what_was_recorded(corpus, column):
    rng = random.Random(f"{SEED} bundle {column}")
    async with corpus.tampering():
        row, bit = await flip(corpus, rng, "update_logs", column)
        position = corpus.records.index(row["id"])
        shown = await corpus.bundle(position)
    first = max(0, position - 3)
    recorded = [leaf.decode() for leaf in corpus.leaves[first : first + 7]]
    case = f"seed {SEED}: {column}, bit {bit} of {row['bytes']!r}, in {dict(row)}"
    assert isinstance(shown, str) or (column not in SALTED and shown == recorded), case


@pytest.mark.parametrize("name", tamperings.ALL)
async def test_whatever_is_deleted_inserted_exchanged_cut_or_filled_is_found(corpus, name):
    tampering, rng = tamperings.ALL[name], random.Random(f"{SEED} {name}")
    for _ in range(tampering.times):
        async with corpus.tampering():
            case = f"seed {SEED}: {await tamper(corpus, rng, tampering.statements)}"
            finding = await corpus.fsck(case)
            assert finding is not None or not tampering.told_by_fsck, case
            served = await corpus.serve()
            assert (served != corpus.served) == tampering.served, case
            assert not tampering.served or corpus.refused(served, corpus.notes[-1]), case


async def test_whoever_saved_a_checkpoint_is_told_by_the_verifiers_command(corpus, tmp_path, capsys):
    (tmp_path / "saved").write_text(corpus.notes[0])

    def verified() -> tuple[int, str]:
        command = (
            "log",
            corpus.folder,
            "--key",
            corpus.signer.verifier.vkey(),
            "--since-checkpoint",
            tmp_path / "saved",
            "--quiet",
        )
        return verifier.main([str(one) for one in command]), capsys.readouterr().out

    corpus.lay_out(corpus.served)
    assert verified()[0] == 0
    async with corpus.tampering() as villain:
        await villain.execute(
            "UPDATE audit_entries SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'failed', 'success'), 'UTF8')"
        )
        corpus.lay_out(await corpus.serve())
    code, said = verified()
    assert code == 1
    assert "NOT VERIFIED" in said
    assert "position" in said


async def test_a_hash_that_waits_for_the_tree_to_grow_over_it_is_never_signed(corpus):
    async with corpus.tampering() as villain:
        await villain.execute(
            "UPDATE audit_tiles SET hashes = hashes || sha256('planted') WHERE level = 0 AND index = 1"
        )
        for table in ("audit_tiles", "update_logs"):
            await villain.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        await villain.execute("INSERT INTO update_logs (result, message) VALUES ('success', 'one more')")
        assert await sequencer.sequence(villain) == 1
        with pytest.raises(asyncpg.PostgresError) as refused:
            await sequencer.integrate(villain)
        assert refused.value.sqlstate == "RF003"


async def test_the_bits_that_base64_leaves_over_are_no_way_around(corpus):
    """A signature's last character has bits that decode to nothing: a note that spells them otherwise is not what was signed."""
    note = corpus.notes[-1]
    body, _, padded = note.rpartition("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for bits in (1, 2, 3):
        altered = body[:-1] + alphabet[alphabet.index(body[-1]) ^ bits] + "=" + padded
        async with corpus.tampering() as villain:
            await villain.execute("UPDATE audit_checkpoints SET note = $1 WHERE size = $2", altered, corpus.size)
            assert await corpus.fsck(altered) is not None
            assert corpus.refused(await corpus.serve(), note)


@pytest.mark.parametrize("column", COMMAND)
async def test_each_flipped_bit_of_a_command_is_found_by_replay(corpus, column):
    rng = random.Random(f"{SEED} agent_commands.{column}")
    for _ in range(28):
        async with corpus.tampering():
            row, bit = await flip(corpus, rng, "agent_commands", column)
            case = f"seed {SEED}: agent_commands.{column}, bit {bit} of {row['bytes']!r}, in {dict(row)}"
            difference = await replay.first_difference(corpus.villain)
            assert difference is not None, case
            assert difference.command_id == row["id"], case
