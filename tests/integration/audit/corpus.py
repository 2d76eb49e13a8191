"""A log of two levels of tiles to be tampered with: made once, each tampering in a transaction that is rolled back."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import uuid
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from redflag.audit import actor as actors
from redflag.audit import bundle, canonical, erasure, events, fsck, merkle, proofs, sequencer, tiles
from redflag.audit.checkpoint import Signer
from redflag.audit.export.reading import Selection
from redflag.commands import queue, replay, results
from redflag.errors import RedFlagError
from unit.verify.helpers import verifier, write_log

# Each with what its rows are ordered by
KEYS = {
    "update_logs": "created_at, id", "agent_commands": "created_at, id", "audit_entries": "position", "audit_tiles": "level, index",
    "audit_checkpoints": "size", "audit_log": "one", "audit_pending": "created_at, id",
}  # fmt: skip
TABLES = tuple(KEYS)

# How the bytes of a value are read, and how it is made of bytes
READ = {
    "uuid": "uuid_send({0})", "bytea": "{0}", "text": "convert_to({0}, 'UTF8')", "jsonb": "convert_to({0}::text, 'UTF8')",
    "timestamp with time zone": "timestamptz_send({0})", "bigint": "int8send({0})", "integer": "int4send({0})",
    "smallint": "int2send({0})",
}  # fmt: skip
WRITE = {
    "uuid": "encode($1::bytea, 'hex')::uuid", "bytea": "$1::bytea", "text": "convert_from($1::bytea, 'UTF8')",
    "jsonb": "convert_from($1::bytea, 'UTF8')::jsonb",
    "timestamp with time zone": "timestamptz '2000-01-01 00:00Z'"
    " + $1::integer * interval '1 day' + $2::bigint * interval '1 microsecond'",
    "bigint": "$1::bigint", "integer": "$1::integer", "smallint": "$1::smallint",
}  # fmt: skip
DAY = 86_400_000_000


def as_arguments(kind: str, data: bytes) -> tuple[Any, ...]:
    """What WRITE takes for these bytes."""
    if kind.startswith("timestamp"):
        return divmod(int.from_bytes(data, "big", signed=True), DAY)
    return (int.from_bytes(data, "big", signed=True) if kind.endswith("int") or kind == "integer" else data,)


@dataclass(eq=False)
class Corpus:
    """A log of two levels of tiles, as it was before anybody touched it, and the superuser's connection to it."""

    villain: Any
    signer: Signer
    folder: Path
    notes: list[str] = field(default_factory=list)
    types: dict[tuple[str, str], str] = field(default_factory=dict)
    leaves: list[bytes] = field(default_factory=list)
    records: list[uuid.UUID] = field(default_factory=list)
    served: dict[str, bytes] = field(default_factory=dict)
    on_disk: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.leaves)

    @functools.cached_property
    def trust(self) -> Any:
        return verifier.Trust(verifier.Key.parse(self.signer.verifier.vkey(), verifier.ED25519))

    @contextlib.asynccontextmanager
    async def tampering(self) -> AsyncIterator[Any]:
        """A transaction for one tampering, undone at the end."""
        undone = self.villain.transaction()
        await undone.start()
        try:
            yield self.villain
        finally:
            await undone.rollback()

    async def fsck(self, case: str = "") -> fsck.Finding | None:
        """What fsck finds first. That it fails itself is no finding."""
        try:
            return (await fsck.examine(self.villain, self.signer.verifier)).finding
        except Exception as error:
            raise AssertionError(f"fsck failed: {error}; {case}") from error

    async def serve(self) -> dict[str, bytes]:
        """The log as tiles; what cannot be served any more is missing."""
        found: dict[str, bytes] = {}
        with contextlib.suppress(RedFlagError):
            found["checkpoint"] = (await tiles.checkpoint(self.villain)).encode()
        for index in range(self.size // 256 + 1):
            width = min(256, self.size - 256 * index)
            with contextlib.suppress(RedFlagError, KeyError):
                found[merkle.path(0, index, width)] = await tiles.tile(self.villain, 0, index, width)
            with contextlib.suppress(RedFlagError):
                found[merkle.path("entries", index, width)] = await tiles.bundle(self.villain, index, width)
        with contextlib.suppress(RedFlagError, KeyError):
            found[merkle.path(1, 0, self.size // 256)] = await tiles.tile(self.villain, 1, 0, self.size // 256)
        return found

    def lay_out(self, files: dict[str, bytes]) -> Path:
        """A log's files in the folder. Only what has changed is written: most of it is the same each time."""
        for gone in self.on_disk.keys() - files.keys():
            (self.folder / gone).unlink()
        write_log(self.folder, {name: data for name, data in files.items() if self.on_disk.get(name) != data})
        self.on_disk = files
        return self.folder

    def refused(self, files: dict[str, bytes], saved: str) -> str:
        """What the standalone verifier says of a log, by a checkpoint that was saved before; "" if it is content."""
        folder, earlier = self.lay_out(files), verifier.Earlier(self.saved(saved))
        try:
            verifier.verify_log(folder, self.trust, verifier.Report(), earlier)
        except (verifier.NotVerified, verifier.Unreadable) as error:
            return str(error) or "refused"
        return ""

    @functools.cache  # noqa: B019 - there is one corpus
    def saved(self, note: str) -> Any:
        """A checkpoint as somebody kept it, after its signature was verified."""
        return verifier.open_checkpoint(note.encode(), self.trust, verifier.Report())

    async def prove(self, record_id: uuid.UUID) -> dict[str, Any] | str:
        """What a proof of the record that is made now shows to who verifies it, or why there is none."""
        try:
            text = (await proofs.of_record(self.villain, record_id)).text()
        except Exception as error:  # whatever an altered record makes of it, that is no proof
            return f"no proof: {error}"
        report = verifier.Report()
        try:
            verifier.verify_proof(text.encode(), self.trust, report)
        except verifier.NotVerified as error:
            return str(error)
        # That the values are those behind the leaf's commitments was verified with it
        return {name: report.facts[name] for name in ("position", "leaf")}

    async def bundle(self, position: int) -> list[str] | str:
        """The leaves that an evidence bundle of the positions around one shows to who verifies it, or why there is none."""
        file, first = self.folder.with_suffix(".zip"), max(0, position - 3)
        try:
            with file.open("w+b") as out:
                await bundle.write(self.villain, self.signer, out, Selection(), first=first, end=first + 7)
            verifier.verify_bundle(file, self.trust, verifier.Report())
        except Exception as error:  # as above
            return f"no bundle: {error}"
        with zipfile.ZipFile(file) as opened:
            return [json.loads(line)["leaf"] for line in opened.read("entries.jsonl").splitlines()]

    def logged(self, record_id: uuid.UUID) -> dict[str, Any]:
        """What was recorded: all that an honest proof can show."""
        position = self.records.index(record_id)
        return {"position": position, "leaf": canonical.decoder.decode(self.leaves[position])}


async def fill(server: Any, owner: Any, signer: Signer, memory: sequencer.Memory) -> None:
    """Records of every kind and with every column, and three checkpoints, the first of them within the first tile."""
    agents = [
        await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ($1, 1) RETURNING id", f"host-{i}")
        for i in range(3)
    ]
    await owner.execute(
        """
        INSERT INTO update_logs (result, message, command_id, agent_id, command_type, action, params, metadata, sent_at,
                                 completed_at, stdout, stderr, exit_code, duration_seconds, executed_at)
        SELECT (ARRAY['success', 'failed', 'error', 'partial'])[1 + i % 4],
          'note ' || i || CASE i % 8 WHEN 0 THEN ': größer 💡' ELSE '' END, uuidv7(),
          ($1::uuid[])[1 + i % 3], 'install_updates', 'apt-get install',
          jsonb_build_object('packages', jsonb_build_array('curl', i), 'ratio', i / 8.0),
          jsonb_build_object('address', '192.0.2.' || i % 250, 'n', i * 0.10, 'none', null)
            || CASE i % 8 WHEN 0 THEN jsonb_build_object('largest', 9007199254740993 + i, 'deep', '[{"ü": [true]}]'::jsonb) ELSE '{}' END,
          now() - i * interval '1 second', now() - i * interval '1 millisecond', repeat('line ' || i || chr(10), 5),
          'E: ' || i, i - 60, i * 7, now() - i * interval '1 hour'
        FROM generate_series(1, 76) i
        """,
        agents,
    )
    await log(server, signer, memory)
    commands = [
        row
        for i in range(12)
        for row in await queue.enqueue(
            server, actors.user("alice", "192.0.2.8"), agents, "scan_updates", {"refresh": bool(i % 2), "depth": i, "share": 1.5}
        )
    ]  # fmt: skip
    for _ in range(4):
        for agent in agents:
            await queue.deliver(server, [queue.Asking(agent, actors.agent(agent, "192.0.2.7"), 1)])
    for i, row in enumerate(commands[:24]):
        told = results.Report(
            ("success", "failed")[i % 2], "scan", f"all done {i}", f"warning {i}", i % 2, i, "told", {"n": 1.5, "i": i}
        )
        sender = actors.agent(row["agent_id"], "192.0.2.7")
        await results.report(server, sender, row["agent_id"], row["id"], told, max_output=1000)
    for row in commands[24:30]:
        await queue.cancel(server, actors.user("bob", "192.0.2.9"), row["id"])
    await log(server, signer, memory)
    for record in await owner.fetch("SELECT id FROM update_logs WHERE stdout LIKE 'all done%' ORDER BY id LIMIT 3"):
        await erasure.erase(server, actors.user("dpo", "192.0.2.9"), record["id"], ["stdout", "message"], "on request")
    for i in range(20):
        await events.record(server, actors.user("alice", "192.0.2.8"), kind="access", action="login", message=f"{i}")
    await log(server, signer, memory)


async def log(server: Any, signer: Signer, memory: sequencer.Memory) -> None:
    """Everything that was recorded into a checkpoint."""
    await sequencer.sequence(server)
    await sequencer.integrate(server)
    assert await sequencer.publish(server, signer, memory)


async def unlock(villain: Any) -> None:
    """Everything off that would refuse a change, as only who owns the database can."""
    for table in await villain.fetch(
        "SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
    ):
        await villain.execute(f"ALTER TABLE {table['name']} DISABLE TRIGGER ALL")
    for row in await villain.fetch(
        """SELECT conrelid::regclass AS made_on, conname FROM pg_constraint
           WHERE contype IN ('c', 'f') AND conparentid = 0 AND conislocal AND connamespace = current_schema()::regnamespace
             AND conrelid <> 0"""
    ):
        await villain.execute(f"ALTER TABLE {row['made_on']} DROP CONSTRAINT {row['conname']}")
    await villain.execute("SET timezone = 'UTC'")


async def look(corpus: Corpus) -> None:
    """What is there before anybody touches it; all of it verifies."""
    villain = corpus.villain
    for row in await villain.fetch(
        """SELECT c.relname, a.attname, format_type(a.atttypid, NULL) AS kind FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
           WHERE a.attrelid = ANY ($1::regclass[]) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''""",
        TABLES,
    ):
        corpus.types[row["relname"], row["attname"]] = row["kind"]
    for row in await villain.fetch("SELECT record_id, leaf FROM audit_entries ORDER BY position"):
        corpus.records.append(row["record_id"])
        corpus.leaves.append(row["leaf"])
    corpus.notes = [row["note"] for row in await villain.fetch("SELECT note FROM audit_checkpoints ORDER BY size")]
    corpus.served = await corpus.serve()
    assert 256 < corpus.size < 512
    assert len(corpus.served) == 6
    assert len(corpus.notes) == 3
    assert await corpus.fsck() is None
    assert await replay.first_difference(villain) is None
    assert await corpus.bundle(100) == [leaf.decode() for leaf in corpus.leaves[97:104]]
    assert all(corpus.refused(corpus.served, note) == "" for note in corpus.notes)


async def flip(corpus: Corpus, rng: random.Random, table: str, column: str) -> tuple[Any, int]:
    """Flips one bit of one value. Returns the row as it was (the value's bytes as `bytes`), and which bit it was.

    What PostgreSQL cannot hold (no UTF-8, no JSON, no time, a key that another row has), or holds as what was there, is drawn anew.
    """
    villain, kind = corpus.villain, corpus.types[table, column]
    read = READ[kind].format(column)
    places = await villain.fetch(
        f"SELECT tableoid, ctid FROM {table} WHERE {column} IS NOT NULL ORDER BY {KEYS[table]}"
    )
    for _ in range(1000):
        here = tuple(rng.choice(places).values())
        row = await villain.fetchrow(f"SELECT *, {read} AS bytes FROM {table} WHERE tableoid = $1 AND ctid = $2", *here)
        bit = rng.randrange(8 * len(row["bytes"]))
        changed = bytearray(row["bytes"])
        changed[bit // 8] ^= 1 << bit % 8
        arguments = as_arguments(kind, bytes(changed))
        where = "tableoid = ${} AND ctid = ${}".format(*range(len(arguments) + 1, len(arguments) + 3))
        attempt = villain.transaction()
        await attempt.start()
        with contextlib.suppress(asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            after = await villain.fetchval(
                f"UPDATE {table} SET {column} = {WRITE[kind]} WHERE {where} RETURNING {read}", *arguments, *here
            )
            if after != row["bytes"]:
                await attempt.commit()
                return row, bit
        await attempt.rollback()
    raise AssertionError(f"no bit of {table}.{column} could be flipped")


async def tamper(corpus: Corpus, rng: random.Random, statements: str) -> str:
    """Runs statements, $p < $q being two random positions, until the last one touches something. Returns what was done."""
    for _ in range(1000):
        p, q = sorted(rng.sample(range(corpus.size - 1), 2))
        done = statements.replace("$p", str(p)).replace("$q", str(q))
        attempt = corpus.villain.transaction()
        await attempt.start()
        touched = [await corpus.villain.execute(statement) for statement in done.split(";")]
        if touched[-1].rsplit(" ", 1)[-1] != "0":
            await attempt.commit()
            return done
        await attempt.rollback()
    raise AssertionError(f"touched nothing: {statements}")
