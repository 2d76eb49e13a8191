"""Proofs: that a record stands in the log, in a form that anybody can check without us (C2SP tlog-proof).

The file's extra data holds the record's leaf, and the values that the leaf commits to with their salts, so that who gets it
sees what the record says and can check that this is what was logged. A value that was erased is missing.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from typing import Any

from redflag.audit import canonical, cosignatures, sequencer, tree
from redflag.database import queries
from redflag.errors import Conflict, NotFound

sql = queries.load(__file__, "proofs.sql")

HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Proof:
    """A record's place in the log: its position, leaf, the siblings on the way to the root, and the checkpoint's note."""

    position: int
    leaf: bytes
    hashes: list[bytes]
    checkpoint: str
    values: dict[str, Any]
    salts: dict[str, str]

    def text(self) -> str:
        """The proof file (tlog-proof, "Format")."""
        extra = canonical.encode({"leaf": self.leaf.decode(), "salts": self.salts, "values": self.values})
        lines = [HEADER, f"extra {base64.b64encode(extra).decode()}", f"index {self.position}"]
        lines += [base64.b64encode(one).decode() for one in self.hashes]
        return "\n".join(lines) + "\n\n" + self.checkpoint


def disclosed(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a record that its leaf commits to, and their salts: from the root, or what an erasure left of them."""
    values = canonical.fields(record)
    if record["salt"] is not None:
        salts = {name: canonical.salt_of(record["salt"], name) for name in values}
    else:
        salts = {name: bytes.fromhex(salt) for name, salt in (record["salts"] or {}).items() if name in values}
    return {name: values[name] for name in salts}, {
        name: base64.b64encode(salt).decode() for name, salt in salts.items()
    }


async def of_record(connection: Any, record_id: uuid.UUID, quorum: int = 0) -> Proof:
    """The proof of a record in the newest checkpoint that `quorum` witnesses or more have cosigned.

    Raises NotFound, or Conflict while no such checkpoint has it yet.
    """
    row = await sql.record.one(connection, record_id=record_id)
    if row is None:
        raise NotFound(f"No record {record_id}", "See `redflag history`")
    newest = None if row["position"] is None else await cosignatures.newest(connection, quorum, row["position"])
    if newest is None:
        raise Conflict(
            f"Record {record_id} is in no checkpoint{f' that {quorum} witnesses have cosigned' if quorum else ''} yet",
            "Try again in some seconds, or see `redflag audit targets list`" if quorum else "Try again in two seconds",
        )
    hashes = await tree.inclusion(connection, newest["size"], row["position"])
    try:
        record = sequencer.decoded(row)
        values, salts = disclosed(record)
    except (ValueError, OverflowError) as error:
        raise Conflict(
            f"Record {record_id} is not as it was written: {error}",
            "Run `redflag audit fsck`, which names what was changed",
        ) from None
    return Proof(row["position"], row["leaf"], hashes, newest["cosigned"], values, salts)


async def consistency(connection: Any, old: int, size: int | None = None) -> str:
    """The proof that the log of `size` records, or of the newest checkpoint, begins with that of `old` (verify/SPEC.md §8).

    Raises NotFound where there are no such two.
    """
    newest = await sequencer.sql.newest_checkpoint.one(connection)
    newer = newest["size"] if newest and size is None else size or 0
    if newest is None or not old <= newer <= newest["size"]:
        raise NotFound(
            f"No two checkpoints of {old} and {newer} records, one after the other", "Fetch the newest checkpoint first"
        )
    hashes = await tree.consistency(connection, old, newer)
    return "\n".join([f"old {old}", *(base64.b64encode(one).decode() for one in hashes)]) + "\n"
