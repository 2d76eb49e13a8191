"""What the pages of updates say: acts, next steps, how far updates are; and the filter that stands in their addresses.

A filter is read alike from an address and from a form, so that "all that match" means what the page showed.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redflag.errors import InvalidInput
from redflag.updates.acts import Act
from redflag.updates.approvals import Decision
from redflag.updates.packages import Filter, Key
from redflag.updates.states import OPEN, Severity, Status
from redflag.web.dashboard import labels
from redflag.words import count

TEXT_LIMIT = 200
NAME_LIMIT = 500


class Words(NamedTuple):
    """An act: what its button says, its icon, and what was done when it is done."""

    button: str
    icon: str
    done: str


ACTS: dict[Act, Words] = {
    Act.APPROVE: Words("Approve", "check", "approved"),
    Act.DRY_RUN: Words("Dry run", "flask", "sent to be examined"),
    Act.INSTALL: Words("Install", "download", "sent to be installed"),
    Act.CONFIRM: Words("Install with dependencies", "packages", "sent to be installed with their dependencies"),
    Act.REJECT: Words("Reject", "ban", "rejected"),
}
# What is asked before it is done; the rest can be taken back
QUESTIONS: dict[Act, str] = {
    Act.INSTALL: "The agents install what is approved. What nobody examined is examined first, and waits for you if it needs "
    "other packages. An installation cannot be taken back.",
    Act.CONFIRM: "The agents install these together with the packages that their dry runs found. An installation cannot be taken back.",
}
# In the order in which updates pass through them
COURSE = (
    Status.INSTALLED, Status.UNCONFIRMED, Status.INSTALLING, Status.DEPENDENCIES, Status.APPROVED, Status.PENDING, Status.FAILED,
    Status.REJECTED,
)  # fmt: skip


def next_step(status: str, dependencies: Sequence[str] | None) -> str:
    """What happens next with an update, or what a person does next."""
    others = count(len(dependencies or ()), "other package")
    examined = {
        Status.DEPENDENCIES: f"It brings {others} along: install them together, or reject it.",
        Status.APPROVED: f"Install it, together with {others}."
        if dependencies
        else "Install it: it needs nothing else.",
    }
    if dependencies is not None and status in examined:
        return examined[Status(status)]
    return {
        Status.PENDING: "Approve it, or make a dry run first to see what else it would change.",
        Status.DEPENDENCIES: "Its dry run is under way. What it finds is shown here.",
        Status.APPROVED: "Install it. What else it needs is examined first.",
        Status.REJECTED: "It is not installed until a person approves it.",
        Status.INSTALLING: "Its agent is to install it, or does so now.",
        Status.UNCONFIRMED: "The agent said that it is installed. The scan that follows confirms it.",
        Status.INSTALLED: "Installed: seen by a scan.",
        Status.FAILED: "It failed. Approve it again to try once more.",
    }[Status(status)]


def outcome(act: Act, decision: Decision) -> tuple[str, str]:
    """What became of an act in words, and what kind of news that is."""
    refused = decision.refused
    if not decision.done and not refused:
        return f"There was nothing to {ACTS[act].button.lower()}: none of these is in a state for it.", "warning"
    text = f"{count(len(decision.done), 'update')} {ACTS[act].done}." if decision.done else "Nothing was done."
    if refused:
        why = dict.fromkeys(one["why"] for one in refused)
        text += f" {count(len(refused), 'was', 'were')} refused: {'; '.join(list(why)[:3])}."
    return text, "warning" if refused else "success"


class Part(NamedTuple):
    """A part of a bar of which the whole is 100 wide."""

    status: Status
    word: str
    colour: str
    number: int
    x: float
    width: float


def bar(by_status: Mapping[str, int]) -> list[Part]:
    """How many updates are where, as a bar: what is done first."""
    whole = sum(by_status.values())
    parts, x = [], 0.0
    for status in COURSE:
        if number := by_status.get(status, 0):
            width = 100 * number / whole
            label = labels.UPDATES[status]
            parts.append(Part(status, label.word, label.colour, number, round(x, 3), round(width, 3)))
            x += width
    return parts


@dataclass(frozen=True)
class View:
    """A filter as it stands in an address. `status`: empty for what is to be done, "all", or a state."""

    text: str = ""
    severity: str = ""
    status: str = ""
    type: str = ""
    agent: str = ""

    @property
    def filter(self) -> Filter:
        """What it means."""
        if self.status == "all":
            statuses = tuple(Status)
        else:
            statuses = (Status(self.status),) if self.status else tuple(one for one in Status if one in OPEN)
        return Filter(
            text=self.text or None,
            package_type=self.type or None,
            statuses=statuses,
            severities=(Severity(self.severity),) if self.severity else tuple(Severity),
            agent_id=uuid.UUID(self.agent) if self.agent else None,
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything is filtered."""
        return self != View()

    def query(self, **more: str) -> str:
        """The address's query: this filter with changes and additions, `?` and all; empty for none."""
        said = {name: value for name, value in (dataclasses.asdict(self) | more).items() if value}
        return f"?{urllib.parse.urlencode(said)}" if said else ""

    def fields(self) -> list[tuple[str, str]]:
        """The filter as hidden fields of a form."""
        return [(name, value) for name, value in dataclasses.asdict(self).items() if value]


def read(given: Mapping[str, Any]) -> View:
    """The filter of an address or a form. Raises InvalidInput."""
    text, kind = word(given, "text", TEXT_LIMIT), word(given, "type", 50)
    severity, status, agent = (word(given, name, 50) for name in ("severity", "status", "agent"))
    if severity and severity not in list(Severity):
        raise InvalidInput(f"{severity!r} is no severity", f"Use one of {', '.join(Severity)}")
    if status and status != "all" and status not in list(Status):
        raise InvalidInput(f"{status!r} is no status of an update", f"Use all, or one of {', '.join(Status)}")
    if agent:
        agent = str(identifier(agent, "agent"))
    return View(text, severity, status, kind, agent)


def word(given: Mapping[str, Any], name: str, longest: int) -> str:
    """A text of an address or a form; empty where there is none. Raises InvalidInput."""
    value = given.get(name, "")
    if not isinstance(value, str) or len(value) > longest or "\x00" in value:
        raise InvalidInput(f"{name} is no text of up to {longest} characters", "Shorten it")
    return value.strip() if name == "text" else value


def identifier(value: str, what: str) -> uuid.UUID:
    """An id. Raises InvalidInput."""
    try:
        return uuid.UUID(value)
    except ValueError:
        raise InvalidInput(f"{value[:50]!r} is no id of an {what}", "Choose it on the page") from None


def key_value(key: Key) -> str:
    """A package as the value of a checkbox: names hold slashes, colons and blanks."""
    return urllib.parse.urlencode({"type": key[1], "name": key[0]})


def key_of(value: str) -> Key:
    """The package of a checkbox's value. Raises InvalidInput."""
    said = dict(urllib.parse.parse_qsl(value[:4000]))
    if not said.get("name") or not said.get("type") or "\x00" in value or "%00" in value:
        raise InvalidInput(f"{value[:50]!r} is no package", "Choose it on the page")
    return said["name"][:NAME_LIMIT], said["type"][:50]
