"""Snapshots: what every command was at a position of the log, so that what stands below it can be pruned.

A state is a JSON object in canonical form (RFC 8785): command_id, version, status, agent_id, command_type, sent_at,
completed_at, and the parameters as a salted hash. The states of a snapshot, a line each, in the order of the commands' ids,
are hashed with SHA-256: once all of them, and once those that still matter, which stay in the database. Both hashes, the
tree's root at the position and the hash of the evidence bundle that holds what is pruned are signed by the log's key:

    redflag snapshot/v1
    <origin>
    <position>
    <root of the tree of that size, in base64>
    <SHA-256 of all states, in hex>
    <SHA-256 of the states that stay, in hex>
    <SHA-256 of the bundle, in hex>

as a note (signed-note). So whoever owns the database and not the key cannot prune a log unseen.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import redflag_verify
from redflag.audit import canonical
from redflag.audit.checkpoint import Verifier
from redflag.database import queries

sql = queries.load(__file__, "snapshots.sql")

CHUNK = 10_000
HEADER = "redflag snapshot/v1"

_FIELDS = ("command_id", "version", "status", "agent_id", "command_type", "sent_at", "completed_at")


@dataclass(frozen=True)
class States:
    """The states of a snapshot: how many and their hash, of all that are there and of those that stay."""

    commands: int
    all: bytes
    kept: int
    staying: bytes


def line(state: Any) -> bytes:
    """A state as it is hashed."""
    told = {name: value for name in _FIELDS if (value := state[name]) is not None}
    told["params"] = {"salt": state["params_salt"].hex(), "sha256": state["params_hash"].hex()}
    return canonical.encode(told) + b"\n"


async def states(connection: Any, position: int) -> States:
    """Counts and hashes the states of a snapshot as they are now; some are in memory at a time."""
    whole, staying = hashlib.sha256(), hashlib.sha256()
    commands = kept = 0
    after = uuid.UUID(int=0)
    while rows := await sql.states.all(connection, position=position, after=after, most=CHUNK):
        lines = [line(row) for row in rows]
        stay = [one for one, row in zip(lines, rows, strict=True) if not row["archived"]]
        whole.update(b"".join(lines))
        staying.update(b"".join(stay))
        commands, kept, after = commands + len(lines), kept + len(stay), rows[-1]["command_id"]
    return States(commands, whole.digest(), kept, staying.digest())


def text(origin: str, position: int, root: bytes, snapshot: Any) -> str:
    """What is signed: `snapshot` has states, kept_states and bundle_sha256, 32 bytes each."""
    hashes = (snapshot[name].hex() for name in ("states", "kept_states", "bundle_sha256"))
    return "".join(f"{one}\n" for one in (HEADER, origin, position, base64.b64encode(root).decode(), *hashes))


def signed(note: str) -> str:
    """The text of a snapshot's note, whoever signed it; "" of what is none."""
    body, blank, _ = note.rpartition("\n\n")
    return body + "\n" if blank else ""


def is_signed_by(note: str, verifier: Verifier) -> bool:
    """Whether the log's key signed the note, under the name that the log had then: the second line."""
    try:
        name = note.split("\n", 2)[1]
        key = redflag_verify.Key.parse(Verifier(name, verifier.public).vkey(), redflag_verify.ED25519)
        redflag_verify.check_signed(redflag_verify.parse_note(note.encode(), "the snapshot"), key, "the snapshot")
    except (IndexError, redflag_verify.NotVerified, redflag_verify.Unreadable):
        return False
    return True
