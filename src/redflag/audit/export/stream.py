"""Handing a batch of syslog messages to a receiver, by TCP (RFC 6587) or TLS (RFC 5425), and knowing that it was taken.

Syslog has no acknowledgement. But a connection has an end: a batch has a connection of its own, and when all of it is sent,
this side is closed (with TLS first by close_notify, RFC 5425 §4.4) and the receiver's answer awaited. A receiver that has
read everything closes its side as well. One that ended with something unread resets the connection (RFC 1122 §4.2.2.13),
which is seen here, as is one that ended before it had everything. So a batch counts as taken when

- the receiver closed its side after ours, without a reset, and
- its machine acknowledged every byte of ours, the end included (Linux: SIOCOUTQ is 0).

What stands between (a proxy, a load balancer) answers for itself, and what a receiver does with what it has read is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from redflag.errors import InvalidInput, RedFlagError

T = TypeVar("T")

PIECE = 64 * 1024
# Receivers say nothing; one that does is not listened to for longer
_MOST_HEARD = 1024 * 1024

CLOSE_NOTIFY = "close_notify"
END_OF_STREAM = "end of stream"


class NotTaken(RedFlagError):
    """The receiver did not take the batch, or nobody can know whether it did: it is to be sent again."""


@dataclass(frozen=True)
class Receiver:
    """Where messages go. `ca` is PEM; None: the authorities that this machine trusts."""

    host: str
    port: int
    tls: bool = False
    ca: str | None = None

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def trusting(ca: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer that checks the receiver's certificate and its name (RFC 5425 §5.2). Raises InvalidInput."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=ca)
        except (ssl.SSLError, ValueError, TypeError):  # the last: it is not ASCII
            raise InvalidInput("The authority is no certificate in PEM", "Give the file of the receiver's CA") from None
    return context


async def hand_over(receiver: Receiver, messages: Iterable[bytes], seconds: float) -> str:
    """Sends a batch, and returns when the receiver has taken it: how it said so. Raises NotTaken.

    `messages` are framed. What TLS proves is proven by `close_notify`; `end of stream` is what the network says.
    """
    waits_for = "answer"
    try:
        async with asyncio.timeout(seconds):
            with contextlib.closing(await _connected(receiver)) as connection:
                waits_for = "speak TLS"
                channel = await _Tls.begin(connection, receiver) if receiver.tls else _Plain(connection)
                waits_for = "take everything"
                await _send(channel, messages)
                await _acknowledged(connection)
                waits_for = "close the connection after the last message"
                return await _confirmed(channel)
    except TimeoutError:
        raise NotTaken(
            f"{receiver} did not {waits_for} within {seconds:.0f} s", "See docs/howto/export-the-audit-trail.md"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise NotTaken(
            f"The certificate of {receiver} cannot be verified: {error.verify_message}", "Give its authority with --ca"
        ) from None
    except ssl.SSLError as error:
        raise NotTaken(f"{receiver} speaks no TLS that is understood here: {error.reason}", "Check the port") from None
    except OSError as error:
        raise NotTaken(f"{receiver}: {error.strerror or error}", "See whether it runs, and listens there") from None


async def _connected(receiver: Receiver) -> socket.socket:
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        receiver.host, receiver.port, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failed = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failed or OSError(f"{receiver.host} has no address")


class _Plain:
    """The connection as it is."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.confirmed_by = END_OF_STREAM
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Sends all of it."""
        await self._loop.sock_sendall(self.socket, data)

    async def receive(self) -> bytes:
        """What comes; nothing: the other side ended."""
        return await self._loop.sock_recv(self.socket, PIECE)

    async def end(self) -> None:
        """Ends this side."""
        self.socket.shutdown(socket.SHUT_WR)


class _Tls(_Plain):
    """The connection with TLS on it. It stands on its own here, because a stream of asyncio's does not tell how it ended."""

    def __init__(self, connection: socket.socket, receiver: Receiver) -> None:
        super().__init__(connection)
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting(receiver.ca).wrap_bio(self._coming, self._going, server_hostname=receiver.host)

    @classmethod
    async def begin(cls, connection: socket.socket, receiver: Receiver) -> _Tls:
        """After the handshake. Raises ssl.SSLError."""
        channel = cls(connection, receiver)
        await channel._until_done(channel._tls.do_handshake)
        return channel

    async def send(self, data: bytes) -> None:
        """Sends all of it, encrypted."""
        await self._until_done(lambda: self._tls.write(data))

    async def end(self) -> None:
        """Says close_notify, ends this side, and waits for the other's close_notify or the end of the stream."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        await super().send(self._going.read())
        await super().end()
        try:
            await self._until_done(self._tls.unwrap)
        except ssl.SSLError:
            # It ended without one, as some do; whether it had everything is told by the rest
            self.confirmed_by = END_OF_STREAM
        else:
            self.confirmed_by = CLOSE_NOTIFY

    async def _until_done(self, step: Callable[[], T]) -> T:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self.receive()
                if data:
                    self._coming.write(data)
                else:
                    self._coming.write_eof()
            except ssl.SSLError:
                # What TLS has to say of it goes out first
                with contextlib.suppress(OSError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        if self._going.pending:
            await super().send(self._going.read())


async def _send(channel: _Plain, messages: Iterable[bytes]) -> None:
    gathered = bytearray()
    for message in messages:
        gathered += message
        if len(gathered) >= PIECE:
            await channel.send(bytes(gathered))
            gathered.clear()
    if gathered:
        await channel.send(bytes(gathered))


async def _confirmed(channel: _Plain) -> str:
    """Ends this side; how the receiver said that it has everything. Raises NotTaken, or OSError for a reset."""
    # Only an end that comes after ours says something. One that was there before is seen by now: our bytes went over and came back
    if _ended(channel.socket):
        raise NotTaken("The receiver closed the connection before it had everything", "See its log")
    await channel.end()
    heard = 0
    while data := await channel.receive():
        heard += len(data)
        if heard > _MOST_HEARD:
            raise NotTaken("The receiver talks, which receivers of syslog do not do", "Check the port")
    await _acknowledged(channel.socket)
    return channel.confirmed_by


async def _acknowledged(connection: socket.socket) -> None:
    """Returns when the other machine has every byte. Raises OSError for a reset."""
    while _unacknowledged(connection):
        if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "the connection was reset before everything was taken")
        await asyncio.sleep(0.002)


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has ended already."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that the other machine has not acknowledged (SIOCOUTQ, tcp(7)); where the kernel cannot say, 0."""
    if sys.platform != "linux":
        return 0
    told: tuple[int] = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return told[0]
