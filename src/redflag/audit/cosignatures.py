"""Cosignatures: that a witness saw a checkpoint, and no other tree of this log before (C2SP tlog-cosignature, Ed25519).

A cosignature is kept only if the verifier that everybody uses (`redflag_verify`) accepts it under the witness's pinned key:
a checkpoint is served with whatever cosignatures it has, and one bad line of a known key would spoil the note for whoever
pinned that key.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
from dataclasses import dataclass
from typing import Any

import redflag_verify
from redflag.audit.checkpoint import COSIGNATURE, Verifier
from redflag.database import queries
from redflag.errors import InvalidInput

sql = queries.load(__file__, "cosignatures.sql")

# Every verifier accepts 16 signatures at the least (signed-note, "Format"), and one of them is the log's
MOST_WITNESSES = 15
# Stored cosignatures that are examined at once
PAGE = 1000
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


async def examine(connection: Any) -> tuple[int, str | None]:
    """Verifies every cosignature that is stored, under the keys of the targets: how many are right, and what is wrong with the next.

    Also wrong is a checkpoint that somebody has and the database has not: one that was cosigned, or sent to a target.
    """
    keys = await _keys(connection)
    seen, after = 0, (-(2**63), "")
    while True:
        try:
            rows = await sql.after.all(connection, size=after[0], witness=after[1], most=PAGE)
        except (ArithmeticError, ValueError) as error:
            return seen, f"a cosignature of a checkpoint of more than {after[0]} cannot be read: {error}"
        for row in rows:
            if why := _wrong(row, keys):
                return seen, f"the cosignature of the checkpoint of {row['size']} by {row['witness']} {why}"
            seen += 1
        if not rows:
            break
        after = (rows[-1]["size"], rows[-1]["witness"])
    if row := await sql.unsent.one(connection):
        return seen, f"the {row['kind']} {row['name']} was sent a checkpoint of {row['size']} that is not there"
    return seen, None


async def _keys(connection: Any) -> dict[tuple[str, bytes], Verifier]:
    found = {}
    for row in await sql.keys.all(connection):
        # What is no key verifies nothing
        with contextlib.suppress(InvalidInput):
            key = Verifier.parse(row["vkey"])
            if key.kind == COSIGNATURE:
                found[key.name, key.id] = key
    return found


def _wrong(row: Any, keys: dict[tuple[str, bytes], Verifier]) -> str | None:
    """What is wrong with a stored cosignature; None: nothing."""
    if row["note"] is None:
        return "is there, and the checkpoint is not"
    key = keys.get((row["witness"], row["key_id"]))
    if key is None:
        return "is by a key that no target has or had"
    try:
        opened = redflag_verify.parse_note(f"{row['note']}{row['line']}\n".encode(), "")
        name, key_id, signature = opened.signatures[-1]
    except redflag_verify.NotVerified:
        name, key_id, signature = "", b"", b""
    if "\n" in row["line"] or (name, key_id, len(signature)) != (key.name, key.id, 72):
        return "is no signature line of it by that key"
    told = int.from_bytes(signature[:8], "big")
    if told != row["cosigned_at"].timestamp():
        return "is of another time than it says"
    # The message of tlog-cosignature. By OpenSSL: the verifier's own Ed25519, which accepted it when it was stored, takes milliseconds
    said = f"cosignature/v1\ntime {told}\n{opened.text}".encode()
    return None if key.verifies(said, signature[8:]) else "is not what it signed"


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
