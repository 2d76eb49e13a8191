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
from redflag.alerts import faults
from redflag.audit import canonical, fsck, merkle, sequencer, tree
from redflag.audit.checkpoint import Signer, Verifier, load_key, open_note
from redflag.audit.keeper import Keeper
from redflag.audit.memory import Memory
from redflag.audit.origins import RolledBack
from redflag.cli import checks
from redflag.database import faults as noted
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


async def test_large_outputs_are_taken_a_bounded_part_at_a_time_and_in_order(owner, pool):
    await _whole(pool)
    await owner.execute(
        "INSERT INTO update_logs (result, message, stdout, stderr)"
        " SELECT 'success', i::text, repeat('x', 600), repeat('y', 400) FROM generate_series(1, 9) i"
    )
    async with pool.acquire() as one:
        taken = []
        # The one that goes beyond the bound is taken still; a bound that is too small for any takes one
        for bound in (2500, 1, 1, 10_000_000):
            taken.append(await sequencer.sequence(one, most_bytes=bound))
        assert taken == [3, 1, 1, 4]
        assert await sequencer.sequence(one) == 0
    order = await owner.fetch(
        "SELECT message FROM audit_entries e JOIN update_logs u ON u.id = e.record_id WHERE u.stdout IS NOT NULL ORDER BY position"
    )
    assert [row["message"] for row in order] == [str(i) for i in range(1, 10)]


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


async def test_a_record_that_no_leaf_can_hold_stops_no_other_and_is_named(
    owner, pool, postgres, database, signer, memory
):
    failed: list[str] = []
    keeper = Keeper(pool, signer, memory, failed.append)
    async for superuser in connection(postgres.url("postgres", database)):
        await superuser.execute("ALTER TABLE update_logs DISABLE TRIGGER ALL")
        odd = await superuser.fetchval(
            "INSERT INTO update_logs (created_at, actor, result) VALUES (now() - interval '2 minutes', 'user:x', 'success') RETURNING id"
        )
        await superuser.execute("INSERT INTO audit_pending SELECT created_at, id FROM update_logs WHERE id = $1", odd)
        await superuser.execute("ALTER TABLE update_logs ENABLE ALWAYS TRIGGER update_logs_admit")
    await _records(owner, 5)
    noted.waiting.clear()
    assert not await keeper.go()
    assert not await keeper.go()
    assert failed == ["sequence"]
    async with pool.acquire() as one:
        assert await owner.fetchval("SELECT count(*) FROM audit_pending") == 1
        await faults.store(one, "tests")
        (told,) = await faults.passed_over(one)
        health = await sequencer.health(one)
    assert told["id"] == str(odd)
    assert told["seconds"] > 119
    assert f"Record {odd} cannot be put into the log" in told["why"]
    assert health["pending"] == 1
    assert health["unpublished_seconds"] == pytest.approx(health["lag_seconds"], abs=1)
    assert health["unpublished_seconds"] > 119
    check = checks.audit_log(health | {"passed_over": [told]}, None)
    assert check.verdict == checks.Verdict.FAILED
    assert str(odd) in check.found


@pytest.mark.parametrize(
    "query", [sequencer.sql.take, sequencer.sql.waiting, fsck.sql.page], ids=lambda query: query.name
)
async def test_rows_end_with_the_columns_in_the_order_in_which_a_leaf_reads_them(owner, query):
    names = [column.name for column in (await owner.prepare(query.text)).get_attributes()]
    assert tuple(names[-len(canonical.ROW) :]) == canonical.ROW


async def test_how_far_the_log_is_says_what_waits_for_which_step_and_how_long(owner, pool, signer, memory):
    async with pool.acquire() as one:
        empty = await sequencer.health(one)
        assert (empty["origin"], empty["size"], empty["published_at"]) == (None, 0, None)
        await _records(owner, 3)
        waits = await sequencer.health(one)
        assert waits["pending"] == empty["pending"] + 3
        assert 0 < waits["lag_seconds"] < 60
        await _whole(pool)
        placed = await sequencer.health(one)
        assert (placed["pending"], placed["lag_seconds"]) == (0, 0)
        assert placed["sequenced"] == placed["integrated"] == waits["pending"]
        assert placed["unpublished_seconds"] > waits["unpublished_seconds"]
        await sequencer.publish(one, signer, memory)
        signed = await sequencer.health(one)
        assert (signed["origin"], signed["size"], signed["unpublished_seconds"]) == (
            "example.com/log",
            placed["integrated"],
            0,
        )
        assert signed["published_at"] is not None
        assert await sequencer.idle(one)


async def test_a_replica_that_has_nothing_to_do_remembers_what_another_one_signed(
    owner, pool, signer, memory, tmp_path, monkeypatch
):
    monkeypatch.setattr("redflag.audit.keeper.ANYWAY_SECONDS", 0.0)
    other = Memory(tmp_path / "others-checkpoint", signer)
    keeper = Keeper(pool, signer, other, lambda step: None)
    await _records(owner, 2)
    await _whole(pool)
    async with pool.acquire() as one:
        signed = await sequencer.publish(one, signer, memory)
        assert signed
        assert await sequencer.idle(one)
    assert not await keeper.go()
    assert other.newest == signed


async def test_the_head_is_signed_now_and_then_while_there_is_always_more_to_do(
    owner, pool, signer, memory, monkeypatch
):
    monkeypatch.setattr(sequencer, "BATCH", 10)
    monkeypatch.setattr("redflag.audit.keeper.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(sequencer.sequence, "__defaults__", (10, None, sequencer.MOST_BYTES))
    await _records(owner, 40)
    keeper = Keeper(pool, signer, memory, lambda step: None)
    assert await keeper.go(), "there is more"
    assert memory.newest is not None
    assert memory.newest.size == 10


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
