"""What a simulation counts and measures, put together from its processes.

Counts and durations have names, so that what is new needs no line here:

check_in       from when a check-in was due until it was answered; of a held call the time beyond what it asked to be held
answer         the same from when it was sent: what the simulator itself was late with is not in it
report, progress, info, renewal, enqueue, connect       from sending, until answered or connected
reached        from when a command was being enqueued until its agent had it
woken          the same, of agents whose call was held at that moment
lag            how late the simulator was with what was due
"""

from __future__ import annotations

import collections
import errno
import ssl

import msgspec

from redflag.simulation.histogram import Histogram, Packed

_EXAMPLE = 300


class Failure(msgspec.Struct):
    """How often something of one kind went wrong, and what the first was."""

    count: int
    example: str


class Part(msgspec.Struct):
    """A tally on its way between processes."""

    counts: dict[str, int]
    durations: dict[str, Packed]
    failures: dict[str, Failure]


class Tally:
    """Counts, durations and failures, by name."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.durations: dict[str, Histogram] = collections.defaultdict(Histogram)
        self.failures: dict[str, Failure] = {}

    def fail(self, kind: str, example: str) -> None:
        """One more failure of a kind."""
        known = self.failures.get(kind)
        if known is None:
            self.failures[kind] = Failure(1, " ".join(example.split())[:_EXAMPLE])
        else:
            known.count += 1

    def merge(self, other: Tally | Part) -> None:
        """Adds all that the other has."""
        self.counts.update(other.counts)
        for name, histogram in other.durations.items():
            self.durations[name].merge(histogram)
        for kind, failure in other.failures.items():
            known = self.failures.setdefault(kind, Failure(0, failure.example))
            known.count += failure.count

    def take(self) -> Part:
        """All of it, to be sent elsewhere; what is left is empty."""
        part = Part(
            dict(self.counts), {name: one.pack() for name, one in self.durations.items() if one.total}, self.failures
        )
        self.counts.clear()
        self.durations.clear()
        self.failures = {}
        return part

    @property
    def failed(self) -> int:
        """All failures together."""
        return sum(one.count for one in self.failures.values())


REFUSED, RESET, TIMEOUT, CLOSED, BAD_ANSWER = "refused", "reset", "timeout", "closed", "bad answer"
TLS, FILES, PORTS, NETWORK = "tls", "files", "ports", "network"

_KINDS = {
    errno.ECONNREFUSED: REFUSED,
    errno.ECONNRESET: RESET,
    errno.EPIPE: RESET,
    errno.ETIMEDOUT: TIMEOUT,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EADDRNOTAVAIL: PORTS,
    errno.EADDRINUSE: PORTS,
}


def kind_of(error: BaseException | None) -> str:
    """The kind of failure that broke a connection."""
    if error is None:
        return CLOSED
    if isinstance(error, ssl.SSLError):
        return TLS
    if isinstance(error, TimeoutError):
        return TIMEOUT
    return _KINDS.get(error.errno or 0, NETWORK) if isinstance(error, OSError) else NETWORK
