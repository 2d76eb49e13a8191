"""How the log stands: its name and key, how far each of its steps is, its newest checkpoint, and who cosigned which."""

from __future__ import annotations

import base64
from typing import Any

from redflag.audit import cosignatures, origins, sequencer
from redflag.audit.checkpoint import Signer


async def standing(connection: Any, signer: Signer) -> dict[str, Any]:
    """The log as a whole, as the API says it: what to pin, `sequenced`, `integrated` and `pending` records, `pruned` (the
    minimum index), `checkpoint` (the newest), `cosigned` (the newest that a witness cosigned) and `previous` (closed logs).
    """
    state = await sequencer.sql.state.one(connection)
    newest = await _checkpoint(connection, 0)
    cosigned = await _checkpoint(connection, 1)
    openings = await origins.sql.openings.all(connection)
    return {
        "origin": signer.verifier.name,
        "key": signer.verifier.vkey(),
        "fingerprint": signer.fingerprint,
        "sequenced": state["sequenced"],
        "integrated": state["integrated"],
        "pending": state["pending"],
        "pruned": state["pruned"],
        "checkpoint": newest,
        "cosigned": cosigned,
        "previous": [
            {
                "origin": one["previous_origin"],
                "size": one["first_size"],
                "known_size": one["known_size"],
                "abandoned": one["abandoned"],
                "closed_at": one["opened_at"],
                "reason": one["reason"],
            }
            for one in openings
        ],
    }


async def _checkpoint(connection: Any, quorum: int) -> dict[str, Any] | None:
    found = await cosignatures.newest(connection, quorum)
    if found is None:
        return None
    witnesses = [
        {"witness": one["witness"], "key_id": one["key_id"].hex(), "cosigned_at": one["cosigned_at"]}
        for one in await cosignatures.of_checkpoint(connection, found["size"])
    ]
    return {
        "size": found["size"],
        "root": base64.b64encode(found["root"]).decode(),
        "note": found["cosigned"],
        "published_at": found["published_at"],
        "cosignatures": witnesses,
    }
