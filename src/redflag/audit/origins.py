"""What the log is called, what a server remembers of it, and how a closed log goes on under a new name.

A server that remembers a checkpoint does no step of a log that does not continue it: the database was rolled back or
rewritten, and whatever it gave positions to now would stand where other records stood (`RolledBack`). Commands and records
go on; the records wait. The way on is a person's act: the log is closed, and a new *origin* is opened that names it.

- Entries and positions stay. The new log begins with the tree that the database has (`first_size`), and signs larger ones only.
- Every checkpoint of it says so in extension lines (tlog-checkpoint, "Note text"), the newest closing first:

      previous <old origin> <size> <root>      the old log was closed with this tree, with which the new one begins
      abandoned <old origin> <size> <root>     the newest checkpoint that was known of the old log, where it is given up

- The database writes the record of it, so that the new log holds its own beginning.
- A server that remembers a closed log sets that checkpoint aside, in a file of its own, and goes on.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redflag.audit import checkpoint, merkle, tree
from redflag.audit.checkpoint import Checkpoint, Signer, open_own
from redflag.audit.memory import Memory
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, SettingsError

log = logging.getLogger("redflag.audit")
sql = queries.load(__file__, "origins.sql")

WAY_ON = "See docs/howto/back-up-and-restore.md, “The log after a restore”"


class RolledBack(Conflict):
    """The log in the database is not the one whose checkpoint this server remembers."""


def choose(wanted: str, given: str | None, default: str) -> str:
    """What the log is called: as the database says, else as the setting `wanted` or the default. Raises SettingsError where they differ."""
    if wanted and given and wanted != given:
        raise SettingsError(
            f"REDFLAG_LOG_ORIGIN says {wanted}, and the log in the database is called {given}",
            f"Set REDFLAG_LOG_ORIGIN={given} or unset it; a log is renamed with `redflag audit reopen --planned --origin {wanted}`",
        )
    return given or wanted or default


async def differs(connection: Any, known: Checkpoint, size: int) -> str:
    """Why the log's tree of `size` does not go on from a checkpoint; "" if it does. Raises Conflict when the tree is damaged."""
    if known.size > size:
        return (
            f"The log has {size:,} records in its tree, and this server knows a checkpoint of {known.size:,}: "
            "the database was rolled back"
        )
    if await tree.root(connection, known.size) != known.root:
        return (
            f"The log's tree of {size:,} does not begin with the one of {known.size:,} that was signed before: "
            "records were changed, or it grew anew after a rollback"
        )
    return ""


async def recall(connection: Any, memory: Memory, origin: str | None, size: int) -> None:
    """Holds what this server remembers against the log, in the transaction of a step. Raises RolledBack.

    What it remembers of a log that was closed is set aside: that log goes on under another name.
    """
    known = memory.newest
    if known is None or not known.size:
        return
    if origin is not None and known.origin != origin:
        closing = await sql.closing.one(connection, name=known.origin)
        if closing is None:
            raise RolledBack(
                f"The log in the database is called {origin}, and this server remembers {known.size:,} records of "
                f"{known.origin}: the database was rolled back to before it got that name, or is another one",
                WAY_ON,
            )
        _set_aside(memory, known, closing)
    elif why := await differs(connection, known, size):
        raise RolledBack(why, f"Find out who restored it, and run `redflag audit fsck`. {WAY_ON}")


def _set_aside(memory: Memory, known: Checkpoint, closing: Any) -> None:
    kept = memory.set_aside()
    log.warning(
        "the log %s was closed and goes on as %s; what this server remembered of it (a checkpoint of %d records) is in %s",
        known.origin, closing["origin"], known.size, kept or "no file any more",
    )  # fmt: skip
    named = closing["known_size" if known.origin == closing["known_origin"] else "first_size"]
    if known.size > named:
        log.critical(
            "the new log says that %d records were known of %s, and this server knew %d: keep %s, which proves it",
            named, known.origin, known.size, kept,
        )  # fmt: skip


async def follow(connection: Any, signer: Signer, origin: str) -> bool:
    """Signs under the log's name from now on, if the signer's own name is that of a log that was closed. Returns whether they agree."""
    name = signer.verifier.name
    if name == origin:
        return True
    if await sql.closing.one(connection, name=name) is None:
        return False
    signer.take_name(origin)
    log.warning("the log %s was closed and goes on as %s, which is what this server signs as now", name, origin)
    return True


def extensions(openings: Iterable[Any]) -> tuple[str, ...]:
    """What every checkpoint of the log says of those before it: `openings` are rows of audit_origins, the newest first."""
    lines: dict[str, None] = {}
    for one in openings:
        root = base64.b64encode(one["first_root"]).decode()
        for name in (one["previous_origin"], one["known_origin"]):
            lines[f"previous {name} {one['first_size']} {root}"] = None
        if one["abandoned"]:
            known = base64.b64encode(one["known_root"]).decode()
            lines[f"abandoned {one['known_origin']} {one['known_size']} {known}"] = None
    return tuple(lines)


@dataclass(frozen=True)
class Names:
    """What the log was called: `first` before it was ever reopened (None: no name yet), and its reopenings, the newest first."""

    first: str | None
    openings: Sequence[Any]

    def extensions(self, origin: str) -> tuple[str, ...] | None:
        """What the checkpoints say that were signed under a name; None if the log was never called so."""
        if origin == self.first:
            return ()
        at = next((place for place, one in enumerate(self.openings) if one["origin"] == origin), None)
        return None if at is None else extensions(self.openings[at:])


async def names(connection: Any) -> Names:
    """What the log was called over time."""
    openings = await sql.openings.all(connection)
    state = await sql.state.one(connection)
    return Names(openings[-1]["previous_origin"] if openings else state["origin"], openings)


@dataclass(frozen=True)
class Standing:
    """How the log stands: its name, how far it is, the newest checkpoint that is known of it, and why it does not go on ("": it does)."""

    origin: str | None
    sequenced: int
    integrated: int
    known: Checkpoint | None
    why: str


async def standing(connection: Any, public: bytes, remembered: Sequence[Checkpoint]) -> Standing:
    """Holds checkpoints that were kept outside the database against it. `public` is the log's key, `remembered` are signed by it.

    Raises Conflict when the database's own newest checkpoint is another key's, or its tree does not continue it.
    """
    state = await sql.state.one(connection)
    origin, size = state["origin"], state["integrated"]
    row = await sql.newest_signed.one(connection)
    newest = None if row is None else own(row["note"], public)
    if newest is not None and (why := await differs(connection, newest, size)):
        raise Conflict(
            f"The database contradicts the checkpoint that it holds itself. {why}",
            "Run `redflag audit fsck`, and restore a backup from before that happened",
        )
    closed = {
        name for one in await sql.openings.all(connection) for name in (one["previous_origin"], one["known_origin"])
    }
    known, why = newest, ""
    # Whoever remembers a log of another name saw what came after the database's; of one log the largest tree counts
    for one in sorted(remembered, key=lambda one: (one.origin != origin, one.size)):
        if one.origin in closed or not one.size:
            continue
        if origin is not None and one.origin != origin:
            known = one
            why = f"The log is called {origin} in the database, and {one.size:,} records of {one.origin} were signed after that"
        elif reason := await differs(connection, one, size):
            known, why = one, reason
    return Standing(origin, state["sequenced"], size, known, why)


def own(note: str, public: bytes) -> Checkpoint:
    """A checkpoint that the database has, if this key signed it. Raises Conflict."""
    try:
        return open_own(note, public)
    except InvalidInput:
        raise Conflict(
            "The newest checkpoint in the database is not signed by the key of this server",
            "Put back the log's key from its backup; without it nobody can say that the log goes on",
        ) from None


@dataclass(frozen=True)
class Opened:
    """A log that was opened: its name and number, the size with which it begins, and what it goes on from."""

    origin: str
    number: int
    first_size: int
    previous_origin: str
    known: Checkpoint
    abandoned: bool


async def reopen(
    connection: Any,
    public: bytes,
    origin: str,
    remembered: Sequence[Checkpoint],
    *,
    reason: str = "",
    planned: bool = False,
    taken: Iterable[str] = (),
) -> Opened:
    """Closes the log and opens a new one of this name, as the owner. The caller has a transaction open.

    Without a `reason` it is why the log does not go on. `taken` are names that logs had and the database does not know of.
    Raises Conflict when the log goes on and this was not planned, or no checkpoint of it is known; InvalidInput for a name
    that no log may have, or that one had.
    """
    await sql.lock.one(connection)
    now = await standing(connection, public, remembered)
    if now.known is None:
        raise Conflict(
            "No checkpoint of this log is known, so there is nothing to close", "Set REDFLAG_LOG_ORIGIN to name it"
        )
    if not now.why and not planned:
        raise Conflict(
            f"The log {now.origin} goes on: its tree of {now.integrated:,} records begins with the newest checkpoint that is "
            f"known, of {now.known.size:,}",
            "There is nothing to do. Add --planned to close it all the same, and go on under another name",
        )
    used = {now.origin, *taken, *(one.origin for one in remembered)} | {
        one[name]
        for one in await sql.openings.all(connection)
        for name in ("origin", "previous_origin", "known_origin")
    }
    if not checkpoint.is_name(origin) or origin in used:
        rule = "A log was called so before" if origin in used else checkpoint.NAME_RULE.capitalize()
        raise InvalidInput(f"{origin[:300]!r} cannot name the new log. {rule}", "Choose another name")
    root = await tree.root(connection, now.integrated)
    row = await sql.open.one(
        connection,
        origin=origin,
        first_size=now.integrated,
        first_root=root,
        known_origin=now.known.origin,
        known_size=now.known.size,
        known_root=now.known.root,
        known_note=now.known.note,
        abandoned=bool(now.why),
        reason=reason or now.why or "planned",
    )
    return Opened(origin, row["id"], now.integrated, row["previous_origin"], now.known, bool(now.why))


async def require_beginning(connection: Any, openings: Sequence[Any], size: int, root: bytes) -> None:
    """That the tree to be signed begins with the one that the log was opened with. Raises RolledBack."""
    if not openings:
        return
    first, begins = openings[0]["first_size"], openings[0]["first_root"]
    proof = await tree.consistency(connection, first, size)
    if not merkle.verify_consistency(first, begins, size, root, proof):
        raise RolledBack(
            f"The log's tree of {size:,} does not begin with the {first:,} records that it was opened with",
            "Run `redflag audit fsck`, which names the first record that is wrong",
        )
