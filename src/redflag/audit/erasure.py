"""Erasing what is personal from the record: the one change that its guard lets through, and it is recorded itself.

An erasure names a record and fields of it. The database does all of it in one transaction (0009_erasure.sql): the values and
the salts under which the leaf commits to them go, what the record's command has of the same goes, and a record of kind
`erasure` says which fields of which record, who erased them and why. The leaf stays, so every proof holds, and the leaf's
commitments to what was erased can be opened by nobody any more. fsck accepts exactly what the erasures in the tree name.

Refused, with Conflict: what has no position yet, what a legal hold covers, what belongs to a live command, what is not there.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound

sql = queries.load(__file__, "erasure.sql")

# What can be erased of a record; `address` is a member of its metadata, `metadata` all the rest of it
FIELDS = ("actor", "address", "message", "params", "stdout", "stderr", "metadata")
REASON_LIMIT = 1000
# Records that one transaction erases
BATCH = 250


@dataclass(frozen=True)
class Erased:
    """What was erased of the record at a position, and the id of the record that says so."""

    record_id: uuid.UUID
    position: int
    fields: list[str]
    erasure_id: uuid.UUID


@dataclass(frozen=True)
class Survey:
    """Records under a name: those that can be erased, and those that cannot yet, each counted once but for a hold on what waits.

    `waiting` have no position in the log, `held` are under a legal hold (`holds`), `live` belong to live commands.
    """

    erasable: int
    waiting: int
    held: int
    live: int
    holds: list[str]


async def erase(connection: Any, actor: Actor, record_id: uuid.UUID, fields: Sequence[str], reason: str) -> Erased:
    """Erases fields of a record. Raises InvalidInput, NotFound, or Conflict; then nothing is erased."""
    if not fields or (unknown := [name for name in fields if name not in FIELDS]):
        named = ", ".join(repr(name[:50]) for name in unknown) if fields else "nothing"
        raise InvalidInput(f"{named} cannot be erased from a record", f"Name some of {', '.join(FIELDS)}")
    with _explained():
        row = await sql.erase.one(
            connection, record_id=record_id, fields=list(fields), reason=_reason(reason), act=actor.act()
        )
    return Erased(row["record_id"], row["position"], list(row["fields"]), row["logged_id"])


async def survey(connection: Any, name: str, before: datetime.datetime | None = None) -> Survey:
    """What there is under an actor's name, recorded until `before` (by the database's clock; None: until now)."""
    before = before or await sql.now.value(connection)
    row = await sql.survey.one(connection, actor=_person(name), before=before)
    return Survey(row["erasable"], row["waiting"], row["held"], row["live"], sorted(row["holds"]))


async def erase_actor(connection: Any, actor: Actor, name: str, reason: str, *, most: int = 2000) -> int:
    """Erases actor and address of up to `most` records under a name, the oldest first; returns how many. Raises InvalidInput.

    What cannot be erased yet is passed over (`survey` counts it). Once there is no more to erase, the name also goes from
    the rows that keep who changed them last.
    """
    name, reason = _person(name), _reason(reason)
    before = await sql.now.value(connection)
    erased = 0
    while erased < most:
        batch = min(BATCH, most - erased)
        with _explained():
            done = await sql.erase_actor.run(
                connection, actor=name, reason=reason, before=before, batch=batch, act=actor.act()
            )
        erased += done
        if done < batch:
            nobody = {"actor": f"{name.partition(':')[0]}:erased"}
            await sql.forget_copies.run(connection, actor=name, act=nobody)
            break
    return erased


def _person(name: str) -> str:
    kind, colon, who = name.partition(":")
    if not colon or not who or kind == "agent":
        raise InvalidInput(
            f"{name[:80]!r} is no name of a person or a program",
            "Give it as the history shows it: user:NAME, token:NAME, db:ROLE",
        )
    return name


def _reason(reason: str) -> str:
    if not 1 <= len(reason.strip()) <= REASON_LIMIT:
        raise InvalidInput(
            f"The reason of an erasure has 1 to {REASON_LIMIT} characters",
            "Say on what ground; it stays in the log, so name no person in it",
        )
    return reason.strip()


@contextmanager
def _explained() -> Iterator[None]:
    """What the database's triggers refuse, in this program's errors."""
    try:
        yield
    except asyncpg.PostgresError as error:
        kinds = {"RF006": Conflict, "RF007": NotFound}
        if error.sqlstate not in kinds:
            raise
        what = str(error.args[0])
        raise kinds[error.sqlstate](what[:1].upper() + what[1:], getattr(error, "hint", None) or "") from None
