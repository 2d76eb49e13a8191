"""Secrets never enter the record, and looking for them takes no longer than the text is long."""

from __future__ import annotations

import time

import pytest

from redflag.audit import redaction
from redflag.audit.redaction import MARK, clean, cut, text
from redflag.errors import SettingsError

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
SECRET = "hUnter2hUnter2"


@pytest.mark.parametrize(
    "said",
    [
        f"password={SECRET}",
        f"Password: {SECRET}",
        f'"password": "{SECRET}"',
        f"DB_PASSWORD='{SECRET}'",
        f"api-key: {SECRET}",
        f"client_secret={SECRET}&x=1",
        f"curl -H 'Authorization: Bearer {SECRET}'",
        f"authorization: Basic {SECRET}",
        f"bearer {SECRET}",
        f"https://user:{SECRET}@example.org/path",
        f"postgresql://redflag:{SECRET}@/db",
        f"tool --password {SECRET} --verbose",
        f"tool --token={SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
        f"ghp_{SECRET}{SECRET}",
        f"glpat-{SECRET}{SECRET}",
        f"xoxb-1234567890-{SECRET}",
    ],
)
def test_a_secret_is_not_kept_wherever_it_stands(said: str) -> None:
    for whole in (said, f"before\n{said}\nafter", f"{said}\n" * 3):
        assert SECRET not in text(whole)
        assert MARK in text(whole)


def test_what_stands_around_a_secret_stays() -> None:
    assert text(f"begin password={SECRET} end") == f"begin password={MARK} end"
    assert text(f"https://user:{SECRET}@example.org/path") == f"https://user:{MARK}@example.org/path"


@pytest.mark.parametrize(
    "said",
    ["", "12 updates found", "the password was changed", "tokens: ", "https://example.org:8080/a@b", "é\n\t漢字"],
)
def test_what_is_no_secret_stays_as_it_is(said: str) -> None:
    assert text(said) == said


def test_a_private_key_goes_to_its_end() -> None:
    assert text(f"a\n{KEY}\nb\n{KEY}\nc") == f"a\n{MARK}\nb\n{MARK}\nc"


@pytest.mark.parametrize("more", [100, 19_000, 50_000])
def test_a_private_key_that_was_cut_is_a_secret_too(more: int) -> None:
    said = text("-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKC" + "A" * 3000 + " " * more)
    assert "MIIEow" not in said
    assert "AAAA" not in said


def test_no_zero_byte_and_no_half_character_is_left() -> None:
    assert text("a\x00b") == "a\ufffdb"
    assert text("a\ud800b") == "a?b"


def test_a_value_under_a_secrets_name_is_a_secret_whatever_it_looks_like() -> None:
    told = {
        "password": "x",
        "db.passwd": "y",
        "API-Key": "z",
        "tokens": "t",
        "password_length": 8,
        "secret": "",
        "plain": "x",
    }
    assert clean(told) == {
        "password": MARK, "db.passwd": MARK, "API-Key": MARK, "tokens": MARK, "password_length": 8, "secret": "", "plain": "x",
    }  # fmt: skip


def test_secrets_are_found_at_any_depth_and_in_keys() -> None:
    told = clean({"a": [{"b": ({"token": SECRET}, f"password={SECRET}")}], f"password={SECRET}": 1})
    assert SECRET not in str(told)
    assert told["a"][0]["b"] == [{"token": MARK}, f"password={MARK}"]


def test_what_is_no_text_stays() -> None:
    assert clean({"n": 1, "f": 1.5, "b": True, "none": None, "l": []}) == {
        "n": 1,
        "f": 1.5,
        "b": True,
        "none": None,
        "l": [],
    }


def test_what_is_nested_without_end_is_cut_off() -> None:
    deep: object = SECRET
    for _ in range(200):
        deep = [deep]
    assert "[too deep]" in str(clean(deep))


def test_redacting_twice_is_redacting_once() -> None:
    said = f"password={SECRET} https://u:{SECRET}@h/ Authorization: Bearer {SECRET}\n{KEY}"
    assert text(text(said)) == text(said)


def test_a_sites_own_patterns_are_added_once_and_a_wrong_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_of_site", [])
    redaction.add_patterns([r"CUST-\d{6}"])
    redaction.add_patterns([r"CUST-\d{6}"])
    assert len(redaction._of_site) == 1
    assert text("order of CUST-123456") == f"order of {MARK}"
    with pytest.raises(SettingsError, match="REDFLAG_REDACT"):
        redaction.add_patterns(["("])


@pytest.mark.parametrize("limit", [1024, 1025, 100_000])
@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀"])
def test_output_is_cut_in_the_middle_between_characters(letter: str, limit: int) -> None:
    said = "first " + letter * 200_000 + " last"
    kept, size = cut(said, limit)
    assert size == len(said.encode())
    assert len(kept.encode()) <= limit + 80
    assert kept.startswith("first ")
    assert kept.endswith(" last")
    assert "\ufffd" not in kept


def test_output_that_fits_is_not_cut() -> None:
    assert cut("é" * 512, 1024) == ("é" * 512, 1024)


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY----- x\n" * 3 + "-----END",
        "a://b:",
        "token ",
        'token="a ',
        "authorization: ",
        "_",
        "a.",
        "-eyJaaaaaaaa",
        " --password ",
        "x" * 100 + "\n",
    ],
)
def test_no_text_takes_long_to_look_through(piece: str) -> None:
    """A pattern that looks again and again at the same text would stop the server for all: here it would take minutes."""
    said = piece * (1_000_000 // len(piece))
    began = time.process_time()
    text(said)
    assert time.process_time() - began < 5
