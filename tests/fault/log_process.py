"""Replicas that do the steps of the log, in processes of their own, to be killed: at a chosen point, or at any moment.

A point is before and after each statement, each BEGIN and COMMIT, each signature, and each operation on the file in which a
replica remembers its newest checkpoint; a COMMIT has one more: sent, and not answered. Nothing of the log's own code is
replaced: the connection and the few functions of `os` that write the file are told to stop the process.

This file is also a program, the nursery, which has imported everything and forks: a replica is there in a few hundredths
of a second. It is told a line of JSON at a time, and answers one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from redflag.audit import sequencer
from redflag.audit.checkpoint import Signer, load_key
from redflag.database import pool
from redflag.database.queries import Queries
from redflag.errors import DatabaseUnreachable

ORIGIN = "example.com/log"
# What a connection says when PostgreSQL has died
GONE = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError,
        asyncpg.ConnectionDoesNotExistError, DatabaseUnreachable)  # fmt: skip
STEPS = ("sequence", "integrate", "publish")

T = TypeVar("T")


class LogProcesses:
    """Replicas by name, at most one process each. Each has a folder: what it remembers, and all that it ever signed."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.key = load_key(ORIGIN, folder / "key")
        self._dsn = dsn
        self._nursery = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    def newest(self, name: str) -> Path:
        """The file in which a replica remembers its newest checkpoint."""
        return self.folder / f"{name}.newest"

    def once(self, name: str, kill_at: int = 0) -> list[str]:
        """The three steps once, by a replica that kills itself at a point, counted from 1 (0: never). Returns the points it came to."""
        return list(self._ask(do="once", name=name, kill_at=kill_at))

    def start(self, name: str) -> None:
        """A replica that does the steps over and over."""
        self._ask(do="start", name=name, kill_at=0)

    def kill(self, name: str) -> None:
        """SIGKILL, and its end."""
        self._ask(do="kill", name=name)

    def close(self) -> None:
        """Kills what is left, and ends the nursery."""
        self._nursery.communicate(timeout=60)

    def signed(self) -> set[str]:
        """Every note that any replica ever signed, and those that are remembered, even if the database never got them."""
        notes = {file.read_text() for file in self.folder.glob("*.newest")}
        for file in self.folder.glob("*.signed"):
            notes |= {json.loads(line) for line in file.read_text().splitlines()}
        return notes

    def failures(self) -> str:
        """What a replica did not survive, beside being killed."""
        return "\n".join(file.read_text() for file in self.folder.glob("*.failed"))

    def _ask(self, **what: Any) -> Any:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        told = {"dsn": self._dsn, "folder": str(self.folder), **what}
        self._nursery.stdin.write(json.dumps(told) + "\n")
        return json.loads(self._nursery.stdout.readline())


# ---------------------------------------------------------------------------------------------------------------------
# In the replica


class Points:
    """Counts the points that a replica comes to, tells of each, and kills the process at one."""

    def __init__(self, kill_at: int, tell: int) -> None:
        self._kill_at, self._tell, self._count = kill_at, tell, 0
        self.step = ""

    def at(self, where: str) -> None:
        """A point."""
        if self.step:
            self._count += 1
            os.write(self._tell, f"{self.step}: {where}\n".encode())
            if self._count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., T], name: str) -> Callable[..., T]:
        """The same function with a point before and after it."""

        def call(*args: Any, **kwargs: Any) -> T:
            self.at(f"before {name}")
            result = function(*args, **kwargs)
            self.at(f"after {name}")
            return result

        return call

    async def around_statement(self, name: str, statement: Callable[[], Awaitable[T]]) -> T:
        """A statement with a point before and after it; a COMMIT has one between, when it is on its way."""
        self.at(f"before {name}")
        running = asyncio.ensure_future(statement())
        if name == "COMMIT":
            await asyncio.sleep(0)  # lets it be written to the socket
            self.at("COMMIT is sent")
        result = await running
        self.at(f"after {name}")
        return result


# What the statements of all modules that were imported are called
NAMES = {
    query.text: query.name
    for module in [*sys.modules.values()]
    if isinstance(found := getattr(module, "sql", None), Queries)
    for query in found._queries.values()
}


def connection_of(points: Points) -> type[pool.Connection]:
    """Connections with a point around each statement."""

    class Pointed(pool.Connection):
        async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
            name = NAMES.get(query, query.partition(" ")[0].strip(";"))
            return await points.around_statement(name, lambda: super(Pointed, self).execute(query, *args, **kwargs))

        async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
            return await points.around_statement(
                NAMES[query], lambda: super(Pointed, self).fetch(query, *args, **kwargs)
            )

        async def fetchrow(self, query: str, *args: Any, **kwargs: Any) -> Any:
            return await points.around_statement(
                NAMES[query], lambda: super(Pointed, self).fetchrow(query, *args, **kwargs)
            )

        async def fetchval(self, query: str, *args: Any, **kwargs: Any) -> Any:
            return await points.around_statement(
                NAMES[query], lambda: super(Pointed, self).fetchval(query, *args, **kwargs)
            )

        async def copy_records_to_table(self, *args: Any, **kwargs: Any) -> Any:
            return await points.around_statement(
                "COPY", lambda: super(Pointed, self).copy_records_to_table(*args, **kwargs)
            )

    return Pointed


class Journaling(Signer):
    """The log's key; whatever it signs is on the disk before anybody else can have it."""

    def __init__(self, key: Signer, file: Path, points: Points) -> None:
        super().__init__(key.verifier.name, key._private)
        self._file, self._points = file, points

    def sign_text(self, text: str) -> str:
        self._points.at("before the signature")
        note = super().sign_text(text)
        with self._file.open("a") as opened:
            opened.write(json.dumps(note) + "\n")
        self._points.at("after the signature")
        return note


async def connect(dsn: str, points: Points) -> Any:
    connection = await asyncpg.connect(dsn, connection_class=connection_of(points), timeout=10)
    await pool.prepare(connection)
    return connection


async def do_steps(connection: Any, points: Points, signer: Signer, memory: Any) -> None:
    """Each step once."""
    for name in STEPS:
        points.step = name
        if name == "publish":
            await sequencer.publish(connection, signer, memory)
        else:
            await getattr(sequencer, name)(connection, 50)
    points.step = ""


async def replica(told: dict[str, Any], points: Points) -> None:
    """What the process does."""
    folder = Path(told["folder"])
    signer = Journaling(load_key(ORIGIN, folder / "key"), folder / f"{told['name']}.signed", points)
    memory = sequencer.Memory(folder / f"{told['name']}.newest", signer)
    for name in ("open", "fsync", "close", "replace"):
        setattr(os, name, points.around(getattr(os, name), name))
    if told["do"] == "once":
        connection = await connect(told["dsn"], points)
        await do_steps(connection, points, signer, memory)
        await connection.close()
        return
    while True:
        try:
            connection = await connect(told["dsn"], points)
            while True:
                await do_steps(connection, points, signer, memory)
                await asyncio.sleep(0.002)
        except GONE:
            await asyncio.sleep(0.02)


def nursery() -> None:
    """Does what it is told, a line at a time."""
    alive: dict[str, int] = {}
    for line in sys.stdin:
        told = json.loads(line)
        answer: Any = None
        if told["do"] == "kill":
            end(alive.pop(told["name"]))
        else:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                live(told, writer)
            os.close(writer)
            if told["do"] == "once":
                with os.fdopen(reader) as points:
                    answer = points.read().splitlines()
                os.waitpid(child, 0)
            else:
                os.close(reader)
                alive[told["name"]] = child
        print(json.dumps(answer), flush=True)
    for child in alive.values():
        end(child)


def live(told: dict[str, Any], tell: int) -> None:
    """The child's whole life."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if told["do"] == "start":
        os.dup2(os.open(os.devnull, os.O_WRONLY), tell)
    try:
        asyncio.run(replica(told, Points(told["kill_at"], tell)))
    except BaseException:
        (Path(told["folder"]) / f"{told['name']}.failed").write_text(traceback.format_exc())
    os._exit(0)


def end(child: int) -> None:
    """SIGKILL to a child, and its end."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    nursery()
