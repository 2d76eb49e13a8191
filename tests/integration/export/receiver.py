"""A receiver of syslog in a thread of its own: it reads octet-counted messages, and can die as receivers do."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading

from redflag.audit.export import syslog


class Receiver:
    """Takes one connection after the other. `dies_after`: bytes after which a connection is reset, once for each number given.

    `silent`: never ends its side. What it has read whole, it has received.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        dies_after: tuple[int, ...] = (),
        silent: bool = False,
        port: int = 0,
    ) -> None:
        self._tls = tls
        self._dies_after = list(dies_after)
        self._silent = silent
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.messages: list[bytes] = []
        self.connections = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def positions(self) -> list[int]:
        """The positions of what was received, in order."""
        return [syslog.position(message) for message in self.messages]

    @property
    def again(self) -> list[int]:
        """The positions of what says that it may have come before."""
        return [syslog.position(one) for one in self.messages if re.search(rb'\[[^]]* again="1"\]', one)]

    def doubles(self) -> list[int]:
        """The positions that came more than once; each time after the first says that it may have come before."""
        seen: set[int] = set()
        found = []
        for message in self.messages:
            position = syslog.position(message)
            if position in seen:
                found.append(position)
                assert b' again="1"' in message, message
            seen.add(position)
        return found

    def close(self) -> None:
        """Stops listening."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                try:
                    self._serve(connection)
                except (OSError, AssertionError) as error:
                    self.failures.append(str(error))

    def _serve(self, connection: socket.socket) -> None:
        channel = connection
        if self._tls is not None:
            channel = self._tls.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
        left = self._dies_after.pop(0) if self._dies_after else None
        waiting = b""
        while data := channel.recv(65536 if left is None else min(65536, left)):
            waiting = self._taken(waiting + data)
            if left is not None and not (left := left - len(data)):
                # As the kernel does for a process that was killed with something unread
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                channel.close()
                return
        assert not waiting, waiting[:100]
        if self._silent:
            self._closed.wait(30)
        if self._tls is not None:
            with contextlib.suppress(OSError):
                channel.unwrap()  # type: ignore[attr-defined]
        channel.close()

    def _taken(self, data: bytes) -> bytes:
        """Takes whole frames (RFC 6587 §3.4.1) off the data; returns the rest."""
        while matched := re.match(rb"([1-9]\d{0,9}) ", data):
            end = matched.end() + int(matched[1])
            if len(data) < end:
                break
            self.messages.append(data[matched.end() : end])
            data = data[end:]
        assert re.match(rb"\d{0,10}(?: |$)", data), data[:50]
        return data
