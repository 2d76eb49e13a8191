"""Times and records in words."""

from __future__ import annotations

import datetime

import pytest

from redflag import words
from redflag.commands import sentences
from redflag.errors import InvalidInput

NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("30min", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("3d", 259200),
        ("1.5h", 5400),
        ("2H", 7200),
    ],
)
def test_a_length_of_time_is_read_as_people_type_it(text: str, seconds: float) -> None:
    assert words.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "h", "2", "-3m", "2 hours ago", "367d", "5x", "1e9s", "10s later"])
def test_what_is_no_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput, match="such as 90s, 30m, 2h or 3d"):
        words.duration(text)


def test_since_may_be_so_long_ago() -> None:
    assert words.moment("2h", NOW) == NOW - datetime.timedelta(hours=2)
    assert words.moment("3d", NOW) == NOW - datetime.timedelta(days=3)
    assert words.moment("1000h", NOW) == NOW - datetime.timedelta(hours=1000)


def test_since_may_be_a_moment_and_keeps_its_zone() -> None:
    assert words.moment("2026-02-01T08:30:00+02:00", NOW) == datetime.datetime(2026, 2, 1, 6, 30, tzinfo=datetime.UTC)
    assert words.moment("2026-02-01T08:30:00Z", NOW) == datetime.datetime(2026, 2, 1, 8, 30, tzinfo=datetime.UTC)


def test_a_moment_without_a_zone_is_in_the_zone_of_this_machine() -> None:
    assert words.moment("2026-02-01", NOW) == datetime.datetime(2026, 2, 1).astimezone()


def test_a_moment_without_a_zone_is_in_the_one_that_is_given() -> None:
    assert words.moment("2026-02-01T08:30", NOW, datetime.UTC) == datetime.datetime(
        2026, 2, 1, 8, 30, tzinfo=datetime.UTC
    )
    assert words.moment("2026-02-01T08:30+02:00", NOW, datetime.UTC).utcoffset() is not None


@pytest.mark.parametrize("text", ["yesterday", "0001-01-01T00:00:00+23:00", "12", "2026-13-01", "3 d ago", ""])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="2h"):
        words.moment(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (4.2, "4.2 s"),
        (9.99, "10 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7200, "2 h"),
        (7203, "2 h"),
        (7260, "2 h 1 min"),
        (90000, "1 d 1 h"),
        (-3, "0 s"),
    ],
)
def test_a_length_of_time_is_said_in_its_two_largest_units(seconds: float, told: str) -> None:
    assert words.length(seconds) == told


@pytest.mark.parametrize("text", ["90s", "30m", "2h", "1h30m", "3d", "45s", "7d12h"])
def test_a_length_of_time_that_is_said_can_be_typed_again(text: str) -> None:
    assert words.duration(words.length(words.duration(text))) == words.duration(text)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (0.5, "0.5 s"), (90, "1 min 30 s"), (5405, "1 h 30 min 5 s"), (86400, "1 d"), (604_860, "7 d 1 min")],
)
def test_a_policys_time_is_said_with_all_of_its_units(seconds: float, told: str) -> None:
    assert words.exact(seconds) == told


def test_what_happened_within_a_day_is_said_by_its_distance_and_what_is_older_by_its_date() -> None:
    assert words.recent("2026-03-01T11:57:00Z", NOW) == "3 min ago"
    assert words.recent("2026-02-20T12:00:00Z", NOW) == words.clock("2026-02-20T12:00:00Z")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(12, "in 12 s"), (-200, "3 min ago"), (0.4, "now"), (-0.9, "now"), (-86400 * 2.5, "2 d ago"), (7199, "in 1 h")],
)
def test_a_moment_is_said_by_its_distance(seconds: float, told: str) -> None:
    assert words.distance(seconds) == told


def test_a_time_of_the_api_is_said_by_its_distance_and_an_absent_one_is_never() -> None:
    assert words.when("2026-03-01T11:57:00Z", NOW) == "3 min ago"
    assert words.when("2026-03-01T12:00:12.345678+00:00", NOW) == "in 12 s"
    assert words.when(None, NOW) == "never"


def test_numbers_and_sizes_are_said_with_their_units() -> None:
    assert [words.count(number, "agent") for number in (0, 1, 1234)] == ["0 agents", "1 agent", "1,234 agents"]
    assert words.count(2, "reply", "replies") == "2 replies"
    assert [words.size(number) for number in (0, 1023, 1536, 5 * 1024**3, 2000 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "2000 TiB",
    ]


def _event(result: str, message: str | None = None, **more: object) -> dict[str, object]:
    return {
        "kind": "transition",
        "command_type": "scan_updates",
        "result": result,
        "message": message,
        "actor": "x",
    } | more


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (_event("pending"), "scan_updates was enqueued"),
        (_event("pending", metadata={"retried_from_id": "abc"}), "scan_updates was enqueued again, as a retry of abc"),
        (_event("sent"), "scan_updates was handed to the agent"),
        (_event("sent", "handed out again"), "scan_updates handed out again"),
        (_event("running"), "scan_updates was started by the agent"),
        (_event("success", duration_seconds=3, exit_code=0), "scan_updates succeeded after 3 s"),
        (_event("partial", "2 of 3 packages"), "scan_updates succeeded in part: 2 of 3 packages"),
        (_event("failed", exit_code=100), "scan_updates failed (exit code 100)"),
        (_event("error", "no\nsuch   thing"), "scan_updates failed with an error: no such thing"),
        (_event("cancelled", "not today"), "scan_updates was cancelled: not today"),
        (
            _event("timed_out", "timed out after 2 h 0 min 3 s: the agent did not report within 2 h 0 min 0 s"),
            "scan_updates timed out after 2 h 0 min 3 s: the agent did not report within 2 h 0 min 0 s",
        ),
        (
            _event(
                "timed_out",
                "timed out after 2 h 0 min 3 s: the agent did not report within 2 h 0 min 0 s",
                metadata={"detected_by": "timeout@server-2", "lateness_ms": 104},
            ),
            "scan_updates timed out after 2 h 0 min 3 s: the agent did not report within 2 h 0 min 0 s; detected by server-2, 0.1 s late",
        ),
        (
            _event("timed_out", metadata={"detected_by": "db:postgres", "lateness_ms": 90_000}),
            "scan_updates timed out; detected by db:postgres, 1 min 30 s late",
        ),
        (_event("timed_out", metadata={"detected_by": 7, "lateness_ms": "soon"}), "scan_updates timed out"),
        (_event("timed_out", metadata={"lateness_ms": 0}), "scan_updates timed out; 0 s late"),
        (
            _event("success", "timed_out; the agent reported success 47 min 0 s later", kind="late_result"),
            "scan_updates timed_out; the agent reported success 47 min 0 s later",
        ),
        (
            _event("denied", "GET /api/v1/users", kind="access", action="access_refused"),
            "refused: access refused: GET /api/v1/users",
        ),
        (
            _event("success", "the timeout service started", kind="service", action="timeout_service_started"),
            "the timeout service started",
        ),
        (_event("success", None, kind="change", action="token_revoked"), "token revoked"),
    ],
)
def test_a_record_is_told_in_a_sentence(event: dict[str, object], told: str) -> None:
    assert sentences.what(event) == told


@pytest.mark.parametrize(
    ("actor", "told"),
    [
        ("user:anna", "anna"),
        ("token:ci", "token ci"),
        ("agent:1b2c", "agent 1b2c"),
        ("service:timeout@host-a", "timeout service on host-a"),
        ("db:postgres", "postgres in the database"),
        ("somebody", "somebody"),
    ],
)
def test_who_did_it_is_told_in_words(actor: str, told: str) -> None:
    assert sentences.actor(actor) == told
