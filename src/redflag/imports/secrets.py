"""Secrets in what is imported: found cheaply by the databases, taken out by `audit.redaction` row by row.

Looking at every text of a long history with every pattern would take longer than all the rest. So the database marks what
could hold a secret at all, by signs that find at least what the patterns find, and only that is looked at.
With patterns of the site's own (REDFLAG_REDACT) nothing can be said beforehand, and everything is looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from redflag.audit import redaction
from redflag.database.queries import Query

# For each of redaction's patterns what a text has that it finds something in: patterns of LIKE, for the text in small letters.
# What stands under the name of a secret has that name beside it. A regular expression would take half as long again.
_NAMES = ("%pass%", "%secret%", "%token%", "%key%", "%credential%", "%authorization%")
SIGNS: dict[str, tuple[str, ...]] = {
    "private key": ("%-----begin %",),
    "credentials in an address": ("%://%",),
    "authorization header": ("%authorization%",),
    "bearer token": ("%bearer%",),
    "named secret": _NAMES,
    "secret option": _NAMES,
    "json web token": ("%eyj%",),
    "cloud access key": ("%akia%", "%asia%"),
    "platform token": (r"%gh_\_%", "%glpat-%", "%xox%"),
}
# Python takes these for s, k and i when it disregards case; PostgreSQL's "C" collation does not
_FOLDED = ("%\u017f%", "%\u212a%", "%\u0130%", "%\u0131%")
EVERYTHING = ["%"]

_BATCH_ROWS = 20_000
_BATCH_BYTES = 32 * 1024 * 1024


def suspicious(*, more_patterns: bool) -> list[str]:
    """What a text is compared with, in small letters of the "C" collation: one that is like any of these has to be looked at."""
    signs = dict.fromkeys(sign for found in SIGNS.values() for sign in found)
    return EVERYTHING if more_patterns else [*signs, *_FOLDED]


async def clean(connection: Any, suspects: Query, update: Query, given: dict[str, Any], longest: int) -> int:
    """Takes secrets out of what the query `suspects` finds, and cuts output over `longest` bytes. Returns how many rows changed."""
    changed = 0
    async for ids, told in _batches(connection, suspects, given, longest):
        changed += await update.run(connection, ids=ids, told=told)
    return changed


async def _batches(
    connection: Any, suspects: Query, given: dict[str, Any], longest: int
) -> AsyncIterator[tuple[list[Any], list[Any]]]:
    ids: list[Any] = []
    cleaned: list[Any] = []
    size = 0
    async for row in connection.cursor(suspects.text, *suspects.arguments(given), prefetch=500):
        value = cleaned_of(row["told"], longest)
        if value == row["told"]:
            continue
        ids.append(row["id"])
        cleaned.append(value)
        size += len(redaction.encode(value))
        if len(ids) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield ids, cleaned
            ids, cleaned, size = [], [], 0
    if ids:
        yield ids, cleaned


def cleaned_of(told: dict[str, Any], longest: int) -> dict[str, Any]:
    """What a row tells, without secrets, its output no longer than what is kept."""
    clean: dict[str, Any] = redaction.clean(told)
    for holder in (clean, clean.get("result")):
        if isinstance(holder, dict):
            for name in ("stdout", "stderr"):
                if isinstance(holder.get(name), str):
                    holder[name], _ = redaction.cut(holder[name], longest)
    return clean
