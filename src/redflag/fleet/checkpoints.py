"""What agents are told of the log, so that a fleet of hosts is a crowd of witnesses, and what they report when it does not hold.

An agent names the checkpoint that it holds, and gets the newest one with the proof that the log still begins with its own.
That costs next to nothing: each process reads the newest checkpoint at most every half minute, so that agents hold the same
few sizes, and a proof is computed once for all that hold one size. A check-in never fails or waits long because of it: what
cannot be told now is left out, and the agent asks again.

An agent that refused what it was shown says so. Both checkpoints are judged here once more, since an agent can say what it
likes: what this log's key has signed is a proof, the rest is a claim. One record an hour for an agent and a reason, and a
fault that raises an alert.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from redflag.audit import events, redaction, sequencer, tree
from redflag.audit.actor import Actor
from redflag.audit.checkpoint import Checkpoint, Verifier, open_own
from redflag.database import faults, queries
from redflag.errors import Conflict, InvalidInput

log = logging.getLogger("redflag.fleet")
sql = queries.load(__file__, "checkpoints.sql")

EVERY_SECONDS = 3600.0
NEWEST_SECONDS = 30.0
MOST_PROOFS = 1024
MOST_AGENTS = 100_000

# What an agent may say of a checkpoint. All but the last are alarms; that one is a declared change of the log's name
REASONS = frozenset({"bad_signature", "other_origin", "smaller_tree", "different_root", "bad_proof", "log_renamed"})
RENAMED = "log_renamed"
LONGEST_NOTE = 64 * 1024


@dataclass(frozen=True)
class Held:
    """The checkpoint that an agent says it holds; size 0: none."""

    size: int
    origin: str | None = None


def held(said: Any) -> Held | None:
    """What a check-in says in `log`, or None for nonsense."""
    if not isinstance(said, dict):
        return None
    size, origin = said.get("size", 0), said.get("origin")
    if type(size) is not int or not 0 <= size < 2**63 or not (origin is None or isinstance(origin, str)):
        return None
    return Held(size, origin)


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint. `previous`: the logs that it says it goes on from, each with as many records as are still of it."""

    size: int
    root: str
    note: str
    origin: str
    previous: dict[str, int] = field(default_factory=dict)

    def begin(self, of: Held) -> int:
        """The size from which the proof has to lead on: the agent's, but not beyond where its log was closed."""
        if of.origin is None or of.origin == self.origin:
            return of.size
        return min(of.size, self.previous.get(of.origin, of.size))


def read_newest(size: int, note: str) -> Newest:
    """Takes apart a checkpoint of our own: line 1 is the origin, and `previous ORIGIN SIZE ROOT` lines may follow, newest first."""
    lines = note.partition("\n\n")[0].split("\n")
    previous: dict[str, int] = {}
    least = size
    for line in lines[3:]:
        words = line.split(" ")
        if len(words) == 4 and words[0] == "previous" and words[2].isascii() and words[2].isdigit():
            least = min(least, int(words[2][:19]))
            previous.setdefault(words[1], least)
    return Newest(size, lines[2] if len(lines) > 2 else "", note, lines[0], previous)


class Checkpoints:
    """The checkpoints and proofs that the agents of one server process are told. `public` is the log's public key."""

    def __init__(
        self, pool: Any, public: bytes, *, every: float = EVERY_SECONDS, newest_seconds: float = NEWEST_SECONDS
    ) -> None:
        self.pool = pool
        self.public = public
        self._every = every
        self._newest_seconds = newest_seconds
        self._newest: Newest | None = None
        self._read_at = float("-inf")
        # By the older size, and size and root of the newer tree
        self._proofs: collections.OrderedDict[tuple[int, int, str], list[str]] = collections.OrderedDict()
        # In the order of the times, so that the oldest go first
        self._told: collections.OrderedDict[bytes, float] = collections.OrderedDict()
        # One reader at a time: what agents want to know of the log never takes more than one connection
        self._reading = asyncio.Lock()

    async def answer(self, agent_id: uuid.UUID, said: Any) -> dict[str, Any] | None:
        """The newest checkpoint for an agent that says this in `log`; None: nothing now. Never raises."""
        of = held(said)
        if of is None or not self._may_ask(agent_id):
            return None
        try:
            newest = await self._newest_for(of)
            if newest is None:
                return None
            old = newest.begin(of)
            consistency = await self._consistency(old, newest)
        except Exception as error:  # its commands matter more to an agent than the log
            log.warning("an agent could not be told of the log: %s: %s", type(error).__name__, error)
            return None
        self._note(agent_id)
        return {
            "checkpoint": newest.note,
            "consistency": consistency,
            "old": old,
            "key": Verifier(newest.origin, self.public).vkey(),
        }

    def _may_ask(self, agent_id: uuid.UUID) -> bool:
        told = self._told.get(agent_id.bytes)
        return told is None or time.monotonic() - told >= self._every

    def _note(self, agent_id: uuid.UUID) -> None:
        now = time.monotonic()
        self._told[agent_id.bytes] = now
        self._told.move_to_end(agent_id.bytes)
        while self._told and (len(self._told) > MOST_AGENTS or now - next(iter(self._told.values())) >= self._every):
            self._told.popitem(last=False)

    async def _newest_for(self, of: Held) -> Newest | None:
        asked_at = time.monotonic()
        if not self._is_stale(of, asked_at):
            return self._newest
        async with self._reading:
            if self._is_stale(of, asked_at):
                async with self.pool.acquire() as connection:
                    began = time.monotonic()
                    row = await sequencer.sql.newest_checkpoint.one(connection)
                self._newest = read_newest(row["size"], row["note"]) if row else None
                self._read_at = began
        return self._newest

    def _is_stale(self, of: Held, asked_at: float) -> bool:
        # Before an agent is told of a smaller log than it holds, it is asked once more whether that is so
        is_beyond = self._newest is None or of.size > self._newest.size
        return asked_at - self._read_at >= self._newest_seconds or (is_beyond and self._read_at < asked_at)

    async def _consistency(self, old: int, newest: Newest) -> list[str]:
        if not 0 < old < newest.size:
            return []
        key = old, newest.size, newest.root
        if (found := self._proofs.get(key)) is not None:
            self._proofs.move_to_end(key)
            return found
        async with self._reading:
            if (found := self._proofs.get(key)) is not None:
                return found
            try:
                async with self.pool.acquire() as connection:
                    hashes = await tree.consistency(connection, old, newest.size)
            except Conflict as error:
                # The tree is damaged: the agent is shown what there is, and its refusal is what the witnesses are for
                log.error("the log's consistency with its first %d records cannot be proven: %s", old, error)
                return []
            proof = [base64.b64encode(one).decode() for one in hashes]
            self._proofs[key] = proof
            if len(self._proofs) > MOST_PROOFS:
                self._proofs.popitem(last=False)
        return proof


@dataclass(frozen=True)
class Alarm:
    """What an agent says of a checkpoint: why, in its words, the note that it holds and the one that it was given."""

    reason: str
    message: str
    held: str
    given: str


async def record_alarm(connection: Any, actor: Actor, agent_id: uuid.UUID, alarm: Alarm, public: bytes) -> bool:
    """Records what an agent reports of the log, and raises the alert: once an hour for an agent and a reason. Returns whether it did.

    Raises InvalidInput for a reason that there is not, or notes of more than 64 Ki characters.
    """
    if alarm.reason not in REASONS:
        raise InvalidInput(f"{alarm.reason[:60]!r} is no reason", f"Give one of {', '.join(sorted(REASONS))}")
    if max(len(alarm.held), len(alarm.given)) > LONGEST_NOTE:
        raise InvalidInput(f"A note has more than {LONGEST_NOTE} characters", "Send the checkpoint alone")
    is_alarm = alarm.reason != RENAMED
    kept, given = _signed(alarm.held, public), _signed(alarm.given, public)
    said = redaction.short(alarm.message, 500)
    signed = {"held_size": kept, "given_size": given}
    sizes: dict[str, Any] = {name: one.size for name, one in signed.items() if one is not None}
    async with connection.transaction():
        times = await sql.count_alarm.value(connection, key=f"log_alarm:{agent_id}:{alarm.reason}")
        if times != 1:
            return False
        found = await _finding(connection, alarm.held, kept)
        await events.record(
            connection,
            actor,
            kind="access",
            action="log_rollback_seen" if is_alarm else "log_renamed_seen",
            result="failed" if is_alarm else "success",
            message=f"{said} ({found})" if found else said,
            agent_id=agent_id,
            reason=alarm.reason,
            held=redaction.short(alarm.held, 4000),
            given=redaction.short(alarm.given, 4000),
            **sizes,
        )
    if is_alarm:
        detail = f"agent {agent_id} refused a checkpoint ({alarm.reason}): {said} ({found})"
        log.critical("%s", detail)
        faults.note("log_rollback_seen", detail)
    return True


def _signed(note: str, public: bytes) -> Checkpoint | None:
    """The checkpoint of a note, if this log's key signed it under whatever name; else None."""
    try:
        return open_own(note, public)
    except (InvalidInput, ValueError):
        return None


async def _finding(connection: Any, note: str, kept: Checkpoint | None) -> str:
    """What this server says of the checkpoint that the agent holds: a proof of a rollback, or not."""
    if kept is None:
        return "the agent showed no checkpoint that this log's key has signed" if note else "the agent held none yet"
    newest = await sequencer.sql.newest_checkpoint.one(connection)
    size = newest["size"] if newest else 0
    if kept.size > size:
        return f"it holds a checkpoint of {kept.size} records that this log's key has signed, and this log has {size}"
    try:
        same = await tree.root(connection, kept.size) == kept.root
    except Conflict as error:
        return f"it holds a signed checkpoint of {kept.size} records; {error}"
    begins = "begins" if same else "does not begin"
    return f"it holds a checkpoint of {kept.size} records that this log's key has signed, and this log {begins} with it"
