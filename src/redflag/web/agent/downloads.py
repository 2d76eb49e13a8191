"""The files with which a second host is enrolled by one pasted command: the agent as one file, its SHA-256, and a script.

The agent is packed from the installed distribution when it is first asked for, with the verifier by which it checks the log;
it needs nothing but a Python of the host.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from importlib import resources, util
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from redflag.errors import ProcessError
from redflag.web.context import context

ARCHIVE = "redflag-agent.pyz"
VERIFIER = "redflag_verify"
_LATEST = (2026, 1, 1, 0, 0, 0)


@functools.lru_cache(maxsize=1)
def archive() -> bytes:
    """The agent as a zipapp. The same sources give the same bytes."""
    folder = Path(str(resources.files("redflag_agent")))
    packed = io.BytesIO()
    packed.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(folder.rglob("*.py")):
            _add(target, f"redflag_agent/{path.relative_to(folder).as_posix()}", path.read_bytes())
        _add(target, f"{VERIFIER}.py", _verifier().read_bytes())
        _add(target, "__main__.py", b"import sys\nfrom redflag_agent.main import main\nsys.exit(main())\n")
    return packed.getvalue()


def _verifier() -> Path:
    found = util.find_spec(VERIFIER)
    if found is None or found.origin is None:
        raise ProcessError(f"The module {VERIFIER} is not installed", "Install RedFlag again")
    return Path(found.origin)


def _add(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _LATEST)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    target.writestr(info, data)


def checksum() -> str:
    """SHA-256 of the archive in hex."""
    return hashlib.sha256(archive()).hexdigest()


async def _archive(_request: Request) -> Response:
    return Response(
        archive(), media_type="application/zip", headers={"Content-Disposition": f'attachment; filename="{ARCHIVE}"'}
    )


async def _checksum(_request: Request) -> Response:
    return Response(f"{checksum()}  {ARCHIVE}\n", media_type="text/plain")


async def _script(request: Request) -> Response:
    template = (resources.files("redflag.web.agent") / "install.sh").read_text()
    script = template.replace("@SERVER@", context(request).settings.url).replace("@SHA256@", checksum())
    return Response(script, media_type="text/x-shellscript")


routes = [
    Route(f"/agent/{ARCHIVE}", _archive, methods=["GET"]),
    Route(f"/agent/{ARCHIVE}.sha256", _checksum, methods=["GET"]),
    Route("/agent/install.sh", _script, methods=["GET"]),
]
