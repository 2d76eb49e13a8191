"""The audit trail as a whole: how far the log is, its key, and proofs."""

from __future__ import annotations

import base64
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from redflag.access.roles import Permission
from redflag.audit import proofs, sequencer, tree
from redflag.errors import NotFound
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)


@router.get("/log")
async def show_log(caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """The log's name and key (to be pinned by whoever checks it), how far each step is, and the newest checkpoint."""
    signer = caller.context.signer
    async with caller.pool.acquire() as connection:
        state = await sequencer.sql.state.one(connection)
        newest = await sequencer.sql.newest_checkpoint.one(connection)
    return {
        "origin": signer.verifier.name,
        "key": signer.verifier.vkey(),
        "fingerprint": signer.fingerprint,
        "sequenced": state["sequenced"],
        "integrated": state["integrated"],
        "pending": state["pending"],
        "checkpoint": None if newest is None else {
            "size": newest["size"], "root": base64.b64encode(newest["root"]).decode(), "note": newest["note"],
            "published_at": newest["published_at"],
        },
    }  # fmt: skip


@router.get("/events/{event_id}/proof", response_class=Response)
async def prove(event_id: uuid.UUID, caller: Caller = allow(Permission.READ_HISTORY)) -> Response:
    """The proof that an event stands in the log, as a C2SP tlog-proof file with the event's values in it."""
    async with caller.pool.acquire() as connection:
        proof = await proofs.of_record(connection, event_id)
    headers = {"Content-Disposition": f'attachment; filename="{event_id}.tlog-proof"'}
    return Response(proof.text(), media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/consistency", response_class=Response)
async def consistency(
    old: Annotated[int, Query(ge=0, description="the size of the checkpoint that you kept")],
    size: Annotated[int | None, Query(ge=0, description="the size of the newer one; absent: the newest")] = None,
    caller: Caller = allow(Permission.READ_AUDIT),
) -> Response:
    """The proof that a log begins with the one of an older checkpoint: the line `old N`, then the hashes in base64."""
    async with caller.pool.acquire() as connection:
        newest = await sequencer.sql.newest_checkpoint.one(connection)
        newer = newest["size"] if newest and size is None else size or 0
        if newest is None or not old <= newer <= newest["size"]:
            raise NotFound(
                f"No two checkpoints of {old} and {newer} records, one after the other",
                "Fetch the newest checkpoint first",
            )
        hashes = await tree.consistency(connection, old, newer)
    lines = [f"old {old}", *(base64.b64encode(one).decode() for one in hashes)]
    return Response("\n".join(lines) + "\n", media_type="text/plain; charset=utf-8")
