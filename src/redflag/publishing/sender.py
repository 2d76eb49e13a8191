"""Sends the newest checkpoint to the targets whose time has come.

Any replica sends: a target is claimed for a minute by one statement, and no transaction is open while the network is waited for. Each
target has a task of its own, bounded in time, so that one that hangs delays nobody. What fails is tried again after a time that
doubles up to five minutes, with jitter. A replica that dies leaves a claim that ends by itself.

Sending changes nothing that is recorded, else each checkpoint would make the next one.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redflag.audit import cosignatures, origins, tree
from redflag.audit.checkpoint import Checkpoint, Signer, open_own
from redflag.database import faults, queries
from redflag.errors import Conflict, InvalidInput, RedFlagError
from redflag.publishing import files, git, webhook, witness
from redflag.publishing.http import Http
from redflag.publishing.targets import Kind, Target, TargetFailed

log = logging.getLogger("redflag.publishing")
sql = queries.load(__file__, "sender.sql")

TICK_SECONDS = 1.0
# For one attempt, all its rounds included; the claim is longer
PATIENCE_SECONDS = 20.0
LEASE = datetime.timedelta(seconds=60)
# So many failures in a row, half a minute's worth, are no hiccup: they raise the alert
UNREACHABLE_AFTER = 4
STOP_SECONDS = 1.0


@dataclass(frozen=True)
class Claimed:
    """A target that is ours until `until`, taken at `now` (both by the database's clock)."""

    target: Target
    now: datetime.datetime
    until: datetime.datetime


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: the size that was sent, or what was the matter."""

    name: str
    size: int = 0
    error: str = ""


class Sender:
    """The sender of one server process."""

    def __init__(self, pool: Any, signer: Signer, folder: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        self._pool = pool
        self._signer = signer
        self._folder = folder
        self._patience = patience
        self._http = Http(patience)
        self._disk = files.Disk(patience)
        self._under_way: set[asyncio.Task[Outcome]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until `stop` is set; what is under way then has a moment to end."""
        said = ""
        while not stop.is_set():
            try:
                for claimed in await self._claim():
                    task = asyncio.create_task(self._attempt(claimed))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
                said = ""
            except Exception as error:
                # Said once, for as long as it is the same
                if str(error) != said:
                    said = str(error)
                    log.exception("checkpoints are not sent, and will be tried again")
            try:
                await asyncio.wait_for(stop.wait(), TICK_SECONDS)
            except TimeoutError:
                continue
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.close()

    async def close(self) -> None:
        """Ends the connections to others."""
        self._disk.close()
        await self._http.close()

    async def send_due(self) -> list[Outcome]:
        """Sends to whatever is due, once, and waits for it."""
        return list(await asyncio.gather(*[self._attempt(claimed) for claimed in await self._claim()]))

    async def try_now(self, target_id: uuid.UUID) -> Outcome:
        """Sends to one target now, whether it is due, up to date, enabled or not. Raises Conflict when somebody is at it."""
        async with self._pool.acquire() as connection:
            row = await sql.claim_one.one(connection, id=target_id, lease=LEASE)
        if row is None:
            raise Conflict("Somebody sends to this target right now, or it is gone", "Try again in a moment")
        return await self._attempt(_claimed(row))

    async def _claim(self) -> list[Claimed]:
        async with self._pool.acquire() as connection:
            return [_claimed(row) for row in await sql.claim.all(connection, lease=LEASE)]

    async def _attempt(self, claimed: Claimed) -> Outcome:
        target = claimed.target
        try:
            size = await self._send(claimed)
        except TargetFailed as error:
            return await self._failed(claimed, error)
        except RedFlagError as error:
            return await self._failed(claimed, TargetFailed(error.what, error.next_step))
        except asyncio.CancelledError:
            await self._settle(sql.release, claimed)
            raise
        except Exception as error:
            log.exception("sending to the target %s failed", target.name)
            return await self._failed(claimed, TargetFailed(f"{type(error).__name__}: {error}"))
        await self._settle(sql.succeeded, claimed, size=size)
        if target.failures_in_a_row:
            log.info("the %s %s has checkpoints again, of %d records", target.kind, target.name, size)
        return Outcome(target.name, size)

    async def _failed(self, claimed: Claimed, error: TargetFailed) -> Outcome:
        target, said = claimed.target, str(error)
        await self._settle(sql.failed, claimed, error=said[:1000], retry_after=min(error.retry_after, 3600.0))
        if not target.failures_in_a_row:
            log.warning("no checkpoint reaches the %s %s: %s", target.kind, target.name, said)
        if target.failures_in_a_row + 1 >= UNREACHABLE_AFTER:
            faults.note("log_target_failed", f"{target.kind} {target.name}: {said}")
        return Outcome(target.name, error=said)

    async def _settle(self, query: queries.Query, claimed: Claimed, **told: Any) -> None:
        try:
            async with self._pool.acquire() as connection:
                await query.run(connection, id=claimed.target.id, claimed_until=claimed.until, **told)
        except Exception:
            # The claim ends by itself, and the target is tried again
            log.exception("what became of the target %s could not be noted", claimed.target.name)

    async def _send(self, claimed: Claimed) -> int:
        """Sends the newest checkpoint. Returns the size that the target has then."""
        target = claimed.target
        newest = await self._newest()
        checkpoint = open_own(newest["note"], self._signer.verifier.public)
        if target.kind is Kind.WITNESS:
            try:
                return await self._cosign(target, checkpoint)
            except witness.Ahead as ahead:
                # Another replica may have sent a newer one since
                checkpoint = open_own((await self._newest())["note"], self._signer.verifier.public)
                if checkpoint.size < ahead.known:
                    raise
                return await self._cosign(target, checkpoint)
        if target.kind is Kind.WEBHOOK:
            await webhook.post(
                self._http, target.address, target.secret or "", checkpoint, newest["cosigned"], newest["published_at"], claimed.now
            )  # fmt: skip
            return checkpoint.size

        async def continues(before: str) -> Checkpoint:
            return await self._require_continued(target, before, checkpoint)

        if target.kind is Kind.FILE:
            await files.put(self._disk, self._folder / target.address, newest["cosigned"], continues)
            return checkpoint.size
        return await git.put(
            self._disk,
            self._folder / target.address,
            newest["cosigned"],
            checkpoint.size,
            continues,
            now=claimed.now,
            every=target.every,
            patience=self._patience,
        )

    async def _newest(self) -> Any:
        async with self._pool.acquire() as connection:
            row = await cosignatures.newest(connection)
        if row is None:
            raise TargetFailed("No checkpoint has been signed yet", "Try again in two seconds")
        return row

    async def _cosign(self, target: Target, checkpoint: Checkpoint) -> int:
        async def consistency(old: int) -> list[bytes]:
            async with self._pool.acquire() as connection:
                return await tree.consistency(connection, old, checkpoint.size)

        key = cosignatures.witness_key(target.vkey or "")
        try:
            async with asyncio.timeout(self._patience):
                cosignature = await witness.cosign(
                    self._http,
                    target.address,
                    key,
                    checkpoint,
                    min(target.acknowledged_size, checkpoint.size),
                    consistency,
                )
        except TimeoutError:
            raise TargetFailed(f"It did not answer within {self._patience:g} s", "Is it there?") from None
        try:
            async with self._pool.acquire() as connection:
                await cosignatures.keep(connection, checkpoint.size, cosignature)
        except InvalidInput as error:
            raise TargetFailed(error.what, error.next_step) from None
        return checkpoint.size

    async def _require_continued(self, target: Target, before: str, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint that a file or repository holds. Raises TargetFailed unless it is one of this log, and the log continues it."""
        place = self._folder / target.address
        try:
            # Of a log that was closed, too: its records stand in the log of today
            known = open_own(before, self._signer.verifier.public)
        except InvalidInput:
            raise TargetFailed(
                f"{place} holds something that is no checkpoint of this log", "Move it away, or name another target"
            ) from None
        async with self._pool.acquire() as connection:
            why = await origins.differs(connection, known, checkpoint.size)
        if why:
            raise TargetFailed(f"{place} holds a checkpoint that the log does not continue. {why}", origins.WAY_ON)
        return known


def _claimed(row: Any) -> Claimed:
    target = Target(
        row["id"],
        Kind(row["kind"]),
        row["name"],
        row["address"],
        row["vkey"],
        row["secret"],
        row["every"],
        row["acknowledged_size"],
        row["failures_in_a_row"],
    )
    return Claimed(target, row["now"], row["claimed_until"])
