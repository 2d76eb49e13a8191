"""The inventory: what an agent's scans find, and what that says about updates that were decided on or installed.

Promises: an item that is wrong never loses the others, is told to the agent and recorded; a row that has not changed is
not written (but for `last_seen_at`, once an hour), and a report that would change nothing is not even taken apart
(`unchanged`); what a person decided survives every scan; an installation counts as installed when a scan no longer lists
it, and as failed when a scan that began after it still does. Reports of one agent are taken one after the other, so none is
lost however many come at once. If the database refuses, nothing of the report is kept and the error says so; a deadlock is
tried again, because RedFlag's agents send a report once.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import asyncpg
import msgspec

from redflag.access import rate
from redflag.audit import events, redaction
from redflag.audit.actor import Actor
from redflag.database import queries
from redflag.errors import InvalidInput, NotFound, RateLimited
from redflag.updates import unchanged
from redflag.updates.states import severity_of

sql = queries.load(__file__, "inventory.sql")

MOST_ITEMS = 20_000
MOST_REASONS = 20
REJECTIONS_AN_HOUR = 6
METADATA_LIMIT = 16 * 1024
DESCRIPTION_LIMIT = 4000
ATTEMPTS = 3
# Reports with more bytes are examined in a thread
AT_ONCE = 128 * 1024

Version = Annotated[str, msgspec.Meta(max_length=500)]


class Item(msgspec.Struct):
    """One package of a scan as agents send it; null and absent are empty. Sizes in bytes."""

    package_type: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    package_name: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    package_description: str | None = None
    current_version: Version | None = None
    available_version: Version | None = None
    severity: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    cve_list: Annotated[list[Annotated[str, msgspec.Meta(max_length=100)]], msgspec.Meta(max_length=1000)] | None = None
    kb_id: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    repository_source: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    metadata: dict[str, Any] | None = None


_ITEMS = msgspec.json.Decoder(list[Item])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class Reported:
    """How many items were kept, and which were not: [{index, error}]."""

    count: int
    rejected: list[dict[str, Any]] = field(default_factory=list)


class _Package(msgspec.Struct, frozen=True):
    """All that is stored of an item but its key, column by column."""

    description: str
    current_version: str
    available_version: str
    severity: str
    cve_list: list[str]
    kb_id: str
    repository_source: str
    size_bytes: int | None
    metadata: dict[str, Any]


class _Cleaner:
    """Takes secrets out of texts; of those that repeat in a report, as repositories and names of fields do, once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        # Names of fields, and whether what stands under them is a secret
        self._secret: dict[str, bool] = {}

    def _names_a_secret(self, key: str) -> bool:
        known = self._secret.get(key)
        if known is None:
            known = self._secret[key] = redaction.SECRET_KEY.search(key) is not None
        return known

    def text(self, value: str) -> str:
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = redaction.text(value)
        return known

    def metadata(self, values: dict[str, Any]) -> dict[str, Any]:
        if not values:
            return {}
        if all(
            isinstance(value, str) and len(value) < 200 and not self._names_a_secret(key)
            for key, value in values.items()
        ):
            return {self.text(key): self.text(value) for key, value in values.items()}
        cleaned: dict[str, Any] = redaction.clean(values)
        return cleaned


@dataclass
class _Scan:
    """A report after examination. `spared`: keys of rejected items, which are listed all the same."""

    packages: dict[tuple[str, str], _Package] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    spared: list[tuple[str, str]] = field(default_factory=list)
    complete: set[str] = field(default_factory=set)
    count: int = 0
    digest: bytes = b""


async def report(
    connection: Any,
    actor: Actor,
    agent_id: uuid.UUID,
    told: bytes,
    package_types: list[str],
    command_id: uuid.UUID | None,
) -> Reported:
    """Takes a scan's report: a JSON list. `package_types`: what it covers completely; without any, the types that it lists are.

    Raises InvalidInput for what is no list or has more than 20,000 items, and NotFound for an agent that was removed.
    """
    digest = unchanged.digest(told, package_types)
    if (items := await unchanged.items(connection, agent_id, digest)) is not None:
        return Reported(items)
    # A large report is examined beside the other work, not before it
    read = functools.partial(_read, told, package_types, digest)
    scan = read() if len(told) <= AT_ONCE else await asyncio.to_thread(read)
    if not scan.packages and not scan.rejected and not scan.complete:
        return Reported(0)
    attempts = 1 if connection.is_in_transaction() else ATTEMPTS
    while True:
        attempts -= 1
        try:
            await _take(connection, actor, agent_id, scan, command_id)
        except asyncpg.DeadlockDetectedError:
            if not attempts:
                raise
        else:
            return Reported(scan.count, scan.rejected)


async def _take(connection: Any, actor: Actor, agent_id: uuid.UUID, scan: _Scan, command_id: uuid.UUID | None) -> None:
    keys = sorted(scan.packages)
    items = [redaction.encode(scan.packages[key]) for key in keys]
    async with connection.transaction():
        if await sql.hold_agent.one(connection, agent_id=agent_id) is None:
            raise NotFound(f"No agent {agent_id}", "Register again")
        if keys or scan.complete:
            state = await sql.take_report.value(
                connection,
                agent_id=agent_id,
                command_id=command_id,
                act=actor.act("update_scanned"),
                complete=sorted(scan.complete),
                spared_types=[one for one, _ in scan.spared],
                spared_names=[one for _, one in scan.spared],
                types=[package_type for package_type, _ in keys],
                names=[name for _, name in keys],
                digests=[_digest(item) for item in items],
                items=[item.decode() for item in items],
            )
            if state is not None and scan.digest and not scan.rejected:
                await unchanged.remember(connection, agent_id, scan.digest, scan.count, state)
        if scan.rejected and await _may_be_told(connection, agent_id):
            await events.record(
                connection,
                actor,
                kind="service",
                action="scan_items_rejected",
                result="partial" if scan.count else "failed",
                message=f"{len(scan.rejected)} of {len(scan.rejected) + scan.count} items of a scan were not understood",
                agent_id=agent_id,
                command_id=command_id,
                count=len(scan.rejected),
                reasons=scan.rejected[:MOST_REASONS],
            )


def _read(told: bytes, package_types: Iterable[str], digest: bytes) -> _Scan:
    """A report from its text. Raises InvalidInput."""
    body: list[Any]
    try:
        body = _ITEMS.decode(told)
    except _UNREADABLE:
        # Something is wrong with one of them, so each is examined by itself
        try:
            body = msgspec.json.decode(told, type=list[Any])
        except _UNREADABLE as error:
            raise InvalidInput(f"updates is no list: {error}", "Send a JSON list") from None
    if len(body) > MOST_ITEMS:
        raise InvalidInput(f"A report of {len(body)} updates, and {MOST_ITEMS} are the most", "Send several reports")
    scan = examine(body, package_types)
    scan.digest = digest
    return scan


def examine(body: list[Any], package_types: Iterable[str]) -> _Scan:
    """Sorts a report's items into good and bad. Of two with one name the last holds."""
    scan = _Scan(complete={one for one in package_types if one and len(one) <= 50 and "\x00" not in one})
    listed: set[str] = set()
    nameless: set[str | None] = set()
    cleaner = _Cleaner()
    for index, told in enumerate(body):
        try:
            key, package = _package(told, cleaner)
        except (msgspec.ValidationError, InvalidInput) as error:
            reason = (
                error.what
                if isinstance(error, InvalidInput)
                else str(error).replace("`$.", "`").replace("`$`", "the item")
            )
            scan.rejected.append({"index": index, "error": reason})
            package_type, name = _name(told, "package_type"), _name(told, "package_name")
            if package_type and name:
                scan.spared.append((package_type, name))
            else:
                nameless.add(package_type)
        else:
            scan.count += 1
            listed.add(key[0])
            scan.packages[key] = package
    scan.complete = scan.complete or listed
    # What could not even be named may be any package of its type, so of that type nothing is known to be absent
    scan.complete = set() if None in nameless else {one for one in scan.complete if one not in nameless}
    return scan


async def _may_be_told(connection: Any, agent_id: uuid.UUID) -> bool:
    """Whether a rejection gets a record: a few an hour, however often an agent sends the same nonsense."""
    try:
        await rate.allow(connection, f"rejected:{agent_id}", REJECTIONS_AN_HOUR, 3600)
    except RateLimited:
        return False
    return True


def _digest(item: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(item, digest_size=8).digest(), "big", signed=True)


def _name(told: Any, name: str) -> str | None:
    """The name that a rejected item gives itself, if it could be that of a row."""
    value = told.get(name) if isinstance(told, dict) else getattr(told, name, None) if isinstance(told, Item) else None
    return value if isinstance(value, str) and value and "\x00" not in value else None


def _package(told: Any, cleaner: _Cleaner) -> tuple[tuple[str, str], _Package]:
    item = told if isinstance(told, Item) else msgspec.convert(told, Item)
    current, available, kb_id = item.current_version or "", item.available_version or "", item.kb_id or ""
    cves = [one for one in item.cve_list or () if one]
    for name, value in (
        ("package_type", item.package_type), ("package_name", item.package_name), ("current_version", current),
        ("available_version", available), ("kb_id", kb_id), ("cve_list", "".join(cves)),
    ):  # fmt: skip
        if "\x00" in value:
            raise InvalidInput(f"{name} holds a NUL byte")
    if item.size_bytes is not None and item.size_bytes >= 2**63:
        raise InvalidInput("size_bytes is larger than any package")
    severity, word = severity_of(item.severity or "")
    metadata = cleaner.metadata(item.metadata or {})
    if word is not None:
        metadata["reported_severity"] = cleaner.text(word)
    if metadata and len(redaction.encode(metadata)) > METADATA_LIMIT:
        raise InvalidInput(f"metadata is larger than {METADATA_LIMIT} bytes")
    return (item.package_type, item.package_name), _Package(
        description=(item.package_description or "")[:DESCRIPTION_LIMIT].replace("\x00", "\ufffd"),
        current_version=current,
        available_version=available,
        severity=severity,
        cve_list=cves,
        kb_id=kb_id,
        repository_source=cleaner.text(item.repository_source or ""),
        size_bytes=item.size_bytes,
        metadata=metadata,
    )
