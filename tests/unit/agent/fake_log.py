"""A log of up to 255 records with its checkpoints and proofs, made by the server's own modules; and logs that are not what they were."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from redflag.audit import merkle
from redflag.audit.checkpoint import Signer, body


class FakeLog:
    """The records are `word 0`, `word 1`, …; two logs of one word begin alike."""

    def __init__(self, origin: str = "redflag.example/log", *, word: str = "record", key: str = "key") -> None:
        self.signer = Signer(origin, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(key.encode()).digest()))
        self._hashes = [merkle.leaf_hash(f"{word} {i}".encode()) for i in range(255)]

    @property
    def key(self) -> str:
        return self.signer.verifier.vkey()

    def root(self, size: int) -> bytes:
        return merkle.root_of(self._hashes[:size])

    def note(self, size: int, *, previous: tuple[FakeLog, int] | None = None, more: str = "") -> str:
        """The checkpoint of a size, and if it goes on from another log: where that was closed. `more`: further extension lines."""
        text = body(self.signer.verifier.name, size, self.root(size))
        if previous is not None:
            log, closed = previous
            text += log.line("previous", closed)
        return self.signer.sign_text(text + more)

    def line(self, kind: str, size: int) -> str:
        """An extension line of the log that goes on from this one."""
        return f"{kind} {self.signer.verifier.name} {size} {base64.b64encode(self.root(size)).decode()}\n"

    def proof(self, old: int, size: int) -> list[str]:
        reader = merkle.Reader(size, lambda level, index, width: b"".join(self._hashes[:width]))
        return [base64.b64encode(one).decode() for one in reader.consistency(old)] if old <= size else []

    def answer(
        self, old: int, size: int, *, previous: tuple[FakeLog, int] | None = None, more: str = ""
    ) -> dict[str, Any]:
        """What a server answers in `log`."""
        return {
            "checkpoint": self.note(size, previous=previous, more=more),
            "consistency": self.proof(old, size),
            "old": old,
            "key": self.key,
        }
