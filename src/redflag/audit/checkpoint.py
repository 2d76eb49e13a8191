"""Checkpoints: the signed head of the tree (C2SP tlog-checkpoint, signed-note with Ed25519), and the key that signs.

The key never enters the database: it is a 0600 file, or the variable REDFLAG_LOG_KEY, the same on every replica.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from redflag.errors import InvalidInput, SettingsError

ED25519 = b"\x01"  # signed-note, "Signature types"
COSIGNATURE = b"\x04"  # tlog-cosignature
DASH = "\N{EM DASH}"
LONGEST_NAME = 255
NAME_RULE = f"a name has 1 to {LONGEST_NAME} characters, no space and no +"


def key_id(name: str, kind: bytes, public: bytes) -> bytes:
    """SHA-256(name || 0x0A || type || public key)[:4] (signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


@dataclass(frozen=True)
class Verifier:
    """A public key and its name; `kind` is the signature type (Ed25519 note, or a witness's cosignature)."""

    name: str
    public: bytes
    kind: bytes = ED25519

    @property
    def id(self) -> bytes:
        """Its key id."""
        return key_id(self.name, self.kind, self.public)

    def vkey(self) -> str:
        """As it is given to others: name+id+base64(type || key) (signed-note, "Verifier keys")."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.kind + self.public).decode()}"

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Reads a vkey. Raises InvalidInput."""
        try:
            name, named_id, key = vkey.strip().split("+", 2)
            material = base64.b64decode(key, validate=True)
        except (ValueError, binascii.Error):
            raise InvalidInput(
                f"{vkey[:80]!r} is no verifier key", "Give name+id+key, as `redflag audit key` prints it"
            ) from None
        found = cls(name, material[1:], material[:1])
        if (
            len(found.public) != 32
            or found.kind not in {ED25519, COSIGNATURE}
            or found.id.hex() != named_id
            or not name
        ):
            raise InvalidInput(f"The verifier key of {name[:80]!r} does not agree with itself", "Copy it again, whole")
        return found

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer:
    """The log's own key."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        if not is_name(name):
            raise SettingsError(f"{name!r} cannot name a log: {NAME_RULE}", "Set REDFLAG_LOG_ORIGIN")
        self._private = private
        self.verifier = Verifier(name, private.public_key().public_bytes_raw())

    def take_name(self, name: str) -> None:
        """From now on it signs under another name: its log was closed, and goes on under that one (`origins`)."""
        self.verifier = Verifier(name, self.verifier.public)

    def sign(self, size: int, root: bytes, extensions: Sequence[str] = ()) -> str:
        """The checkpoint of a tree: the note text, a blank line, the signature line."""
        return self.sign_text(body(self.verifier.name, size, root, extensions))

    def sign_text(self, text: str) -> str:
        """The note of any text that ends with a newline (signed-note), such as that of an evidence bundle's manifest."""
        signature = base64.b64encode(self.verifier.id + self._private.sign(text.encode())).decode()
        return f"{text}\n{DASH} {self.verifier.name} {signature}\n"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, as people compare it."""
        return hashlib.sha256(self.verifier.public).hexdigest()


def is_name(name: str) -> bool:
    """Whether a log or a key may be called so (signed-note, "Format"; and no longer than a line of a record)."""
    return name.isprintable() and 0 < len(name) <= LONGEST_NAME and not any(one == "+" or one.isspace() for one in name)


def body(origin: str, size: int, root: bytes, extensions: Sequence[str] = ()) -> str:
    """The note text of a checkpoint: origin, size, root, and a line for each extension (tlog-checkpoint, "Note text")."""
    if any(not line or "\n" in line for line in extensions):
        raise ValueError("an extension of a checkpoint is one line, and not empty")
    return "".join(f"{line}\n" for line in (origin, size, base64.b64encode(root).decode(), *extensions))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose signature was verified. `note` is the whole, as it was signed."""

    origin: str
    size: int
    root: bytes
    note: str

    @property
    def extensions(self) -> tuple[str, ...]:
        """The lines below the root."""
        return tuple(self.note.rpartition("\n\n")[0].split("\n")[3:])


def open_own(note: str, public: bytes) -> Checkpoint:
    """Reads a checkpoint that this public key signed for whatever log it names in its first line. Raises InvalidInput."""
    return open_note(note, Verifier(note.partition("\n")[0], public))


def open_note(note: str, verifier: Verifier) -> Checkpoint:
    """Reads a checkpoint signed by `verifier`. Raises InvalidInput when it is malformed or not signed by that key."""
    text, blank, signatures = note.rpartition("\n\n")
    text += "\n"
    lines = text.split("\n")
    if (
        not blank
        or not note.endswith("\n")
        or len(lines) < 4
        or any(ord(character) < 0x20 for character in note.replace("\n", ""))
    ):
        raise InvalidInput("This is no checkpoint", "Fetch it again")
    for line in signatures.splitlines():
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != DASH:
            raise InvalidInput("A signature line of the checkpoint is malformed", "Fetch it again")
        if parts[1] == verifier.name:
            signature = _base64(parts[2])
            if signature[:4] == verifier.id:
                if not verifier.verifies(text.encode(), signature[4:]):
                    raise InvalidInput(
                        f"The signature of {verifier.name} on the checkpoint is wrong", "Do not trust this log"
                    )
                break
    else:
        raise InvalidInput(
            f"The checkpoint is not signed by the key of {verifier.name}",
            "Compare the log's key with the one you pinned",
        )
    if (
        not lines[1].isascii()
        or not lines[1].isdigit()
        or len(lines[1]) > 18
        or str(int(lines[1])) != lines[1]
        or len(root := _base64(lines[2])) != 32
    ):
        raise InvalidInput("The checkpoint's size or root is malformed", "Fetch it again")
    return Checkpoint(lines[0], int(lines[1]), root, note)


def _base64(text: str) -> bytes:
    """The bytes of base64 in its one canonical spelling: no other is what was signed (verify/SPEC.md §1)."""
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidInput("The checkpoint holds what is no base64", "Fetch it again") from None
    if base64.b64encode(found).decode() != text:
        raise InvalidInput("The checkpoint spells its base64 in another way than the one there is", "Fetch it again")
    return found


def load_key(name: str, file: Path, value: str = "") -> Signer:
    """The log's key: from `value` (32 bytes in base64), else from the file, which is made if it is not there. Raises SettingsError."""
    if value:
        return Signer(name, _private(value, "REDFLAG_LOG_KEY"))
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if file.stat().st_mode & 0o077:
            raise SettingsError(f"The log's key {file} can be read by others", f"chmod 600 {file}") from None
        return Signer(name, _private(file.read_text(), str(file)))
    private = Ed25519PrivateKey.generate()
    with os.fdopen(handle, "w") as opened:
        opened.write(base64.b64encode(private.private_bytes_raw()).decode() + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    return Signer(name, private)


def _private(text: str, where: str) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.strip(), validate=True))
    except (ValueError, binascii.Error):
        raise SettingsError(
            f"{where} holds no key: 32 bytes in base64", "Restore it from your backup of the key"
        ) from None
