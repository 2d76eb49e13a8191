"""A simulation as people see it: the table while it runs, and the report at its end in words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from redflag import words
from redflag.cli import output
from redflag.simulation.engine import Now
from redflag.simulation.histogram import Histogram
from redflag.simulation.plan import Protocol
from redflag.simulation.report import Report

SAY_EVERY_SECONDS = 10.0
_PHASES = {
    "joining": "agents join",
    "measuring": "measuring",
    "ending": "commands under way are reported",
    "over": "begins",
}


@contextlib.contextmanager
def live() -> Iterator[Callable[[Now], None]]:
    """Shows on stderr how a simulation is going: a table that changes every second, and without a terminal a line every ten."""
    screen = output.console(stderr=True)
    if screen.is_terminal:
        with Live(console=screen, auto_refresh=False, transient=True) as table:
            yield lambda now: table.update(_table(now), refresh=True)
        return
    said = 0.0

    def tell(now: Now) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_EVERY_SECONDS:
            said = time.monotonic()
            screen.print("; ".join(f"{name} {plain}" for name, plain, _ in _facts(now)))

    yield tell


def print_report(report: Report) -> None:
    """The report in words, on stdout; what makes it doubtful on stderr."""
    plan = report.plan
    how = f"{words.count(plan.closed, 'connection')} asked without a pause" if plan.closed else (
        "held their calls" if plan.protocol is Protocol.HELD else f"came by every {words.length(plan.interval)}"
    )  # fmt: skip
    own = "" if plan.closed or plan.connections else ", each on a connection of its own"
    who = (
        f"{how}, as {words.count(report.agents, 'agent')}"
        if plan.closed
        else f"{words.count(report.agents, 'agent')} {how}{own}"
    )
    if not report.seconds:
        output.say("It ended before all agents had joined: nothing was measured.\n", "bold")
    else:
        output.say(f"{who}, for {words.length(report.seconds)}.\n", "bold")
    output.print_facts(_told(report))
    if report.is_bottleneck:
        output.note(
            "\nThe simulator itself was too slow: these figures say less of the server than they seem to. Give it more --processes, "
            "fewer agents, or a machine of its own.",
            "yellow",
        )


def _told(report: Report) -> Iterator[tuple[str, str]]:
    counts = report.counts
    yield "check-ins", f"{report.check_ins:,} ({report.rate:,.0f}/s)"
    since = "" if report.plan.closed else ", from when they were due"
    if report.latency.total:
        yield "answered in", _times(report.latency) + since
    if missed := counts.get("missed", 0):
        yield (
            "missed",
            f"{words.count(missed, 'time')} an agent still waited when it should have come by again; that wait is counted",
        )
    if put_off := counts.get("put_off", 0):
        yield "put off", f"{words.count(put_off, 'check-in')}, as the server asked"
    if counts.get("enqueued") or counts.get("delivered"):
        yield "commands", _commands(counts)
    for name, what in (
        ("woken", "reached held"),
        ("reached", "reached agents"),
        ("report", "reports"),
        ("enqueue", "enqueued in"),
    ):
        if (histogram := report.durations(name)).total:
            yield what, f"after {_times(histogram)}" if name in {"woken", "reached"} else _times(histogram)
    yield "connections", _connections(report)
    if report.failures:
        for kind, failure in sorted(report.failures.items(), key=lambda one: -one[1].count):
            yield "failed", f"{kind}, {words.count(failure.count, 'time')}: {failure.example}"
    else:
        yield "failed", "nothing"
    lag = report.durations("lag")
    late = f", late by {_milliseconds(lag.quantile(0.99))} (p99)" if lag.total else ""
    yield "simulator", (
        f"{words.count(report.processes, 'process', 'processes')}, the busiest {report.busy:.0%} of a core, "
        f"{report.microseconds_per_request:.0f} µs a request{late}"
    )  # fmt: skip


def _commands(counts: dict[str, int]) -> str:
    words_of = (
        ("enqueued", "enqueued"), ("delivered", "received"), ("recorded", "reported"), ("already_recorded", "reported twice"),
        ("late", "reported too late"), ("not_recorded", "reported too late too often"), ("lost", "never reported, on purpose"),
        ("ended_by_server", "ended by the server meanwhile"), ("handed_again", "handed out again"),
        ("reports_lost", "reports lost on the way"), ("reports_refused", "reports refused"), ("starts_refused", "starts refused"),
        ("unreported", "not reported at the end"),
    )  # fmt: skip
    told = [f"{counts[name]:,} {what}" for name, what in words_of if counts.get(name)]
    if (waiting := counts.get("enqueued", 0) - counts.get("reached", 0)) > 0:
        told.append(f"{waiting:,} not fetched at the end")
    return ", ".join(told)


def _connections(report: Report) -> str:
    counts = report.counts
    told = f"{report.most_open:,} open"
    if more := counts.get("connected", 0) - report.most_open:
        told += f", {more:,} opened anew" if more > 0 else ""
    connect = report.whole.durations.get("connect")
    if connect is not None and connect.total:
        told += f", opened in {_times(connect)}"
    return told


def _times(histogram: Histogram) -> str:
    return ", ".join(
        f"{_milliseconds(histogram.quantile(part))} ({name})"
        for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.0))
    )


def _milliseconds(seconds: float) -> str:
    thousandths = seconds * 1000
    return (
        f"{thousandths:.2f} ms"
        if thousandths < 10
        else f"{thousandths:.0f} ms"
        if thousandths < 10_000
        else words.length(seconds)
    )


def _facts(now: Now) -> Iterator[tuple[str, str, str]]:
    """Name, value and colour of what changes."""
    report, counts = now.report, now.report.whole.counts
    yield "phase", _PHASES[now.phase], ""
    yield "left", words.length(now.seconds_left), ""
    yield "connections", f"{report.open:,} open", ""
    yield "requests", f"{now.requests_per_second:,.0f}/s", ""
    if now.check_in.total:
        quantiles = ((0.5, "p50"), (0.99, "p99"), (1.0, "most"))
        yield (
            "check-ins",
            ", ".join(f"{_milliseconds(now.check_in.quantile(part))} ({name})" for part, name in quantiles),
            "",
        )
    if counts["delivered"] or counts["enqueued"]:
        yield "commands", (
            f"{counts['enqueued']:,} enqueued, {counts['delivered']:,} received, {counts['recorded']:,} reported, {now.busy:,} under way"
        ), ""  # fmt: skip
    failed = report.whole.failed
    yield (
        "failed",
        f"{failed:,}" + (f" ({now.failures:,} lately)" if now.failures else ""),
        "red" if now.failures else "",
    )
    if now.lag.total:
        yield "simulator lag", f"{_milliseconds(now.lag.quantile(0.99))} (p99)", ""


def _table(now: Now) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value, style in _facts(now):
        table.add_row(name, Text(value, style))
    for kind, failure in list(now.report.whole.failures.items())[:5]:
        table.add_row(
            "", Text(output.plain(f"{kind}, {words.count(failure.count, 'time')}: {failure.example[:120]}"), "red")
        )
    return table
