"""The durable journal of commands: what was received, started, finished and reported, so that no command runs twice
and no result is lost.

It owns `journal.jsonl` in the state directory: one JSON object a line, appended and fsynced before the step that it
announces. A command goes `received → started → finished → reported`; `received → finished` is one that was refused
without being run, `ended` one that the server ended before it was started. Reported and ended ids are remembered for
30 days, and the newest 10,000 for longer (the host's clock may jump).

Promises: a line that was cut short by a crash is dropped when the journal is opened; what a method has returned from
survives a power failure. When a write fails the journal refuses all further writes with a JournalError: the agent must
stop, since it could not tell later what it did. A damaged line elsewhere than at the end is refused too: the line may
be the one that says that a command was started.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from redflag_agent.errors import JournalError
from redflag_agent.files import sync_directory, utc_now, write_all, write_private

JOURNAL_NAME = "journal.jsonl"
REMEMBER = timedelta(days=30)
REMEMBER_COUNT = 10_000
COMPACT_BYTES = 4 * 1024 * 1024
REFUSED_OUTPUT = 4096

Json = Dict[str, Any]


@dataclass
class Entry:
    """One command as the journal knows it. `posts` are the calls that report it, in order: (call, body)."""

    id: str
    state: str
    at: str
    type: str = ""
    params: Json = field(default_factory=dict)
    boot_id: Optional[str] = None
    started_at: Optional[str] = None
    posts: List[Tuple[str, Json]] = field(default_factory=list)
    status: Optional[int] = None
    answer: Optional[str] = None

    @property
    def is_done(self) -> bool:
        """Whether the server knows the end of it."""
        return self.state in {"reported", "ended"}


class Journal:
    """The journal, open for writing. Thread-safe; the caller holds the StateLock."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL_NAME
        self._lock = threading.RLock()
        self._failed = False
        try:
            is_new = not self._path.exists()
            self._entries, good = read(self._path)
            self._descriptor = self._open_at(good)
            if is_new:
                sync_directory(directory)
        except OSError as error:
            raise JournalError(
                f"The journal {self._path} cannot be opened: {error.strerror}; check its owner and the disk."
            ) from None
        self._compact_at = COMPACT_BYTES
        if good > COMPACT_BYTES // 4:
            self.compact()

    def received(self, command_id: str, command_type: str, params: Json) -> bool:
        """Record a command that was handed out; False if it is known already, in whatever state."""
        with self._lock:
            if command_id in self._entries:
                return False
            self._append({"event": "received", "id": command_id, "type": command_type, "params": params})
            return True

    def started(self, command_id: str, boot_id: str) -> None:
        """Record that a command is about to be started."""
        self._append({"event": "started", "id": command_id, "boot_id": boot_id})

    def finished(self, command_id: str, posts: List[Tuple[str, Json]]) -> None:
        """Record what is to be reported of a command, before it is posted."""
        self._append({"event": "finished", "id": command_id, "posts": [list(post) for post in posts]})

    def reported(self, command_id: str, status: int, answer: str) -> None:
        """Record the server's final answer to a report; a report that was taken (200) needs to be kept no longer."""
        self._append({"event": "reported", "id": command_id, "status": status, "answer": answer[:1000]})
        with self._lock:
            if os.fstat(self._descriptor).st_size > self._compact_at:
                self.compact()

    def ended(self, command_id: str, reason: str) -> None:
        """Record that a command was not started, because the server had ended it."""
        self._append({"event": "ended", "id": command_id, "answer": reason})

    def get(self, command_id: str) -> Optional[Entry]:
        """What is known of a command."""
        with self._lock:
            return self._entries.get(command_id)

    def in_state(self, state: str) -> List[Entry]:
        """The commands in a state, in the order in which they were received."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.state == state]

    def held(self) -> List[str]:
        """The ids of all commands whose result the server has not confirmed."""
        with self._lock:
            return [entry.id for entry in self._entries.values() if not entry.is_done]

    def compact(self) -> None:
        """Rewrite the journal without what is no longer needed."""
        with self._lock:
            self._check()
            self._entries = _remembered(self._entries)
            data = b"".join(_line(record) for entry in self._entries.values() for record in _records(entry))
            try:
                write_private(self._path, data)
                os.close(self._descriptor)
                self._descriptor = self._open_at(len(data))
            except OSError as error:
                raise self._failure(error) from None
            self._compact_at = max(COMPACT_BYTES, 2 * len(data))

    def close(self) -> None:
        """Close the file; later writes are refused."""
        with self._lock:
            if not self._failed:
                self._failed = True
                os.close(self._descriptor)

    def _open_at(self, size: int) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        return descriptor

    def _append(self, record: Json) -> None:
        with self._lock:
            self._check()
            record["at"] = utc_now()
            try:
                self._write(_line(record))
            except OSError as error:
                raise self._failure(error) from None
            _apply(self._entries, record)

    def _write(self, line: bytes) -> None:
        write_all(self._descriptor, line)
        os.fsync(self._descriptor)

    def _check(self) -> None:
        if self._failed:
            raise JournalError("The journal is closed; start the agent again.")

    def _failure(self, error: OSError) -> JournalError:
        # After a failed fsync nobody knows what is on the disk; only reading it afresh tells.
        self._failed = True
        with suppress(OSError):
            os.close(self._descriptor)
        return JournalError(
            f"The journal {self._path} cannot be written: {error.strerror}; free space, then start the agent again."
        )


def read(path: Path) -> Tuple[Dict[str, Entry], int]:
    """Read a journal without changing it: its entries, and the size up to which it is whole. A journal that is
    missing is empty."""
    entries: Dict[str, Entry] = {}
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return entries, 0
    good = 0
    number = 0
    while good < len(data):
        number += 1
        end = data.find(b"\n", good)
        if end < 0 or not _apply_line(entries, data[good:end]):
            if 0 <= end < len(data) - 1 and data[end:].strip(b"\0\n"):
                raise JournalError(
                    f"Line {number} of {path} is damaged, so what this host has run is unknown; "
                    "move the file away to start afresh."
                )
            break
        good = end + 1
    return entries, good


def _apply_line(entries: Dict[str, Entry], line: bytes) -> bool:
    """Whether `line` was whole, and has been applied."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        record = json.loads(line.decode("utf-8"))
        if record["event"] in _EVENTS and isinstance(record["id"], str):
            _apply(entries, record)
            return True
    return False


def _apply(entries: Dict[str, Entry], record: Json) -> None:
    entry = entries.setdefault(record["id"], Entry(id=record["id"], state="received", at=record["at"]))
    entry.state = event = record["event"]
    entry.at = record["at"]
    if event == "received":
        entry.type = record["type"]
        entry.params = record["params"]
    elif event == "started":
        entry.boot_id = record["boot_id"]
        entry.started_at = record["at"]
    elif event == "finished":
        entry.posts = [(call, body) for call, body in record["posts"]]
    else:
        entry.status = record.get("status")
        entry.answer = record.get("answer")
        entry.params = {}
        # A report that was refused is kept, without the bulk of its output, for the administrator to look at.
        entry.posts = [] if entry.status in {200, None} else [(call, _cut_output(body)) for call, body in entry.posts]


_EVENTS = frozenset({"received", "started", "finished", "reported", "ended"})


def _cut_output(body: Json) -> Json:
    short = {key: value[-REFUSED_OUTPUT:] if key in {"stdout", "stderr"} else value for key, value in body.items()}
    if "updates" in short:
        short["updates"] = f"{len(body['updates'])} packages"
    return short


def _records(entry: Entry) -> List[Json]:
    """The lines from which `_apply` makes this entry again."""
    base = {"id": entry.id, "at": entry.at}
    records: List[Json] = [dict(base, event="received", type=entry.type, params=entry.params)]
    if entry.started_at is not None and not entry.is_done:
        records.append(dict(base, event="started", boot_id=entry.boot_id, at=entry.started_at))
    if entry.posts:
        records.append(dict(base, event="finished", posts=[list(post) for post in entry.posts]))
    if entry.is_done:
        records.append(dict(base, event=entry.state, status=entry.status, answer=entry.answer))
    return records


def _remembered(entries: Dict[str, Entry]) -> Dict[str, Entry]:
    limit = (datetime.now(timezone.utc) - REMEMBER).isoformat(timespec="microseconds").replace("+00:00", "Z")
    done = [entry for entry in entries.values() if entry.is_done]
    newest = {entry.id for entry in sorted(done, key=lambda entry: entry.at)[-REMEMBER_COUNT:]}
    return {
        entry.id: entry for entry in entries.values() if not entry.is_done or entry.id in newest or entry.at > limit
    }


def _line(record: Json) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
