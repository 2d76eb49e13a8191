"""From the outbox to a signed checkpoint: gap-free, each record once, whoever does the steps and wherever they are stopped."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from databases import connection, connections, make_database
from redflag.audit import canonical, merkle, sequencer, tree
from redflag.audit.checkpoint import Signer, Verifier, load_key, open_note
from redflag.audit.sequencer import Memory, RolledBack
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict


@pytest_asyncio.fixture
async def database(postgres: EmbeddedDatabase) -> str:
    """A log of its own."""
    name = f"log_{uuid.uuid4().hex[:8]}"
    await make_database(postgres, name)
    return name


@pytest_asyncio.fixture
async def owner(postgres: EmbeddedDatabase, database: str) -> AsyncIterator[Any]:
    async for opened in connection(postgres.url("redflag_owner", database)):
        yield opened


@pytest_asyncio.fixture
async def pool(postgres: EmbeddedDatabase, database: str) -> AsyncIterator[Any]:
    async for opened in connections(postgres.url("redflag_server", database), 8):
        yield opened


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_key("example.com/log", tmp_path / "log.key")


@pytest.fixture
def memory(tmp_path: Path, signer: Signer) -> Memory:
    return Memory(tmp_path / "newest-checkpoint", signer)


async def _records(owner: Any, count: int) -> None:
    await owner.execute(
        "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, $1) i", count
    )


async def _whole(pool: Any) -> None:
    async with pool.acquire() as one:
        while await sequencer.sequence(one) > 0:
            pass
        while await sequencer.integrate(one) > 0:
            pass


async def _leaves(owner: Any) -> list[bytes]:
    rows = await owner.fetch("SELECT position, leaf FROM audit_entries ORDER BY position")
    assert [row["position"] for row in rows] == list(range(len(rows)))
    return [row["leaf"] for row in rows]


@pytest.mark.parametrize("counts", [(1,), (255, 1, 1), (256,), (300, 300), (700, 1, 5)], ids=str)
async def test_the_tree_is_that_of_the_records_whatever_the_batches(owner, pool, counts):
    await _whole(pool)
    for count in counts:
        await _records(owner, count)
        await _whole(pool)
    leaves = await _leaves(owner)
    records = await owner.fetch("SELECT id FROM update_logs ORDER BY created_at, id")
    assert len(leaves) == len(records)
    async with pool.acquire() as one:
        assert await tree.root(one, len(leaves)) == merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves])
    assert await owner.fetchval("SELECT count(*) FROM audit_pending") == 0


async def test_sixteen_writers_with_rollbacks_and_eight_sequencers_lose_nothing_and_double_nothing(
    owner, pool, postgres, database
):
    done = asyncio.Event()

    async def write(number: int) -> None:
        async for mine in connection(postgres.url("redflag_owner", database)):
            for i in range(30):
                try:
                    async with mine.transaction():
                        await mine.execute(
                            "INSERT INTO update_logs (result, message) VALUES ('success', $1)", f"{number}/{i}"
                        )
                        if i % 3 == 0:
                            await asyncio.sleep(0.002)
                        if i % 5 == 0:
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    continue

    async def work(step: Any) -> None:
        while not done.is_set():
            async with pool.acquire() as one:
                await step(one, 50)
            await asyncio.sleep(0)

    workers = [asyncio.create_task(work(step)) for step in (sequencer.sequence, sequencer.integrate) for _ in range(3)]
    await asyncio.gather(*[write(number) for number in range(16)])
    done.set()
    await asyncio.gather(*workers)
    await _whole(pool)
    leaves = await _leaves(owner)
    written = await owner.fetch("SELECT id FROM update_logs WHERE kind = 'note'")
    assert len(written) == 16 * 24
    assert {canonical.decoder.decode(leaf)["id"] for leaf in leaves} >= {str(row["id"]) for row in written}
    assert len(leaves) == await owner.fetchval("SELECT count(*) FROM update_logs")
    async with pool.acquire() as one:
        assert await tree.root(one, len(leaves)) == merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves])


@pytest.mark.parametrize("step", ["sequence", "integrate"])
async def test_a_step_that_is_cut_off_has_not_happened(owner, pool, postgres, database, step):
    await _records(owner, 20)
    if step == "integrate":
        async with pool.acquire() as one:
            await sequencer.sequence(one)
    before = await owner.fetchrow("SELECT sequenced, integrated FROM audit_log")
    cut = await asyncpg.connect(postgres.url("redflag_server", database))
    await cut.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=str, format="text")
    transaction = cut.transaction()
    await transaction.start()
    assert await getattr(sequencer, step)(cut) > 0  # inside a transaction that is never committed
    cut.terminate()
    for _ in range(500):  # until the database has noticed, and let go of the step
        await _whole(pool)
        if await owner.fetchval("SELECT count(*) FROM audit_pending") == 0:
            break
        await asyncio.sleep(0.01)
    await _whole(pool)
    after = await owner.fetchrow("SELECT sequenced, integrated FROM audit_log")
    leaves = await _leaves(owner)
    assert (
        after["sequenced"]
        == after["integrated"]
        == len(leaves)
        == await owner.fetchval("SELECT count(*) FROM update_logs")
    )
    assert before["integrated"] == 0


async def test_a_checkpoint_is_signed_once_for_a_size_and_verifies_with_the_pinned_key(owner, pool, signer, memory):
    await _records(owner, 10)
    await _whole(pool)
    pinned = Verifier.parse(signer.verifier.vkey())
    async with pool.acquire() as one:
        first = await sequencer.publish(one, signer, memory)
        assert first is not None
        assert await sequencer.publish(one, signer, memory) is None
        opened = open_note(first.note, pinned)
        assert (opened.origin, opened.size, opened.root) == (
            "example.com/log",
            first.size,
            await tree.root(one, first.size),
        )
    await _records(owner, 300)
    await _whole(pool)
    async with pool.acquire() as one:
        second = await sequencer.publish(one, signer, memory)
        assert second is not None
        proof = await tree.consistency(one, first.size, second.size)
        assert merkle.verify_consistency(first.size, first.root, second.size, second.root, proof)
        position = await owner.fetchval("SELECT max(position) FROM audit_entries")
        leaf = await owner.fetchval("SELECT leaf FROM audit_entries WHERE position = $1", position)
        path = await tree.inclusion(one, second.size, position)
        assert merkle.verify_inclusion(merkle.leaf_hash(leaf), position, second.size, path, second.root)
    assert memory.newest == second


async def test_a_log_that_was_rolled_back_or_rewritten_is_noticed_and_nothing_is_signed(
    owner, pool, signer, memory, tmp_path, postgres, database
):
    await _records(owner, 5)
    await _whole(pool)
    async with pool.acquire() as one:
        await sequencer.publish(one, signer, memory)
    # As after the restore of an old backup: the tree is smaller than what this server signed
    other = f"{database}_restored"
    await make_database(postgres, other)
    async for restored in connections(postgres.url("redflag_server", other), 2):
        await _whole(restored)
        async with restored.acquire() as one:
            with pytest.raises(RolledBack, match="the database was rolled back"):
                await sequencer.publish(one, signer, Memory(tmp_path / "newest-checkpoint", signer))
            assert await one.fetchval("SELECT count(*) FROM audit_checkpoints") == 0
    # Grown past it with other records: it does not begin with what was signed
    async for its_owner in connection(postgres.url("redflag_owner", other)):
        await _records(its_owner, 50)
    async for restored in connections(postgres.url("redflag_server", other), 2):
        await _whole(restored)
        async with restored.acquire() as one:
            with pytest.raises(RolledBack, match="does not begin with the one"):
                await sequencer.publish(one, signer, memory)


async def test_the_log_keeps_its_name(owner, pool, signer, memory, tmp_path):
    await _records(owner, 1)
    await _whole(pool)
    renamed = load_key("example.com/other", tmp_path / "log.key")
    async with pool.acquire() as one:
        await sequencer.publish(one, signer, memory)
        with pytest.raises(Conflict, match=r"This log is called example\.com/log"):
            await sequencer.publish(one, renamed, Memory(tmp_path / "other", renamed))


async def test_positions_tiles_and_checkpoints_are_not_changed_by_anybody(owner, pool, signer, memory):
    await _records(owner, 3)
    await _whole(pool)
    async with pool.acquire() as one:
        await sequencer.publish(one, signer, memory)
    for statement in (
        "UPDATE audit_entries SET leaf = 'x'", "DELETE FROM audit_entries", "TRUNCATE audit_entries", "DELETE FROM audit_checkpoints",
        "UPDATE audit_checkpoints SET note = 'x'", "DELETE FROM audit_tiles", "UPDATE audit_tiles SET hashes = sha256('x')",
    ):  # fmt: skip
        with pytest.raises(asyncpg.PostgresError) as refused:
            await owner.execute(statement)
        assert refused.value.sqlstate == "RF003", statement


async def test_no_record_holds_a_secret_in_its_leaf(owner, pool):
    await owner.execute(
        """
        INSERT INTO update_logs (result, message, stdout, stderr, params, metadata)
        VALUES ('success', 'alice did it', 'output of alice', 'more', '{"who": "alice"}', '{"address": "192.0.2.77", "note": "alice"}')
        """
    )
    await _whole(pool)
    leaves = b"".join(await _leaves(owner))
    for secret in (b"alice", b"192.0.2.77", b"output"):
        assert secret not in leaves
