"""The agent as a witness of the server's audit log (C2SP tlog-checkpoint; RFC 6962 §2.1.2).

Once an hour it asks for the log's newest checkpoint, with the proof that the log still begins with the one it holds, and
holds the new one from then on. What it holds stays on this host, where nobody who rewrites the log can reach it. Refused is
what another key signed, another log, a smaller one, another tree of the same size, and what does not begin with what is
held: the old checkpoint is kept, the agent's log says so each time, and the server is told until it has answered.

Promises: what is held was verified, and survives a crash; a log that is doubted, an answer that makes no sense, and a disk
that is full stop no command. Called by the thread of the check-ins only.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from redflag_agent.api import Api
from redflag_agent.client import FINAL_STATUSES, Json
from redflag_agent.config import parse_log_key
from redflag_agent.errors import ServerRefused, ServerUnreachable, UsageError
from redflag_agent.files import utc_now, write_private
from redflag_agent.log import logger
from redflag_verify import (
    ED25519,
    Checkpoint,
    Key,
    NotVerified,
    Report,
    Trust,
    decimal,
    open_checkpoint,
    parse_note,
    unbase64,
    verify_consistency,
    vkey,
)

STATE_NAME = "log.json"
LOOK_EVERY = 3600.0
LOOK_AGAIN = 300.0  # after an answer that said nothing of the log
SILENT_AFTER = 86400.0
REPORT_AGAIN = 60.0
LONGEST_NOTE = 64 * 1024
LONGEST_PROOF = 64  # hashes; a tree of 2^63 records needs no more
NEXT_STEP = (
    "Tell whoever audits the log. If the administrator put another log in its place on purpose: "
    "redflag-agent pin-log --log-key KEY"
)

RENAMED = "log_renamed"
_random = random.SystemRandom()


class Doubted(Exception):
    """A checkpoint that is refused. `reason` is the word of the protocol for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def examine(key: Key, held: Optional[Checkpoint], note: str, proof: List[bytes]) -> Tuple[Checkpoint, str]:
    """The checkpoint of a note that continues what is held, and what there is to say of a log with a new name, or "".

    `key` is the log's under the name by which it is known here. A note under another name must be signed by the same key and
    say that it goes on from that log (`_closed`). Raises Doubted.
    """
    data = note.encode("utf-8", "replace")
    signer = Key(data.decode().partition("\n")[0], ED25519, key.public)
    try:
        new = open_checkpoint(data, Trust(signer), Report())
    except NotVerified as error:
        raise Doubted("bad_signature", f"the checkpoint is not the log's: {error}") from None
    if new.origin == key.name:
        if held is not None:
            _require_continuation(held, new, proof)
        return new, ""
    closed, given_up = _closed(data, key.name)
    if closed is None:
        raise Doubted("other_origin", f"the checkpoint is of the log {new.origin}, and this host knows {key.name}")
    if new.size < closed.size:
        raise Doubted("smaller_tree", f"the log was closed with {closed.size} records, and goes on with {new.size}")
    told = f"the log {key.name} was closed with {closed.size} records and goes on as {new.origin}"
    if held is None:
        return new, told
    if held.size > closed.size:
        # What was given up is not in the new log: it begins with what was left
        _require_continuation(closed, new, proof)
        lost = held.size - closed.size
        return new, f"{told}; this host holds a checkpoint of {held.size}: the last {lost} were given up"
    try:
        if held.size == closed.size:
            _require_continuation(held, closed, [])
        _require_continuation(held, new, proof)
    except Doubted:
        if not given_up:
            raise
        told += (
            f"; this host holds a checkpoint of {held.size} with which it does not begin: some of these were given up"
        )
    return new, told


def _require_continuation(old: Checkpoint, new: Checkpoint, proof: List[bytes]) -> None:
    if new.size < old.size:
        raise Doubted("smaller_tree", f"the log has {new.size} records, and this host holds a checkpoint of {old.size}")
    if new.size == old.size:
        if new.root != old.root:
            raise Doubted("different_root", f"two different trees of {new.size} records were signed")
    elif not verify_consistency(old.size, old.root, new.size, new.root, proof):
        raise Doubted(
            "bad_proof", f"nothing shows that the log of {new.size} records begins with the one of {old.size}"
        )


def _closed(data: bytes, name: str) -> Tuple[Optional[Checkpoint], bool]:
    """What a log says of how the log of that name was closed: the tree that is left of it, and whether some was given up.

    Its extension lines tell each time that it was closed, the newest first: `previous NAME SIZE ROOT`, the tree with which
    the next one began, and `abandoned NAME SIZE ROOT` if more had been signed than that.
    """
    left: Optional[Checkpoint] = None
    is_found, size, given_up = False, -1, False
    for line in parse_note(data, "checkpoint").text[:-1].split("\n")[3:]:
        kind, *words = line.split(" ")
        if kind == "previous" and len(words) == 3:
            try:
                one = Checkpoint(words[0], decimal(words[1], line), unbase64(words[2], line, 32))
            except NotVerified:
                continue
            if is_found and one.size != size:
                break  # of a time before
            size = one.size
            left = one if left is None or one.size < left.size else left
            is_found = is_found or one.origin == name
        elif kind == "abandoned" and len(words) == 3:
            given_up = True
            if is_found:
                break
    return (left, given_up) if is_found else (None, False)


@dataclass
class Memory:
    """What the agent keeps of the log: `note` was verified when it was kept; times are UTC, `looked_at` in seconds since
    1970. `alarm` is the newest of the refusals, over or not (`doubted`); `unreported` what the server has to be told."""

    note: str = ""
    seen_at: str = ""
    looked_at: float = 0.0
    doubted: bool = False
    alarm: Optional[Json] = None
    unreported: List[Json] = field(default_factory=list)


def read_memory(directory: Path) -> Memory:
    """What was kept; nothing, and a line in the log, if it is damaged."""
    try:
        text = (directory / STATE_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Memory()
    except (OSError, UnicodeDecodeError) as error:
        logger.error("the checkpoint of the log cannot be read, the next one is taken as the first: %s", error)
        return Memory()
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        logger.error("%s is damaged, the next checkpoint is taken as the first: %s", STATE_NAME, error)
        return Memory()


def _parse(data: Any) -> Memory:
    memory = Memory(**data)
    kinds: Dict[str, Any] = {
        "note": str,
        "seen_at": str,
        "looked_at": (int, float),
        "doubted": bool,
        "unreported": list,
    }
    for name, kind in kinds.items():
        if not isinstance(getattr(memory, name), kind):
            raise ValueError(f"{name} is of the wrong type")
    if memory.alarm is not None and not isinstance(memory.alarm, dict):
        raise ValueError("alarm is of the wrong type")
    if not all(isinstance(one, dict) for one in memory.unreported):
        raise ValueError("unreported is of the wrong type")
    return memory


def open_held(key: Key, note: str) -> Optional[Tuple[Key, Checkpoint]]:
    """A checkpoint that was kept, and the log's key under the name that it has there; None if the key did not sign it."""
    named = Key(note.partition("\n")[0], ED25519, key.public)
    try:
        return named, open_checkpoint(note.encode("utf-8", "replace"), Trust(named), Report())
    except NotVerified:
        return None


def forget(directory: Path) -> None:
    """Put aside what is held: the next checkpoint is the first. The alarms go with it."""
    path = directory / STATE_NAME
    if path.exists():
        path.replace(path.with_name(f"{STATE_NAME}.{utc_now()[:19].replace(':', '')}"))


class Witness:
    """Holds the newest checkpoint of the server's log, in the state directory."""

    def __init__(self, directory: Path, api: Api, *, every: float = LOOK_EVERY) -> None:
        self._directory = directory
        self._api = api
        self._every = every
        self._memory = read_memory(directory)
        self._key: Optional[Key] = None
        self._held: Optional[Checkpoint] = None
        pinned = api.config.log_key
        if pinned:
            self._key = parse_log_key(pinned)
        if self._memory.note:
            opened = open_held(self._key, self._memory.note) if self._key is not None else None
            if opened is not None:
                self._key, self._held = opened
                logger.info("witness of the log %s, of %d records when last seen", self._key.name, self._held.size)
            else:
                logger.error(
                    "the checkpoint that was kept is not signed by the log's key in config.json; the next one is taken as the first"
                )
        elapsed = time.time() - self._memory.looked_at
        # A clock that was set back must not put the next look off
        self._due = time.monotonic() + (every - elapsed if 0 <= elapsed < every else 0.0)
        self._warn_at = time.monotonic() + SILENT_AFTER
        self._report_due = 0.0

    def question(self) -> Optional[Json]:
        """What to say in `log` of a check-in: the checkpoint that is held; None while the last look is recent."""
        if time.monotonic() < self._due:
            return None
        if self._held is None:
            return {"size": 0}
        return {"origin": self._held.origin, "size": self._held.size}

    def take(self, answer: object) -> None:
        """Examine what a check-in that asked was answered in `log`. Never raises."""
        try:
            self._take(answer)
        except Exception:  # commands must go on
            self._due = time.monotonic() + LOOK_AGAIN
            logger.exception("the log's checkpoint could not be examined: a fault of the agent")

    def report(self) -> None:
        """Tell the server what it has not been told yet; what it does not take now is told later."""
        if not self._memory.unreported or time.monotonic() < self._report_due:
            return
        for alarm in list(self._memory.unreported):
            try:
                self._api.post("log-alarm", alarm)
            except (ServerRefused, ServerUnreachable) as error:
                if not isinstance(error, ServerRefused) or error.status not in FINAL_STATUSES:
                    logger.warning("what was seen of the log could not be reported, it will be again: %s", error)
                    self._report_due = time.monotonic() + REPORT_AGAIN
                    return
                logger.warning("the server does not take what was seen of the log: %s", error)
            self._memory.unreported.remove(alarm)
            self._save()

    def _take(self, answer: object) -> None:
        if not isinstance(answer, dict):
            self._due = time.monotonic() + min(self._every, LOOK_AGAIN)
            if self._held is not None and time.monotonic() > self._warn_at:
                self._warn_at = time.monotonic() + SILENT_AFTER
                logger.warning("the server has shown no checkpoint of its log since %s", self._memory.seen_at)
            return
        self._warn_at = time.monotonic() + SILENT_AFTER
        # A fleet that was started together must not ask together
        self._due = time.monotonic() + self._every * _random.uniform(1.0, 1.1)
        self._memory.looked_at = time.time()
        note = answer.get("checkpoint")
        note = note if isinstance(note, str) else ""
        try:
            if self._key is None and not self._pin(answer.get("key"), note):
                return
            self._examine(note, answer.get("consistency"))
        except Doubted as doubt:
            logger.error("THE AUDIT LOG OF THE SERVER IS DOUBTED (%s): %s. %s", doubt.reason, doubt, NEXT_STEP)
            self._memory.doubted = True
            self._memory.alarm = {"at": utc_now(), "reason": doubt.reason, "message": str(doubt)[:500]}
            self._remember_to_report(doubt.reason, str(doubt), note)
        self._save()

    def _pin(self, offered: object, note: str) -> bool:
        """Take the first key that is given for the log's, if it signed what came with it."""
        try:
            key = parse_log_key(offered if isinstance(offered, str) else "")
            open_checkpoint(note.encode("utf-8", "replace"), Trust(key), Report())
        except (UsageError, NotVerified) as error:
            logger.warning("the server gave no key of its log that fits its checkpoint: %s", error)
            return False
        self._key = key
        self._api.update(log_key=vkey(key))
        logger.info("pinned the key of the log, as the server gave it: %s", vkey(key))
        return True

    def _examine(self, note: str, consistency: object) -> None:
        if self._key is None:
            return
        if len(note) > LONGEST_NOTE:
            raise Doubted("bad_signature", f"the checkpoint has {len(note)} characters")
        new, renamed = examine(self._key, self._held, note, _hashes(consistency))
        if renamed:
            logger.warning("%s", renamed)
            self._remember_to_report(RENAMED, renamed, note)
        self._key = Key(new.origin, ED25519, self._key.public)
        if self._held is None:
            logger.info("first checkpoint of the log %s: %d records", new.origin, new.size)
        if self._memory.doubted:
            logger.warning("the log is doubted no more: %d records", new.size)
        self._held = new
        self._memory.note, self._memory.seen_at, self._memory.doubted = note, utc_now(), False

    def _remember_to_report(self, reason: str, message: str, given: str) -> None:
        alarm = {"reason": reason, "message": message[:500], "held": self._memory.note, "given": given[:LONGEST_NOTE]}
        others = [one for one in self._memory.unreported if one.get("reason") != reason]
        self._memory.unreported = [*others, alarm]
        self._report_due = 0.0

    def _save(self) -> None:
        try:
            write_private(self._directory / STATE_NAME, (json.dumps(asdict(self._memory), indent=2) + "\n").encode())
        except OSError as error:
            logger.warning("the checkpoint of the log could not be kept: %s", error)


def _hashes(consistency: object) -> List[bytes]:
    """The proof of an answer; one that makes no sense is no proof."""
    if not isinstance(consistency, list) or len(consistency) > LONGEST_PROOF * 2:
        return []
    try:
        return [unbase64(one, "proof", 32) for one in consistency if isinstance(one, str)]
    except (NotVerified, ValueError):
        return []
