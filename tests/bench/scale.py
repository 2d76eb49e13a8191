"""What one, four and sixteen servers on one PostgreSQL carry: a model of the costs that were measured, checked against what was.

Two parts. *Capacity* adds up processor time, write-ahead log and the log's one sequencer. *Waiting* is a discrete-event simulation of
server processes that gather check-ins into statements (`database/gathering.py`), of PostgreSQL's cores, and, where it is compared
with a measurement, of the load generator on the same cores. All costs come from one results file; nothing is fitted to what
is compared.

    python tests/bench/scale.py [RESULTS]      calculates, and prints the page
"""

from __future__ import annotations

import collections
import heapq
import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

from bench import plots
from bench.results import Curve, Run, read, rounded, spelt
from redflag.access.principals import MOST_AGENTS

# Above this part of any processor, waits grow faster than the load
HEADROOM = 0.7
INTERVAL = 60.0
SERVERS = (1, 4, 16)
WORKERS = 2
POSTGRES_CORES = (2, 8, 16, 32, 64)
# Commands of an agent in a day; each is enqueued, delivered and reported: three records
COMMANDS_A_DAY = (1, 24, 144)
RECORDS = 3
# As database/gathering.py has it
IN_FLIGHT, MOST = 2, 256
NEEDED = ("check_ins.rate", "check_ins.alone", "deliveries.rate", "reports.rate", "record.enqueued", "record.sequenced",
          "record.integrated", "deadlines.idle_sweep")  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """Seconds of processor. A check-in costs `each`, and its part of `batch`, which a statement costs whatever its size."""

    server_each: float
    server_batch: float
    postgres_each: float
    postgres_batch: float
    generator: float

    @classmethod
    def of(cls, run: Run) -> Costs:
        """From two measurements of one process: one request at a time, and 64."""
        alone, many = run.of("check_ins.alone"), run.of("check_ins.rate")
        size = max(float(many.facts["check-ins in a statement"]), 1.01)

        def split(name: str) -> tuple[float, float]:
            batch = max(alone.costs[name] - many.costs[name], 0.0) / (1 - 1 / size)
            return max(alone.costs[name] - batch, 0.0) / 1e6, batch / 1e6

        server, postgres = split("server"), split("postgres")
        return cls(*server, *postgres, many.costs["load"] / 1e6)


class Cores:
    """So many cores, used by whoever is ready first, without preemption."""

    def __init__(self, world: World, count: int) -> None:
        self._world = world
        self._free = count
        self._ready: collections.deque[tuple[float, Callable[[], None]]] = collections.deque()
        self.used = 0.0

    def run(self, seconds: float, then: Callable[[], None]) -> None:
        """Uses a core for so long, when one is free."""
        if not self._free:
            self._ready.append((seconds, then))
            return
        self._free -= 1
        self.used += seconds
        self._world.after(seconds, lambda: self._done(then))

    def _done(self, then: Callable[[], None]) -> None:
        self._free += 1
        if self._ready:
            self.run(*self._ready.popleft())
        then()


class Process:
    """What does one thing after the other, on some cores."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._todo: collections.deque[tuple[float, Callable[[], None]]] = collections.deque()
        self._busy = False

    def do(self, seconds: float, then: Callable[[], None]) -> None:
        """Queues something to do."""
        self._todo.append((seconds, then))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._todo)
        if self._todo:
            seconds, then = self._todo.popleft()

            def done() -> None:
                then()
                self._next()

            self._cores.run(seconds, done)


class Server(Process):
    """A server process: receives, gathers, hands a batch to PostgreSQL, answers."""

    def __init__(self, cores: Cores, postgres: Cores, costs: Costs) -> None:
        super().__init__(cores)
        self._postgres = postgres
        self._costs = costs
        self._waiting: list[Callable[[], None]] = []
        self._in_flight = 0

    def ask(self, answered: Callable[[], None]) -> None:
        """A check-in arrives. Half of its cost comes before the statement."""

        def gather() -> None:
            self._waiting.append(answered)
            self._flush()

        self.do(self._costs.server_each / 2, gather)

    def _flush(self) -> None:
        if not self._waiting or self._in_flight >= IN_FLIGHT:
            return
        batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        self._in_flight += 1
        statement = self._costs.postgres_batch + self._costs.postgres_each * len(batch)

        def done() -> None:
            self._in_flight -= 1
            for answered in batch:
                self.do(self._costs.server_each / 2, answered)
            self._flush()

        self.do(self._costs.server_batch, lambda: self._postgres.run(statement, done))


@dataclass
class World:
    """Events in the order of their times."""

    now: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: Any = field(default_factory=itertools.count)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Has something happen."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), what))

    def run(self, until: float) -> None:
        """Lets it all happen."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()


def simulate(
    costs: Costs,
    processes: int,
    *,
    shared: int = 0,
    postgres: int = 0,
    closed: int = 0,
    rate: float = 0.0,
    seconds: float = 1.0,
) -> dict[str, float]:
    """Check-ins per second, and quantiles in ms. `shared`: so many cores for all, the generator among them; or `postgres` cores, and a
    core for each process. `closed`: so many requests at once; or `rate` a second, at random times."""
    world, chance = World(), random.Random(11)
    common = Cores(world, shared) if shared else None
    database = common or Cores(world, postgres)
    servers = [Server(common or Cores(world, 1), database, costs) for _ in range(processes)]
    generator = Process(common) if common else None
    times: list[float] = []
    warm = seconds * 0.25

    def request(number: int) -> None:
        began = world.now

        def answered() -> None:
            if began >= warm:
                times.append(world.now - began)
            if closed:
                again(number)

        servers[number % processes].ask(answered)

    def again(number: int) -> None:
        if generator is not None:
            generator.do(costs.generator, lambda: request(number))
        else:
            request(number)

    def arrive() -> None:
        again(chance.randrange(processes))
        world.after(chance.expovariate(rate), arrive)

    if closed:
        for number in range(closed):
            again(number)
    else:
        arrive()
    world.run(seconds)
    ordered = sorted(times) or [0.0]
    return {
        "rate": len(times) / (seconds - warm),
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1000,
        "postgres": database.used / seconds / (shared or postgres),
    }


def calculate(run: Run) -> dict[str, Any]:
    """All figures of the page; empty if the run lacks what they need."""
    known = {one.name for one in run.results}
    if not known.issuperset(NEEDED):
        return {}
    costs = Costs.of(run)
    return {
        "costs": {name: rounded(value * 1e6) for name, value in vars(costs).items()},
        "checks": _checks(run, costs),
        "capacity": [
            _capacity(run, servers, cores, daily)
            for daily in COMMANDS_A_DAY
            for servers in SERVERS
            for cores in POSTGRES_CORES
        ],
        "waits": _waits(costs),
        "sequencer": rounded(_sequencer(run)),
    }


def _checks(run: Run, costs: Costs) -> list[dict[str, Any]]:
    """What the simulation says of the sizes that were measured."""
    cores = int(run.machine["cores"])
    found = []
    for workers in (1, 2):
        name = f"{workers} server process{'es' if workers > 1 else ''}"
        rates = dict(run.curves["throughput"].lines.get(name, [])) if "throughput" in run.curves else {}
        waits = dict(run.curves["latency"].lines.get(name, [])) if "latency" in run.curves else {}
        main = "check_ins" if workers == 1 else f"check_ins_{workers}"
        if any(one.name == f"{main}.rate" for one in run.results):
            rates[64.0], waits[64.0] = run.of(f"{main}.rate").value, run.of(f"{main}.p99").value
        for concurrency in (1.0, 4.0, 16.0, 64.0, 256.0):
            if concurrency in rates:
                told = simulate(costs, workers, shared=cores, closed=int(concurrency), seconds=2.0)
                found.append(_check(f"{name}, {concurrency:.0f} at once", rates[concurrency], told, waits[concurrency]))
    if any(one.name == "open_loop.p99" for one in run.results):
        open_loop = run.of("open_loop.p99")
        rate = float(open_loop.facts["rate"])
        told = simulate(costs, 1, shared=cores, rate=rate, seconds=10.0)
        found.append(_check(f"open loop, {rate:,.0f} a second", rate, told, open_loop.value))
    return found


def _check(what: str, rate: float, told: dict[str, float], wait: float) -> dict[str, Any]:
    return {
        "what": what, "rate": rounded(rate), "calculated": rounded(told["rate"]), "p99": rounded(wait),
        "calculated_p99": rounded(told["p99"]),
    }  # fmt: skip


def _capacity(run: Run, servers: int, cores: int, daily: int) -> dict[str, Any]:
    """How many agents such a site carries, and what it is that carries no more."""
    check_in, delivered, reported = (
        run.of(name).costs for name in ("check_ins.rate", "deliveries.rate", "reports.rate")
    )
    enqueued, idle = run.of("record.enqueued").costs, run.of("deadlines.idle_sweep").facts
    often = daily / 86400

    def each(name: str, *, enqueuing: bool = True) -> float:
        command = max(delivered[name] - check_in[name], 0.0) + reported[name] + (enqueued[name] if enqueuing else 0.0)
        return check_in[name] / INTERVAL + often * command

    processes = servers * WORKERS
    idle_postgres = idle["an idle server, ms of processor each second, PostgreSQL"] / 1e3
    idle_server = idle["an idle server, ms of processor each second, server"] / 1e3
    bounds = {
        "server processes": processes * max(HEADROOM - idle_server, 0.0) / (each("server") / 1e6),
        "PostgreSQL's cores": max(HEADROOM * cores - idle_postgres * processes, 0.0) / (each("postgres") / 1e6),
        "the tokens that processes remember": float(MOST_AGENTS * processes),
        "the log's sequencer": HEADROOM * _sequencer(run) / (often * RECORDS),
    }
    bound = min(bounds, key=lambda name: bounds[name])
    agents = bounds[bound]
    return {
        "servers": servers, "cores": cores, "daily": daily, "agents": rounded(agents), "bound": bound,
        "check_ins": rounded(agents / INTERVAL), "records": rounded(agents * often * RECORDS),
        "wal": rounded(agents * each("wal_bytes") / 1e6),
    }  # fmt: skip


def _sequencer(run: Run) -> float:
    """Records a second that one process gives a position and hashes; only one does at a time."""
    return 1 / (1 / run.of("record.sequenced").value + 1 / run.of("record.integrated").value)


def _waits(costs: Costs) -> list[dict[str, Any]]:
    """How long check-ins wait at parts of what the processes can do, each on a core of its own, with PostgreSQL on 16."""
    most = 1 / (costs.server_each + costs.server_batch / 16)
    found = []
    for servers in SERVERS:
        processes = servers * WORKERS
        for part in (0.2, 0.4, 0.6, 0.7, 0.8, 0.9):
            rate = part * most * processes
            told = simulate(costs, processes, postgres=16, rate=rate, seconds=min(4.0, 60_000 / rate))
            found.append(
                {"servers": servers, "part": part, "rate": rounded(rate), "p50": rounded(told["p50"]),
                 "p99": rounded(told["p99"]), "postgres": rounded(told["postgres"])}
            )  # fmt: skip
    return found


@dataclass
class Texts:
    """The page, and its plots by name."""

    page: str
    plots: dict[str, str]


def texts(run: Run) -> Texts:
    """The page from what was calculated, which is part of the results."""
    told = run.scale
    if not told:
        return Texts("# Scale\n\nThe results lack figures of some subjects: run `make bench`.\n", {})
    waits = {
        f"{servers} server{'s' if servers > 1 else ''}": [
            (one["rate"], one["p99"]) for one in told["waits"] if one["servers"] == servers
        ]
        for servers in SERVERS
    }
    drawn = Curve(
        title=f"Calculated p99 of check-ins, {WORKERS} processes a server, PostgreSQL on 16 cores", x="check-ins/s", y="p99, ms",
        lines=waits, log_x=True, log_y=True,
    )  # fmt: skip
    return Texts(_page(run, told), {"scale": plots.draw(drawn)})


def _page(run: Run, told: dict[str, Any]) -> str:
    off = [abs(one["calculated"] / one["rate"] - 1) for one in told["checks"] if one["rate"]] or [0.0]
    most = [one for one in told["capacity"] if one["servers"] == SERVERS[-1] and one["cores"] == POSTGRES_CORES[-1]]
    # Not HTML: nothing is to be escaped
    pages = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    pages.filters |= {"spelt": spelt, "percent": lambda part: f"{part:.0%}"}
    return pages.from_string(Path(__file__).with_name("scale.md.jinja").read_text()).render(
        run=run,
        told=told,
        headroom=HEADROOM,
        off=sum(off) / len(off),
        most_off=max(off),
        interval=INTERVAL,
        workers=WORKERS,
        tokens=MOST_AGENTS,
        daily_commands=COMMANDS_A_DAY,
        servers_of=SERVERS,
        cores_of=POSTGRES_CORES,
        letters={
            "server processes": "S",
            "PostgreSQL's cores": "P",
            "the log's sequencer": "L",
            "the tokens that processes remember": "T",
        },
        wal=max(one["wal"] for one in most),
        most=most,
        connections=_connections(run),
    )


def _connections(run: Run) -> str:
    """What a connection weighs, if that was measured at two sizes."""
    known = {one.name: one for one in run.results}
    few, many = known.get("open_loop.memory"), known.get("open_loop.memory_many")
    if few is None or many is None:
        return "Every agent keeps a connection, so that a server needs as many files, and memory for them."
    more = float(many.facts["connections"]) - float(few.facts["connections"])
    return f"Every agent keeps a connection, which weighs {spelt((many.value - few.value) * 1000 / more)} kB in the server."


if __name__ == "__main__":
    given = read(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference/benchmarks.json"))
    given.scale = calculate(given)
    print(texts(given).page)
