"""Secrets never enter the record: parameters, messages and output pass through here before they are stored.

Whatever is found is replaced by `[redacted]`, and cannot be had back. The built-in patterns are in docs/reference/redaction.md;
`REDFLAG_REDACT` adds some of the site's own. NUL bytes, which PostgreSQL's text cannot hold, become U+FFFD.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from redflag.errors import SettingsError

MARK = "[redacted]"
_NAMES = r"pass(?:word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|authorization|client[_-]?secret"

# name → (pattern, replacement). What is before the secret stays, so that a reader sees what was there.
PATTERNS: dict[str, tuple[str, str]] = {
    "private key": (
        # Without its end it is 20,000 characters: a key that was cut is a secret too, and no text is looked at twice
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
        r"(?:[\s\S]{0,20000}?-----END [A-Z ]{0,40}PRIVATE KEY-----|[\s\S]{0,20000})",
        MARK,
    ),
    "credentials in an address": (
        r"(\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s/:@]{0,256}:)[^\s/@]{1,512}(?=@)",
        rf"\1{MARK}",
    ),
    "authorization header": (
        r"((?:[Aa]uthorization|[Pp]roxy-[Aa]uthorization)\s*[:=]\s*(?:\w{1,20}\s+)?)[^\s\"',;]{1,4096}",
        rf"\1{MARK}",
    ),
    "bearer token": (r"(\b[Bb]earer\s+)[A-Za-z0-9._~+/=-]{8,4096}", rf"\1{MARK}"),
    "named secret": (
        rf"(?i)((?:\b|_)(?:{_NAMES})[\"']?\s*[:=]\s*)(?:\"[^\"]{{1,4096}}\"|'[^']{{1,4096}}'|[^\s\"',;&]{{1,4096}})",
        rf"\1{MARK}",
    ),
    "secret option": (rf"(?i)(\s--?(?:{_NAMES})[ =])[^\s-]\S{{0,4096}}", rf"\1{MARK}"),
    "json web token": (
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,1024}",
        MARK,
    ),
    "cloud access key": (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MARK),
    "platform token": (
        r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|glpat-[A-Za-z0-9_-]{20,255}|xox[abprs]-[A-Za-z0-9-]{10,255})",
        MARK,
    ),
}
# A text without any of these has nothing that the pattern of that name finds: to look for words takes a hundredth of the time. Of
# words joined by a space all must be there. Names of secrets are looked for in the folded text, and are cut before an i, which
# has more than two cases.
_NAME_WORDS = ("pass", "secret", "token", "key", "cred", "author")
HINTS: dict[str, tuple[str, ...]] = {
    "private key": ("KEY-----",),
    "credentials in an address": (":// @",),
    "authorization header": ("uthorization",),
    "bearer token": ("Bearer", "bearer"),
    "json web token": ("eyJ",),
    "cloud access key": ("AKIA", "ASIA"),
    "platform token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "xox"),
}
FOLDED_HINTS: dict[str, tuple[str, ...]] = {"named secret": _NAME_WORDS, "secret option": _NAME_WORDS}
# A value under such a name is a secret whatever it looks like
SECRET_KEY = re.compile(rf"(?i)(?:^|[_.-])(?:{_NAMES})s?$")
_DEPTH = 32
# Longer than the longest secret that a pattern finds
MARGIN = 24 * 1024
# Output larger than this is searched in a thread
BESIDE = 64 * 1024

# pattern, replacement, the words without which it finds nothing, and whether they are folded
_Active = tuple[re.Pattern[str], str, tuple[tuple[str, ...], ...], bool]
_active: list[_Active] = [
    (
        re.compile(pattern),
        replacement,
        tuple(tuple(hint.split(" ")) for hint in HINTS.get(name) or FOLDED_HINTS[name]),
        name in FOLDED_HINTS,
    )
    for name, (pattern, replacement) in PATTERNS.items()
]
# Patterns of the site's own, which are always tried
_of_site: list[re.Pattern[str]] = []
# Whether a folded text has any of all these words, or something like it: most texts have none, and one look tells. What is looked
# for are parts that begin with a rare letter; a test holds them against the words.
_ANY_HINT = re.compile(r"pa(?:ss|t-)|cre[td]|ke[yn]|kia|asia|uthor|://|bearer|yj|h[pousr]_|xox")


def add_patterns(patterns: list[str]) -> None:
    """Adds a site's own patterns (regular expressions). Raises SettingsError with the one that is wrong."""
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise SettingsError(
                f"REDFLAG_REDACT: {pattern!r} is no regular expression: {error}", "Correct it"
            ) from error
        if compiled not in _of_site:
            _of_site.append(compiled)


def patterns() -> list[str]:
    """All that is taken for a secret, as regular expressions."""
    return [compiled.pattern for compiled in (*(one for one, *_ in _active), *_of_site)]


def text(value: str) -> str:
    """The text without secrets and without NUL bytes."""
    value = value.replace("\x00", "\ufffd")
    folded = value.casefold()
    if _ANY_HINT.search(folded):
        for pattern, replacement, hints, fold in _active:
            searched = folded if fold else value
            if any(all(word in searched for word in words) for words in hints):
                value = pattern.sub(replacement, value)
    for pattern in _of_site:
        value = pattern.sub(MARK, value)
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def short(value: str, most: int) -> str:
    """A short text, such as a name: what is far too long is cut before it is searched."""
    return text(value[: 4 * most])[:most]


def clean(value: Any, depth: int = 0) -> Any:
    """A JSON value without secrets: by the name they stand under, or by their looks. Deeper than 32 levels is cut off."""
    if depth > _DEPTH:
        return "[too deep]"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {
            text(str(key)): MARK
            if isinstance(item, str) and item and SECRET_KEY.search(str(key))
            else clean(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, depth + 1) for item in value]
    return value


def encode(value: Any) -> bytes:
    """A JSON value as it is measured against limits."""
    return msgspec.json.encode(value)


def cut(value: str, limit: int) -> tuple[str, int]:
    """Cuts output in the middle, so that its beginning and its end stay. Returns it and how many bytes it had.

    The result, with the line that says what is missing, is at most `limit` bytes and some 80 more.
    """
    data = value.encode("utf-8", "replace")
    return (value, len(data)) if len(data) <= limit else (_joined(data, data, len(data), limit // 2), len(data))


async def output(value: str, limit: int) -> tuple[str, int]:
    """Output as it is stored: cut, without secrets. Returns it and how many bytes it had.

    What is long is cut before it is searched, with a margin wider than any secret, so that a secret at the edge is found
    whole; and it is searched beside the event loop, which has agents to answer meanwhile.
    """
    data = value.encode("utf-8", "replace")
    size, half = len(data), limit // 2
    if size <= limit:
        return (text(value) if size <= BESIDE else await asyncio.to_thread(text, value)), size
    wide = min(half + MARGIN, size // 2)
    head = await asyncio.to_thread(text, data[:wide].decode("utf-8", "ignore"))
    tail = await asyncio.to_thread(text, data[-wide:].decode("utf-8", "ignore"))
    return _joined(head.encode(), tail.encode(), size, half), size


def _joined(head: bytes, tail: bytes, size: int, half: int) -> str:
    """The beginning of one and the end of the other, and how much of `size` is missing between them."""
    begin, end = head[:half].decode("utf-8", "ignore"), tail[-half:].decode("utf-8", "ignore")
    return f"{begin}\n[… {size - 2 * half} of {size} bytes cut …]\n{end}"
