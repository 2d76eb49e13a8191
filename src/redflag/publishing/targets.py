"""Targets: where checkpoints are sent. Who they are, and who may be one.

- A *witness* (C2SP tlog-witness) is known by its submission prefix and its pinned key; what it cosigns is stored.
- A *webhook* gets a POST, signed with a secret of its own.
- A *file* or a *git* repository is named below the folder of checkpoints, and can be nowhere else.

A target that is removed keeps its row, because the record speaks of it. Each change leaves its record; the secret is in none.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import enum
import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redflag.audit import cosignatures
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound, RedFlagError

sql = queries.load(__file__, "targets.sql")


class Kind(enum.StrEnum):
    """What a target is. The CHECK of the database has the same words; a test holds the two together."""

    WITNESS = "witness"
    FILE = "file"
    GIT = "git"
    WEBHOOK = "webhook"


MOST = 32
EVERY = {
    Kind.WITNESS: datetime.timedelta(seconds=10),
    Kind.FILE: datetime.timedelta(seconds=10),
    Kind.GIT: datetime.timedelta(hours=1),
    Kind.WEBHOOK: datetime.timedelta(seconds=60),
}
SHORTEST, LONGEST = datetime.timedelta(seconds=1), datetime.timedelta(days=31)

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@:/ -]{0,98}[A-Za-z0-9])?")
# One name, no way: neither up, nor down into a repository, nor hidden
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URL = re.compile(r"[!-~]{1,1000}")
# How Standard Webhooks writes a secret, and how long one is
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin, none itself
SECRET_BYTES = range(24, 65)


class TargetFailed(RedFlagError):
    """A checkpoint did not reach a target. `retry_after`: seconds that the target asked for, if it did."""

    def __init__(self, what: str, next_step: str = "", retry_after: float = 0) -> None:
        self.retry_after = retry_after
        super().__init__(what, next_step)


@dataclass(frozen=True)
class Target:
    """A target, as whoever sends to it needs it."""

    id: uuid.UUID
    kind: Kind
    name: str
    address: str
    vkey: str | None
    secret: str | None
    every: datetime.timedelta
    acknowledged_size: int
    failures_in_a_row: int


async def list_targets(connection: Any) -> list[dict[str, Any]]:
    """Every target by name, with how far it is. Never a secret."""
    return [dict(row) for row in await sql.targets.all(connection)]


async def show(connection: Any, target_id: uuid.UUID) -> dict[str, Any]:
    """One target. Raises NotFound."""
    for row in await list_targets(connection):
        if row["id"] == target_id:
            return row
    raise _not_found(target_id)


async def add(
    connection: Any,
    actor: Actor,
    *,
    kind: Kind,
    name: str,
    address: str,
    vkey: str | None = None,
    secret: str | None = None,
    every: datetime.timedelta | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Makes a target. Returns its row, and the secret that was made for a webhook that was given none, this once.

    Raises InvalidInput, or Conflict when the name, the witness or the place is taken.
    """
    made = None
    if kind is Kind.WEBHOOK and secret is None:
        made = secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    _require_name(name)
    address = require_address(kind, address)
    _require_secret(kind, secret)
    vkey = _require_key(kind, vkey)
    every = _require_every(EVERY[kind] if every is None else every)
    async with connection.transaction():
        await sql.lock.run(connection)
        known = await sql.targets.all(connection)
        if len(known) >= MOST or (
            kind is Kind.WITNESS and sum(one["kind"] == kind for one in known) >= cosignatures.MOST_WITNESSES
        ):
            raise Conflict(
                f"There are {len(known)} targets already; {MOST} is the most, {cosignatures.MOST_WITNESSES} of them witnesses",
                "Remove one first: see `redflag audit targets list`",
            )
        _require_free(known, kind=kind, name=name, address=address, vkey=vkey)
        target_id = await sql.add.value(
            connection, kind=kind, name=name, address=address, vkey=vkey, secret=secret, every=every,
            act=actor.act("log_target_added"),
        )  # fmt: skip
        return await show(connection, target_id), made


async def change(
    connection: Any,
    actor: Actor,
    target_id: uuid.UUID,
    *,
    name: str | None = None,
    address: str | None = None,
    secret: str | None = None,
    every: datetime.timedelta | None = None,
    enabled: bool | None = None,
) -> dict[str, Any]:
    """Changes a target; None leaves a thing as it is. Its kind and key stay: another witness is another target.

    Raises NotFound, InvalidInput, or Conflict when the name or the place is taken.
    """
    async with connection.transaction():
        await sql.lock.run(connection)
        before = await show(connection, target_id)
        kind = Kind(before["kind"])
        if name is not None:
            _require_name(name)
        if address is not None:
            address = require_address(kind, address)
        if secret is not None:
            _require_secret(kind, secret)
        if every is not None:
            _require_every(every)
        others = [one for one in await sql.targets.all(connection) if one["id"] != target_id]
        _require_free(others, kind=kind, name=name, address=address, vkey=None)
        await sql.change.run(
            connection, id=target_id, name=name, address=address, secret=secret, every=every, enabled=enabled,
            act=actor.act("log_target_changed"),
        )  # fmt: skip
        return await show(connection, target_id)


async def remove(connection: Any, actor: Actor, target_id: uuid.UUID) -> None:
    """Sends it nothing more. The cosignatures that it gave stay. Raises NotFound."""
    if not await sql.remove.run(connection, id=target_id, act=actor.act("log_target_removed")):
        raise _not_found(target_id)


def require_address(kind: Kind, address: str) -> str:
    """The address as it is kept, if it is one for this kind. Raises InvalidInput."""
    if kind in {Kind.FILE, Kind.GIT}:
        if not _PLACE.fullmatch(address) or address.endswith((".", ".lock")):
            raise InvalidInput(
                f"{address[:100]!r} is no name for a {kind} target",
                "Give one name without slashes: letters, digits and . _ -, beginning with a letter or a digit; "
                "it is made in the folder of checkpoints",
            )
        return address
    try:
        url = urlsplit(address)
        whole = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        whole = False
    if not whole or not _URL.fullmatch(address):
        raise InvalidInput(
            f"{address[:100]!r} is no address of a {kind}", "Give one beginning with https:// or http://"
        )
    if (
        url.username is not None
        or url.password is not None
        or "#" in address
        or (kind is Kind.WITNESS and "?" in address)
    ):
        raise InvalidInput(
            "The address holds a user, a password, a # or a query, which it must not",
            "Addresses stand in the record; a webhook is signed with a secret of its own",
        )
    return address.rstrip("/") if kind is Kind.WITNESS else address


def secret_key(secret: str) -> bytes:
    """The bytes of a webhook's secret (Standard Webhooks: whsec_ and 24 to 64 bytes in base64). Raises InvalidInput."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) not in SECRET_BYTES or not secret.startswith(SECRET_PREFIX):
        raise InvalidInput(
            "This is no secret of a webhook",
            f"Give {SECRET_PREFIX} and {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} random bytes in base64, or none to have one made",
        )
    return key


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:100]!r} is no name for a target",
            "Use up to 100 letters, digits, spaces and . _ @ : / -, with a letter or a digit at both ends",
        )


def _require_secret(kind: Kind, secret: str | None) -> None:
    if kind is Kind.WEBHOOK:
        secret_key(secret or "")
    elif secret is not None:
        raise InvalidInput(f"A {kind} has no secret", "Leave it out")


def _require_key(kind: Kind, vkey: str | None) -> str | None:
    if kind is Kind.WITNESS:
        cosignatures.witness_key(vkey or "")
        return (vkey or "").strip()
    if vkey is not None:
        raise InvalidInput(f"A {kind} has no key", "Leave it out")
    return None


def _require_every(every: datetime.timedelta) -> datetime.timedelta:
    if not SHORTEST <= every <= LONGEST:
        raise InvalidInput("The time between two checkpoints is not between 1 s and 31 days", "Give another")
    return every


def _require_free(
    others: list[Any],
    *,
    kind: Kind,
    name: str | None,
    address: str | None,
    vkey: str | None,
) -> None:
    for one in others:
        if name is not None and one["name"].lower() == name.lower():
            raise Conflict(f"There is a target {one['name']} already", "Choose another name")
        if (
            address is not None
            and {kind, Kind(one["kind"])} <= {Kind.FILE, Kind.GIT}
            and one["address"].lower() == address.lower()
        ):
            raise Conflict(f"The target {one['name']} is at {one['address']} already", "Choose another place")
        if vkey is not None and one["vkey"] is not None and _is_same_witness(one["vkey"], vkey):
            raise Conflict(f"The target {one['name']} is this witness already", "One witness counts once")


def _is_same_witness(one: str, other: str) -> bool:
    # Whoever counts a quorum refuses two keys of one name, and one key under two names
    first, second = cosignatures.witness_key(one), cosignatures.witness_key(other)
    return bool(first.name == second.name or first.public == second.public)


def _not_found(target_id: uuid.UUID) -> NotFound:
    return NotFound(f"No target {target_id}", "See `redflag audit targets list`")
