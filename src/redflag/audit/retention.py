"""Retention: what is past it leaves the log from its beginning, and everything later can still be proven.

In steps of at most STEP records, each of which can be stopped anywhere and goes on where it was:

1. The records are chosen: a whole number of tiles, recorded before the time, in a checkpoint, up to the first that a legal hold
   covers or a forwarder has not sent on. They must be what was logged, or nothing is pruned.
2. An evidence bundle of them, without filters, is written to the archive, and verified by the verifier that everybody has.
3. A snapshot: what every command was there. Its hash stands in the log, in a record of kind `snapshot` (`snapshots`).
4. Once that record is in a signed checkpoint, the records go, in batches, and with them the commands that ended before and of
   which nothing came later. What may go the database decides by itself (0010_retention.sql).

The tree's tiles stay, 32 bytes a record without anything personal in them: so proofs of later records, and the consistency with
every checkpoint that anybody ever kept, hold for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

import redflag_verify
from redflag.audit import bundle, fsck, merkle, origins, sequencer, snapshots, tree
from redflag.audit.actor import Actor
from redflag.audit.checkpoint import Signer
from redflag.audit.export.reading import Selection
from redflag.audit.memory import Memory
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput

sql = queries.load(__file__, "retention.sql")

# Positions that one step prunes at the most: what one bundle holds
STEP = 1024 * merkle.WIDTH
# Rows that go in one transaction, and the pause after it, so that whoever works on the database hardly notices
BATCH = 2000
PAUSE_SECONDS = 0.05
LEASE = datetime.timedelta(minutes=15)
# For the record of a snapshot to come into a checkpoint
PATIENCE_SECONDS = 600.0
SHORTEST = datetime.timedelta(days=30)
LONGEST = datetime.timedelta(days=36_500)

Tell = Callable[[str], None]


def _tell_nobody(_what: str) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True)
class Plan:
    """What can be pruned next: positions first ≤ p < end. `held` says in words what ends it there, though more is past its time;
    `more`: the next step has more.
    """

    first: int
    end: int
    held: str | None = None
    more: bool = False


@dataclass(frozen=True)
class Pruned:
    """What was pruned: positions first ≤ p < end, the bundles that hold them, and what ended it there, in words."""

    first: int
    end: int
    bundles: list[Path]
    held: str | None


async def policy(connection: Any) -> dict[str, Any]:
    """How long records are kept (None: for ever), from which position on the log is there, and how pruning stands."""
    return dict(await sql.policy.one(connection))


async def set_policy(connection: Any, actor: Actor, keep: datetime.timedelta | None) -> dict[str, Any]:
    """Keeps records so long from now on, or for ever. Raises InvalidInput. What is past it goes within a day."""
    if keep is not None and not SHORTEST <= keep <= LONGEST:
        raise InvalidInput(
            f"Records are kept for {SHORTEST.days} days to {LONGEST.days // 365} years, or for ever",
            "Give another length of time; PCI DSS asks for twelve months",
        )
    await sql.set_policy.run(connection, keep=keep, act=actor.act())
    return await policy(connection)


async def plan(connection: Any, before: datetime.datetime, step: int = STEP) -> Plan:
    """What can be pruned of that which was recorded before a time, at most `step` positions."""
    extent = await sql.extent.one(connection)
    first, end = extent["first"], min(extent["first"] + step, extent["signed"])
    kept = await sql.first_kept.value(connection, first=first, end=end, before=before)
    limit = end if kept is None else kept
    words = None
    if (hold := await sql.first_held.one(connection, first=first, end=limit)) is not None:
        limit, words = hold["position"], f"the legal hold {hold['hold']}"
    if (waits := await sql.first_unsent.one(connection, end=limit)) is not None:
        limit, words = waits["position"], f"the forwarder {waits['name']}, which has not sent it on yet"
    limit -= limit % merkle.WIDTH
    more = words is None and kept is None and limit == first + step
    return Plan(first, max(first, limit), words, more)


class Pruner:
    """Prunes over one connection, as the server's role within its policy, as the owner's by hand."""

    def __init__(
        self, connection: Any, signer: Signer, memory: Memory, archive: Path, actor: Actor, tell: Tell = _tell_nobody
    ) -> None:
        self._connection = connection
        self._signer = signer
        self._memory = memory
        self._archive = archive
        self._actor = actor
        self._tell = tell
        self._who = f"{actor.name} {os.getpid()} {uuid.uuid4().hex[:8]}"

    async def prune(self, before: datetime.datetime | None = None, step: int = STEP) -> Pruned:
        """Prunes what was recorded before a time; None: what is past the policy. Raises Conflict while somebody else does.

        What was begun before is brought to its end first.
        """
        if not await sql.claim.value(self._connection, who=self._who, lease=LEASE):
            raise Conflict("The log is being pruned right now", "See `redflag audit retention show`, and wait for it")
        error: str | None = "it was stopped"
        try:
            done = await self._prune(before, step)
            error = None
        except Exception as raised:
            error = str(raised)[:1000]
            raise
        finally:
            with contextlib.suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError):
                await sql.release.run(self._connection, who=self._who, error=error)
        return done

    async def _prune(self, before: datetime.datetime | None, step: int) -> Pruned:
        origin = (await origins.sql.state.one(self._connection))["origin"]
        if origin is not None and not await origins.follow(self._connection, self._signer, origin):
            raise Conflict(
                f"This log is called {origin}, and this server would sign as {self._signer.verifier.name}",
                f"Set REDFLAG_LOG_ORIGIN={origin}",
            )
        await self.finish()
        first: int = (await sql.extent.one(self._connection))["first"]
        end, bundles, held = first, [], None
        before = before or await sql.bound.value(self._connection)
        while before is not None:
            found = await plan(self._connection, before, step)
            held = found.held
            if found.end > found.first:
                bundles.append(await self._step(found))
                end = found.end
            if not found.more:
                break
        return Pruned(first, end, bundles, held)

    async def finish(self) -> None:
        """Removes what the newest snapshot lets go, once its record is in a signed checkpoint."""
        newest = await snapshots.sql.newest.one(self._connection)
        if newest is None:
            return
        if newest["position"] > (await sql.extent.one(self._connection))["first"]:
            await self._require_signed(newest["logged_id"])
        gone = 0
        while some := await self._batch():
            gone += some
            self._tell(f"{gone:,} rows removed")
            await self._renew()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _batch(self) -> int:
        try:
            return int(await sql.prune.value(self._connection, most=BATCH))
        except asyncpg.PostgresError as error:
            raise _refusal(error) from error

    async def _step(self, found: Plan) -> Path:
        self._tell(f"examining positions {found.first:,} to {found.end - 1:,}")
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            try:
                await fsck.require_whole(self._connection, found.first, found.end)
            except ValueError as wrong:
                raise Conflict(
                    f"The log is not whole, so nothing is pruned: {wrong}", "Run `redflag audit fsck`"
                ) from None
        await self._renew()
        file, digest = await self._write_bundle(found)
        await self._renew()
        self._tell("taking a snapshot of the commands")
        try:
            async with self._connection.transaction():
                await self._snapshot(found, file.name, digest)
        except asyncpg.PostgresError as error:
            raise _refusal(error) from error
        await self.finish()
        return file

    async def _write_bundle(self, found: Plan) -> tuple[Path, bytes]:
        """The bundle in the archive, on the disk and verified; and its SHA-256."""
        self._archive.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._archive / f"log-{found.first:012}-{found.end - 1:012}.zip"
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        for left in self._archive.glob(".log-*.zip.*"):
            # Of whoever was killed while writing: one prunes at a time
            left.unlink(missing_ok=True)
        times = await sql.times.one(self._connection, first=found.first, end=found.end)
        try:
            handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w+b") as out:
                written = await bundle.write(
                    self._connection,
                    self._signer,
                    out,
                    Selection(since=times["since"], until=times["until"] + datetime.timedelta(microseconds=1)),
                    first=found.first,
                    end=found.end,
                    tell=lambda done, of: self._tell(f"archiving {done:,} of {of:,} records"),
                )
                out.flush()
                os.fsync(out.fileno())
            if (written.count, written.first, written.last) != (found.end - found.first, found.first, found.end - 1):
                raise Conflict("The archived bundle does not hold what is to be pruned", "Run `redflag audit fsck`")
            self._tell("verifying the archive")
            await _verify(fresh, self._signer.verifier.vkey())
            fresh.replace(file)
            _sync(self._archive)
        finally:
            fresh.unlink(missing_ok=True)
        return file, bytes.fromhex(written.sha256)

    async def _snapshot(self, found: Plan, name: str, digest: bytes) -> None:
        position = found.end
        await sql.take_states.run(self._connection, first=found.first, position=position)
        if wrong := await sql.mismatch.value(self._connection, position=position):
            raise Conflict(
                f"Command {wrong} is not what its records say, so nothing is pruned", "Run `redflag audit fsck`"
            )
        states = await snapshots.states(self._connection, position)
        made = {"states": states.all, "kept_states": states.staying, "bundle_sha256": digest}
        root = await tree.root(self._connection, position)
        note = self._signer.sign_text(snapshots.text(self._signer.verifier.name, position, root, made))
        await snapshots.sql.store.one(
            self._connection, position=position, bundle=name, note=note, act=self._actor.act(), **made
        )

    async def _require_signed(self, record_id: uuid.UUID) -> None:
        """Returns when the record is in a signed checkpoint, and sees to it. Raises Conflict when it does not come."""
        self._tell("waiting for the next checkpoint")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await self._is_signed(record_id):
                    await sequencer.sequence(self._connection, memory=self._memory)
                    await sequencer.integrate(self._connection, memory=self._memory)
                    await sequencer.publish(self._connection, self._signer, self._memory)
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            raise Conflict(
                "The record of the snapshot does not come into a checkpoint", "Pruning goes on when the log does"
            ) from None

    async def _is_signed(self, record_id: uuid.UUID) -> bool:
        row = await sequencer.sql.position.one(self._connection, record_id=record_id)
        return row is not None and row["position"] < (await sql.extent.one(self._connection))["signed"]

    async def _renew(self) -> None:
        if not await sql.claim.value(self._connection, who=self._who, lease=LEASE):
            raise Conflict("Somebody else has begun to prune the log", "Let them finish")


def _refusal(error: asyncpg.PostgresError) -> Exception:
    """What the database's rules of pruning refuse, in this program's errors."""
    if error.sqlstate not in {"RF003", "RF006"}:
        return error
    what = str(error.args[0])
    return Conflict(what[:1].upper() + what[1:], getattr(error, "hint", None) or "")


async def _verify(file: Path, vkey: str) -> None:
    """Has the verifier check a bundle, in a process of its own as anybody would. Raises Conflict."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", redflag_verify.__file__, "bundle", str(file), "--key", vkey, "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode == 0:
        return
    try:
        problem = msgspec.json.decode(out)["problem"]
        why = f"{problem['where'] or 'bundle'}: {problem['what']}"
    except (msgspec.DecodeError, KeyError, TypeError):
        why = (err or out).decode(errors="replace").strip()[-300:]
    raise Conflict(f"The archived bundle does not verify, so nothing is pruned: {why}", "Run `redflag audit fsck`")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
