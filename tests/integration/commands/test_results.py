"""What an agent reports ends its command once; said again it changes nothing; and said after the end it is kept beside it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from integration.commands.helpers import (
    MINUTE,
    agent_actor,
    command,
    make_agent,
    make_command,
    move_deadline,
    records,
    replay,
    results,
    until,
)
from redflag.commands.results import Outcome, Report, report
from redflag.commands.states import TERMINAL, Result, Status
from redflag.errors import Conflict, NotFound
from redflag.timeouts.sweeper import Sweeper

SUCCESS = Report("success", action="scan", stdout="12 found", exit_code=0, duration_seconds=3)
FAILURE = Report("failed", action="scan", stderr="no network", exit_code=100, duration_seconds=4)


async def tell(
    connection: Any, agent_id: uuid.UUID, command_id: uuid.UUID, told: Report, *, max_output: int = 1024 * 1024
) -> Outcome:
    """A report, as its agent makes it."""
    return await report(connection, agent_actor(agent_id), agent_id, command_id, told, max_output=max_output)


@pytest.mark.parametrize("status", [Status.SENT, Status.RUNNING])
async def test_the_first_report_ends_the_command_and_is_in_its_record(
    status: Status, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, status)
    outcome = await tell(server, agent_id, one, FAILURE)
    assert (outcome.received, outcome.status, outcome.command_type) == ("recorded", Status.FAILED, "scan_updates")
    told = (await records(owner, one))[-1]
    assert (told["actor"], told["result"], told["action"]) == (f"agent:{agent_id}", "failed", "scan")
    assert (told["stderr"], told["exit_code"], told["duration_seconds"]) == ("no network", 100, 4)
    row = await command(owner, one)
    assert told["completed_at"] == row["completed_at"] is not None
    assert (row["next_deadline_at"], row["deadline_kind"]) == (None, None)


@pytest.mark.parametrize(
    ("word", "status", "result"),
    [
        ("success", "completed", "success"),
        ("completed", "completed", "success"),
        ("installed", "completed", "success"),
        ("partial", "completed", "partial"),
        ("failed", "failed", "failed"),
        ("error", "failed", "error"),
        ("timed_out", "failed", "failed"),
        ("SUCCESS", "completed", "success"),
    ],
)
async def test_the_words_of_agents_are_understood(
    word: str, status: str, result: str, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    await tell(server, agent_id, one, Report(word))
    assert ((await command(owner, one))["status"], (await records(owner, one))[-1]["result"]) == (status, result)


@pytest.mark.parametrize("word", ["done-ish", "", "okay", "x" * 5000, "ok\x00"])
async def test_an_unknown_word_is_an_error_and_is_kept_verbatim(
    word: str, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    outcome = await tell(server, agent_id, one, Report(word))
    told = (await records(owner, one))[-1]
    assert (outcome.status, told["result"]) == (Status.FAILED, Result.ERROR)
    assert told["metadata"]["reported_result"] == word.replace("\x00", "\ufffd")[:200]


async def test_the_same_report_again_changes_nothing(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    assert (await tell(server, agent_id, one, SUCCESS)).received == "recorded"
    before = await command(owner, one), await records(owner, one, None)
    for _ in range(3):
        outcome = await tell(server, agent_id, one, SUCCESS)
        assert (outcome.received, outcome.status) == ("already_recorded", Status.COMPLETED)
    assert (await command(owner, one), await records(owner, one, None)) == before


@pytest.mark.parametrize("round_", range(5))
async def test_of_equal_reports_at_once_one_is_recorded(
    round_: int, pool: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)

    async def say() -> str:
        async with pool.acquire() as connection:
            return (await tell(connection, agent_id, one, SUCCESS)).received

    told = await asyncio.gather(*(say() for _ in range(8)))
    assert sorted(told) == ["already_recorded"] * 7 + ["recorded"]
    assert await results(owner, one) == ["sent", "success"]
    assert await records(owner, one, "late_result") == []


@pytest.mark.parametrize("round_", range(5))
async def test_of_different_reports_at_once_one_ends_it_and_each_other_is_recorded_as_late(
    round_: int, pool: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)

    async def say(n: int) -> str:
        async with pool.acquire() as connection:
            return (await tell(connection, agent_id, one, Report("success", stdout=f"try {n}"))).received

    told = await asyncio.gather(*(say(n) for n in range(8)))
    assert sorted(told) == ["late"] * 7 + ["recorded"]
    assert await results(owner, one) == ["sent", "success"]
    late = await records(owner, one, "late_result")
    assert len({record["stdout"] for record in late}) == 7


async def test_a_report_that_waited_for_the_commands_end_comes_late_and_is_recorded(
    server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    async with owner.transaction():
        await owner.execute("UPDATE agent_commands SET status = 'timed_out' WHERE id = $1", one)
        waiting = asyncio.create_task(tell(server, agent_id, one, SUCCESS))
        await until(owner, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        assert not waiting.done()
    outcome = await waiting
    assert (outcome.received, outcome.status) == ("late", Status.TIMED_OUT)
    assert await results(owner, one) == ["sent", "timed_out"]
    assert [record["result"] for record in await records(owner, one, "late_result")] == ["success"]


@pytest.mark.parametrize("end", sorted(TERMINAL))
async def test_a_report_after_the_end_is_a_record_of_its_own_and_never_changes_the_end(
    end: Status, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, end, age=MINUTE)
    before = await command(owner, one)
    outcome = await tell(server, agent_id, one, SUCCESS)
    assert (outcome.received, outcome.status) == ("late", end)
    after = await command(owner, one)
    for column in ("status", "version", "completed_at", "result", "act"):
        assert after[column] == before[column]
    late = await records(owner, one, "late_result")
    assert [(one["result"], one["actor"], one["version"], one["stdout"]) for one in late] == [
        ("success", f"agent:{agent_id}", None, "12 found")
    ]
    assert late[0]["message"].startswith(f"{end}; the agent reported success")
    assert late[0]["metadata"]["status"] == end
    assert len(await records(owner, one)) == 1
    assert await replay(owner, [one]) == []


async def test_each_different_late_report_is_recorded_once(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.TIMED_OUT)
    told = [
        (await tell(server, agent_id, one, what)).received for what in (SUCCESS, FAILURE, SUCCESS, FAILURE, SUCCESS)
    ]
    assert told == ["late", "late", "already_recorded", "already_recorded", "already_recorded"]
    assert [record["result"] for record in await records(owner, one, "late_result")] == ["success", "failed"]


async def test_of_equal_late_reports_at_once_one_is_recorded(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.TIMED_OUT)

    async def say() -> str:
        async with pool.acquire() as connection:
            return (await tell(connection, agent_id, one, SUCCESS)).received

    told = await asyncio.gather(*(say() for _ in range(8)))
    assert sorted(told) == ["already_recorded"] * 7 + ["late"]
    assert len(await records(owner, one, "late_result")) == 1


async def test_an_agent_that_never_stops_reporting_fills_no_row(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.TIMED_OUT)
    for n in range(30):
        received = (await tell(server, agent_id, one, Report("success", stdout=str(n)))).received
        assert received == ("late" if n < 20 else "not_recorded")
    assert (await tell(server, agent_id, one, Report("success", stdout="7"))).received == "already_recorded"
    assert len(await records(owner, one, "late_result")) == 20
    kept = (await command(owner, one))["late_reports"]
    assert len(kept) == len(set(kept)) == 20


async def test_another_agents_command_is_not_there(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    stranger = await make_agent(owner)
    with pytest.raises(NotFound, match=str(one)):
        await tell(server, stranger, one, SUCCESS)
    with pytest.raises(NotFound):
        await tell(server, agent_id, uuid.uuid4(), SUCCESS)
    assert await results(owner, one) == ["sent"]
    assert await records(owner, one, "late_result") == []


async def test_what_was_never_handed_out_cannot_be_reported(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id)
    with pytest.raises(Conflict, match="never handed out"):
        await tell(server, agent_id, one, SUCCESS)
    assert await results(owner, one) == ["pending"]


async def test_what_was_taken_back_and_done_after_all_is_completed(
    server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.PENDING, age=2 * MINUTE, sent=MINUTE)
    assert (await tell(server, agent_id, one, SUCCESS)).received == "recorded"
    assert await results(owner, one) == ["pending", "success"]


async def test_ten_megabytes_of_output_are_cut_in_the_middle_and_the_record_says_so(
    server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    said = "begin " + "é" * 5_000_000 + " end"
    await tell(server, agent_id, one, Report("success", stdout=said, stderr=said), max_output=100_000)
    told = (await records(owner, one))[-1]
    for name in ("stdout", "stderr"):
        assert told["metadata"][f"{name}_cut"] is True
        assert told["metadata"][f"{name}_bytes"] == 10_000_010
        assert len(told[name].encode()) <= 100_080
        assert told[name].startswith("begin ")
        assert told[name].endswith(" end")
        assert "of 10000010 bytes cut" in told[name]
    assert (await command(owner, one))["result"]["stdout"] == told["stdout"]
    assert (
        await tell(server, agent_id, one, Report("success", stdout=said, stderr=said), max_output=100_000)
    ).received == "already_recorded"


async def test_output_that_fits_is_whole_and_says_nothing_of_cuts(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    await tell(server, agent_id, one, Report("success", stdout="x" * 1000), max_output=1000)
    told = (await records(owner, one))[-1]
    assert told["stdout"] == "x" * 1000
    assert not {"stdout_cut", "stdout_bytes"} & set(told["metadata"])


async def test_bytes_that_a_text_cannot_hold_are_replaced(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    told = Report(
        "success",
        action="a\x00b",
        stdout="a\x00b",
        stderr="\x00",
        message="m\x00",
        metadata={"k\x00": "v\x00", "n": [None, "\x00"]},
    )
    assert (await tell(server, agent_id, one, told)).received == "recorded"
    record = (await records(owner, one))[-1]
    assert (record["stdout"], record["stderr"], record["action"], record["message"]) == (
        "a\ufffdb",
        "\ufffd",
        "a\ufffdb",
        "m\ufffd",
    )
    assert record["metadata"]["k\ufffd"] == "v\ufffd"


async def test_secrets_in_what_is_reported_are_not_recorded(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    told = Report(
        "failed",
        stdout="password=hunter2",
        stderr="https://u:hunter2@host/",
        message="token: hunter2",
        metadata={"api_key": "hunter2"},
    )
    await tell(server, agent_id, one, told)
    seen = str([dict(record) for record in await records(owner, one, None)]) + str(dict(await command(owner, one)))
    assert "hunter2" not in seen


@pytest.mark.parametrize(("exit_code", "duration"), [(2**40, 2**40), (-(2**40), -5), (0, 0)])
async def test_numbers_out_of_range_are_brought_into_it(
    exit_code: int, duration: int, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, Status.SENT)
    await tell(server, agent_id, one, Report("success", exit_code=exit_code, duration_seconds=duration))
    told = (await records(owner, one))[-1]
    assert told["exit_code"] == max(-(2**31 - 1), min(2**31 - 1, exit_code))
    assert told["duration_seconds"] == max(0, min(2**31 - 1, duration))


@pytest.mark.parametrize("end", [None, Status.TIMED_OUT])
async def test_what_an_agent_says_takes_no_place_of_what_the_server_knows(
    end: Status | None, server: Any, owner: Any, agent_id: uuid.UUID
) -> None:
    one = await make_command(owner, agent_id, end or Status.RUNNING)
    lies = {
        "address": "203.0.113.9",
        "request_id": "mine",
        "from": "pending",
        "forced": True,
        "status": "x",
        "sent_at": "never",
        "plain": 1,
    }
    actor = agent_actor(agent_id)
    await report(server, actor, agent_id, one, Report("success", metadata=lies), max_output=1000)
    told = (await records(owner, one, "late_result" if end else "transition"))[-1]["metadata"]
    assert (told["address"], told["request_id"], told["plain"]) == ("192.0.2.7", actor.request_id, 1)
    if end:
        assert told["status"] == end
    else:
        assert told["from"] == "running"
        assert "forced" not in told
        assert told["sent_at"] != "never"


async def test_a_report_and_the_sweep_at_once_leave_exactly_one_end(pool: Any, owner: Any, agent_id: uuid.UUID) -> None:
    """A hundred races: the report wins or comes late, is told so, and is recorded either way."""
    sweepers = [Sweeper(pool, f"race-{n}", gap=86_400) for n in range(2)]
    won = {"recorded": 0, "late": 0}
    commands = []
    for n in range(100):
        one = await make_command(owner, agent_id, Status.RUNNING, age=MINUTE)
        commands.append(one)
        await move_deadline(owner, one, MINUTE)

        async def say(command_id: uuid.UUID = one, said: str = str(n)) -> Outcome:
            async with pool.acquire() as connection:
                return await tell(connection, agent_id, command_id, Report("success", stdout=said))

        if n % 2:
            outcome, *swept = await asyncio.gather(say(), *(one.sweep() for one in sweepers))
        else:
            *swept, outcome = await asyncio.gather(*(one.sweep() for one in sweepers), say())
        won[outcome.received] += 1
        ends = await results(owner, one)
        late = [record["result"] for record in await records(owner, one, "late_result")]
        timed_out = sum(one in each.timed_out for each in swept)
        if outcome.received == "recorded":
            assert (ends, late, timed_out, outcome.status) == (["running", "success"], [], 0, Status.COMPLETED)
        else:
            assert (ends, late, timed_out, outcome.status) == (
                ["running", "timed_out"],
                ["success"],
                1,
                Status.TIMED_OUT,
            )
    assert min(won.values()) > 0, "the two never met"
    assert await replay(owner, commands) == []
