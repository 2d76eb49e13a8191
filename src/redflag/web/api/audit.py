"""The audit trail as a whole: how far the log is, its key, and proofs."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from redflag.access.roles import Permission
from redflag.audit import cosignatures, proofs, standing
from redflag.web.guards import Caller, GuardedRoute, allow

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)


@router.get("/log")
async def show_log(caller: Caller = allow(Permission.READ_FLEET)) -> dict[str, Any]:
    """The log's name and key (to be pinned by whoever checks it), how far each step is, and the newest checkpoint.

    `cosigned` is the newest checkpoint that a witness has cosigned, some seconds older than the newest. `previous` are the
    logs that were closed and from which this one goes on, the newest first: `size` is how much of each this one begins with.
    `pruned` is the log's minimum index (C2SP tlog-tiles, "Pruning"): entries below it are in archived evidence bundles only.
    """
    async with caller.pool.acquire() as connection:
        return await standing.standing(connection, caller.context.signer)


@router.get("/events/{event_id}/proof", response_class=Response)
async def prove(
    event_id: uuid.UUID,
    caller: Caller = allow(Permission.READ_HISTORY),
    quorum: Annotated[
        int, Query(ge=0, le=cosignatures.MOST_WITNESSES, description="of a checkpoint that so many witnesses cosigned")
    ] = 0,
) -> Response:
    """The proof that an event stands in the log, as a C2SP tlog-proof file with the event's values in it."""
    async with caller.pool.acquire() as connection:
        proof = await proofs.of_record(connection, event_id, quorum)
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
        text = await proofs.consistency(connection, old, size)
    return Response(text, media_type="text/plain; charset=utf-8")
