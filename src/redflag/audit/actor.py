"""Who is acting: the one shape in which a person, a token, an agent or a service stands in the record.

An `act` travels on the row that is changed (`agent_commands.act` and its kin), because one statement may carry the
changes of many actors. It must differ from the row's last one, so every act has a request id of its own.
"""

from __future__ import annotations

import uuid
from typing import Any

import redflag


class Actor:
    """Who acts in one request. `name` is `user:NAME`, `token:NAME`, `agent:ID`, `service:NAME@HOST` or `db:ROLE`."""

    __slots__ = ("_request_id", "address", "name")

    def __init__(self, name: str, request_id: str | None = None, address: str | None = None) -> None:
        self.name = name
        self.address = address
        self._request_id = request_id

    @property
    def request_id(self) -> str:
        """The request's own id, made when it is first asked for: most check-ins change nothing and need none."""
        if self._request_id is None:
            self._request_id = str(uuid.uuid4())
        return self._request_id

    def __repr__(self) -> str:
        return f"Actor({self.name!r}, {self._request_id!r}, {self.address!r})"

    def act(self, action: str | None = None, **details: Any) -> dict[str, Any]:
        """What is put on the row: the actor, the request, the address, and for a named action its name."""
        act: dict[str, Any] = {"actor": self.name, "request_id": self.request_id}
        if self.address:
            act["address"] = self.address
        if action:
            act["action"] = action
        return act | details


def user(name: str, address: str | None = None) -> Actor:
    """A person, logged in under this user name."""
    return Actor(f"user:{name}", address=address)


def token(name: str, address: str | None = None) -> Actor:
    """A program, with the API token of this name."""
    return Actor(f"token:{name}", address=address)


def agent(agent_id: uuid.UUID | str, address: str | None = None) -> Actor:
    """An agent, for its own commands."""
    return Actor(f"agent:{agent_id}", address=address)


def service(name: str, replica: str) -> Actor:
    """A part of the server itself, on the host of this name."""
    return Actor(f"service:{name}@{replica}")


def detection(actor: Actor, *, service_name: str, method: str) -> dict[str, Any]:
    """The act of a timeout: who found it (the service and its replica), its version, and how it looked (sweep, or a run by hand)."""
    return actor.act(detected_by=service_name, service_version=redflag.__version__, detection_method=method)
