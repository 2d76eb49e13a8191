"""What people read of a simulation, and when it says that the simulator itself was too slow."""

from __future__ import annotations

import pytest
from rich.console import Console

from redflag.cli import simulated
from redflag.simulation.engine import Now
from redflag.simulation.histogram import Histogram
from redflag.simulation.plan import Plan, Protocol
from redflag.simulation.report import Report


def _report(plan: Plan | None = None, lag: float = 0.0002, used: float = 2.0) -> Report:
    report = Report(plan or Plan(), agents=1000, processes=2, seconds=10.0, most_open=1000)
    for tally in (report.measured, report.whole):
        tally.counts["check_ins"] = 2000
        for _ in range(2000):
            tally.durations["check_in"].add(0.004)
        tally.durations["lag"].add(lag)
    report.whole.counts.update(
        {"connected": 1100, "enqueued": 13, "reached": 12, "delivered": 12, "recorded": 10, "lost": 2, "missed": 3}
    )
    report.whole.fail("503", 'check_in: {"error":\n"busy"}\x1b[31m')
    report.processor_seconds = {0: used, 1: 1.0}
    return report


def test_the_report_says_in_words_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    simulated.print_report(_report())
    told = capsys.readouterr()
    assert told.out.startswith("1,000 agents came by every 1 min, each on a connection of its own, for 10 s.\n")
    for said in (
        "2,000 (200/s)",
        "4.00 ms (p50)",
        "from when they were due",
        "13 enqueued, 12 received, 10 reported, 2 never reported, on purpose, 1 not fetched at the end",
        "3 times an agent still waited when it should have come by again",
        "1,000 open, 100 opened anew",
        '503, 1 time: check_in: {"error": "busy"}',
        "2 processes, the busiest 20% of a core, 1500 µs a request, late by 0.20 ms (p99)",
    ):
        assert said in told.out, said
    assert "\x1b" not in told.out
    assert told.err == ""


@pytest.mark.parametrize(("lag", "used"), [(0.05, 2.0), (0.0, 9.5)])
def test_a_simulator_that_was_too_slow_itself_says_so(
    lag: float, used: float, capsys: pytest.CaptureFixture[str]
) -> None:
    report = _report(lag=lag, used=used)
    assert report.summary()["simulator"]["is_bottleneck"]
    simulated.print_report(report)
    assert "The simulator itself was too slow" in capsys.readouterr().err
    assert not _report().is_bottleneck


def test_what_is_said_of_closed_and_held_fleets(capsys: pytest.CaptureFixture[str]) -> None:
    simulated.print_report(_report(Plan(closed=64)))
    assert capsys.readouterr().out.startswith("64 connections asked without a pause, as 1,000 agents, for 10 s.\n")
    simulated.print_report(_report(Plan(protocol=Protocol.HELD)))
    assert capsys.readouterr().out.startswith(
        "1,000 agents held their calls, each on a connection of its own, for 10 s.\n"
    )


def test_the_table_shows_the_last_seconds_and_what_failed() -> None:
    lately = Histogram()
    lately.add(0.0123)
    now = Now(_report(), "measuring", 1666.7, lately, Histogram(), 1, 3, 61.0)
    console = Console(width=120, record=True, file=None, highlight=False)
    with console.capture() as captured:
        console.print(simulated._table(now))
    shown = captured.get()
    for said in (
        "measuring",
        "1 min 1 s",
        "1,667/s",
        "12 ms (p50)",
        "13 enqueued, 12 received, 10 reported, 3 under way",
        "503, 1 time",
    ):
        assert said in shown, said
    assert "\x1b[31m" not in shown
