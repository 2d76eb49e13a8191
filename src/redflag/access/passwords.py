"""Passwords: how they are hashed, checked and made.

Promises
- New hashes are Argon2id with the parameters of RFC 9106 §4 (second recommended option). Hashes of bcrypt, as RedFlag
  had them, are understood; `outdated` says when a hash that was just proven should be written anew.
- Every check costs one verification, also of a user who does not exist or has a hash that nobody can read, so that the
  time of an answer does not tell who exists. (A user who still has a bcrypt hash answers in bcrypt's time until the
  first log-in.)
- The event loop is never blocked: hashing runs in two threads of its own, 64 MiB each; what comes meanwhile waits.

Passwords are in no log, record or error.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import secrets

import argon2
import bcrypt
from argon2.profiles import RFC_9106_LOW_MEMORY

from redflag.errors import InvalidInput

MINIMUM_CHARACTERS = 12
MAXIMUM_BYTES = 1024
CONCURRENT = 2

_BCRYPT_MAXIMUM_BYTES = 72  # beyond it bcrypt reads nothing; RedFlag refused such passwords
_BCRYPT = ("$2a$", "$2b$", "$2y$")
# Without the letters and digits that are taken for one another
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 5, 4

_hasher = argon2.PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_threads = concurrent.futures.ThreadPoolExecutor(CONCURRENT, thread_name_prefix="password")


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


# Of no password at all, and with the same cost as a real one
_DUMMY = (
    f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    f"${_unpadded(secrets.token_bytes(_hasher.salt_len))}${_unpadded(secrets.token_bytes(_hasher.hash_len))}"
)


def generate_password() -> str:
    """A password of 99 random bits that can be read out and typed: `k7fm-x2pq-…`."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


def require_acceptable(password: str) -> None:
    """What holds for every password that a person sets. Raises InvalidInput."""
    if len(password) < MINIMUM_CHARACTERS:
        raise InvalidInput(f"A password has at least {MINIMUM_CHARACTERS} characters", "Choose a longer one")
    if len(_bytes(password)) > MAXIMUM_BYTES:
        raise InvalidInput(f"A password has at most {MAXIMUM_BYTES} bytes", "Choose a shorter one")
    if not password.isprintable():
        raise InvalidInput("The password has characters that cannot be typed", "Choose another")


async def hash_password(password: str) -> str:
    """The hash to store."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, _bytes(password))


async def verify(password: str, stored: str | None) -> bool:
    """Whether the password is that of the hash; None (nobody has this name) costs the same and is False."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, _bytes(password), stored)


def outdated(stored: str) -> bool:
    """Whether a hash is of another kind, or of other parameters, than those written today."""
    try:
        return _hasher.check_needs_rehash(stored)
    except argon2.exceptions.InvalidHashError:
        return True


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _verify(password: bytes, stored: str | None) -> bool:
    if stored is not None and len(password) <= MAXIMUM_BYTES:
        with contextlib.suppress(ValueError, argon2.exceptions.VerificationError):  # unreadable: as if there were none
            if stored.startswith(_BCRYPT):
                same = bcrypt.checkpw(password[:_BCRYPT_MAXIMUM_BYTES], stored.encode())
                return same and len(password) <= _BCRYPT_MAXIMUM_BYTES
            return _matches(password, stored)
    _matches(b"", _DUMMY)
    return False


def _matches(password: bytes, stored: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except argon2.exceptions.VerifyMismatchError:
        return False
