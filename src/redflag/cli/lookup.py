"""Ids as people type them, and lists as the API pages them.

An id may be given whole or by its beginning (6 characters or more), and an agent also by its name, as long as it fits one
thing only. What a beginning stands for is looked up in the API's own list; a whole id needs no look.
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from redflag.cli.client import Client, Json
from redflag.errors import InvalidInput, NotFound

PAGE = 500
SHORTEST = 6
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{5,35}")

Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At the most so many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True)
class Kind:
    """A kind of thing with an id: where its list is, and how many of it are looked through."""

    what: str
    path: str
    key: str
    see: str
    most: int = 20_000
    paged: bool = True
    names: tuple[str, ...] = ()
    query: dict[str, Any] = field(default_factory=dict)


AGENT = Kind(
    "agent",
    "/api/v1/agents",
    "agents",
    "redflag agents list",
    names=("display_name", "hostname"),
    query={"removed": True},
)
COMMAND = Kind("command", "/api/v1/commands", "commands", "redflag commands list", most=2_000)
UPDATE = Kind("update", "/api/v1/updates", "updates", "redflag updates list")
TOKEN = Kind("token", "/api/v1/tokens", "tokens", "redflag tokens list", paged=False, names=("name",))
INVITATION = Kind(
    "invitation", "/api/v1/enrolment-tokens", "enrolment_tokens", "redflag agents invitations", paged=False
)


def collect(api: Client, path: str, name: str, limit: int, **query: Any) -> Json:
    """At most `limit` rows of a list, in the shape of the API's own answer: {name: rows, next_cursor}."""
    rows: list[Json] = []
    cursor: str | None = None
    while True:
        answer: Json = api.get(path, **query, cursor=cursor, limit=min(PAGE, limit - len(rows)))
        rows += answer[name]
        cursor = answer["next_cursor"]
        if cursor is None or len(rows) >= limit:
            return answer | {name: rows}


def one(api: Client, kind: Kind, given: str) -> str:
    """The id that is meant. Raises NotFound, or InvalidInput when it could be several."""
    return many(api, kind, [given])[0]


def many(api: Client, kind: Kind, given: Sequence[str]) -> list[str]:
    """The ids that are meant, in order, each once. Raises NotFound, or InvalidInput when one could be several."""
    found: list[str] = []
    known: list[Json] | None = None
    for text in given:
        whole = _whole(text)
        if whole is None:
            known = _known(api, kind) if known is None else known
            whole = _meant(kind, text, known)
        found.append(whole)
    return list(dict.fromkeys(found))


def _whole(text: str) -> str | None:
    if len(text) != 36:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _known(api: Client, kind: Kind) -> list[Json]:
    if not kind.paged:
        rows: list[Json] = api.get(kind.path)[kind.key]
        return rows
    return list(api.pages(kind.path, kind.key, most=kind.most, **kind.query, limit=PAGE))


def _meant(kind: Kind, text: str, known: list[Json]) -> str:
    beginning = text.lower()
    fits = [row for row in known if row["id"].startswith(beginning)] if _BEGINNING.fullmatch(beginning) else []
    # A name may be had again after its first owner was removed
    named = [row for row in known if any(row.get(name) == text for name in kind.names)]
    fits = fits or [row for row in named if not (row.get("removed_at") or row.get("revoked_at"))] or named
    if not fits:
        if len(text) < SHORTEST and not kind.names:
            raise InvalidInput(f"{text!r} is too short for an id", f"Give {SHORTEST} characters or more of it")
        by = "id beginning with it" + (" and no name" if kind.names else "")
        raise NotFound(f"No {kind.what} {text!r}: there is no {by}", f"See `{kind.see}`")
    if len(fits) > 1:
        shown = ", ".join(row["id"] for row in fits[:3]) + (" …" if len(fits) > 3 else "")
        raise InvalidInput(f"{text!r} fits {len(fits)} {kind.what}s: {shown}", "Give more of the id")
    return str(fits[0]["id"])


def shortened(ids: Iterable[str]) -> dict[str, str]:
    """For each id a beginning that tells it from the others; on a terminal only, elsewhere ids are shown whole.

    Ids of version 7 begin with their time, so that those of one moment differ late: of them more is shown.
    """
    whole = list(dict.fromkeys(ids))
    if not sys.stdout.isatty():
        return {one: one for one in whole}
    length = max((18 if one[14] == "7" else 8 for one in whole), default=8)
    while length < 36 and (
        len({one[:length] for one in whole}) < len(whole) or any(one[length - 1] == "-" for one in whole)
    ):
        length += 1
    return {one: one[:length] for one in whole}


class Names:
    """What people call the agents; the list is read when it is first asked for."""

    def __init__(self, api: Client) -> None:
        self._api = api
        self._names: dict[str, str] | None = None

    def of(self, agent_id: str | None) -> str:
        """An agent's name, or the beginning of its id where the list does not have it."""
        if agent_id is None:
            return ""
        if self._names is None:
            self._names = {row["id"]: row["display_name"] for row in _known(self._api, AGENT)}
        return self._names.get(agent_id, agent_id[:13])
