"""What every row stands on: a throwaway PostgreSQL as an installation has it, real servers, and who used the processor.

One PostgreSQL serves a whole run; each subject has a database of its own in it, dropped at its end. Commits are durable and the
settings are those of an installation. A server is a real `redflag server --workers N` on a port of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results import Curve, Result, Run, spelt
from databases import make_database, run_as_superuser
from redflag.database import pool
from redflag.database.embedded import EmbeddedDatabase

ROOT = Path(__file__).resolve().parents[2]
NOISY_LOAD = 0.5
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Used:
    """Seconds of processor between two moments, by who spent them; `wal` in bytes, `seconds` by the clock.

    `others`: what the rest of the machine took meanwhile; a figure measured beside much of it is worth little.
    """

    seconds: float = 0.0
    server: float = 0.0
    postgres: float = 0.0
    load: float = 0.0
    others: float = 0.0
    wal: float = 0.0
    commits: float = 0.0
    postgres_parts: dict[str, float] = field(default_factory=dict)

    @property
    def cores(self) -> float:
        """How many cores server and PostgreSQL kept busy."""
        return (self.server + self.postgres) / self.seconds if self.seconds else 0.0

    def each(self, count: float) -> dict[str, float]:
        """Microseconds for each of so many, and the bytes of WAL."""
        count = max(count, 1)
        parts = {f"postgres {name}": seconds * 1e6 / count for name, seconds in self.postgres_parts.items() if seconds}
        return {
            "server": self.server * 1e6 / count,
            "postgres": self.postgres * 1e6 / count,
            "load": self.load * 1e6 / count,
            "wal_bytes": self.wal / count,
        } | parts

    def facts(self) -> dict[str, float]:
        """Cores that were busy."""
        return {"cores": self.cores, "load_cores": self.load / self.seconds, "other_cores": self.others / self.seconds}


class Bench:
    """One run: what it found, and what it found it with."""

    def __init__(self, postgres: EmbeddedDatabase, folder: Path, *, quick: bool) -> None:
        self.postgres = postgres
        self.folder = folder
        self.quick = quick
        self.run = Run(machine=machine(), quick=quick, began_at=datetime.datetime.now(datetime.UTC))
        # What the trivial endpoint reached, by the number of its processes
        self.trivial: dict[int, Any] = {}
        self._began = time.perf_counter()
        self._databases = 0

    def of(self, short: Any, long: Any) -> Any:
        """The one for a quick run, or the other."""
        return short if self.quick else long

    def say(self, what: str) -> None:
        """What happens now, with the time since the beginning."""
        print(f"  {time.perf_counter() - self._began:6.1f} s  {what}", file=sys.stderr, flush=True)

    def add(self, result: Result) -> Result:
        """Keeps a result and prints it. A short run says so in its title: the file may hold figures of both."""
        if self.quick:
            result.title += ", short run"
        self.run.results.append(result)
        print(line(result), flush=True)
        return result

    def draw(self, name: str, curve: Curve) -> None:
        """Keeps a curve."""
        self.run.curves[name] = curve

    @contextlib.asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[Database]:
        """A migrated database, dropped at the end."""
        self._databases += 1
        name = f"bench_{name}_{self._databases}"
        await make_database(self.postgres, name)
        superuser = await pool.connect(self.postgres.url("postgres", name), application="bench")
        try:
            yield Database(self, name, superuser)
        finally:
            await superuser.close()
            run_as_superuser(self.postgres, f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Database:
    """A database of one subject, and a superuser's connection to it."""

    bench: Bench
    name: str
    superuser: Any

    @property
    def url(self) -> str:
        """As the server's role."""
        return self.bench.postgres.url("redflag_server", self.name)

    @contextlib.asynccontextmanager
    async def pool(self, size: int) -> AsyncIterator[Any]:
        """Connections of the server's role."""
        connections = await pool.open_pool(self.url, size=size, application="bench")
        try:
            yield connections
        finally:
            await connections.close()

    async def settle(self) -> None:
        """Statistics for the planner, and nothing left to write for what was filled in."""
        await self.superuser.execute("VACUUM (ANALYZE)", timeout=900)
        await self.superuser.execute("CHECKPOINT", timeout=900)

    @contextlib.asynccontextmanager
    async def server(self, workers: int = 1, **settings: str) -> AsyncIterator[Server]:
        """A server that serves this database; ended in order afterwards."""
        server = Server(self, workers, settings)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()

    @contextlib.asynccontextmanager
    async def measured(self, server: Server | None = None) -> AsyncIterator[Used]:
        """What was spent while this was open."""
        before, began = await self._spent(server), time.perf_counter()
        used = Used()
        try:
            yield used
        finally:
            used.seconds = time.perf_counter() - began
            after = await self._spent(server)
            for name in ("server", "postgres", "load", "others", "wal", "commits"):
                setattr(used, name, max(after[name] - before[name], 0.0))
            used.postgres_parts = {
                name: seconds - before["parts"].get(name, 0.0) for name, seconds in after["parts"].items()
            }

    async def _spent(self, server: Server | None) -> dict[str, Any]:
        wal, commits = await self.superuser.fetchrow(
            "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        parts = postgres_seconds(self.bench.postgres)
        serving = sum(cpu_seconds(pid) for pid in server.pids()) if server is not None else 0.0
        mine = os.getpid()
        load = cpu_seconds(mine, with_ended=True) + sum(
            cpu_seconds(pid) for pid in descendants(mine) - (server.pids() if server is not None else set())
        )
        postgres = sum(parts.values())
        return {
            "wal": float(wal), "commits": float(commits), "parts": parts, "server": serving, "postgres": postgres, "load": load,
            "others": machine_seconds() - serving - postgres - load,
        }  # fmt: skip


class Server:
    """A `redflag server` on a free port."""

    def __init__(self, database: Database, workers: int, settings: dict[str, str]) -> None:
        self.database = database
        self.workers = workers
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._log = database.bench.folder / f"server-{self.port}.log"

    async def start(self) -> None:
        """Starts it and waits until it answers. Raises RuntimeError with the end of its log."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REDFLAG_")}
        chosen = {
            "REDFLAG_DATABASE_URL": self.database.url,
            "REDFLAG_VAR": str(self.database.bench.folder / f"var-{self.port}"),
            "REDFLAG_PORT": str(self.port),
            "REDFLAG_LOG_LEVEL": "warning",
            "REDFLAG_REPLICA": "bench",
        }
        argv = [str(Path(sys.executable).with_name("redflag")), "server", "--workers", str(self.workers)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - takes no time worth a thread
                argv, env=inherited | chosen | self._settings, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 60
        while not await asyncio.to_thread(self._answers):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The server did not start:\n{self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        # A worker more than the first may still be starting
        await asyncio.sleep(0.5 if self.workers > 1 else 0.1)

    async def stop(self) -> None:
        """Ends it in order."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, 45)
        except subprocess.TimeoutExpired:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def pids(self) -> set[int]:
        """Its processes."""
        if self._process is None or self._process.poll() is not None:
            return set()
        return {self._process.pid} | descendants(self._process.pid)

    def memory(self) -> dict[str, float]:
        """MB that its processes hold: RSS counts what they share once for each, PSS once in all."""
        rss = pss = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, value = text.partition(":")
                    if name == "Rss":
                        rss += int(value.split()[0])
                    elif name == "Pss":
                        pss += int(value.split()[0])
        return {"rss_mb": rss * 1024 / 1e6, "pss_mb": pss * 1024 / 1e6}

    def complaints(self) -> list[str]:
        """The lines of its log; it logs nothing below a warning."""
        return self._log.read_text(errors="replace").splitlines()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.asynccontextmanager
async def trivial_server(bench: Bench, workers: int = 1) -> AsyncIterator[str]:
    """The limit for everything over HTTP: an app that reads a request and answers three words, with the server's own connections."""
    port = free_port()
    log = bench.folder / f"trivial-{port}.log"
    argv = [sys.executable, str(Path(__file__).with_name("trivial.py")), str(port), str(workers)]
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220
            argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The trivial server did not start:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


def line(result: Result) -> str:
    """A result in one line: goal, figure, ratio to each limit."""
    judged = {True: "ok  ", False: "MISS", None: "    "}[result.ok]
    limits = ", ".join(
        f"{result.value / one.value:.2f} of {one.name} ({spelt(one.value)})" for one in result.limits if one.value
    )
    costs = ", ".join(
        f"{name} {spelt(result.costs[name])} µs" for name in ("server", "postgres", "load") if name in result.costs
    )
    tail = "".join(f"\n{'':8}{text}" for text in (limits, costs) if text)
    return f"{judged}  {result.title}: {spelt(result.value)} {result.unit} (goal {result.goal_text}){tail}"


def quantile(values: Iterable[float], part: float) -> float:
    """The value that so large a part of all is not above (nearest rank); 0 if there is none."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * part // 1) - 1)] if ordered else 0.0


def free_port() -> int:
    """A port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int, *, with_ended: bool = False) -> float:
    """What a process has used of the processor, in seconds; `with_ended`: also its children that have ended. 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(value) for value in fields[11 : 15 if with_ended else 13]) / _TICK


def descendants(pid: int) -> set[int]:
    """Every process below this one."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                below.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found.update(children)
        waiting += children
    return found


def postgres_seconds(postgres: EmbeddedDatabase) -> dict[str, float]:
    """What PostgreSQL has used, by the kind of its processes."""
    postmaster = int((postgres.data / "postmaster.pid").read_text().partition("\n")[0])
    parts: dict[str, float] = {"ended": cpu_seconds(postmaster, with_ended=True)}
    for pid in descendants(postmaster):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        words = title.removeprefix("postgres: ").strip()
        if "autovacuum" in words or "logical replication" in words:
            kind = "autovacuum"
        elif words.startswith(("checkpointer", "background writer", "walwriter", "io worker")):
            kind = "writers"
        elif words.startswith("postgres "):  # the harness itself asks as the superuser
            kind = "harness"
        else:
            kind = "backends"
        parts[kind] = parts.get(kind, 0.0) + cpu_seconds(pid)
    return parts


def machine_seconds() -> float:
    """What all processes of the machine have used together."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICK


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (text.partition(":")[2].strip() for text in _lines("/proc/cpuinfo") if text.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_gb": round(memory / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
