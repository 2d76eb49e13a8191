"""Who stands at the other end of a target, for tests: a small HTTP server, a complete C2SP witness, and witnesses that lie.

The witness is written from C2SP tlog-witness, with the verifier that imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import redflag_verify as verifier


@dataclass(frozen=True)
class Request:
    """What came in."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What goes out. `parts` are sent one after the other, and None in them waits for ever."""

    status: int = 200
    parts: tuple[bytes | None, ...] = (b"",)
    headers: dict[str, str] = field(default_factory=dict)


class Listener:
    """An HTTP server on a port of its own; `answer` says what it answers."""

    def __init__(self, answer: Callable[[Request], Answer] | None = None) -> None:
        if answer is not None:
            self.answer = answer  # type: ignore[method-assign]
        self.requests: list[Request] = []
        self.sent = 0
        self.url = ""
        self._over = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    def answer(self, request: Request) -> Answer:
        """200, with nothing."""
        return Answer()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")[:-2]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                request = Request(
                    first.split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", 0)))
                )
                self.requests.append(request)
                await self._send(self.answer(request), writer)
        self._open.discard(writer)
        writer.close()

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        given = {"Transfer-Encoding": "chunked"} | answer.headers
        writer.write(f"HTTP/1.1 {answer.status} x\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in given.items()).encode() + b"\r\n")
        for part in answer.parts:
            await writer.drain()
            if part is None:
                await self._over.wait()
            elif part:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                self.sent += len(part)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class Witness(Listener):
    """A witness of one log, which it knows by its vkey. It remembers the newest tree that it cosigned, and lets nothing go back."""

    def __init__(self, log: str, name: str = "witness.example/w1") -> None:
        super().__init__()
        self.log = verifier.Key.parse(log, verifier.ED25519)
        self.name = name
        self.private = Ed25519PrivateKey.generate()
        self.size, self.root = 0, verifier.EMPTY_ROOT
        self.clock = lambda: int(time.time())

    @property
    def key(self) -> verifier.Key:
        """Its public key."""
        return verifier.Key(self.name, verifier.COSIGNATURE, self.private.public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        """Its key as it publishes it."""
        return verifier.vkey(self.key)

    def answer(self, request: Request) -> Answer:
        """tlog-witness, "add-checkpoint"."""
        if request.path != "/add-checkpoint":
            return Answer(404)
        head, blank, note = request.body.partition(b"\n\n")
        first, *lines = head.decode().split("\n")
        old = re.fullmatch("old (0|[1-9][0-9]*)", first)
        try:
            proof = [base64.b64decode(line, validate=True) for line in lines]
        except binascii.Error:
            return Answer(400)
        if not blank or not old or len(proof) > 63 or any(len(one) != 32 for one in proof):
            return Answer(400)
        if note.partition(b"\n")[0].decode() != self.log.name:
            return Answer(404)
        try:
            checkpoint = verifier.open_checkpoint(note, verifier.Trust(self.log), verifier.Report())
        except verifier.NotVerified:
            return Answer(403)
        if int(old[1]) > checkpoint.size:
            return Answer(400)
        if int(old[1]) != self.size or (checkpoint.size == self.size and checkpoint.root != self.root):
            return Answer(409, (b"%d\n" % self.size,), {"Content-Type": "text/x.tlog.size"})
        if not verifier.verify_consistency(self.size, self.root, checkpoint.size, checkpoint.root, proof):
            return Answer(422)
        self.size, self.root = checkpoint.size, checkpoint.root
        return Answer(200, (self.cosign(note),))

    def cosign(self, note: bytes) -> bytes:
        """A signature line of its (tlog-cosignature, "Ed25519 signed message")."""
        moment, text = self.clock(), note.rpartition(b"\n\n")[0] + b"\n"
        signature = self.private.sign(f"cosignature/v1\ntime {moment}\n".encode() + text)
        line = base64.b64encode(self.key.id + moment.to_bytes(8, "big") + signature).decode()
        return f"\N{EM DASH} {self.name} {line}\n".encode()


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Waits for a condition."""
    for _ in range(1000):
        if found := await condition():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it never came about")
