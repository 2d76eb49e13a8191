"""The filter of the history as it stands in a page's address, so that a view can be shared and comes back as it was.

What people type is taken as they say it: an agent by its name, a person without `user:`, a time as `3d` or with date and clock
(UTC where no zone is given). What cannot be understood raises InvalidInput, with what would have been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from redflag import words
from redflag.audit.export.reading import Selection
from redflag.commands import sentences
from redflag.commands.history import Filter
from redflag.commands.states import Kind, Result
from redflag.errors import InvalidInput, NotFound
from redflag.fleet import agents
from redflag.web.dashboard import labels

# In the order in which a page shows them: name in the address, and what a chip calls it
FIELDS = {
    "result": "result",
    "kind": "kind",
    "people": "by people",
    "agent_id": "agent",
    "command_id": "command",
    "command_type": "type",
    "action": "action",
    "actor": "by",
    "since": "since",
    "until": "until",
    "text": "text",
}
# What an export, a bundle or a report cannot be narrowed to
NOT_EXPORTED = ("people", "action", "text")
LONGEST = 300

# Views that are asked for often: what it is called, its icon, its part of the address, and a hint
PRESETS: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("Everything", "list", {}, "all that is recorded"),
    ("Timeouts", "clock-exclamation", {"result": "timed_out"}, "commands that were not done in time"),
    ("Failures", "circle-x", {"result": "failed"}, "commands that agents reported as failed"),
    ("Late results", "hourglass-low", {"kind": "late_result"}, "what agents reported after the timeout"),
    ("Refused access", "lock-access", {"result": "denied"}, "what somebody may not do, and tried"),
    ("Changes by people", "user-edit", {"kind": "change", "people": "yes"}, "settings, agents, updates, users"),
)

E = TypeVar("E", bound=enum.StrEnum)


@dataclass(frozen=True)
class Asked:
    """A filter: as it was typed, by name, without what is empty; and as the history takes it."""

    typed: dict[str, str]
    filter: Filter

    def address(self, path: str, *, without: str = "", **more: str) -> str:
        """The address of this view, less one of its filters, or with something besides."""
        query = {name: value for name, value in self.typed.items() if name != without} | more
        return f"{path}?{urllib.parse.urlencode(query)}" if query else path

    def chips(self, path: str, names: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """Each filter that is set: what it is, its value in words, and the address without it."""
        return [
            (FIELDS[name], self._told(name, names), self.address(path, without=name)) for name in FIELDS if name in self.typed
        ]  # fmt: skip

    def preset(self) -> str | None:
        """Which of the views this is."""
        return next((name for name, _icon, typed, _hint in PRESETS if typed == self.typed), None)

    def selection(self) -> Selection:
        """The same for an export, a bundle or a report, as far as it can be."""
        found = self.filter
        return Selection(
            since=found.since, until=found.until, agent_id=found.agent_id, command_id=found.command_id,
            command_type=found.command_type, kind=found.kind, result=found.result, actor=found.actor,
        )  # fmt: skip

    def _told(self, name: str, names: Mapping[str, str]) -> str:
        value = self.typed[name]
        if name == "agent_id" and self.filter.agent_id:
            return names.get(str(self.filter.agent_id), value)
        if name == "result" and self.filter.result:
            return labels.RESULTS[self.filter.result].word
        if name == "kind" and self.filter.kind:
            return labels.KINDS[self.filter.kind].word
        if name == "actor" and self.filter.actor:
            return sentences.actor(self.filter.actor)
        if name in {"since", "until"} and value[:1].isdigit() and "-" not in value:
            return f"{value} ago"
        return "only" if name == "people" else value


def typed(query: Mapping[str, str]) -> dict[str, str]:
    """What of an address is the filter, as it was typed. Raises InvalidInput for what no filter is."""
    found = {name: value.strip() for name in FIELDS if (value := query.get(name, "")).strip()}
    for name, value in found.items():
        if len(value) > LONGEST or "\x00" in value:
            raise InvalidInput(f"What was given for {FIELDS[name]!r} is too long, or no text", "Give something shorter")
    return found


async def read(connection: Any, query: Mapping[str, str]) -> Asked:
    """The filter of an address. Raises InvalidInput."""
    given = typed(query)
    now = words.now()
    return Asked(
        given,
        Filter(
            agent_id=await _agent(connection, given),
            command_id=_uuid("command", given.get("command_id")),
            command_type=given.get("command_type"),
            result=_word(Result, "result", given.get("result")),
            actor=_actor(given.get("actor")),
            kind=_word(Kind, "kind", given.get("kind")),
            action=given.get("action"),
            since=_moment(given.get("since"), now),
            until=_moment(given.get("until"), now),
            text=given.get("text"),
            people="people" in given,
        ),
    )


async def names_of(connection: Any, found: Iterable[Mapping[str, Any]], *more: uuid.UUID | None) -> dict[str, str]:
    """What the agents are called that records speak of, whose they are and who acted, by their id as text."""
    ids = {event["agent_id"] for event in found} | set(more)
    for event in found:
        kind, _, name = event["actor"].partition(":")
        with contextlib.suppress(ValueError):
            ids |= {uuid.UUID(name)} if kind == "agent" else set()
    return {str(one): name for one, name in (await agents.names(connection, ids)).items()}


def without_name(asked: Asked) -> Asked:
    """The filter with its agent by id: an address that asks nobody again who that was."""
    return dataclasses.replace(asked, typed=asked.typed | {"agent_id": str(asked.filter.agent_id)})


async def _agent(connection: Any, given: Mapping[str, str]) -> uuid.UUID | None:
    value = given.get("agent_id")
    if value is None:
        return None
    try:
        return uuid.UUID(value)
    except ValueError:
        pass
    try:
        return await agents.called(connection, value)
    except NotFound as error:
        raise InvalidInput(error.what, "Give its whole host name, its name, or its id") from None


def _uuid(what: str, value: str | None) -> uuid.UUID | None:
    if value is None:
        return None
    try:
        return uuid.UUID(value)
    except ValueError:
        raise InvalidInput(f"{value[:50]!r} is no {what}'s id", "Copy it whole from the command's page") from None


def _word(kind: type[E], what: str, value: str | None) -> E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise InvalidInput(f"There is no {what} {value[:50]!r}", "Choose one of the list") from None


def _actor(value: str | None) -> str | None:
    """Whom a name means: a person, unless it says what else."""
    if value is None or ":" in value:
        return value
    try:
        return f"agent:{uuid.UUID(value)}"
    except ValueError:
        return f"user:{value}"


def _moment(value: str | None, now: datetime.datetime) -> datetime.datetime | None:
    return None if value is None else words.moment(value, now, datetime.UTC)
