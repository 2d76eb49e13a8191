"""The simulated agents that a machine has enrolled, kept in a file, so that the next run goes on with the same ones.

The file holds tokens: mode 0600, replaced in one step.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from redflag.errors import Conflict, SettingsError
from redflag.supervisor import write_private

SAVE_SECONDS = 10.0


class Member(msgspec.Struct):
    """A simulated agent. `issued`: when its access token was, in seconds since 1970."""

    number: int
    agent_id: str
    token: str
    refresh: str
    issued: float


class _File(msgspec.Struct):
    server: str
    agents: list[Member] = []


class State:
    """The file. Agents are kept in the order of their numbers."""

    def __init__(self, path: Path, server: str, agents: list[Member]) -> None:
        self.path = path
        self.server = server
        self.agents = agents
        self._saved_at = time.monotonic()

    @classmethod
    def load(cls, path: Path, server: str) -> State:
        """The agents of this server; none when there is no file. Raises Conflict for another server's, SettingsError."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            return cls(path, server, [])
        except msgspec.DecodeError as error:
            raise SettingsError(
                f"{path} does not hold simulated agents: {error}", "Give another file with --state"
            ) from None
        if found.server != server:
            raise Conflict(
                f"{path} holds the simulated agents of {found.server}, not of {server}",
                "Give another file with --state",
            )
        return cls(path, server, sorted(found.agents, key=lambda one: one.number))

    def add(self, agent: Member) -> None:
        """One more, in its place. Saved now and then; call `save` at the end."""
        self.agents.append(agent)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the file; without agents there is none."""
        self.agents.sort(key=lambda one: one.number)
        if self.agents:
            write_private(self.path, msgspec.json.encode(_File(self.server, self.agents)).decode())
        else:
            self.path.unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def free_numbers(self, count: int) -> list[int]:
        """The lowest numbers that no agent has."""
        taken = {one.number for one in self.agents}
        found: list[int] = []
        number = 0
        while len(found) < count:
            if number not in taken:
                found.append(number)
            number += 1
        return found
