"""Cosignatures: that a witness saw a checkpoint, and no other tree of this log before (C2SP tlog-cosignature, Ed25519).

A cosignature is kept only if the verifier that everybody uses (`redflag_verify`) accepts it under the witness's pinned key:
a checkpoint is served with whatever cosignatures it has, and one bad line of a known key would spoil the note for whoever
pinned that key.
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from typing import Any

import redflag_verify
from redflag.database import queries
from redflag.errors import InvalidInput

sql = queries.load(__file__, "cosignatures.sql")

# Every verifier accepts 16 signatures at the least (signed-note, "Format"), and one of them is the log's
MOST_WITNESSES = 15
# How far a witness's clock and the database's may be apart
CLOCKS_APART = datetime.timedelta(seconds=60)


@dataclass(frozen=True)
class Cosignature:
    """A verified cosignature: `line` as it stands in the note, without its newline; `cosigned_at` by the witness's clock."""

    witness: str
    key_id: bytes
    line: str
    cosigned_at: datetime.datetime


def witness_key(vkey: str) -> redflag_verify.Key:
    """A witness's key from its vkey (signed-note, "Verifier keys"; type 0x04). Raises InvalidInput."""
    try:
        key = redflag_verify.Key.parse(vkey, redflag_verify.COSIGNATURE)
    except redflag_verify.Unreadable as error:
        raise InvalidInput(
            f"This is no witness's key: {error}", "Give the vkey that the witness's operator publishes"
        ) from None
    if len(key.name) > 400 or not key.name.isprintable():
        raise InvalidInput("The name of the witness's key is too long, or cannot be printed", "Ask its operator")
    return key


def verify(note: str, answer: bytes, witness: redflag_verify.Key) -> Cosignature:
    """The witness's cosignature of the checkpoint among the signature lines that it answered. Raises InvalidInput.

    Lines of other keys are passed over; a wrong one of this key spoils all (tlog-witness, "add-checkpoint"). Whether its time
    can be is asked by `keep`. Takes some milliseconds, all of them computing.
    """
    try:
        opened = redflag_verify.parse_note(note.encode() + answer, "its answer")
        if opened.text != redflag_verify.parse_note(note.encode(), "the checkpoint").text:
            raise InvalidInput("Its answer is not only signature lines", "Ask its operator")
        moment = redflag_verify.check_cosigned(opened, witness, "its answer")
    except redflag_verify.NotVerified as error:
        raise InvalidInput(f"Its answer is no cosignature: {error}", "Ask its operator") from None
    if moment is None:
        raise InvalidInput(
            f"It answered without a cosignature of {witness.name} by the key that is pinned here",
            "Compare the key with the one that its operator publishes",
        )
    # Several by one key: the newest
    signature = next(
        one
        for name, key_id, one in opened.signatures
        if (name, key_id) == (witness.name, witness.id) and int.from_bytes(one[:8], "big") == moment
    )
    try:
        cosigned_at = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidInput("Its cosignature is of a time beyond all calendars", "Ask its operator") from None
    line = f"\N{EM DASH} {witness.name} {base64.b64encode(witness.id + signature).decode()}"
    return Cosignature(witness.name, witness.id, line, cosigned_at)


async def keep(connection: Any, size: int, cosignature: Cosignature) -> None:
    """Stores the cosignature of the checkpoint of `size`; of several by one witness the first stays.

    Raises InvalidInput when its time cannot be: before the checkpoint was signed, or in the future.
    """
    row = await sql.times.one(connection, size=size)
    early = row["published_at"] - cosignature.cosigned_at
    late = cosignature.cosigned_at - row["now"]
    for wrong, where in ((early, "before the checkpoint was signed"), (late, "in the future")):
        if wrong > CLOCKS_APART:
            raise InvalidInput(
                f"Its cosignature is dated {wrong.total_seconds():.0f} s {where}",
                "Compare its clock with the database's",
            )
    await sql.keep.run(
        connection,
        size=size,
        witness=cosignature.witness,
        key_id=cosignature.key_id,
        line=cosignature.line,
        cosigned_at=cosignature.cosigned_at,
    )


async def of_checkpoint(connection: Any, size: int) -> list[Any]:
    """The cosignatures of the checkpoint of `size`, the oldest first: witness, key_id, line, cosigned_at."""
    return await sql.of_checkpoint.all(connection, size=size, most=MOST_WITNESSES)


async def newest(connection: Any, quorum: int = 0, above: int = -1) -> Any:
    """The newest checkpoint that `quorum` witnesses or more have cosigned, as far as it is of more than `above` records; or None.

    Its row: size, root, published_at, note (the log's own), and cosigned: the note with all the cosignatures that it has. With a
    quorum it is looked for among the newest 10,000 cosignatures.
    """
    row = await sql.newest.one(connection, quorum=quorum, above=above)
    if row is None:
        return None
    lines = [one["line"] for one in await of_checkpoint(connection, row["size"])]
    return dict(row) | {"cosigned": row["note"] + "".join(f"{line}\n" for line in lines)}
