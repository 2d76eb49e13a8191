"""Why a live command waits, in one sentence: what stands between it and its end, as far as the server knows.

Promises: every live command has a sentence, and it says only what is recorded or what its agent posted; seconds are of the
database's clock. What bars a command comes before what it waits for in the ordinary way: the reasons stand in one list, in the
order in which they are asked, and the first that has something to say is the sentence.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redflag import words
from redflag.commands.states import Status

# A check-in hands out so many commands to an agent
AT_ONCE = 10
# So many commands before one are counted; who waits behind more waits behind "more than" that
MOST_AHEAD = 100
# Silence for longer than that is said to be one
SILENT_SECONDS = 120.0
# How apt and dpkg say who keeps them waiting
_LOCK = re.compile(r"(?:lock\b.*?held by process|Waiting for process with pid)\s+(\d{1,10})(?:\s+\(([^()\s]{1,40})\))?")


@dataclass(frozen=True)
class Facts:
    """A live command and its agent, now. All times are seconds ago; None: never."""

    status: Status
    remaining: float
    deliveries: int = 0
    sent: float | None = None
    acknowledges: bool = False
    acknowledged: float | None = None
    progressed: float | None = None
    progress: str = ""
    seen: float | None = None
    interval: float = 300.0
    late_after: float = 930.0
    protocol: int = 1
    removed: bool = False
    reported_on: bool = True
    ahead: int = 0
    busy_id: uuid.UUID | None = None
    busy_type: str = ""
    busy_running: bool = False

    @property
    def offline(self) -> bool:
        """Whether the agent has missed so many check-ins that nobody can count on it."""
        return self.seen is None or self.seen > self.late_after

    @property
    def gone(self) -> str:
        """Since when it is offline, in words."""
        return "its agent has never come by" if self.seen is None else f"agent offline for {words.rough(self.seen)}"


@dataclass(frozen=True)
class Why:
    """The sentence. `behind` is the other command of which it speaks; `held_up`: somebody should look at it."""

    text: str
    behind: uuid.UUID | None = None
    held_up: bool = False


def why(facts: Facts) -> Why:
    """What the command waits for. The first reason that holds."""
    for reason in _REASONS[facts.status]:
        if found := reason(facts):
            return found
    raise AssertionError(f"no reason for {facts}")  # the last of each list always holds


def of_row(row: Any, *, interval: float, late_after: float) -> Why | None:
    """The sentence of a row of `commands.listing`; None for a command that has ended."""
    if row["next_deadline_at"] is None:
        return None
    return why(
        Facts(
            status=Status(row["status"]),
            remaining=row["remaining_seconds"],
            deliveries=row["deliveries"],
            sent=row["sent_seconds"],
            acknowledges=row["acknowledges"],
            acknowledged=row["acknowledged_seconds"],
            progressed=row["progress_seconds"],
            progress=row["progress"] or "",
            seen=row["seen_seconds"],
            interval=interval,
            late_after=late_after,
            protocol=row["protocol"],
            removed=row["removed"],
            reported_on=row["reported_on"],
            ahead=row["ahead"],
            busy_id=row["busy_id"],
            busy_type=row["busy_type"] or "",
            busy_running=row["busy_status"] == Status.RUNNING,
        )
    )


def _overdue(facts: Facts) -> Why | None:
    if facts.remaining > -1:
        return None
    return Why(f"its time was over {words.rough(-facts.remaining)} ago: the next sweep ends it", held_up=True)


def _removed(facts: Facts) -> Why | None:
    return Why("its agent was removed: only the deadline ends it", held_up=True) if facts.removed else None


def _agent_offline(facts: Facts) -> Why | None:
    if not facts.offline:
        return None
    so_far = {Status.SENT: f"{_handed_out(facts)}; ", Status.RUNNING: "was started; "}.get(facts.status, "")
    return Why(so_far + facts.gone, held_up=True)


def _taken_back(facts: Facts) -> Why | None:
    if not facts.deliveries:
        return None
    times = "once" if facts.deliveries == 1 else f"{facts.deliveries} times"
    return Why(f"handed out {times} and not acknowledged: it is handed out again when its agent comes by", held_up=True)


def _agent_busy(facts: Facts) -> Why | None:
    """RedFlag's own agents come by again only when they have done all that they took."""
    if facts.protocol or facts.busy_id is None:
        return None
    return Why(f"behind {_busy(facts)} on the same agent, which comes by again when that is done", facts.busy_id)


def _queue(facts: Facts) -> Why | None:
    if facts.ahead < AT_ONCE:
        return None
    many = f"more than {facts.ahead}" if facts.ahead >= MOST_AHEAD else str(facts.ahead)
    return Why(f"behind {many} other commands of the same agent, which takes {AT_ONCE} at a check-in")


def _next_check_in(facts: Facts) -> Why:
    left = facts.interval - (facts.seen or 0.0)
    if facts.seen is None or left < 1:
        return Why("waits for its agent to come by, which is due")
    return Why(f"waits for its agent to come by, within {words.rough(left)}")


def _unacknowledged(facts: Facts) -> Why | None:
    if not facts.acknowledges or facts.acknowledged is not None:
        return None
    again = f", for the {_ordinal(facts.deliveries)} time" if facts.deliveries > 1 else ""
    return Why(f"{_handed_out(facts)}{again}, not acknowledged yet")


def _unreported(facts: Facts) -> Why | None:
    if facts.acknowledges or facts.reported_on:
        return None
    text = f"{_handed_out(facts)}; this agent reports nothing of this type: only the deadline ends it"
    return Why(text, held_up=True)


def _silent_agent(facts: Facts) -> Why | None:
    if facts.acknowledges:
        return None
    return Why(f"{_handed_out(facts)}; this agent says nothing more until it is done")


def _behind_on_agent(facts: Facts) -> Why | None:
    if facts.busy_id is None or not facts.busy_running:
        return None
    return Why(f"received by its agent, behind {_busy(facts)} that runs there", facts.busy_id)


def _received(facts: Facts) -> Why:
    return Why(f"received by its agent {words.rough(facts.acknowledged or 0.0)} ago, not started yet")


def _locked(facts: Facts) -> Why | None:
    found = _LOCK.search(facts.progress)
    if not found:
        return None
    by = f" ({found[2]})" if found[2] else ""
    return Why(f"dpkg lock held by pid {found[1]}{by}{_last_word(facts)}", held_up=True)


def _running(facts: Facts) -> Why:
    if not facts.progress:
        silent = facts.progressed is not None and facts.progressed > SILENT_SECONDS
        heard = f"; last heard of {words.rough(facts.progressed or 0.0)} ago" if silent else ""
        return Why(f"running, its agent has not said how far it is{heard}", held_up=silent)
    return Why(f"running: {facts.progress}{_last_word(facts)}")


_REASONS: dict[Status, tuple[Callable[[Facts], Why | None], ...]] = {
    # A maintenance window that is closed stands between the agent's absence and its queue: "outside its window until 02:00"
    Status.PENDING: (_overdue, _removed, _agent_offline, _taken_back, _agent_busy, _queue, _next_check_in),
    Status.SENT: (_overdue, _removed, _agent_offline, _unacknowledged, _unreported, _silent_agent, _behind_on_agent, _received),
    Status.RUNNING: (_overdue, _removed, _agent_offline, _locked, _running),
}  # fmt: skip


def _handed_out(facts: Facts) -> str:
    return f"handed out {words.rough(facts.sent or 0.0)} ago"


def _last_word(facts: Facts) -> str:
    return f" (last progress {words.rough(facts.progressed)} ago)" if facts.progressed is not None else ""


def _busy(facts: Facts) -> str:
    return f"{facts.busy_type} {str(facts.busy_id)[:8]}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
