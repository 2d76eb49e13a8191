"""What came of a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from redflag.simulation.histogram import Histogram
from redflag.simulation.plan import Plan
from redflag.simulation.tally import Failure, Tally

# Past these the simulator is said to have been the bottleneck itself
MOST_BUSY = 0.9
MOST_LAG_SECONDS = 0.05
# … and past this if it is a good part of what was measured
LITTLE_LAG_SECONDS = 0.005


@dataclass
class Report:
    """A simulation, or what there is of one that still runs. Times are seconds.

    `measured` is what happened while it was measured, `whole` also what came before and after: commands are counted whole.
    """

    plan: Plan
    agents: int
    processes: int
    measured: Tally = field(default_factory=Tally)
    whole: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    open: int = 0
    # The largest number of connections that were open at once
    most_open: int = 0
    # By process, of the measured time
    processor_seconds: dict[int, float] = field(default_factory=dict)

    @property
    def check_ins(self) -> int:
        """Check-ins that were answered while it was measured."""
        return self.measured.counts["check_ins"]

    @property
    def requests(self) -> int:
        """All requests that were answered while it was measured."""
        one_each = {"received", "running", "report", "info", "renewal", "enqueue"}
        others = (histogram.total for name, histogram in self.measured.durations.items() if name in one_each)
        return self.check_ins + sum(others)

    @property
    def rate(self) -> float:
        """Check-ins a second."""
        return self.check_ins / self.seconds if self.seconds else 0.0

    @property
    def requests_per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> dict[str, Failure]:
        """What went wrong, by kind, from the beginning on."""
        return self.whole.failures

    @property
    def counts(self) -> dict[str, int]:
        """Commands and connections, from the beginning on."""
        return dict(self.whole.counts)

    def durations(self, name: str) -> Histogram:
        """How long something of `tally` took while it was measured."""
        return self.measured.durations.get(name) or Histogram()

    @property
    def latency(self) -> Histogram:
        """Of check-ins, from when they were due."""
        return self.durations("check_in")

    @property
    def busy(self) -> float:
        """The part of a core that the busiest process of the simulator used."""
        return max(self.processor_seconds.values(), default=0.0) / self.seconds if self.seconds else 0.0

    @property
    def microseconds_per_request(self) -> float:
        """Processor time of the simulator for a request."""
        return sum(self.processor_seconds.values()) * 1e6 / self.requests if self.requests else 0.0

    @property
    def is_bottleneck(self) -> bool:
        """Whether the simulator itself was too slow for its figures to be the server's."""
        if self.busy > MOST_BUSY:
            return True
        lag = self.durations("lag").quantile(0.99)
        return lag > MOST_LAG_SECONDS or lag > max(LITTLE_LAG_SECONDS, self.latency.quantile(0.99) / 5)

    def summary(self) -> dict[str, Any]:
        """The report as data: times in milliseconds where the name says so."""
        return {
            "agents": self.agents,
            "protocol": str(self.plan.protocol),
            "loop": "closed" if self.plan.closed else "open",
            "interval_seconds": self.plan.interval,
            "connections": self.most_open,
            "seconds": round(self.seconds, 3),
            "check_ins": self.check_ins,
            "check_ins_per_second": round(self.rate, 2),
            "requests_per_second": round(self.requests_per_second, 2),
            "durations": {name: self.measured.durations[name].summary() for name in sorted(self.measured.durations)},
            "counts": dict(sorted(self.whole.counts.items())),
            "failures": {
                kind: {"count": one.count, "example": one.example} for kind, one in sorted(self.failures.items())
            },
            "simulator": {
                "processes": self.processes,
                "busiest_process_part_of_core": round(self.busy, 3),
                "processor_microseconds_per_request": round(self.microseconds_per_request, 1),
                "lag_p99_ms": round(self.durations("lag").quantile(0.99) * 1000, 3),
                "is_bottleneck": self.is_bottleneck,
            },
        }
