"""The life of a command as steps: enqueued, handed out, acknowledged, running, ended; when each was reached, and how long it took."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redflag.commands.states import TERMINAL, Kind, Result, Status


class Reached(enum.StrEnum):
    """Whether a step was reached: before, just now, not yet, or never (it was passed over, or the end came first)."""

    BEFORE = "before"
    NOW = "now"
    NOT_YET = "not_yet"
    NEVER = "never"


@dataclass(frozen=True)
class Step:
    """A step. `took` is the seconds since the one before that was reached; `said` is what else there is to say of it."""

    name: str
    reached: Reached
    at: datetime.datetime | None = None
    took: float | None = None
    said: str = ""


def steps(command: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> list[Step]:
    """The steps of a command (a row of `commands.listing`). Its events tell when it was started; without them that stays open."""
    status = Status(command["status"])
    ended = status in TERMINAL
    # What was taken back begins anew, as if it had never been handed out
    sent_at = None if status == Status.PENDING else command["sent_at"]
    started_at = next(
        (one["executed_at"] for one in events if one["kind"] == Kind.TRANSITION and one["result"] == Result.RUNNING),
        None,
    )
    silent = sent_at is not None and not command["acknowledges"]
    mute = "this agent does not say" if silent else ""
    times = "" if command["deliveries"] < 2 else f"{command['deliveries']} times"
    acknowledged_at = command["acknowledged_at"] if sent_at is not None else None
    reached = [
        ("Enqueued", command["created_at"], True, ""),
        ("Handed out", sent_at, sent_at is not None, times),
        ("Acknowledged", acknowledged_at, acknowledged_at is not None, mute),
        ("Running", started_at, started_at is not None or status == Status.RUNNING, mute),
        ("Ended", command["completed_at"], ended, ""),
    ]
    last = max(place for place, (_, _, is_reached, _) in enumerate(reached) if is_reached)
    told: list[Step] = []
    before: datetime.datetime | None = None
    for place, (name, at, is_reached, said) in enumerate(reached):
        if is_reached:
            took = max(0.0, (at - before).total_seconds()) if at and before else None
            told.append(Step(name, Reached.NOW if place == last else Reached.BEFORE, at, took, said))
            before = at or before
        else:
            never = ended or place < last or (silent and name in {"Acknowledged", "Running"})
            told.append(Step(name, Reached.NEVER if never else Reached.NOT_YET, said=said))
    return told
