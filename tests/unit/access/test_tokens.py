"""Tokens and what is remembered of them, without a database."""

from __future__ import annotations

import hashlib
import re
import uuid

import pytest

from redflag.access import rate, tokens
from redflag.access.principals import Kind, Principal, _Memory
from redflag.access.roles import PERMISSIONS, Role
from redflag.errors import InvalidInput


def test_a_token_is_64_hex_characters_and_never_repeats() -> None:
    made = {tokens.make_token() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in made)


def test_a_digest_is_the_raw_sha256() -> None:
    assert tokens.digest("abc") == hashlib.sha256(b"abc").digest()
    assert len(tokens.digest("\udc80")) == 32


@pytest.mark.parametrize("bad", ["", "   ", "x" * 256, "two\nlines", "nul\x00"])
def test_a_name_that_no_record_could_show_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput):
        tokens.require_name(bad, "The name")


@pytest.mark.parametrize("bad", [0, -1, 25, float("nan"), float("inf")])
def test_hours_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(InvalidInput):
        tokens.require_hours(bad, 24)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("not an address", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_address_stands_for_the_party_that_has_it(address: str | None, place: str) -> None:
    assert rate.place(address) == place


def test_what_is_remembered_holds_until_its_time() -> None:
    now = 100.0
    memory: _Memory[str] = _Memory(10, lambda: now)
    memory.put(b"a", "found", 104.0)
    assert memory.get(b"a") == "found"
    now = 104.0
    assert memory.get(b"a") is None
    assert len(memory) == 0


def test_whoever_was_asked_for_longest_ago_is_forgotten_first() -> None:
    memory: _Memory[str] = _Memory(2, lambda: 0.0)
    memory.put(b"a", "A", 4.0)
    memory.put(b"b", "B", 4.0)
    assert memory.get(b"a") == "A"
    memory.put(b"c", "C", 4.0)
    assert memory.get(b"b") is None
    assert (memory.get(b"a"), memory.get(b"c")) == ("A", "C")


def test_memory_never_grows_past_its_bound_and_drops_what_is_over() -> None:
    now = 0.0
    memory: _Memory[int] = _Memory(1000, lambda: now)
    for number in range(5000):
        memory.put(number.to_bytes(4), number, now + 4)
    assert len(memory) == 1000
    now = 10.0
    memory.put(b"new", 1, 14.0)
    assert len(memory) == 1


def test_a_principal_acts_under_its_own_name_and_each_request_anew() -> None:
    bob = Principal(Kind.USER, "bob", "user:1", Role.VIEWER, PERMISSIONS[Role.VIEWER])
    program = Principal(Kind.TOKEN, "ci", "token:1", Role.VIEWER, PERMISSIONS[Role.VIEWER])
    agent = Principal.of_agent(uuid.UUID(int=1))
    assert (bob.actor().name, program.actor().name) == ("user:bob", "token:ci")
    assert agent.actor().name == "agent:00000000-0000-0000-0000-000000000001"
    assert bob.actor("192.0.2.1").address == "192.0.2.1"
    assert bob.actor().request_id != bob.actor().request_id


def test_an_agent_has_no_role_and_no_permission() -> None:
    agent = Principal.of_agent(uuid.uuid4())
    assert agent.role is None
    assert not agent.permissions
