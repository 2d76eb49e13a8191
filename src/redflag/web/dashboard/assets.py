"""The dashboard's files as the build put them in place: each under a name that carries its content's hash, kept by browsers for ever.

They are made by `make assets` and stand ready in a wheel. A checkout in which they were not made yet answers its pages with what
to do, and its API as ever.
"""

from __future__ import annotations

import functools
import json
import mimetypes
from importlib import resources

from fastapi import APIRouter, Request, Response

from redflag.errors import NotFound, SettingsError
from redflag.web.guards import GuardedRoute, public

router = APIRouter(prefix="/static", route_class=GuardedRoute, include_in_schema=False)

_built = resources.files("redflag.web.dashboard") / "built"
_A_YEAR = 365 * 24 * 3600


@functools.lru_cache(maxsize=1)
def _manifest() -> dict[str, str]:
    try:
        read: dict[str, str] = json.loads((_built / "manifest.json").read_text())
    except FileNotFoundError:
        raise SettingsError(
            "The dashboard's files were not built", "Run make assets, then start the server again"
        ) from None
    return read


@functools.cache
def _content(name: str) -> tuple[bytes, bytes, str]:
    """A file, the same compressed, and its type. Only what the manifest names is ever read."""
    if name not in _manifest().values():
        raise NotFound(f"No file {name[:100]!r}", "Load the page again: the server may be another release")
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0] or "application/octet-stream"
    return (_built / name).read_bytes(), (_built / f"{name}.gz").read_bytes(), kind


def url(name: str) -> str:
    """Where a file is served. Raises SettingsError where nothing was built, KeyError for a file that there is not."""
    return f"/static/{_manifest()[name]}"


@router.get("/{name}")
@public
async def serve(request: Request, name: str) -> Response:
    """A file. It never changes under its name."""
    plain, packed, kind = _content(name)
    headers = {"Cache-Control": f"public, max-age={_A_YEAR}, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=kind)
    return Response(plain, headers=headers, media_type=kind)
