"""The server's app: the agents' thin routes first, then the admin API, each with its own way of saying what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import fastapi
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import redflag
from redflag.access.principals import Authenticator
from redflag.audit import origins, redaction, sequencer
from redflag.audit.checkpoint import Signer, load_key
from redflag.audit.memory import Memory
from redflag.audit.pruning import Daily, Job
from redflag.database import migrate, pool
from redflag.errors import InvalidInput, Overloaded, TooLarge
from redflag.fleet.checkin import CheckIns
from redflag.fleet.checkpoints import Checkpoints
from redflag.fleet.finding import Facets
from redflag.fleet.holds import Holds
from redflag.publishing.sender import Sender
from redflag.settings import Settings
from redflag.supervisor import make_private_folder
from redflag.timeouts.sweeper import Sweeper
from redflag.updates.outcomes import Reports
from redflag.web import background, log_routes, problems
from redflag.web.agent import downloads
from redflag.web.agent.gate import Gate
from redflag.web.agent.routes import routes as agent_routes
from redflag.web.api import (
    agents,
    audit,
    auth,
    commands,
    evidence,
    exports,
    health,
    history,
    policies,
    retention,
    targets,
    tokens,
    updates,
    users,
)
from redflag.web.context import Context
from redflag.web.dashboard import app as dashboard
from redflag.web.dashboard import errors as dashboard_errors
from redflag.web.dashboard import overview
from redflag.web.dashboard.live import Pulse
from redflag.web.dashboard.pushed import Pushed
from redflag.web.dashboard.summary import Summary
from redflag.web.guards import GuardedRoute

log = logging.getLogger("redflag.web")

# history before commands: both begin with /api/v1/commands/, and a command's id would match the word
ROOMS = (
    auth,
    agents,
    history,
    commands,
    updates,
    policies,
    tokens,
    users,
    audit,
    evidence,
    exports,
    targets,
    retention,
    log_routes,
    health,
)


def make_app(settings: Settings, database_url: str) -> ASGIApp:
    """The app. It opens the database when it starts, refuses to start on a schema that is not whole, and drains when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        redaction.add_patterns(settings.redact)
        connections = await pool.open_pool(database_url, size=settings.database_pool)
        async with connections.acquire() as connection:
            await migrate.require_current(connection)
            signer, memory = await _open_log(connection, settings)
        check_ins = CheckIns(connections, processes=settings.workers)
        context = Context(
            settings,
            connections,
            Authenticator(connections),
            check_ins,
            Reports(connections),
            Holds(connections),
            Sweeper(
                connections,
                settings.replica,
                interval=settings.sweep_interval,
                gap=settings.sweep_gap,
                grace=settings.sweep_grace,
                courtesy=check_ins.courtesy,
            ),
            signer,
            memory,
            Checkpoints(connections, signer.verifier.public),
            Sender(connections, signer, settings.checkpoints),
            Daily(connections, _pruning(settings, database_url)),
            Pulse(connections),
            Pushed({"glance": overview.glance}),
            Summary(connections, settings.check_in_interval),
            Facets(connections),
        )
        app.state.context = gate.context = context
        admin.state.context = context
        _release_at_signals(context.holds, context.pulse)
        stop = asyncio.Event()
        work = asyncio.create_task(background.run(context, stop))
        work.add_done_callback(lambda ended: _end_without(ended, stop))
        log.info("redflag %s serves %s", redflag.__version__, settings.url)
        try:
            yield
        finally:
            stop.set()
            await work
            await context.summary.stop()
            await connections.close()
            log.info("redflag stopped")

    admin = make_admin(docs=settings.docs)
    app = Starlette(routes=[*agent_routes, *downloads.routes, Mount("/", app=admin)], lifespan=lifespan)
    gate = Gate(BodyLimit(SecurityHeaders(app), settings.max_body), SecurityHeaders.HEADERS)
    return gate


async def _open_log(connection: Any, settings: Settings) -> tuple[Signer, Memory]:
    """The log's key under the name that the log has, and what this server remembers of it. Raises SettingsError."""
    make_private_folder(settings.log_folder)
    state = await sequencer.sql.state.one(connection)
    origin = origins.choose(settings.log_origin, state["origin"], settings.origin)
    signer = load_key(origin, settings.log_folder / "key", settings.log_key)
    return signer, Memory(settings.log_folder / "newest-checkpoint", signer)


def _pruning(settings: Settings, database_url: str) -> Job:
    """What a process needs that prunes the log."""
    return Job(
        database_url,
        str(settings.folder / "archive"),
        str(settings.log_folder),
        settings.log_key,
        settings.log_origin or settings.origin,
        settings.replica,
    )


def _end_without(work: asyncio.Task[None], stop: asyncio.Event) -> None:
    """A server that answers and does not sweep is worse than one that ends: whoever keeps it running starts it anew."""
    if not stop.is_set():
        log.critical(
            "the work in the background ended; the server ends with it",
            exc_info=None if work.cancelled() else work.exception(),
        )
        os.kill(os.getpid(), signal.SIGTERM)


def _release_at_signals(*held: Holds | Pulse) -> None:
    """Held calls and streams end as soon as the server is told to stop: it finishes what is under way before it stops."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def stop(signum: int, frame: FrameType | None, before: Any = before) -> None:
            for one in held:
                loop.call_soon_threadsafe(one.release)
            if callable(before):
                before(signum, frame)

        if callable(before):
            signal.signal(number, stop)


def make_admin(*, docs: bool = True) -> fastapi.FastAPI:
    """The admin API: every route says whom it lets in, or cannot be added."""
    admin = fastapi.FastAPI(
        title="RedFlag",
        version=redflag.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
    )
    admin.router.route_class = GuardedRoute
    for room in ROOMS:
        admin.include_router(room.router)
    if docs:
        admin.include_router(health.documentation(admin))
    dashboard.add_to(admin)
    problems.install(admin, as_page=dashboard_errors.as_page)
    return admin


class SecurityHeaders:
    """Headers that every answer carries."""

    HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"cache-control", b"no-store"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds what the answer does not say itself."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in self.HEADERS if header[0] not in said),
                ]
            await send(message)

        await self.app(scope, receive, add)


class BodyLimit:
    """Refuses a body over the limit with 413, whether its length was declared or not.

    What is too much is read and thrown away, up to a few times the limit: a connection that is closed on somebody who
    still sends is reset, and the agent would never learn that its report is too large and send it for ever.
    """

    PATIENCE = 4
    # Whoever shows no token logs in or enrols, and needs no more
    WITHOUT_TOKEN = 256 * 1024
    # A body that stops coming is not waited for
    SECONDS = 60.0
    # What all requests of this process may hold of bodies together
    MOST_UNDER_WAY = 256 * 1024 * 1024

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what comes in."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = any(name == b"authorization" for name, _ in scope["headers"])
        limit = self.limit if known else min(self.limit, self.WITHOUT_TOKEN)
        read, whole = 0, False

        async def next_part() -> Message:
            nonlocal read, whole
            if whole:
                # Nothing but the end of the connection can come now, and that may take as long as a call is held
                return await receive()
            try:
                async with asyncio.timeout(self.SECONDS):
                    message = await receive()
            except TimeoutError:
                raise InvalidInput(f"The body stopped coming for {self.SECONDS:.0f} s", "Send it again") from None
            size = len(message.get("body", b""))
            read += size
            self.under_way += size
            if self.under_way > self.MOST_UNDER_WAY and size:
                raise Overloaded("Too many large bodies are under way")
            whole = not message.get("more_body", False)
            return message

        async def counted() -> Message:
            message = await next_part()
            if read > limit:
                while not whole and read <= limit * self.PATIENCE:
                    await next_part()
                raise TooLarge(f"The body is larger than {limit} bytes", "Send less at once")
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.under_way -= read
