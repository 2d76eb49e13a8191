"""Principals: who a token stands for, and what they may do.

Promises
- People's sessions and programs' API tokens are one door, agents' access tokens another. No token opens both, and a
  refresh token opens neither.
- A token that was revoked, ended, ran out, or belongs to somebody disabled or removed is refused by every server within
  4 s and the time of a query: what was found is remembered for no longer, counted from before it was asked. Agents, which
  come by once a minute, are remembered for ten minutes, and for no longer than 4 s since this process last asked which of
  their tokens were revoked (`watch`).
- A refusal is never remembered, so that a new token works at once; neither is somebody with a temporary password, so
  that changing it helps at once.
- One query finds a token that is not remembered. When the database does not answer, its error is raised: nobody is let
  in, and nobody is told that their token is wrong.
- Tokens are looked up by their SHA-256, never compared: what the time of a look-up tells about a digest helps nobody to
  find a token. Neither a token nor a digest is in a log, an error or a repr.
"""

from __future__ import annotations

import collections
import enum
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from redflag.access.roles import PERMISSIONS, Permission, Role
from redflag.access.tokens import digest
from redflag.audit import actor as actors
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import NotAuthenticated

sql = queries.load(__file__, "principals.sql")

REMEMBERED_SECONDS = 4.0
AGENTS_REMEMBERED_SECONDS = 600.0
# Between two looks for tokens that were revoked
WATCH_SECONDS = 1.5
MOST_PRINCIPALS = 20_000
MOST_AGENTS = 200_000
# No token of ours is longer; what is, is not worth a query
_LONGEST = 4096

T = TypeVar("T")


class Kind(enum.StrEnum):
    """What somebody is: a person, a program with an API token, or an agent."""

    USER = "user"
    TOKEN = "token"  # noqa: S105 - the word, not one
    AGENT = "agent"


@dataclass(frozen=True)
class Principal:
    """Who makes a request. `session` names the log-in or the token in the record of what was read.

    A person with `must_change_password` may do nothing but that, whatever the permissions say.
    """

    kind: Kind
    name: str
    session: str
    role: Role | None = None
    permissions: frozenset[Permission] = frozenset()
    user_id: uuid.UUID | None = None
    agent_id: uuid.UUID | None = None
    must_change_password: bool = False

    @classmethod
    def of_agent(cls, agent_id: uuid.UUID) -> Principal:
        """An agent: it has no role and no permission, and speaks for itself."""
        return cls(Kind.AGENT, str(agent_id), f"agent:{agent_id}", agent_id=agent_id)

    def actor(self, address: str | None = None) -> Actor:
        """How they stand in the record of one request: every call is a request of its own."""
        if self.kind == Kind.USER:
            return actors.user(self.name, address)
        if self.kind == Kind.TOKEN:
            return actors.token(self.name, address)
        return actors.agent(self.name, address)


class _Memory(Generic[T]):
    """What was found lately, by digest. Whoever was asked for longest ago is forgotten first."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._found: collections.OrderedDict[bytes, tuple[float, T]] = collections.OrderedDict()

    def get(self, key: bytes) -> T | None:
        """What was found, while it holds."""
        entry = self._found.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._found[key]
            return None
        self._found.move_to_end(key)
        return entry[1]

    def put(self, key: bytes, value: T, until: float) -> None:
        """Remembers until then; forgets what is over or too much."""
        self._found[key] = (until, value)
        self._found.move_to_end(key)
        now = self._clock()
        while self._found:
            first = next(iter(self._found))
            if len(self._found) <= self._most and self._found[first][0] > now:
                break
            del self._found[first]

    def forget(self, key: bytes) -> None:
        """As if it had never been found."""
        self._found.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._found.clear()

    def __len__(self) -> int:
        return len(self._found)


class Authenticator:
    """Tells who a token stands for. One for each server process; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        pool: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_principals: int = MOST_PRINCIPALS,
        most_agents: int = MOST_AGENTS,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._principals: _Memory[Principal] = _Memory(most_principals, clock)
        self._agents: _Memory[tuple[uuid.UUID, float]] = _Memory(most_agents, clock)
        # All that was revoked before this has been forgotten
        self._watched_at = float("-inf")

    async def authenticate(self, token: str) -> Principal:
        """The person or the program with this session or API token. Raises NotAuthenticated."""
        key = _key(token)
        known = self._principals.get(key)
        if known is not None:
            return known
        asked_at = self._clock()
        row = await sql.principal.one(self._pool, token_hash=key)
        if row is None:
            raise _refused()
        role = Role(row["role"])
        permissions = PERMISSIONS[role]
        if row["owner_role"] is not None:
            permissions &= PERMISSIONS[Role(row["owner_role"])]
        principal = Principal(
            kind=Kind(row["kind"]),
            name=row["name"],
            session=f"{row['kind']}:{row['id']}",
            role=role,
            permissions=permissions,
            user_id=row["user_id"],
            must_change_password=row["must_change_password"],
        )
        if not principal.must_change_password:
            self._principals.put(key, principal, _until(asked_at, row["seconds_left"]))
        return principal

    def remembered_agent(self, authorization: str) -> uuid.UUID | None:
        """The agent with the access token of this header, if this process remembers it. None says nothing about the token."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(token) > _LONGEST:
            return None
        return self._remembered(digest(token.strip()))

    def _remembered(self, key: bytes) -> uuid.UUID | None:
        known = self._agents.get(key)
        if known is not None and max(known[1], self._watched_at) + REMEMBERED_SECONDS > self._clock():
            return known[0]
        return None

    async def authenticate_agent(self, token: str) -> uuid.UUID:
        """The agent with this access token. Raises NotAuthenticated."""
        key = _key(token)
        known = self._remembered(key)
        if known is not None:
            return known
        asked_at = self._clock()
        row = await sql.agent.one(self._pool, token_hash=key)
        if row is None:
            raise _refused()
        agent_id: uuid.UUID = row["agent_id"]
        self._agents.put(
            key, (agent_id, asked_at), _until(asked_at, row["seconds_left"], most=AGENTS_REMEMBERED_SECONDS)
        )
        return agent_id

    async def watch(self, connection: Any) -> None:
        """Forgets the agents' tokens that were revoked in the last minutes, by whatever process."""
        asked_at = self._clock()
        for row in await sql.revoked.all(connection):
            self._agents.forget(row["token_hash"])
        self._watched_at = asked_at

    def forget(self, token: str) -> None:
        """What this process remembers of a token, as after a log-out; other processes forget it within 4 s."""
        key = digest(token)
        self._principals.forget(key)
        self._agents.forget(key)

    def forget_all(self) -> None:
        """Everything this process remembers, so that a revocation here holds here at once."""
        self._principals.clear()
        self._agents.clear()


def _key(token: str) -> bytes:
    if not token or len(token) > _LONGEST:
        raise _refused()
    return digest(token)


def _until(asked_at: float, seconds_left: float | None, most: float = REMEMBERED_SECONDS) -> float:
    """Until when an answer holds: not past the end of the token itself. None: it has none."""
    return asked_at + min(most, seconds_left if seconds_left is not None else most)


def _refused() -> NotAuthenticated:
    return NotAuthenticated("The token is not valid (any more)", "Log in again, or ask for a new token")
