"""The compliance report in words: sections of facts and tables, the same for HTML and PDF, and the HTML itself.

Whatever a host or a person wrote is text here, never markup: it is escaped by the template, and characters that cannot be
seen or that would turn the text around are shown as their escapes.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from redflag.audit import controls
from redflag.audit.report import Completeness, Listed, Report, Row

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("redflag.audit"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Table:
    """A table: `right` are the columns of numbers; `note` says what is not in it."""

    caption: str
    columns: Sequence[str]
    rows: list[list[str]]
    note: str = ""
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Section:
    """A part of the report under a title."""

    id: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def html(report: Report) -> str:
    """The report as one HTML page: no script, nothing from outside, to be read and to be printed."""
    return _environment.get_template("report.html").render(
        title=title(report), period=period(report), sections=sections(report), made_at=moment(report.made_at)
    )


def title(report: Report) -> str:
    """What the report is called."""
    return f"Audit report of {visible(report.origin)}"


def period(report: Report) -> str:
    """What it is of."""
    return f"{moment(report.since)} to {moment(report.until)}"


def sections(report: Report) -> list[Section]:
    """The report, part by part."""
    return [
        _about(report),
        _completeness(report.completeness, report.origin),
        _commands(report),
        _timeouts(report),
        _activity(report),
        _refused(report),
        _decisions(report),
        _changes(report),
        _custody(report),
        _service(report),
        _controls(report),
    ]


def visible(value: Any) -> str:
    """A value as text in which every character can be seen; nothing for None."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else escape(one) for one in text)


def escape(character: str) -> str:
    r"""A character by its number: \u202e, \U0001f6a9."""
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def moment(value: datetime.datetime | None) -> str:
    """A time to the second, in UTC."""
    return "" if value is None else value.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def length(seconds: float | None) -> str:
    """A length of time in its two largest units: 4.2 s, 3 min 5 s, 2 h 1 min, 3 d 4 h."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {smaller}"
    return f"{whole} s"


def number(value: Any) -> str:
    """A number with its thousands apart."""
    return f"{value:,}"


Column = tuple[str, Callable[[Row], str], bool]


def _text(name: str, key: str) -> Column:
    return name, lambda row: visible(row[key]), False


def _time(name: str, key: str) -> Column:
    return name, lambda row: moment(row[key]), False


def _number(name: str, key: str) -> Column:
    return name, lambda row: number(row[key]), True


def _table(caption: str, columns: Iterable[Column], listed: Listed) -> Table:
    """A table of a list, with an honest count if it is not all."""
    columns = list(columns)
    note = ""
    if listed.of > len(listed.rows):
        note = (
            f"The first {number(len(listed.rows))} of {number(listed.of)}; the evidence bundle of the period has all."
        )
    elif not listed.of:
        note = "None."
    return Table(
        caption,
        [name for name, _, _ in columns],
        [[shown(row) for _, shown, _ in columns] for row in listed.rows],
        note,
        frozenset(place for place, (_, _, right) in enumerate(columns) if right),
    )


def _about(report: Report) -> Section:
    facts = [
        ("Period", f"{period(report)}, by the time of recording"),
        ("Log", visible(report.origin)),
        ("Public key", visible(report.key)),
        ("Made", f"{moment(report.made_at)} by redflag {report.version}"),
    ]
    facts += [(f"Filter: {name}", visible(value)) for name, value in sorted(report.filters.items())]
    paragraphs = [
        "This report counts the records of one audit log. It is a summary: the records themselves, and the proof that they stand "
        "in the log, are in an evidence bundle of the same period (redflag audit bundle), which anybody can check offline."
    ]
    if report.filters:
        paragraphs.append(
            "It speaks of the records that pass the filters only. The statement of completeness is that of the whole period, and "
            "what became of a timeout is looked for in all later records of its command."
        )
    return Section("about", "About this report", paragraphs, facts)


def _completeness(found: Completeness, origin: str) -> Section:
    facts = [("Records of the period", number(found.records))]
    if found.first_position is not None and found.last_position is not None:
        facts += [
            ("Positions in the log", f"{number(found.first_position)} to {number(found.last_position)}"),
            ("Counted between them", f"{number(found.positions)} positions"),
        ]
    gaps = "; ".join(found.findings) or "none"
    facts += [
        ("Waiting for a position", number(found.waiting)),
        ("Gaps", gaps),
        (
            "Pruned",
            f"positions 0 to {number(found.pruned - 1)}, whenever they were recorded: their records are in the evidence bundles that "
            "were archived before"
            if found.pruned
            else "nothing",
        ),
        ("Checkpoints signed in the period", number(found.checkpoints)),
    ]
    if found.checkpoint is None:
        facts.append(("Checkpoint", "none was signed yet"))
    else:
        one = found.checkpoint
        cosigned = ", ".join(f"{visible(row['witness'])} ({moment(row['cosigned_at'])})" for row in one.cosignatures)
        facts += [
            ("Checkpoint", f"{number(one.size)} records, signed {moment(one.published_at)} by {visible(origin)}"),
            ("Its root", one.root),
            ("Cosigned by witnesses", cosigned or "nobody"),
        ]
    facts.append(("Last fsck", _fsck(found.fsck)))
    return Section(
        "completeness",
        controls.COMPLETENESS,
        [
            "How this was verified: all records of the period were counted in the table and in the log, and all positions from the "
            "first to the last; of each command, the versions of its records run without a gap. That no record was altered is for "
            "fsck and the verifier to say: this report counts, it does not recompute hashes."
        ],
        facts,
    )


def _fsck(row: Row | None) -> str:
    if row is None:
        return "none is recorded; run redflag audit fsck"
    told = row["metadata"] or {}
    signed = "signatures checked" if told.get("signatures_checked") else "signatures not checked"
    outcome = "everything whole" if row["result"] == "success" else "NOT WHOLE"
    return f"{moment(row['executed_at'])} by {visible(row['actor'])}: {outcome}: {visible(row['message'])} ({signed})"


def _commands(report: Report) -> Section:
    columns = [_text("Type", "command_type")]
    columns += [
        _number(name, key)
        for name, key in (
            ("Enqueued", "enqueued"), ("Success", "success"), ("Partial", "partial"), ("Failed", "failed"), ("Error", "error"),
            ("Timed out", "timed_out"), ("Cancelled", "cancelled"), ("Late reports", "late_results"), ("Forced by hand", "forced"),
        )
    ]  # fmt: skip
    paragraph = (
        "What was enqueued in the period may have ended after it, and what ended in it may have been enqueued before."
    )
    return Section(
        "commands",
        controls.COMMANDS,
        [paragraph],
        tables=[_table("Commands by type and outcome", columns, report.commands)],
    )


def _timeouts(report: Report) -> Section:
    by_reason = [
        _text("Type", "command_type"),
        ("Reason", _reason, False),
        _number("Timeouts", "timeouts"),
        ("Stuck (median)", lambda row: length(row["median_stuck_seconds"]), True),
        ("Stuck (longest)", lambda row: length(row["longest_stuck_seconds"]), True),
        _number("Reported later", "reported_later"),
        _number("Retried", "retried"),
    ]
    each = [
        _time("Timed out", "timed_out_at"),
        _text("Command", "command_id"),
        _text("Type", "command_type"),
        ("Host", lambda row: visible(row["agent"] or row["agent_id"]), False),
        ("Stuck for", lambda row: length(row["stuck_seconds"]), True),
        ("Reason", _reason, False),
        ("What became of it", _became, False),
    ]
    return Section(
        "timeouts",
        controls.TIMEOUTS,
        tables=[
            _table("Timeouts by type and reason", by_reason, report.timeouts_by_reason),
            _table("Each timeout", each, report.timeouts),
        ],
    )


def _reason(row: Row) -> str:
    return visible(row["reason"]).replace("_", " ")


def _became(row: Row) -> str:
    told = []
    if row["reported_at"] is not None:
        after = length((row["reported_at"] - row["timed_out_at"]).total_seconds())
        more = f" ({row['reports']} reports)" if row["reports"] > 1 else ""
        told.append(f"the agent reported {row['reported']} {after} later{more}")
    if row["retried_as"] is not None:
        more = f", the first of {row['retries']} retries" if row["retries"] > 1 else ""
        who = visible(row["retried_by"]) or "somebody whose record is pruned"
        told.append(
            f"retried {moment(row['retried_at'])} by {who} as {row['retried_as']}{more}: {row['retry_status']} now"
        )
    return "; ".join(told) or "nothing is recorded since"


def _activity(report: Report) -> Section:
    columns = [
        _text("Who", "actor"),
        _text("What", "action"),
        _text("Result", "result"),
        _number("Times", "times"),
        _time("First", "first_at"),
        _time("Last", "last_at"),
    ]
    agents = f"All agents are one name here; {number(report.agents_seen)} of them left records in the period."
    return Section(
        "activity",
        controls.ACTIVITY,
        [
            "Names are user:NAME, token:NAME (a program), service:NAME@HOST (the server itself) and db:ROLE (somebody in SQL). "
            + agents
        ],
        tables=[_table("Who did what, how often", columns, report.activity)],
    )


def _refused(report: Report) -> Section:
    by_name = [
        _text("Name", "actor"),
        _text("What", "action"),
        _number("Minutes with refusals", "minutes"),
        _number("Addresses", "addresses"),
        _time("First", "first_at"),
        _time("Last", "last_at"),
        _text("Last", "last_message"),
    ]
    by_address = [
        _text("Address", "address"),
        _number("Requests without a valid token", "without_name"),
        _number("Minutes with refusals by name", "with_name"),
        _time("First", "first_at"),
        _time("Last", "last_at"),
        _text("Last asked for", "last_asked"),
    ]
    return Section(
        "refused",
        controls.REFUSED,
        [
            "Of a known name the first refusal of an action in a minute is recorded. Whoever shows no valid token is counted by address."
        ],
        tables=[
            _table("Refused by name", by_name, report.refused_names),
            _table("Refused by address", by_address, report.refused_addresses),
        ],
    )


def _decisions(report: Report) -> Section:
    columns = [
        _time("When", "executed_at"),
        _text("Who", "actor"),
        ("Host", lambda row: visible(row["agent"] or row["agent_id"]), False),
        ("Package", lambda row: visible(row["package_name"] or row["update_id"]), False),
        ("Decision", lambda row: f"{visible(row['old_status'])} \N{RIGHTWARDS ARROW} {visible(row['new_status'])}", False),
        _text("Version", "approved_version"),
        _text("Reason", "reason"),
    ]  # fmt: skip
    return Section(
        "decisions",
        controls.DECISIONS,
        tables=[_table("What people and programs decided", columns, report.decisions)],
    )


def _changes(report: Report) -> Section:
    columns = [
        _time("When", "executed_at"),
        _text("Who", "actor"),
        _text("Address", "address"),
        _text("Action", "action"),
        _text("Change", "message"),
    ]
    return Section(
        "changes",
        controls.CHANGES,
        ["Secrets are recorded as changed, without their value."],
        tables=[_table("Every change", columns, report.changes)],
    )


def _happened(caption: str, listed: Listed) -> Table:
    columns = [
        _time("When", "executed_at"),
        _text("Who", "actor"),
        _text("Action", "action"),
        _text("Result", "result"),
        _text("What", "message"),
    ]
    return _table(caption, columns, listed)


def _custody(report: Report) -> Section:
    return Section(
        "custody",
        controls.CUSTODY,
        [
            "Exports, examinations, erasures, legal holds, retention and prunings; where records and checkpoints are sent; and what agents "
            "saw that cannot be."
        ],
        tables=[_happened("Acts on the record", report.custody)],
    )


def _service(report: Report) -> Section:
    return Section(
        "service",
        controls.SERVICE,
        tables=[_happened("Starts, stops, gaps and runs by hand", report.service)],
    )


def _controls(report: Report) -> Section:
    rows = [[f"{one.framework} {one.id}", one.asks, one.evidence, one.not_covered] for one in report.controls]
    return Section(
        "controls",
        "Mapping to controls",
        [
            "Requirements are said in short; their own texts decide. The report is evidence, not a verdict: whether a control is "
            "met is for the auditor to say."
        ],
        tables=[
            Table(
                "What in this report is evidence for which requirement",
                ["Requirement", "Asks for", "Evidence here", "Not covered"],
                rows,
            )
        ],
    )
