"""Where a record stands in the log: its position, the checkpoint that covers it, who cosigned that, and what was erased of it."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from redflag.audit import canonical, proofs, sequencer
from redflag.database import queries
from redflag.errors import Conflict, NotFound

sql = queries.load(__file__, "places.sql")


@dataclass(frozen=True)
class Cosigned:
    """That a witness cosigned a checkpoint of this size, by its clock."""

    witness: str
    size: int
    at: datetime.datetime


@dataclass(frozen=True)
class Erasure:
    """Fields that were erased, when, and the record that says by whom and why."""

    fields: list[str]
    at: datetime.datetime
    record_id: uuid.UUID


@dataclass(frozen=True)
class Place:
    """A record as a leaf has it (numbers that are no integers are text), and where it stands.

    `plain` are the members of its leaf that are no commitments, `values` what the leaf commits to, as far as it is there.
    `position` is None while it waits, `covered_by` and `covered_at` while no checkpoint covers it. `cosigned` are the cosignatures
    of the first checkpoint after it that any witness cosigned.
    """

    record: dict[str, Any]
    plain: dict[str, Any]
    values: dict[str, Any]
    position: int | None
    covered_by: int | None
    covered_at: datetime.datetime | None
    cosigned: list[Cosigned]
    erased: list[Erasure]


async def of_record(connection: Any, record_id: uuid.UUID) -> Place:
    """A record and its place. Raises NotFound, or Conflict for a record that is not as it can have been written."""
    row = await proofs.sql.record.one(connection, record_id=record_id)
    if row is None:
        raise NotFound(f"No record {record_id}", "See the history")
    try:
        record = sequencer.decoded(row)
        values = canonical.fields(record)
        plain = canonical.decoder.decode(canonical.plain(record, {}))
    except (ValueError, OverflowError) as error:
        raise Conflict(
            f"Record {record_id} is not as it was written: {error}",
            "Run `redflag audit fsck`, which names what was changed",
        ) from None
    del plain["commitments"]
    position, found = record.pop("position"), []
    if position is not None:
        found = await sql.covering.all(connection, position=position)
    erased = [] if record["salt"] is not None else await sql.erasures.all(connection, record_id=record_id)
    for secret in ("salt", "salts", "leaf"):
        del record[secret]
    return Place(
        record,
        plain,
        values,
        position,
        found[0]["size"] if found else None,
        found[0]["published_at"] if found else None,
        [
            Cosigned(one["witness"], one["cosigned_size"], one["cosigned_at"])
            for one in found
            if one["witness"] is not None
        ],
        [Erasure(list(one["fields"]), one["logged_at"], one["logged_id"]) for one in erased],
    )
