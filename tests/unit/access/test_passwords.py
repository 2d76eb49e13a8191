"""How passwords are hashed, checked and made."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import argon2
import bcrypt
import pytest

from redflag.access import passwords
from redflag.errors import InvalidInput

GOOD = "correct horse battery"


async def test_a_password_matches_its_own_hash_only() -> None:
    stored = await passwords.hash_password(GOOD)
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(GOOD, stored)
    assert not await passwords.verify(GOOD + "!", stored)
    assert not passwords.outdated(stored)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
async def test_a_hash_of_bcrypt_is_understood_and_outdated(prefix: str) -> None:
    stored = bcrypt.hashpw(GOOD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", prefix, 1)
    assert await passwords.verify(GOOD, stored)
    assert not await passwords.verify(GOOD + "!", stored)
    assert passwords.outdated(stored)


async def test_bcrypt_does_not_ignore_what_is_beyond_its_72_bytes() -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert await passwords.verify("x" * 72, stored)
    assert not await passwords.verify("x" * 73, stored)


def test_a_hash_of_weaker_parameters_is_outdated() -> None:
    assert passwords.outdated(argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(GOOD))


@pytest.mark.parametrize("stored", [None, "", "!", "$argon2id$broken", "$2b$broken", "$2b$99$" + "x" * 53])
async def test_a_user_who_does_not_exist_or_cannot_be_read_costs_one_verification(
    stored: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    real = argon2.PasswordHasher.verify

    def counting(self: argon2.PasswordHasher, against: str, password: Any) -> Any:
        checked.append(against)
        return real(self, against, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counting)
    assert not await passwords.verify(GOOD, stored)
    assert checked[-1] == passwords._DUMMY


async def test_the_dummy_costs_what_a_real_hash_costs() -> None:
    real = argon2.extract_parameters(await passwords.hash_password(GOOD))
    assert argon2.extract_parameters(passwords._DUMMY) == real


async def test_an_endless_password_is_wrong_and_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "x" * (passwords.MAXIMUM_BYTES + 1)
    assert not await passwords.verify(endless, await passwords.hash_password(endless))


@pytest.mark.parametrize("odd", ["", "\x00", "\udc80 lone surrogate", "pässwörd 密码"])
async def test_whatever_is_sent_as_a_password_is_answered(odd: str) -> None:
    assert not await passwords.verify(odd, None)
    assert not await passwords.verify(odd, await passwords.hash_password(GOOD))
    assert not await passwords.verify(odd, bcrypt.hashpw(GOOD.encode(), bcrypt.gensalt(4)).decode())


@pytest.mark.parametrize(
    "bad", ["elevenchars", "x" * 1025, "ü" * 513, "a line\nand another one", "\udc80 lone surrogate"]
)
def test_a_password_that_will_not_do_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        passwords.require_acceptable(bad)
    assert bad not in str(refused.value)


def test_twelve_characters_and_1024_bytes_will_do() -> None:
    passwords.require_acceptable("twelve chars")
    passwords.require_acceptable("x" * 1024)


def test_a_generated_password_can_be_read_out_and_never_repeats() -> None:
    made = {passwords.generate_password() for _ in range(1000)}
    assert len(made) == 1000
    for password in made:
        passwords.require_acceptable(password)
        assert not set("iIlLoO01") & set(password)
        assert [len(group) for group in password.split("-")] == [4, 4, 4, 4, 4]


async def test_hashing_leaves_the_event_loop_free_and_never_runs_more_than_twice_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = threading.Lock()
    now, most, on_loop = 0, 0, False
    loop_thread = threading.get_ident()
    real = argon2.PasswordHasher.verify

    def watched(self: argon2.PasswordHasher, against: str, password: Any) -> Any:
        nonlocal now, most, on_loop
        with lock:
            now += 1
            most = max(most, now)
            on_loop |= threading.get_ident() == loop_thread
        try:
            return real(self, against, password)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(argon2.PasswordHasher, "verify", watched)
    checks = asyncio.gather(*(passwords.verify(GOOD, None) for _ in range(8)))
    turns = 0
    began = time.monotonic()
    while not checks.done() and time.monotonic() - began < 60:
        await asyncio.sleep(0.001)
        turns += 1
    await checks
    assert most == 2
    assert not on_loop
    assert turns > 8
