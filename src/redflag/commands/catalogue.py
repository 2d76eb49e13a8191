"""The command types that agents know, in words: what each does, and what it can be told. THE table; it has no other home.

Held against the agent's own handlers, and against what RedFlag's agents report on, by tests. A type that is not here can be
enqueued all the same: an agent that knows it runs it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redflag.errors import InvalidInput

_NAMES = re.compile(r"[,\s]+")
MOST_NAMES = 200


class Shape(enum.StrEnum):
    """What a parameter is, and so how it is typed."""

    TEXT = "text"
    NAMES = "names"
    MINUTES = "minutes"
    YES = "yes"


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name on the wire, and how people are asked for it."""

    name: str
    label: str
    shape: Shape = Shape.TEXT
    help: str = ""
    required: bool = False
    least: int = 0
    most: int = 10_080
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandType:
    """A type: what it is called, what it does, what it can be told. `grave`: it is asked twice."""

    word: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    grave: str = ""


_PACKAGE_TYPE = Parameter(
    "package_type", "Package manager", help="As the agent's updates name it.", required=True,
    choices=("apt", "dnf", "docker_image", "windows_update", "winget"),
)  # fmt: skip
_PACKAGE = Parameter("package_name", "Package", help="One package; several go below.")
_PACKAGES = Parameter("packages", "Packages", Shape.NAMES, "Several, with blanks or commas between them.")
_UPDATE = Parameter("update_id", "Update", help="The id of the update that this is for: the Updates page fills it in.")

CATALOGUE: dict[str, CommandType] = {
    "scan_updates": CommandType(
        "Look for updates",
        "The agent tells which updates its host has. Changes nothing on the host.",
        (Parameter("refresh", "Ask the package sources anew first", Shape.YES, "Slower; else as fresh as the host's own lists."),),
    ),
    "install_updates": CommandType(
        "Install updates",
        "The agent installs packages, or everything of one package manager when none is named.",
        (_PACKAGE_TYPE, _PACKAGE, _PACKAGES, _UPDATE),
        grave="This changes the hosts. Without a package it installs every update of the package manager.",
    ),
    "dry_run_update": CommandType(
        "Try an update",
        "The agent finds out what installing a package would bring along. Changes nothing on the host.",
        (
            _PACKAGE_TYPE,
            _PACKAGE,
            _PACKAGES,
            Parameter("update_id", "Update", help="The id of the update: the Updates page fills it in.", required=True),
        ),
    ),
    "confirm_dependencies": CommandType(
        "Install with dependencies",
        "The agent installs a package with the others that a dry run found. The Updates page does this after a dry run.",
        (
            _PACKAGE_TYPE,
            _PACKAGE,
            _PACKAGES,
            Parameter("dependencies", "Dependencies that are agreed to", Shape.NAMES, "With blanks or commas between them."),
            _UPDATE,
        ),
        grave="This changes the hosts.",
    ),
    "collect_specs": CommandType("Collect facts", "The agent tells what its host is made of: processor, memory, disks."),
    "enable_heartbeat": CommandType(
        "Come by often",
        "The agent checks in every few seconds for a while.",
        (Parameter("duration_minutes", "For so many minutes", Shape.MINUTES, "10 if left out.", least=1),),
    ),
    "disable_heartbeat": CommandType("Come by as usual", "The agent checks in at its normal interval again."),
    "reboot": CommandType(
        "Restart the host",
        "The host restarts after a delay, and tells whoever is logged in.",
        (
            Parameter("delay_minutes", "After so many minutes", Shape.MINUTES, "1 if left out; 0 is at once."),
            Parameter("message", "Message to who is logged in", help="Up to 200 characters."),
        ),
        grave="The hosts restart, and what runs on them ends.",
    ),
}  # fmt: skip


def word(command_type: str) -> str:
    """A type in words; one that is not known, by its own name."""
    known = CATALOGUE.get(command_type)
    return known.word if known else command_type.replace("_", " ")


def parameters(command_type: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that somebody typed, as the agent reads them: what was left empty is left out. Raises InvalidInput."""
    params: dict[str, Any] = {}
    for one in CATALOGUE[command_type].parameters:
        text = given.get(one.name, "").strip()
        if text:
            params[one.name] = _value(one, text)
        elif one.required:
            raise InvalidInput(f"{one.label} is missing", "Fill it in")
    return params


def in_words(command_type: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Parameters as a list of what and how much, those of the type's own order first; what is not known, by its own name."""
    known = {one.name: one for one in (CATALOGUE[command_type].parameters if command_type in CATALOGUE else ())}
    order = [name for name in known if name in params] + [name for name in params if name not in known]
    return [(known[name].label if name in known else name, _spoken(params[name])) for name in order]


def _value(one: Parameter, text: str) -> Any:
    if one.shape == Shape.YES:
        return True
    if one.shape == Shape.MINUTES:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and one.least <= int(text) <= one.most):
            raise InvalidInput(f"{one.label}: {text[:50]!r} is no number of minutes", f"Give {one.least} to {one.most}")
        return int(text)
    if one.shape == Shape.NAMES:
        names = [name for name in _NAMES.split(text) if name]
        if len(names) > MOST_NAMES:
            raise InvalidInput(f"{one.label}: more than {MOST_NAMES} names", "Enqueue several commands")
        return names
    if one.choices and text not in one.choices:
        raise InvalidInput(f"{one.label}: {text[:50]!r} is none", f"Choose one of {', '.join(one.choices)}")
    return text


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(_spoken(one) for one in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_spoken(one)}" for name, one in value.items()) or "none"
    return str(value)
