"""The log as C2SP tlog-tiles, below /log: for auditors, or for everybody if the administrator allows it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from redflag.access.roles import Permission
from redflag.audit import tiles
from redflag.audit.cosignatures import MOST_WITNESSES
from redflag.web.context import Context, context
from redflag.web.guards import GuardedRoute, let_in

router = APIRouter(prefix="/log", tags=["log"], route_class=GuardedRoute)

A_YEAR = 365 * 24 * 3600


async def _reader(request: Request) -> Context:
    if not context(request).settings.log_public:
        await let_in(request, Permission.READ_AUDIT)
    return context(request)


_reader.permission = Permission.READ_AUDIT  # type: ignore[attr-defined]
READER = Depends(_reader)


def _kept(here: Context, body: bytes) -> Response:
    # What a tile says never changes
    scope = "public" if here.settings.log_public else "private"
    headers = {"Cache-Control": f"{scope}, max-age={A_YEAR}, immutable"}
    return Response(body, media_type="application/octet-stream", headers=headers)


@router.get("/checkpoint", response_class=Response)
async def checkpoint(here: Context = READER) -> Response:
    """The newest checkpoint: a signed note, with the cosignatures that it has so far."""
    return await _checkpoint(here, 0)


@router.get("/checkpoint/cosigned", response_class=Response)
async def cosigned(
    here: Context = READER,
    quorum: Annotated[int, Query(ge=1, le=MOST_WITNESSES, description="by so many witnesses at the least")] = 1,
) -> Response:
    """The newest checkpoint that witnesses have cosigned: some seconds older than the newest, and the one to rely on."""
    return await _checkpoint(here, quorum)


async def _checkpoint(here: Context, quorum: int) -> Response:
    async with here.pool.acquire() as connection:
        note = await tiles.checkpoint(connection, quorum)
    return Response(note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})


@router.get("/tile/entries/{path:path}", response_class=Response)
async def entries(path: str, here: Context = READER) -> Response:
    """An entry bundle: the leaves of up to 256 records, each after its length in 16 bits."""
    index, width = tiles.parse(path)
    async with here.pool.acquire() as connection:
        return _kept(here, await tiles.bundle(connection, index, width))


@router.get("/tile/{level}/{path:path}", response_class=Response)
async def tile(level: int, path: str, here: Context = READER) -> Response:
    """A tile: up to 256 hashes of one level of the tree."""
    index, width = tiles.parse(path)
    async with here.pool.acquire() as connection:
        return _kept(here, await tiles.tile(connection, level, index, width))
