"""`redflag server`: the server's processes, in the foreground.

Promises
- One server a data folder: it holds run/server.lock for as long as it lives, drains included.
- What can be wrong is found before a worker starts and said in one sentence: the port, the certificate, the schema.
- SIGTERM ends it in order: no new connections, requests under way are finished (at most 30 s), then the background work.
- The embedded database is started when it does not run, and stopped at the end only if it was started here.

Every worker is a replica of the timeout service under a name of its own: the server's, and with several workers a slash and
a number from 1 on. The number is a lock file that the worker holds: a worker that replaces a dead one takes over its number,
so that the rows in timeout_service stay as many as there are workers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import resource
import shutil
import signal
import socket
import ssl
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from redflag.audit import origins
from redflag.cli import databases
from redflag.cli.logs import configuration
from redflag.cli.place import Place, lock_now, place
from redflag.database import migrate, pool
from redflag.database.version import require_version
from redflag.errors import Conflict, ProcessError, SettingsError
from redflag.settings import Settings, settings
from redflag.supervisor import make_private_folder, write_private

if TYPE_CHECKING:
    from starlette.types import ASGIApp

GRACE_SECONDS = 30
MOST_FILES = 1_048_576
STARTUP_FAILURE = 3  # uvicorn's exit code of a worker that could not start
# A worker that says nothing for so long is killed and replaced. It says nothing while it imports, and with uvicorn's own
# 5 s a slow or busy machine kills each worker before it has begun, for ever.
WORKER_SECONDS = 60
BACKLOG = 4096
# New objects until the youngest are looked through for garbage; Python's own 700 are few reports
GARBAGE = 20_000
# A look at the lock holds it for a moment
LOCK_PATIENCE_SECONDS = 3.0

# Held by a worker for its whole life: the lock file of its number
_number_lock: int | None = None


def server(
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes; or set REDFLAG_WORKERS.", show_default=False)
    ] = None,
) -> None:
    """Run the server in the foreground; `redflag up` runs it in the background."""
    if workers is not None:
        os.environ["REDFLAG_WORKERS"] = str(workers)
        settings.cache_clear()
    here = settings()
    folder = place(here)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    make_private_folder(folder.root)
    with lock_now(folder.run / "server.lock", LOCK_PATIENCE_SECONDS) as held:
        if not held:
            raise Conflict(f"A server runs on {folder.root} already", "Use it, or stop it first: `redflag down`")
        with databases.running(here):
            databases.run(require_schema(here))
            _serve(here, folder)


def app() -> ASGIApp:
    """One worker's app; uvicorn calls it in each of its processes."""
    here = settings()
    if here.workers > 1:
        number = _take_number(place(here), here.workers)
        here = here.model_copy(update={"replica": f"{here.replica}/{number}"})
    # Only now: prometheus_client looks for its folder when it is imported
    from redflag.web.app import make_app  # noqa: PLC0415

    made = make_app(here, databases.server_url(here))
    _spare_the_collector()
    return made


def _spare_the_collector() -> None:
    """What has been loaded stays for the process's whole life: to look through it for garbage again and again is an eighth of all
    that a report costs. What comes and goes has few cycles, so it is looked through less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)


def listen(here: Settings) -> socket.socket:
    """A socket bound to the host and port of the settings. Raises Conflict when the port is taken, else SettingsError."""
    where = f"{here.host}:{here.port}" if ":" not in here.host else f"[{here.host}]:{here.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            here.host or "0.0.0.0",  # noqa: S104 - an empty host is every one, as the settings say
            here.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"REDFLAG_HOST: {here.host} is no address of this machine: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {here.port} is taken by another program ({where})",
                f"Choose another one: make up PORT={here.port + 1}, or REDFLAG_PORT={here.port + 1}",
            ) from None
        reason = "needs root" if error.errno == errno.EACCES else str(error.strerror)
        raise SettingsError(
            f"The server cannot listen on {where}: {reason}", "Set REDFLAG_HOST and REDFLAG_PORT"
        ) from None
    return bound


async def require_schema(here: Settings) -> None:
    """That the database is as this release needs it, and its log as the settings name it. Raises DatabaseError, SettingsError."""
    async with databases.connected(databases.server_url(here)) as connection:
        require_version(pool.number(connection))
        await migrate.require_current(connection)
        state = await origins.sql.state.one(connection)
        origins.choose(here.log_origin, state["origin"], here.origin)


def _serve(here: Settings, folder: Place) -> None:
    import uvicorn  # noqa: PLC0415 - slow to import, and needed here only
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415

    _require_certificate(here)
    bound = listen(here)
    shutil.rmtree(folder.metrics, ignore_errors=True)
    make_private_folder(folder.metrics)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.metrics)
    _raise_file_limit()
    config = uvicorn.Config(
        "redflag.cli.server:app",
        factory=True,
        host=here.host,
        port=here.port,
        workers=here.workers,
        loop="uvloop",
        http="redflag.web.connections:Connection",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=configuration(here.log_level),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=WORKER_SECONDS,
        backlog=BACKLOG,
        ssl_certfile=here.tls_cert,
        ssl_keyfile=here.tls_key,
    )
    write_private(folder.server_url, here.model_copy(update={"public_url": ""}).url + "\n")
    try:
        if here.workers == 1:
            uvicorn.Server(config).run([bound])
            return
        supervisor = Multiprocess(config, [bound])
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            raise ProcessError("A worker could not start", "See the lines above")
    finally:
        folder.server_url.unlink(missing_ok=True)


def _require_certificate(here: Settings) -> None:
    if here.tls_cert is None or here.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(here.tls_cert, here.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"REDFLAG_TLS_CERT {here.tls_cert} and REDFLAG_TLS_KEY {here.tls_key} cannot be used: {error}",
            "Both are PEM files, the chain with the server's own certificate first",
        ) from None


def _raise_file_limit() -> None:
    """As many open files as the machine allows: every agent keeps a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _take_number(folder: Place, workers: int) -> int:
    """The lowest number that no living worker has; held until this process ends.

    While a worker is replaced there may be one more than there should be, hence twice as many numbers.
    """
    global _number_lock  # noqa: PLW0603 - it must stay open as long as the process
    for number in range(1, 2 * workers + 1):
        handle = os.open(folder.run / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        _number_lock = handle
        return number
    raise ProcessError(f"All {2 * workers} numbers of workers are taken", "Stop the server, then start it again")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    # Before uvicorn listens for signals, and once more when it has drained and raises them again: a normal end
    raise SystemExit(0)
