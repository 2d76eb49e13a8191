"""Connections: one object each, one request at a time, opened no faster than is allowed.

Owns every socket of the simulator. What a connection does with its answers is for its kinds to say: `Caller` here waits for
each, those of the simulated agents (`agents`, `closed`) are driven by what comes.
"""

from __future__ import annotations

import asyncio
import collections
import socket
import sys
import time
from typing import Any

from redflag.simulation.answers import Answer, BadAnswer, Reader
from redflag.simulation.target import Target

CONNECT_SECONDS = 15.0
# Linux: the port is chosen when the connection is opened, so that one address has all its ports for every destination
_BIND_ADDRESS_NO_PORT = 24
MOST_OPENING = 256


class Gone(Exception):
    """The connection ended before the request was answered; the cause is in `__cause__`, if there is one."""


class Connection(Reader, asyncio.Protocol):
    """A connection. `answered`, `opened`, `not_opened` and `gone` are what its kinds say to what happens."""

    __slots__ = ("_dropped", "source", "transport")

    def __init__(self, source: str = "") -> None:
        super().__init__()
        self.transport: Any = None
        self.source = source
        # Transports that were given up, and whose end asyncio has still to tell of
        self._dropped = 0

    def opened(self) -> None:
        """It can be used."""

    def not_opened(self, error: BaseException) -> None:
        """It could not be opened."""

    def answered(self, answer: Answer) -> None:
        """A whole answer came."""

    def gone(self, error: BaseException | None) -> None:
        """It ended. None: the other side closed it in order."""

    def closed(self) -> None:
        """It is open no more, whoever ended it."""

    def connection_made(self, transport: Any) -> None:
        """asyncio's word that it is open."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio's word that something came."""
        try:
            answer = self.feed(data)
        except BadAnswer as error:
            self._end(error)
            return
        if answer is not None:
            if answer.closes:
                self.drop()
            self.answered(answer)

    def eof_received(self) -> None:
        """asyncio's word that the other side sends no more: an answer may end so."""
        answer = self.end()
        if answer is not None:
            self.drop()
            self.answered(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's word that it is over."""
        if self._dropped:
            self._dropped -= 1
        elif self._forget() is not None:
            self.gone(error)

    def drop(self) -> None:
        """Ends it, without a word to whoever waits for an answer."""
        transport = self._forget()
        if transport is not None:
            self._dropped += 1
            transport.abort()

    def _forget(self) -> Any:
        transport, self.transport = self.transport, None
        if transport is not None:
            self.end()
            self.closed()
        return transport

    def _end(self, error: BaseException) -> None:
        self.drop()
        self.gone(error)


class Dialer:
    """Opens connections: so many a second, so many at a time, in the order in which they were asked for."""

    def __init__(self, target: Target, rate: float) -> None:
        self._target = target
        self._tls = target.tls()
        self._pause = 1.0 / rate
        self._waiting: collections.deque[Connection] = collections.deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def open(self, connection: Connection) -> None:
        """Has it opened when its turn has come; then its `opened` or `not_opened` is called."""
        self._waiting.append(connection)
        if self._timer is None:
            self._start()

    def close(self) -> None:
        """Opens nothing more."""
        self._closed = True
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting(self) -> int:
        """How many wait to be opened."""
        return len(self._waiting) + len(self._tasks)

    def _start(self) -> None:
        self._timer = None
        now = time.monotonic()
        # What was not used in the last moments may be made up for, and no more
        self._next = max(self._next, now - 0.02)
        while self._waiting and self._next <= now and len(self._tasks) < MOST_OPENING:
            self._next += self._pause
            task = asyncio.ensure_future(self._open(self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._done)
        if self._waiting and len(self._tasks) < MOST_OPENING and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(max(self._next - now, 0.001), self._start)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting and self._timer is None and not self._closed:
            self._start()

    async def _open(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await dial(connection, self._target, self._tls)
        except OSError as error:
            connection.drop()
            connection.not_opened(error)
        else:
            connection.opened()


async def dial(connection: Connection, target: Target, tls: Any) -> None:
    """Opens a connection, from its own source address if it has one. Raises OSError."""
    loop = asyncio.get_running_loop()
    name = target.host if tls is not None else None
    if not connection.source:
        await loop.create_connection(
            lambda: connection, target.address, target.port, family=target.family, ssl=tls, server_hostname=name
        )
        return
    opened = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        if sys.platform == "linux":
            opened.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        opened.bind((connection.source, 0))
        await loop.sock_connect(opened, (target.address, target.port))
        await loop.create_connection(lambda: connection, sock=opened, ssl=tls, server_hostname=name)
    except BaseException:
        opened.close()
        raise


class Caller(Connection):
    """A connection whose requests are waited for, one at a time; opened when it is needed."""

    __slots__ = ("_answer", "_target", "_tls")

    def __init__(self, target: Target, tls: Any) -> None:
        super().__init__()
        self._target = target
        self._tls = tls
        self._answer: asyncio.Future[Answer] | None = None

    async def call(self, request: bytes, seconds: float = 60.0) -> Answer:
        """One request. Raises Gone or OSError, TimeoutError among them.

        A connection that was kept may have been closed in the meantime, which says nothing about the server: then the
        request is made once more.
        """
        kept = self.transport is not None
        try:
            return await self._once(request, seconds)
        except (Gone, ConnectionError):
            if not kept:
                raise
        return await self._once(request, seconds)

    async def _once(self, request: bytes, seconds: float) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                if self.transport is None:
                    await dial(self, self._target, self._tls)
                coming: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
                self._answer = coming
                self.transport.write(request)
                return await coming
        finally:
            if self._answer is not None and not (self._answer.done() and not self._answer.cancelled()):
                self.drop()
            self._answer = None

    def answered(self, answer: Answer) -> None:
        """What `call` waits for."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        else:
            self.drop()

    def gone(self, error: BaseException | None) -> None:
        """`call` need not wait any longer."""
        if self._answer is not None and not self._answer.done():
            ended = Gone("the connection was closed before it was answered")
            ended.__cause__ = error
            self._answer.set_exception(ended)
