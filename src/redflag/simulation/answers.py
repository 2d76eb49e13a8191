"""What a server answers, read with as little work as possible: status, length, body, and whether the connection stays.

One request at a time is under way on a connection, so one answer is all that can come (RFC 9112 §6.3 for where it ends). Heads
repeat, but for the second in their date: each one is taken apart once and remembered.
"""

from __future__ import annotations

import email.utils
import time
from contextlib import suppress
from typing import NamedTuple

MOST_HEAD = 64 * 1024
MOST_BODY = 16 * 1024 * 1024
LONGEST_RETRY_SECONDS = 3600.0
_MOST_REMEMBERED = 256
_CHUNKED, _UNTIL_CLOSE = -1, -2


class BadAnswer(Exception):
    """What came is no answer of an HTTP/1.1 server, or more than one."""


class Answer(NamedTuple):
    """An answer. `retry_after`: seconds, or None; `closes`: the server closes the connection after it."""

    status: int
    body: bytes
    closes: bool
    retry_after: float | None


class _Head(NamedTuple):
    status: int
    length: int
    closes: bool
    retry_after: float | None


_heads: dict[bytes, _Head] = {}


class Reader:
    """Puts together one answer after the other from what comes, however it is cut."""

    __slots__ = ("_buffer", "_head")

    def __init__(self) -> None:
        self._buffer = b""
        self._head: _Head | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Takes what came. Returns the answer when it is whole. Raises BadAnswer."""
        if self._buffer:
            data = self._buffer + data
        head = self._head
        while head is None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MOST_HEAD:
                    raise BadAnswer("a head without an end")
                self._buffer = data
                return None
            raw = data[:end]
            head = _heads.get(raw) or _remember(raw)
            data = data[end + 4 :]
            if head.status < 200:  # an interim answer: the real one follows (RFC 9110 §15.2)
                head = None
        length = head.length
        if len(data) == length:
            body = data
        elif length == _CHUNKED:
            whole = _joined(data)
            if whole is None:
                self._wait(head, data)
                return None
            body = whole
        elif len(data) < length or length == _UNTIL_CLOSE:
            self._wait(head, data)
            return None
        else:
            raise BadAnswer("more than one answer to a request")
        self._head = None
        self._buffer = b""
        return Answer(head.status, body, head.closes, head.retry_after)

    def end(self) -> Answer | None:
        """The connection was closed: the answer that ends with it, if there is one."""
        head, body = self._head, self._buffer
        self._head, self._buffer = None, b""
        if head is None or head.length != _UNTIL_CLOSE:
            return None
        return Answer(head.status, body, True, head.retry_after)

    def _wait(self, head: _Head, data: bytes) -> None:
        if len(data) > MOST_BODY:
            raise BadAnswer(f"an answer of more than {MOST_BODY} bytes")
        self._head = head
        self._buffer = data


def _remember(raw: bytes) -> _Head:
    if len(_heads) >= _MOST_REMEMBERED:
        _heads.clear()
    head = _heads[raw] = _take_apart(raw)
    return head


def _take_apart(raw: bytes) -> _Head:
    first, *lines = raw.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit() or len(code) < 3:
        raise BadAnswer(f"{first[:40].decode('latin-1')!r} is no status line")
    status = int(code)
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    connection = fields.get(b"connection", b"").lower()
    closes = b"close" in connection or (version == b"HTTP/1.0" and b"keep-alive" not in connection)
    declared = fields.get(b"content-length", b"")
    if status in {204, 304} or status < 200:
        length = 0
    elif b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        length = _CHUNKED
    elif declared.isdigit() and len(declared) < 12:
        length = int(declared)
    elif declared:
        raise BadAnswer(f"{declared[:40].decode('latin-1')!r} is no length")
    else:
        length, closes = _UNTIL_CLOSE, True
    return _Head(status, length, closes, _seconds(fields.get(b"retry-after", b"")))


def _seconds(after: bytes) -> float | None:
    """Seconds of a Retry-After (RFC 9110 §10.2.3: a number of them, or a date); None if it says nothing usable."""
    if after.isdigit():
        return min(float(after[:9]), LONGEST_RETRY_SECONDS)
    with suppress(TypeError, ValueError, OverflowError):
        until = email.utils.parsedate_to_datetime(after.decode("latin-1")).timestamp()
        return min(max(until - time.time(), 0.0), LONGEST_RETRY_SECONDS)
    return None


def _joined(data: bytes) -> bytes | None:
    """The body of chunks (RFC 9112 §7.1); None while it is not whole."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            if len(data) - at > 1024:
                raise BadAnswer("a chunk without a size")
            return None
        try:
            size = int(data[at:end].split(b";")[0].strip(), 16)
        except ValueError:
            raise BadAnswer("a chunk without a size") from None
        at = end + 2
        if size == 0:
            # Trailer fields may follow, up to an empty line
            if data[at : at + 2] == b"\r\n":
                at += 2
            else:
                end = data.find(b"\r\n\r\n", at)
                if end < 0:
                    return None
                at = end + 4
            if at != len(data):
                raise BadAnswer("more than one answer to a request")
            return b"".join(parts)
        if size < 0 or size > MOST_BODY:
            raise BadAnswer("a chunk without a size")
        if len(data) < at + size + 2:
            return None
        if data[at + size : at + size + 2] != b"\r\n":
            raise BadAnswer("a chunk that is longer than it says")
        parts.append(data[at : at + size])
        at += size + 2
