"""What the database refuses to the server itself is logged at once, counted, and raises an alert."""

from __future__ import annotations

import logging

import asyncpg
import pytest

from redflag.alerts import faults as stored
from redflag.alerts import rules
from redflag.database import faults


@pytest.fixture(autouse=True)
def _nothing_waits():
    faults.waiting.clear()
    yield
    faults.waiting.clear()


async def test_a_violated_constraint_of_the_servers_own_is_logged_stored_and_fires_the_critical_alert(pool, caplog):
    async with pool.acquire() as connection:
        before = {row["kind"]: row["faults"] for row in await stored.sql.totals.all(connection)}
        with caplog.at_level(logging.CRITICAL), pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO update_logs (kind, actor, result) VALUES ('access', 'service:tests', 'no_such_result')"
            )
        assert "database constraint violation" in caplog.text
        assert await stored.store(connection, "tests") == 2  # the violation, and that it was a record
        assert not faults.waiting
        after = {row["kind"]: row["faults"] for row in await stored.sql.totals.all(connection)}
        assert after["constraint_violation"] == before.get("constraint_violation", 0) + 1
        assert after["audit_write_refused"] == before.get("audit_write_refused", 0) + 1
        firing = {one.rule.name: one for one in await rules.firing(connection)}
        assert firing["RedFlagConstraintViolation"].rule.severity == "critical"
        assert "RedFlagAuditWriteRefused" in firing
        await connection.execute("DELETE FROM service_faults")
        assert await rules.firing(connection) == []


async def test_a_constraint_that_somebody_else_violates_is_not_the_servers_fault(migrated, dsn_owner):
    by_hand = await asyncpg.connect(dsn_owner)
    with pytest.raises(asyncpg.CheckViolationError):
        await by_hand.execute("INSERT INTO update_logs (result) VALUES ('no_such_result')")
    await by_hand.close()
    assert not faults.waiting


async def test_more_than_three_failed_sweeps_in_five_minutes_fire_the_alert_and_three_do_not(pool):
    async with pool.acquire() as connection:
        for _ in range(3):
            faults.note("sweep_failed", "the database was away")
        await stored.store(connection, "tests")
        assert "RedFlagTimeoutServiceFails" not in {one.rule.name for one in await rules.firing(connection)}
        faults.note("sweep_failed", "the database was away")
        await stored.store(connection, "tests")
        firing = {one.rule.name: one for one in await rules.firing(connection)}
        assert firing["RedFlagTimeoutServiceFails"].faults == 4
        assert firing["RedFlagTimeoutServiceFails"].last_detail == "the database was away"
        await connection.execute("DELETE FROM service_faults")


async def test_what_cannot_be_stored_stays_and_comes_with_the_next_try(pool, dsn_server):
    faults.note("sweep_failed", "first")
    closed = await asyncpg.connect(dsn_server)
    await closed.close()
    with pytest.raises(asyncpg.InterfaceError):
        await stored.store(closed, "tests")
    assert len(faults.waiting) == 1
    async with pool.acquire() as connection:
        assert await stored.store(connection, "tests") == 1
        await connection.execute("DELETE FROM service_faults")
