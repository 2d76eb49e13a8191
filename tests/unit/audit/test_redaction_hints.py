"""A text is only searched for a secret if a word of it is there; nothing that the patterns would find is missed by that."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from redflag.audit import redaction

PIECES = st.one_of(
    st.sampled_from(
        [
            "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----", "postgres://joe:hush@db/x", "Authorization: Basic abc=",
            "proxy-authorization=x", "Bearer abcdefgh12", "bearer\tABCDEFGHIJ", "password=hush", "PASSPHRASE: 'hush'", "client_secret=1",
            " --token abc", " -api_key=abc", "pa\u017f\u017fword=hush", "acce\u017fs_key: 1", "to\u212aen=hush", "pr\u0131vate_key=hush",
            "credent\u0131als: x",
            "author\u0131zat\u0131on: x", "CREDENT\u0130ALS=x", "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", "AKIAABCDEFGHIJKLMNOP",
            "ghp_abcdefghijklmnopqrstuvwxyz", "glpat-abcdefghijklmnopqrstu", "xoxb-1234567890-abc", "\x00", "\n", " ", "=", ":", "@",
        ]
    ),
    st.text(max_size=12),
)  # fmt: skip


def _searched_for_everything(value: str) -> str:
    """Every pattern, whatever stands in the text."""
    value = value.replace("\x00", "\ufffd")
    for pattern, replacement, *_ in redaction._active:
        value = pattern.sub(replacement, value)
    return value.encode("utf-8", "replace").decode()


@settings(max_examples=400, deadline=None)
@example("pr\u0131vate_key=hush")
@example("to\u212aen=hush")
@given(st.lists(PIECES, max_size=8).map("".join))
def test_looking_for_words_first_finds_all_that_the_patterns_find(value: str) -> None:
    assert redaction.text(value) == _searched_for_everything(value)


def test_every_pattern_has_its_words() -> None:
    assert redaction.HINTS.keys() | redaction.FOLDED_HINTS.keys() == redaction.PATTERNS.keys()
    assert not redaction.HINTS.keys() & redaction.FOLDED_HINTS.keys()


@pytest.mark.parametrize(
    "word", sorted({word for _, _, hints, _ in redaction._active for words in hints for word in words[:1]})
)
def test_the_first_look_sees_every_word(word: str) -> None:
    assert redaction._ANY_HINT.search(word.casefold())
