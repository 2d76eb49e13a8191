"""Live forwarding: every record, once a signed checkpoint covers it, as syslog to receivers of the administrator's.

Promises
- Nothing is skipped: a receiver's cursor moves only after the receiver took everything before it (`stream`), and a gap in the
  positions stops it loudly.
- Nothing is doubled by stopping and starting: the batch under way is finished first.
- When that cannot be (a SIGKILL, a lost connection, a receiver that does not take it in the seconds that a stop has), that one
  batch may arrive a second time: at most BATCH records. Each message says where its record stands (position, id), and one
  that may have arrived before carries again="1".
- Any replica serves any receiver, one at a time (a lease that the database's clock ends); one that is slow or away holds up
  no other.

When the database is away, nothing is sent; what was taken and could not be noted is sent again.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from redflag.audit import events, sequencer
from redflag.audit.actor import Actor
from redflag.audit.export import reading, stream, syslog
from redflag.audit.export.reading import Entry, Selection
from redflag.audit.export.stream import NotTaken, Receiver
from redflag.database import faults, queries
from redflag.errors import Conflict, InvalidInput, NotFound

log = logging.getLogger("redflag.forwarding")
sql = queries.load(__file__, "forwarding.sql")

BATCH = 500
# A batch's messages together, in bytes, unless one alone is longer
BATCH_BYTES = 1024 * 1024
# A receiver should take messages of 8192 bytes (RFC 5425 §4.3.1); some count more in than the message
MAX_MESSAGE = 8000
SMALLEST_MAX_MESSAGE = 2048
LARGEST_MAX_MESSAGE = 1024 * 1024
LONGEST_CA = 64 * 1024
LOOK_SECONDS = 1.0
BATCH_SECONDS = 20.0
# A stop waits for so long for a batch under way
STOP_SECONDS = 5.0
LEASE = datetime.timedelta(seconds=45)
SHORTEST_PAUSE = datetime.timedelta(seconds=1)
LONGEST_PAUSE = datetime.timedelta(seconds=30)
# A receiver that fails for longer is a fault; a restart of one is none
PATIENCE = datetime.timedelta(seconds=60)


@dataclass(frozen=True)
class Wanted:
    """What a receiver is to be, or of what to change; None: as it is, or the default. `ca` is PEM, empty: this machine's."""

    name: str | None = None
    host: str | None = None
    port: int | None = None
    transport: str | None = None
    ca: str | None = None
    body: syslog.Body | None = None
    facility: int | None = None
    max_message: int | None = None
    enabled: bool | None = None
    position: int | None = None

    def check(self) -> None:
        """Raises InvalidInput for what no receiver can have."""
        if self.name is not None and not (0 < len(self.name) <= 100 and self.name.isprintable()):
            raise InvalidInput(f"{self.name[:100]!r} cannot name a receiver", "Use up to 100 characters")
        if self.host is not None and not (
            0 < len(self.host) <= 255 and self.host.isprintable() and " " not in self.host
        ):
            raise InvalidInput(f"{self.host[:100]!r} is no host", "Give a name or an address")
        if self.port is not None and not 0 < self.port < 65536:
            raise InvalidInput(f"{self.port} is no port", "Give 1 to 65535; syslog over TLS is 6514")
        if self.transport not in {None, "tcp", "tls"}:
            raise InvalidInput("The transport is neither tcp nor tls", "Use tls wherever the receiver speaks it")
        if self.facility is not None and not 0 <= self.facility <= 23:
            raise InvalidInput(f"{self.facility} is no facility", "Give 0 to 23; 13 is the audit's (RFC 5424 §6.2.1)")
        if self.max_message is not None and not SMALLEST_MAX_MESSAGE <= self.max_message <= LARGEST_MAX_MESSAGE:
            raise InvalidInput(
                f"A message cannot be limited to {self.max_message} bytes",
                f"Give {SMALLEST_MAX_MESSAGE} to {LARGEST_MAX_MESSAGE}",
            )
        if self.ca:
            if len(self.ca) > LONGEST_CA:
                raise InvalidInput("The authority is larger than a few certificates", "Give the receiver's CA alone")
            stream.trusting(self.ca)


async def listed(connection: Any) -> list[dict[str, Any]]:
    """Every receiver, with its cursor, its lag in records, its last success and its last error."""
    return [dict(row) for row in await sql.all.all(connection)]


async def add(connection: Any, actor: Actor, wanted: Wanted) -> dict[str, Any]:
    """Adds a receiver: from `position` on, None: what comes from now on. Raises InvalidInput, or Conflict for a name that is had."""
    wanted.check()
    if wanted.name is None or wanted.host is None or wanted.port is None:
        raise InvalidInput("A receiver needs a name, a host and a port", "Give all three")
    transport = wanted.transport or "tls"
    if wanted.ca and transport != "tls":
        raise InvalidInput("An authority goes with TLS only", "Leave it out, or use the transport tls")
    row = await sql.add.one(
        connection,
        name=wanted.name,
        host=wanted.host,
        port=wanted.port,
        transport=transport,
        ca=wanted.ca or None,
        ca_digest=_digest(wanted.ca),
        body=wanted.body or syslog.Body.CLOUDEVENTS,
        facility=syslog.FACILITY if wanted.facility is None else wanted.facility,
        max_message=wanted.max_message or MAX_MESSAGE,
        position=await _existing(connection, wanted.position),
        act=actor.act(),
    )
    if row is None:
        raise Conflict(f"There is a receiver {wanted.name!r} already", "Choose another name, or remove that one")
    return _shown(row)


async def change(connection: Any, actor: Actor, forwarder_id: uuid.UUID, wanted: Wanted) -> dict[str, Any]:
    """Changes what is given; a `position` moves the cursor, and is recorded. Raises NotFound or InvalidInput."""
    wanted.check()
    position = await _existing(connection, wanted.position)
    async with connection.transaction():
        before = await sql.one.one(connection, id=forwarder_id)
        if before is None:
            raise _not_found(forwarder_id)
        transport = wanted.transport or before["transport"]
        if wanted.ca and transport != "tls":
            raise InvalidInput("An authority goes with TLS only", "Leave it out, or use the transport tls")
        row = await sql.change.one(
            connection,
            id=forwarder_id,
            host=wanted.host,
            port=wanted.port,
            transport=wanted.transport,
            new_ca=wanted.ca is not None or transport != "tls",
            ca=wanted.ca or None,
            ca_digest=_digest(wanted.ca),
            body=wanted.body,
            facility=wanted.facility,
            max_message=wanted.max_message,
            enabled=wanted.enabled,
            position=position,
            elsewhere=any(one is not None for one in (wanted.host, wanted.port, wanted.transport, wanted.ca, position)),
            act=actor.act(),
        )
        if position is not None and position != before["position"]:
            await events.record(
                connection,
                actor,
                kind="service",
                action="forwarder_moved",
                message=f"forwarder {row['name']}: position {before['position']} → {position}",
                subject="forwarder",
                subject_id=str(forwarder_id),
            )
    return _shown(row)


async def remove(connection: Any, actor: Actor, forwarder_id: uuid.UUID) -> None:
    """Nothing more is sent to it. Raises NotFound."""
    if not await sql.remove.run(connection, id=forwarder_id, act=actor.act()):
        raise _not_found(forwarder_id)


async def _existing(connection: Any, position: int | None) -> int | None:
    """The position, or the first that is still there, if that is later. Raises InvalidInput for what is none."""
    if position is None:
        return None
    first, end = await reading.bounds(connection, Selection())
    if not 0 <= position <= end:
        raise InvalidInput(f"The log has no position {position}: it ends before {end}", "Give one that it has, or 0")
    return max(first, position)


def _not_found(forwarder_id: uuid.UUID) -> NotFound:
    return NotFound(f"No receiver {forwarder_id}", "See `redflag audit forward list`")


def _digest(ca: str | None) -> str | None:
    return hashlib.sha256(ca.encode()).hexdigest() if ca else None


def _shown(row: Any) -> dict[str, Any]:
    hidden = {"ca", "act", "claim", "claimed_until", "retry_at", "handed", "removed_at"}
    return {name: value for name, value in row.items() if name not in hidden}


class Forwarding:
    """The part of one server process that sends. Times are in seconds, the lease is a time."""

    def __init__(
        self,
        pool: Any,
        *,
        lease: datetime.timedelta = LEASE,
        look_seconds: float = LOOK_SECONDS,
        batch_seconds: float = BATCH_SECONDS,
        batch: int = BATCH,
        patience: datetime.timedelta = PATIENCE,
    ) -> None:
        if batch_seconds >= lease.total_seconds():
            raise ValueError("a batch must be over before its lease")
        self._pool = pool
        self._lease = lease
        self._look_seconds = look_seconds
        self._batch_seconds = batch_seconds
        self._batch = batch
        self._patience = patience

    async def run(self, stop: asyncio.Event) -> None:
        """Serves whoever has something to get, until `stop` is set and what is under way is laid down."""
        under_way: set[asyncio.Task[None]] = set()
        said = ""
        while not stop.is_set():
            claim, claimed = uuid.uuid4(), []
            try:
                async with self._pool.acquire() as connection:
                    claimed = await sql.claim.all(connection, claim=claim, lease=self._lease)
                said = ""
            except Exception as error:
                # Such as a database that is away: said once, not every second, for as long as it is the same
                if str(error) != said:
                    said = str(error)
                    log.exception("receivers of records cannot be served, and will be tried again")
            for row in claimed:
                task = asyncio.create_task(self._serve(_Service(dict(row), claim), stop))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            try:
                await asyncio.wait_for(stop.wait(), self._look_seconds)
            except TimeoutError:
                continue
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, one: _Service, stop: asyncio.Event) -> None:
        """One receiver, batch after batch, as long as there is something to send and it takes it."""
        try:
            while not stop.is_set() and await self._send_batch(one):
                pass
            async with self._pool.acquire() as connection:
                await sql.release.run(connection, id=one.id, claim=one.claim)
        except asyncio.CancelledError:
            async with self._pool.acquire() as connection:
                await sql.release.run(connection, id=one.id, claim=one.claim)
            raise
        except NotTaken as error:
            await self._failed(one, str(error))
        except Exception as error:  # whatever it is, it must not end the others; the lease ends by itself
            log.exception("forwarding to %s failed, and will be tried again", one.name)
            await self._failed(one, f"{type(error).__name__}: {error}")

    async def _send_batch(self, one: _Service) -> bool:
        """Sends what comes next. Returns whether there was something, and the receiver is still ours. Raises NotTaken."""
        async with self._pool.acquire() as connection:
            newest = await sequencer.sql.newest_checkpoint.one(connection)
            if newest is None or one.position >= newest["size"]:
                return False
            page = await reading.page(
                connection, Selection(), first=one.position, end=newest["size"], most=self._batch, width=self._batch
            )
        one.require_all(page.entries)
        # The log's name is the first line of its checkpoint
        messages = await asyncio.to_thread(one.messages, page.entries, newest["note"].partition("\n")[0])
        batch: dict[str, Any] = {
            "id": one.id,
            "claim": one.claim,
            "position": one.position,
            "end": one.position + len(messages),
            "lease": self._lease,
        }
        async with self._pool.acquire() as connection:
            if not await sql.begin.run(connection, **batch):
                return False
        confirmed_by = await stream.hand_over(one.receiver, messages, self._batch_seconds)
        async with self._pool.acquire() as connection:
            ours = await sql.taken.run(connection, **batch, confirmed_by=confirmed_by)
        one.position = batch["end"]
        one.handed = max(one.handed, one.position)
        return bool(ours)

    async def _failed(self, one: _Service, error: str) -> None:
        try:
            async with self._pool.acquire() as connection:
                row = await sql.failed.one(
                    connection,
                    id=one.id,
                    claim=one.claim,
                    error=error[:1000],
                    shortest=SHORTEST_PAUSE,
                    longest=LONGEST_PAUSE,
                )
        except Exception:  # the database is away; the lease ends by itself
            log.exception("that %s takes nothing could not be noted", one.name)
            return
        if row is None:
            return
        if row["failures"] == 1:
            log.warning("%s takes no records: %s", one.name, error)
        if row["failing_for"] >= self._patience:
            faults.note("forwarder_failed", f"{one.name}: {error}")


class _Service:
    """A receiver while it is served."""

    def __init__(self, row: dict[str, Any], claim: uuid.UUID) -> None:
        self.id: uuid.UUID = row["id"]
        self.name: str = row["name"]
        self.claim = claim
        self.position: int = row["position"]
        self.handed: int = row["handed"]
        self.receiver = Receiver(row["host"], row["port"], row["transport"] == "tls", row["ca"])
        self._body = syslog.Body(row["body"])
        self._facility: int = row["facility"]
        self._limit: int = row["max_message"]

    def require_all(self, entries: list[Entry]) -> None:
        """Raises NotTaken unless the entries begin at the cursor and leave nothing out."""
        for expected, entry in enumerate(entries, self.position):
            if entry.position != expected:
                raise NotTaken(
                    f"Position {expected} of the log is not there, and nothing is sent that would leave it out",
                    f"If it was pruned, go on with `redflag audit forward set {self.name} --from {entry.position}`; "
                    "else run `redflag audit fsck`",
                )
        if not entries:
            raise NotTaken(f"Position {self.position} of the log is not there", "Run `redflag audit fsck`")

    def messages(self, entries: list[Entry], origin: str) -> list[bytes]:
        """The framed messages of the entries, as many as fit a batch; what was handed out before says so."""
        told: list[bytes] = []
        size = 0
        for entry in entries:
            message = syslog.framed(
                syslog.message(
                    entry,
                    origin,
                    body=self._body,
                    facility=self._facility,
                    again=entry.position < self.handed,
                    limit=self._limit,
                )
            )
            size += len(message)
            if told and size > BATCH_BYTES:
                break
            told.append(message)
        return told
