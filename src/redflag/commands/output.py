"""What a command put out; and where there is nothing to show, why not.

Promises: an empty output always has a reason: it was never delivered, its agent does not report on this type, it has not ended,
it said nothing, what it said was erased. What was cut says how much there was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redflag import words
from redflag.commands.states import TERMINAL, DeadlineKind, Kind, Status


@dataclass(frozen=True)
class Stream:
    """What came out of one stream, and what became of the rest of it."""

    name: str
    text: str
    note: str = ""


def streams(event: Mapping[str, Any]) -> list[Stream]:
    """The streams that a record holds, with a note on each that was cut or erased. Empty ones are left out."""
    found = []
    for name in ("stdout", "stderr"):
        text = event[name] or ""
        if name in (event.get("erased") or ()):
            found.append(Stream(name, "", "erased; that it was, is in the record"))
        elif text:
            found.append(Stream(name, text, _cut(event.get("metadata"), name, text)))
    return found


def why_none(command: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """Why there is no output of a command (a row of `commands.listing`) in any of its records."""
    status = Status(command["status"])
    if status not in TERMINAL:
        return _not_yet(command, status)
    if command["sent_at"] is None:
        return "It was never handed out to its agent, so nothing ran and nothing was put out."
    if status == Status.CANCELLED:
        return "It was cancelled, and its agent has reported nothing since. What it may have done before is not known."
    end = next((one for one in reversed(events) if one["kind"] == Kind.TRANSITION), None)
    if status == Status.TIMED_OUT:
        return _timed_out(command, end)
    if end is None:
        return "Its records are not here any more: they were pruned with the log, and are in its archive."
    code = end.get("exit_code")
    reported = f" It ended with exit code {code}." if code is not None else ""
    return f"Its agent reported the end without any output.{reported}"


def _timed_out(command: Mapping[str, Any], end: Mapping[str, Any] | None) -> str:
    if _mute(command):
        return f"This agent reports nothing of {command['command_type']}: there is never any output, only its deadline ends it."
    kind = str(((end or {}).get("metadata") or {}).get("deadline_kind") or "")
    if kind == DeadlineKind.DELIVERY:
        return "Its agent never said that it received it: most likely nothing ran."
    return (
        "Its agent has not reported before the deadline. If it still does, its output is shown here, as a late result."
    )


def _not_yet(command: Mapping[str, Any], status: Status) -> str:
    if status == Status.PENDING:
        return "Nothing yet: it has not been handed out."
    if _mute(command):
        return f"This agent reports nothing of {command['command_type']}: there will be no output, only its deadline ends it."
    if command["progress"]:
        return "The whole output comes with its agent's report, at the end. Until then the agent says how far it is."
    return "Nothing yet: the output comes with its agent's report, at the end."


def _mute(command: Mapping[str, Any]) -> bool:
    return bool(command["protocol"] == 0 and not command["reported_on"])


def _cut(metadata: Any, name: str, text: str) -> str:
    told = metadata if isinstance(metadata, dict) else {}
    size = told.get(f"{name}_bytes")
    # The agent itself says how much there was where it cut; the server where it did
    if not isinstance(size, int) or size <= len(text.encode()):
        return ""
    return f"cut to {words.size(len(text.encode()))}; there were {words.size(size)}"
