"""The trivial endpoint: reads a request, answers `{"commands":[]}`, and does nothing else. `python trivial.py PORT WORKERS`.

It is served as the server is (uvicorn, uvloop, httptools, the server's own class of connections), so what it reaches is the most
that anything over HTTP can reach on this machine.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"15")]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """One request, or the start and the end of the server."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b'{"commands":[]}'})


if __name__ == "__main__":
    uvicorn.run(
        "trivial:app",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        workers=int(sys.argv[2]),
        loop="uvloop",
        http="redflag.web.connections:Connection",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=4096,
    )
