"""The compliance report: what a period's records say, counted in the database, as one value.

- It is read in one snapshot. Its numbers are those that SQL gives for the same period and filters: `since ≤ created_at <
  until`, the time of recording.
- Lists end at `MOST` rows and say of how many; the evidence bundle of the same selection has every record.
- With filters it speaks of the records that pass them. Two things reach further: the completeness of the log is that of the
  whole period, and what became of a timeout is looked for in all later records of its command.

How it is worded is `report_pages`' matter, for people in HTML and in PDF (`report_pdf`).
"""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

import redflag
from redflag.audit import controls, cosignatures
from redflag.audit.checkpoint import Verifier
from redflag.audit.controls import Control
from redflag.audit.export.reading import Selection
from redflag.database import queries
from redflag.database.queries import Query
from redflag.errors import InvalidInput

sql = queries.load(__file__, "report.sql")

# Rows of a list
MOST = 1000
# A year and a month: what PCI DSS asks to be kept, and some overlap
LONGEST = datetime.timedelta(days=400)
# What is done to the record itself, and to where it is sent: by the names of actions, and of what is changed
CUSTODY_ACTIONS = (
    "audit_exported", "fsck", "forwarder_moved", "log_target_tried", "log_rollback_seen", "log_renamed_seen",
)  # fmt: skip
CUSTODY_SUBJECTS = ("legal_hold", "retention", "log_target", "log_origin", "forwarder")

Row = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """The first rows of a list of `of`."""

    rows: list[Row]
    of: int


@dataclass(frozen=True)
class Checkpoint:
    """The signed head of the log that covers the period, and who cosigned it."""

    size: int
    root: str
    published_at: datetime.datetime
    cosignatures: list[Row]


@dataclass(frozen=True)
class Completeness:
    """What shows that nothing of the period is missing. `finding` says in words what is wrong, if anything is.

    `records` are in the table, `placed` of them have a position and `waiting` wait for one; `positions` were counted between
    `first_position` and `last_position`. Positions below `pruned` have been removed; they are in archived evidence bundles.
    """

    records: int
    placed: int
    waiting: int
    first_position: int | None
    last_position: int | None
    positions: int
    pruned: int
    checkpoints: int
    checkpoint: Checkpoint | None
    fsck: Row | None
    findings: list[str]


@dataclass(frozen=True)
class Report:
    """What a period's records say. Times are UTC, lengths seconds."""

    origin: str
    key: str
    version: str
    made_at: datetime.datetime
    since: datetime.datetime
    until: datetime.datetime
    filters: dict[str, str]
    completeness: Completeness
    commands: Listed
    timeouts_by_reason: Listed
    timeouts: Listed
    activity: Listed
    agents_seen: int
    refused_names: Listed
    refused_addresses: Listed
    decisions: Listed
    changes: Listed
    custody: Listed
    service: Listed
    controls: tuple[Control, ...] = controls.CONTROLS

    def json(self) -> bytes:
        """The report for programs."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def require_period(selection: Selection) -> None:
    """Raises InvalidInput for a period that is none, or longer than a report can be asked for."""
    since, until = selection.since, selection.until
    if since is None or until is None:
        raise InvalidInput("A report is of a period", "Give since and until")
    if not since < until:
        raise InvalidInput(f"The period ends at {until} before it begins at {since}", "Give since before until")
    if until - since > LONGEST:
        raise InvalidInput(f"The period is longer than {LONGEST.days} days", "Ask for several reports")


async def gather(connection: Any, verifier: Verifier, selection: Selection, most: int = MOST) -> Report:
    """The report of what is selected, whose period must be given. Raises InvalidInput when it takes too long to count.

    If the connection is in a transaction already, that one is used; else one snapshot of its own.
    """
    own = not connection.is_in_transaction()
    options: dict[str, Any] = {"isolation": "repeatable_read", "readonly": True} if own else {}
    try:
        async with connection.transaction(**options):
            await sql.plan_for_these_values.value(connection)
            return await _gather(connection, verifier, selection, most)
    except TimeoutError:
        raise InvalidInput("The period has more records than can be counted in time", "Ask for a shorter one") from None


async def _gather(connection: Any, verifier: Verifier, selection: Selection, most: int) -> Report:
    period = await sql.period.one(connection, since=selection.since, until=selection.until)
    chosen = vars(selection) | {"until": period["until"], "most": most}

    async def listed(query: Query, **more: Any) -> Listed:
        rows = [dict(row) for row in await query.all(connection, **chosen, **more)]
        of = rows[0]["of"] if rows else 0
        for row in rows:
            del row["of"]
        return Listed(rows, of)

    actions, subjects = list(CUSTODY_ACTIONS), list(CUSTODY_SUBJECTS)
    named = {name: value for name, value in chosen.items() if name != "most"}
    return Report(
        origin=verifier.name,
        key=verifier.vkey(),
        version=redflag.__version__,
        made_at=period["made_at"],
        since=period["since"],
        until=period["until"],
        filters=selection.filters,
        completeness=await _completeness(connection, period),
        commands=await listed(sql.commands),
        timeouts_by_reason=await listed(sql.timeouts_by_reason),
        timeouts=await listed(sql.timeouts),
        activity=await listed(sql.activity),
        agents_seen=await sql.agents_seen.value(connection, **named),
        refused_names=await listed(sql.refused_names),
        refused_addresses=await listed(sql.refused_addresses),
        decisions=await listed(sql.decisions),
        changes=await listed(sql.changes, custody_subjects=subjects),
        custody=await listed(sql.custody, custody_actions=actions, custody_subjects=subjects),
        service=await listed(sql.service, custody_actions=actions),
    )


async def _completeness(connection: Any, period: Any) -> Completeness:
    times = {"since": period["since"], "until": period["until"]}
    counted = await sql.completeness.one(connection, **times)
    broken = await sql.broken_versions.one(connection, **times)
    newest = await _covering(connection, 0 if counted["last"] is None else counted["last"] + 1)
    findings = []
    if missing := counted["records"] - counted["placed"] - counted["waiting"]:
        findings.append(f"{abs(missing)} records {'have no position' if missing > 0 else 'are gone from the table'}")
    elif not counted["same"]:
        findings.append("the records in the table are as many as those in the log, and not the same")
    if counted["placed"] and counted["positions"] != counted["last"] - counted["first"] + 1:
        gap = await sql.first_gap.value(connection, first=counted["first"], last=counted["last"])
        findings.append(f"positions are missing, the first of them {gap}")
    if broken["commands"]:
        findings.append(
            f"{broken['commands']} commands have a gap in their versions, one of them {uuid.UUID(broken['example'])}"
        )
    if counted["placed"] and (newest is None or newest.size <= counted["last"]):
        findings.append("no checkpoint covers the last positions yet")
    fsck = await sql.last_fsck.one(connection)
    return Completeness(
        records=counted["records"],
        placed=counted["placed"],
        waiting=counted["waiting"],
        first_position=counted["first"],
        last_position=counted["last"],
        positions=counted["positions"],
        pruned=counted["pruned"],
        checkpoints=counted["checkpoints"],
        checkpoint=newest,
        fsck=None if fsck is None else dict(fsck),
        findings=findings,
    )


async def _covering(connection: Any, size: int) -> Checkpoint | None:
    """The newest cosigned checkpoint of `size` records or more; if there is none, the newest at all."""
    found = await cosignatures.newest(connection, quorum=1, above=size - 1) or await cosignatures.newest(connection)
    if found is None:
        return None
    witnesses = [
        {"witness": one["witness"], "cosigned_at": one["cosigned_at"]}
        for one in await cosignatures.of_checkpoint(connection, found["size"])
    ]
    return Checkpoint(found["size"], found["root"].hex(), found["published_at"], witnesses)
