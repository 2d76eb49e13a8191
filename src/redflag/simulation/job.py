"""What one process of a simulation is given to do, and what it tells while it does it: messages over pipes, each after its length."""

from __future__ import annotations

import msgspec

from redflag.simulation.plan import Plan
from redflag.simulation.tally import Part
from redflag.simulation.target import Target


class Credential(msgspec.Struct, frozen=True, array_like=True):
    """An agent that may be simulated. `number` counts all of the simulation from 0 on; without `refresh` its token is never renewed."""

    number: int
    agent_id: str
    token: str
    refresh: str = ""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One request of a closed loop that is given its requests: an agent's call, as `logs`, with its JSON body."""

    agent_id: str
    token: str
    call: str
    body: bytes
    method: str = "POST"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The share of one process: `number` counts the processes, `share` is its part of the whole, `of` how many agents all have.

    connections   of a closed loop, or shared by the agents; 0: each agent has its own
    requests      what a closed loop asks, each once; None: check-ins of its agents
    """

    number: int
    of: int
    share: float
    connections: int
    plan: Plan
    target: Target
    agents: list[Credential]
    sources: list[str] = []
    requests: list[Request] | None = None


class Begin(msgspec.Struct, frozen=True):
    """Times of the monotonic clock, which all processes of a machine share: when to begin, to measure, to end."""

    begins: float
    measured_from: float
    until: float


class Said(msgspec.Struct, kw_only=True):
    """What a process tells, once a second and at its end. `phase`: joining, measuring, ending or over."""

    number: int
    phase: str
    part: Part
    seconds: float
    open: int = 0
    busy: int = 0
    processor_seconds: float = 0.0
    renewed: dict[int, str] = {}
    fault: str = ""


encode = msgspec.msgpack.Encoder().encode


def framed(message: msgspec.Struct) -> bytes:
    """A message after its length in four bytes."""
    data = encode(message)
    return len(data).to_bytes(4, "big") + data
