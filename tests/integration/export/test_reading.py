"""Reading by position: what is selected, all of it, once, in pages that are bounded however large the records are."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from databases import connection
from integration.audit import evidence
from redflag.audit.export import reading
from redflag.audit.export.reading import Selection
from redflag.database.embedded import EmbeddedDatabase


@pytest_asyncio.fixture(scope="module")
async def here(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[evidence.Place]:
    """A log of a few thousand records, some of them large."""
    async with evidence.place(postgres, "export_reading", tmp_path_factory.mktemp("reading")) as made:
        for part in range(4):
            await made.owner.execute(
                "INSERT INTO update_logs (result, message, stdout) SELECT CASE WHEN i % 500 = 0 THEN 'failed' ELSE 'success' END, "
                "'note ' || i, CASE WHEN i % 100 = 0 THEN repeat('x', 900000) END FROM generate_series($1::int, $1 + 599) AS i",
                part * 600,
            )
            made.known[part] = await made.now()
            await made.seal()
        yield made


async def _positions(here: evidence.Place, selection: Selection, **more: int) -> list[int]:
    async with here.pool.acquire() as server:
        first, end = await reading.bounds(server, selection)
        return [one.position async for one in reading.entries(server, selection, first=first, end=end, **more)]


async def _expected(here: evidence.Place, where: str, *arguments: Any) -> list[int]:
    rows = await here.owner.fetch(
        f"SELECT position FROM audit_entries e JOIN update_logs u ON u.id = e.record_id WHERE {where} ORDER BY position",
        *arguments,
    )
    return [row["position"] for row in rows]


@pytest.mark.parametrize("chunk", [5, 100, 5000])
async def test_every_position_is_read_once_in_order_whatever_the_page(here, chunk):
    found = await _positions(here, Selection(since=here.known[2]), chunk=chunk)
    assert found == await _expected(here, "u.created_at >= $1", here.known[2])
    assert len(found) == 600


@pytest.mark.parametrize("chunk", [2, 100])
async def test_few_records_among_many_are_all_found_in_few_statements(here, chunk):
    found = await _positions(here, Selection(result="failed"), chunk=chunk)
    assert found == await _expected(here, "u.result = 'failed'")
    assert len(found) == 5
    async with here.pool.acquire() as server:
        at, width, pages = 0, chunk, 0
        while at < 2400:
            page = await reading.page(server, Selection(result="failed"), first=at, end=2400, most=chunk, width=width)
            at, width, pages = page.next, page.width, pages + 1
    assert pages < 20


async def test_a_period_has_exactly_the_bounds_of_what_was_recorded_in_it(here):
    for since, until in ((None, None), (0, None), (None, 1), (0, 2), (2, 0), (3, None)):
        chosen = Selection(
            since=None if since is None else here.known[since], until=None if until is None else here.known[until]
        )
        expected = await _expected(
            here,
            "($1::timestamptz IS NULL OR u.created_at >= $1) AND ($2::timestamptz IS NULL OR u.created_at < $2)",
            chosen.since, chosen.until,
        )  # fmt: skip
        async with here.pool.acquire() as server:
            first, end = await reading.bounds(server, chosen)
        assert list(range(first, end)) == expected
        assert await _positions(here, chosen) == expected


async def test_a_record_that_came_late_to_its_position_is_within_the_bounds_of_its_period(
    postgres: EmbeddedDatabase, tmp_path: Path
):
    async with evidence.place(postgres, evidence.new_name("export"), tmp_path) as here:
        await here.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 50)")
        database = await here.owner.fetchval("SELECT current_database()")
        async for slow in connection(postgres.url("redflag_owner", database)):
            async with slow.transaction():
                # Recorded now, and committed only after others have their positions
                late = await slow.fetchval("INSERT INTO update_logs (result) VALUES ('success') RETURNING created_at")
                await here.owner.execute(
                    "INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 50)"
                )
                await here.seal()
            await here.seal()
        just = Selection(since=late, until=late + datetime.timedelta(microseconds=1))
        assert await _positions(here, just) == [100]
        assert 100 in await _positions(here, Selection(until=late + datetime.timedelta(microseconds=1)))


async def test_a_page_ends_where_its_bytes_end_but_has_one_record(here, monkeypatch):
    async with here.pool.acquire() as server:
        page = await reading.page(server, Selection(), first=0, end=2400, most=2000, width=2000)
        size = sum(len(entry.record["stdout"] or "") for entry in page.entries)
        assert size <= reading.PAGE_BYTES + 900_000
        assert page.next == page.entries[-1].position + 1 < 1000
        monkeypatch.setattr(reading, "PAGE_BYTES", 10)
        page = await reading.page(server, Selection(), first=0, end=2400, most=2000, width=2000)
        assert [entry.position for entry in page.entries] == [0]


async def test_what_no_checkpoint_covers_is_not_read(here):
    before = await _positions(here, Selection())
    await here.owner.execute("INSERT INTO update_logs (result) VALUES ('success')")
    assert await _positions(here, Selection()) == before
    await here.seal()
    assert len(await _positions(here, Selection())) == len(before) + 1


async def test_an_empty_log_has_empty_bounds(postgres: EmbeddedDatabase, tmp_path: Path):
    async with evidence.place(postgres, evidence.new_name("export"), tmp_path) as here:
        now = await here.now()
        for chosen in (Selection(), Selection(since=now), Selection(until=now)):
            async with here.pool.acquire() as server:
                first, end = await reading.bounds(server, chosen)
            assert first == end
