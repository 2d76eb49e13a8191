"""What is simulated, and whether this machine can: processes, files, ports."""

from __future__ import annotations

import contextlib
import enum
import math
import os
import resource
import sys
from pathlib import Path

import msgspec

from redflag.errors import InvalidInput
from redflag.simulation.target import Target

# Of one source address to one port of a server. Linux has 28,232, and searches long for a free one when half of them are taken
PORTS_OF_AN_ADDRESS = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# What one process does in an open loop without being late
REQUESTS_PER_PROCESS = 4000.0
# Files that are no connections: pipes, the event loop's own, what the libraries have open
OTHER_FILES = 100
MOST_PROCESSES = 64
# Connections of agents that report while their call is held, as a part of the others
REPORTING = 0.15


class Protocol(enum.StrEnum):
    """How the agents speak: as RedFlag's own, which poll, or as this project's, whose calls are held."""

    REDFLAG = "redflag"
    HELD = "held"

    @property
    def number(self) -> int:
        """What they say in `protocol`."""
        return 1 if self is Protocol.HELD else 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated. Times are seconds, `output` is bytes, shares are parts of one.

    closed          so many connections, on each the next request as soon as the last was answered; 0: each agent at its time
    rounds          of a closed loop: ends when every agent was asked for so often; 0: when `duration` is over
    path            of a closed loop: a GET of this path instead of check-ins
    connections     shared by the agents; 0: each has its own
    ramp            agents that join a second, at the most
    work            how long a command takes, on average
    lost            share of commands whose end is never reported
    commands        enqueued a second, with `admin_token`, for agents at random
    command_timeout until the server ends what it enqueued
    hourly          between two reports of a host's facts, and between two looks at the log; 0: neither
    patience        until an answer is given up
    settle          between the joining of the last agent and the measuring; an interval, if that is shorter
    drain           what is under way at the end is waited for, for so long at the most
    """

    protocol: Protocol = Protocol.REDFLAG
    interval: float = 60.0
    duration: float = 300.0
    closed: int = 0
    rounds: int = 0
    path: str = ""
    connections: int = 0
    ramp: float = 1000.0
    processes: int = 0
    work: float = 2.0
    output: int = 2048
    lost: float = 0.0
    commands: float = 0.0
    admin_token: str = ""
    command_timeout: float = 120.0
    hourly: float = 3600.0
    patience: float = 30.0
    settle: float = 5.0
    drain: float = 30.0

    def check(self) -> None:
        """Raises InvalidInput for what contradicts itself or cannot be."""
        if self.interval < 0.1 or not 0 < self.duration <= 30 * 86400:
            raise InvalidInput("The interval or the duration is no time that can be simulated", "Give seconds")
        if self.ramp <= 0 or self.patience <= 0 or self.work < 0 or self.output < 0:
            raise InvalidInput("A rate, a time or a size of the simulation is below zero", "Give another")
        if not 0 <= self.lost <= 1:
            raise InvalidInput("The share of commands that are lost is between 0 and 1", "Give one such as 0.01")
        if self.connections and self.protocol is Protocol.HELD and not self.closed:
            raise InvalidInput(
                "A held call needs a connection of its own", "Leave --connections out, or give --protocol redflag"
            )
        if self.commands and not self.admin_token:
            raise InvalidInput(
                "To enqueue commands needs an API token of that server",
                "Set REDFLAG_TOKEN to one of an operator, or leave the commands out",
            )
        if self.commands and self.closed:
            raise InvalidInput("Commands are enqueued in an open loop only", "Leave --closed out")

    def joining(self, agents: int) -> tuple[int, float]:
        """In how many rounds agents join, and after how many seconds they are measured."""
        if self.closed:
            return 1, 0.0
        settle = min(self.settle, self.interval)
        if self.protocol is Protocol.HELD:
            return 1, agents / self.ramp + settle
        rounds = max(1, math.ceil(agents / (self.ramp * self.interval)))
        return rounds, rounds * self.interval + settle

    def held_open(self, agents: int) -> int:
        """The connections that all processes have open at once, at the most."""
        if self.closed:
            return self.closed
        if self.connections:
            return min(self.connections, agents)
        return agents + math.ceil(agents * REPORTING) if self.protocol is Protocol.HELD else agents


def processes(plan: Plan, agents: int) -> int:
    """How many processes share the work. Raises InvalidInput when they may not open as many files as they need."""
    connections, most = plan.held_open(agents), most_files() - OTHER_FILES
    least = math.ceil(connections / max(most, 1))
    if plan.processes:
        if plan.processes < least:
            raise InvalidInput(
                f"{connections:,} connections need more files than {plan.processes} of {most:,} each may open",
                f"Give --processes {least}, or raise the limit: ulimit -n {math.ceil(connections / plan.processes) + OTHER_FILES}",
            )
        return plan.processes
    if least > MOST_PROCESSES:
        raise InvalidInput(
            f"{connections:,} connections need more files than this machine lets {MOST_PROCESSES} processes open",
            f"Raise the limit: ulimit -n {math.ceil(connections / 8) + OTHER_FILES}; or simulate fewer agents",
        )
    busy = 1 if plan.closed else math.ceil(agents / plan.interval / REQUESTS_PER_PROCESS)
    return max(1, least, min(busy, os.cpu_count() or 1))


def sources(plan: Plan, agents: int, target: Target) -> list[str]:
    """The addresses that connections are opened from; none: whatever the machine chooses.

    A machine has about 28,000 ports for all connections from one of its addresses to one server; of itself it has many
    addresses. Raises InvalidInput when there are too few for another server.
    """
    connections = plan.held_open(agents)
    if connections <= PORTS_OF_AN_ADDRESS:
        return []
    if target.is_loopback and ":" not in target.address and sys.platform == "linux":
        return [f"127.0.0.{number + 2}" for number in range(math.ceil(connections / PORTS_OF_AN_ADDRESS))]
    ports = _ports()
    if connections > ports - 500:
        raise InvalidInput(
            f"{connections:,} connections to one server need more than the {ports:,} ports of this machine",
            "Simulate a part of the fleet on each of several machines, give --connections, or widen net.ipv4.ip_local_port_range",
        )
    return []


def most_files() -> int:
    """How many files a process of ours may open, once it has raised its own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if resource.RLIM_INFINITY in {soft, hard} else max(soft, hard)


def raise_file_limit() -> None:
    """As many open files as the machine allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in {resource.RLIM_INFINITY, hard}:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most_files(), hard))


def _ports() -> int:
    try:
        low, high = _RANGE.read_text().split()
        return int(high) - int(low) + 1
    except (OSError, ValueError):
        return 16_384
