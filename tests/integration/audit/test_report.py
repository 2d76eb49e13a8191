"""The compliance report says what SQL says, and says honestly what it cannot show."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from integration.audit.evidence import HOSTILE, Place, make_history, new_name, place
from redflag.audit import actor as actors
from redflag.audit import erasure, events, holds, report, report_pages
from redflag.audit.export.reading import Selection
from redflag.audit.report import Report
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import InvalidInput

DAY = datetime.timedelta(days=1)


@pytest_asyncio.fixture(scope="module")
async def here(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Something of every kind, all of it in a signed checkpoint."""
    async with place(postgres, new_name("report"), tmp_path_factory.mktemp("report")) as one:
        await make_history(one)
        yield one


async def _report(here: Place, most: int = report.MOST, **filters: Any) -> Report:
    now = await here.now()
    asked = {"since": here.known["before"], "until": now} | filters
    async with here.pool.acquire() as connection:
        return await report.gather(connection, here.signer.verifier, Selection(**asked), most)


def _rows(listed: report.Listed, *names: str) -> set[tuple[Any, ...]]:
    return {tuple(row[name] for name in names) for row in listed.rows}


async def test_commands_by_type_and_outcome_are_what_sql_counts(here: Place) -> None:
    told = await _report(here)
    rows = await here.owner.fetch(
        "SELECT command_type, result, count(*) AS times FROM update_logs WHERE kind = 'transition' AND created_at >= $1 GROUP BY 1, 2",
        here.known["before"],
    )
    counted = {(row["command_type"], row["result"]): row["times"] for row in rows}
    for row in told.commands.rows:
        for outcome in ("success", "partial", "failed", "error", "timed_out", "cancelled"):
            assert row[outcome] == counted.get((row["command_type"], outcome), 0)
    assert sum(row["enqueued"] for row in told.commands.rows) == await here.owner.fetchval(
        "SELECT count(*) FROM agent_commands"
    )
    assert sum(row["late_results"] for row in told.commands.rows) == 1
    assert told.commands.of == len(told.commands.rows) == 2


async def test_every_timeout_is_listed_with_what_became_of_it(here: Place) -> None:
    told = await _report(here)
    assert told.timeouts.of == len(told.timeouts.rows) == 3
    by_command = {row["command_id"]: row for row in told.timeouts.rows}
    late, never, idle = (by_command[here.known[name]] for name in ("late", "never", "idle"))
    assert 10_800 <= late["stuck_seconds"] < 10_900
    assert (late["reason"], late["reported"], late["retried_as"]) == ("no_response", "success", None)
    assert (never["reason"], never["reported"]) == ("not_delivered", None)
    assert (never["retried_as"], never["retried_by"], never["retry_status"]) == (
        here.known["retried"],
        "user:bob",
        "pending",
    )
    assert (idle["command_type"], idle["reported"], idle["retried_as"]) == ("reboot", None, None)
    assert _rows(told.timeouts_by_reason, "command_type", "reason", "timeouts", "reported_later", "retried") == {
        ("reboot", "no_response", 1, 0, 0),
        ("scan_updates", "no_response", 1, 1, 0),
        ("scan_updates", "not_delivered", 1, 0, 1),
    }
    page = report_pages.html(told)
    assert "the agent reported success" in page
    assert f"by user:bob as {here.known['retried']}: pending now" in page
    assert "nothing is recorded since" in page


async def test_who_did_what_adds_up_to_every_record_of_the_period(here: Place) -> None:
    told = await _report(here)
    assert sum(row["times"] for row in told.activity.rows) == told.completeness.records
    assert ("user:ada", "user_created", "success", 1) in _rows(told.activity, "actor", "action", "result", "times")
    assert ("db:redflag_owner", "inserted by hand", "success", 1) in _rows(
        told.activity, "actor", "action", "result", "times"
    )
    assert told.agents_seen == 1
    assert not any(row["actor"].startswith("agent:") for row in told.activity.rows)


async def test_refused_access_is_counted_by_name_and_by_address(here: Place) -> None:
    told = await _report(here)
    assert ("user:mallory", "access_refused", 1) in _rows(told.refused_names, "actor", "action", "minutes")
    assert _rows(told.refused_addresses, "address", "without_name", "with_name", "last_asked") == {
        ("198.51.100.3", 7, 0, "GET /secret"),
        ("203.0.113.9", 0, 1, None),
    }


async def test_decisions_and_changes_name_who_and_what(here: Place) -> None:
    told = await _report(here)
    assert _rows(told.decisions, "actor", "package_name", "old_status", "new_status", "approved_version", "reason") == {
        ("user:ada", "openssl", "pending", "approved", "3.0.1", None),
        ("user:bob", "vim", "pending", "rejected", None, HOSTILE),
    }
    assert [row["action"] for row in told.changes.rows] == [
        "user_created",
        "user_role_changed",
        "token_created",
        "policy_changed",
    ]
    assert "role: viewer → auditor" in told.changes.rows[1]["message"]
    assert told.changes.rows[1]["address"] == "192.0.2.1"


async def test_completeness_is_stated_with_positions_and_the_checkpoint(here: Place) -> None:
    found = (await _report(here)).completeness
    size = here.known["first_size"]
    newest = await here.owner.fetchrow("SELECT * FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
    assert found.records == await here.owner.fetchval(
        "SELECT count(*) FROM update_logs WHERE created_at >= $1", here.known["before"]
    )
    assert (found.waiting, found.findings, found.last_position) == (0, [], size - 1)
    assert found.positions == found.placed == found.records
    assert found.checkpoint is not None
    assert (found.checkpoint.size, found.checkpoint.root) == (newest["size"], newest["root"].hex())
    assert found.fsck is None
    assert "none is recorded; run redflag audit fsck" in report_pages.html(await _report(here))


async def test_a_report_of_a_shorter_period_tells_of_it_only(here: Place) -> None:
    empty = await _report(here, since=here.known["before"] - DAY, until=here.known["before"] - DAY / 2)
    assert (empty.completeness.records, empty.completeness.first_position, empty.commands.of, empty.activity.of) == (
        0,
        None,
        0,
        0,
    )
    assert empty.completeness.findings == []
    assert report_pages.html(empty).count("None.") >= 8
    ahead = await _report(here, until=here.known["before"] + 300 * DAY)
    assert ahead.until <= await here.now()


async def test_with_filters_it_speaks_of_what_passes_them(here: Place) -> None:
    told = await _report(here, actor="user:ada")
    assert {row["actor"] for row in told.activity.rows} == {"user:ada"}
    assert (told.timeouts.of, told.refused_names.of, told.refused_addresses.of, told.agents_seen) == (0, 0, 0, 0)
    assert {row["actor"] for row in told.decisions.rows} == {"user:ada"}
    one = await _report(here, command_id=here.known["never"])
    assert [row["retried_by"] for row in one.timeouts.rows] == ["user:bob"]
    assert one.completeness.records == (await _report(here)).completeness.records
    assert "Filter: command_id" in report_pages.html(one)


async def test_a_list_that_is_cut_says_of_how_many(here: Place) -> None:
    told = await _report(here, most=2)
    assert (len(told.timeouts.rows), told.timeouts.of) == (2, 3)
    whole = await _report(here)
    assert (len(told.activity.rows), told.activity.of) == (2, whole.activity.of)
    assert "The first 2 of 3; the evidence bundle of the period has all." in report_pages.html(told)


async def test_what_is_done_to_the_record_is_told(postgres: EmbeddedDatabase, tmp_path: Any) -> None:
    async with place(postgres, new_name("custody"), tmp_path) as here:
        here.known["before"] = await here.now()
        await here.owner.execute(
            "INSERT INTO update_logs (result, message) VALUES ('success', 'Ada Lovelace was here')"
        )
        record = await here.owner.fetchval("SELECT id FROM update_logs WHERE message LIKE 'Ada%'")
        await here.seal()
        async with here.pool.acquire() as connection:
            await erasure.erase(connection, actors.user("ada"), record, ["message"], "asked for by its subject")
            hold = await holds.place(connection, actors.user("ada"), "case 7", "a dispute")
            await holds.release(connection, actors.user("ada"), hold["id"])
            await events.record_read(
                connection, actors.user("eve"), action="audit_exported", session="s", query="everything"
            )
            await events.record(
                connection, actors.service("fsck", "host"), kind="service", action="fsck", result="success",
                message="examined 1 events", signatures_checked=True,
            )  # fmt: skip
            await events.record(
                connection, actors.service("fsck", "other"), kind="service", action="fsck", result="failed",
                message="a position of the log is missing", signatures_checked=False,
            )  # fmt: skip
        told = await _report(here)
        assert [row["action"] for row in told.custody.rows] == [
            "record_erased", "legal_hold_created", "legal_hold_changed", "audit_exported", "fsck", "fsck",
        ]  # fmt: skip
        assert (told.changes.of, told.service.of) == (0, 0)
        assert told.completeness.fsck is not None
        assert told.completeness.fsck["actor"] == "service:fsck@other"
        page = report_pages.html(told)
        assert "NOT WHOLE: a position of the log is missing (signatures not checked)" in page
        assert told.completeness.waiting == 6
        assert told.completeness.findings == []
        await here.seal()
        assert (await _report(here)).completeness.waiting == 0


async def test_what_is_missing_is_found_and_said(postgres: EmbeddedDatabase, tmp_path: Any) -> None:
    async with place(postgres, new_name("missing"), tmp_path) as here:
        await make_history(here)
        for table in ("update_logs", "audit_entries", "audit_pending"):
            await here.owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await here.owner.execute("DELETE FROM update_logs WHERE command_id = $1 AND version = 2", here.known["sent"][0])
        assert (await _report(here)).completeness.findings == [
            "1 records are gone from the table",
            f"1 commands have a gap in their versions, one of them {here.known['sent'][0]}",
        ]
        await here.owner.execute("DELETE FROM audit_entries WHERE position = 5")
        findings = (await _report(here)).completeness.findings
        assert "positions are missing, the first of them 5" in findings
        page = report_pages.html(await _report(here))
        assert "positions are missing, the first of them 5" in page
        await here.owner.execute("INSERT INTO update_logs (result, actor) VALUES ('success', 'db:x')")
        said = (await _report(here)).completeness.findings
        assert "1 records have no position" in said
        await here.owner.execute("DELETE FROM update_logs WHERE kind = 'late_result'")
        said = (await _report(here)).completeness.findings
        assert "the records in the table are as many as those in the log, and not the same" in said


@pytest.mark.parametrize(
    ("since", "until", "what"),
    [
        (None, None, "of a period"),
        (DAY, DAY, "before it begins"),
        (2 * DAY, DAY, "before it begins"),
        (DAY * 0, 401 * DAY, "longer than 400 days"),
    ],
)
def test_a_period_that_is_none_or_too_long_is_refused(since: Any, until: Any, what: str) -> None:
    began = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    selection = Selection(
        since=None if since is None else began + since, until=None if until is None else began + until
    )
    with pytest.raises(InvalidInput, match=what):
        report.require_period(selection)


async def test_as_json_it_is_all_there_for_programs(here: Place) -> None:
    told = json.loads((await _report(here)).json())
    assert told["completeness"]["findings"] == []
    assert told["timeouts"]["of"] == 3
    assert told["timeouts"]["rows"][0]["agent"] == HOSTILE
    assert {one["framework"] for one in told["controls"]} == {
        "PCI DSS v4.0.1", "ISO/IEC 27001:2022", "NIST SP 800-53 Rev. 5", "SOC 2 (TSC 2017)",
    }  # fmt: skip
