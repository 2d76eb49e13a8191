"""What changed, told to every open page: one look at the database a beat, however many pages there are.

A page holds one stream of events. A beat names subjects (commands, agents, …); the page's regions that show them ask for
themselves anew. With many pages beats come less often and the pages answer them at moments of their own, so that open pages
cost the server the same however many there are; a region that many keep open is drawn once for all and sent along (`pushed`).
Nobody listens: nothing is looked for. A stream ends soon after its session, and when the server stops. Nobody takes the streams
of everybody: one person has so many of a process, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from redflag.access.roles import Permission
from redflag.database import queries
from redflag.errors import NotAuthenticated, Overloaded
from redflag.web.dashboard import door
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.guards import GuardedRoute

log = logging.getLogger("redflag.web")
sql = queries.load(__file__, "live.sql")
router = APIRouter(prefix="/live", route_class=GuardedRoute, include_in_schema=False)

MOST = 2_000
# Of one person; the pages beyond ask every few seconds instead
MOST_OF_ONE = 100
BEAT_SECONDS = 1.0
# So many pages make a beat a second longer
PAGES_A_SECOND = 40
# Who is there changes without a record
PRESENCE_SECONDS = 10.0
# A page that hears nothing for longer calls itself stale
SILENCE_SECONDS = 8.0
# Pages are told a few at a time, so that whoever else waits for this process is answered in between
AT_ONCE = 10
BETWEEN_SECONDS = 0.005
# A stream looks so often whether its session is over
CHECK_SECONDS = 10.0
# Records of the last moment may be committed after later ones were seen
OVERLAP = datetime.timedelta(seconds=0.5)

_SUBJECTS = {"transition": ("commands", "updates"), "late_result": ("commands",)}


class Pulse:
    """The open pages of this process, and what they are told."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._told: dict[asyncio.Event, set[str]] = {}
        self._of: Counter[Any] = Counter()
        self._closed = False
        self._somebody = asyncio.Event()
        self._echo: asyncio.Task[None] | None = None
        self._echoed = 0.0

    def __len__(self) -> int:
        return len(self._told)

    @property
    def beat_seconds(self) -> float:
        """How long a beat is with as many pages as there are now."""
        return max(BEAT_SECONDS, len(self._told) / PAGES_A_SECOND)

    def require_room(self, person: Any) -> None:
        """Raises Overloaded where no other page of this person is taken in."""
        if person is not None and self._of[person] >= MOST_OF_ONE:
            raise Overloaded(f"{MOST_OF_ONE} pages of yours are open already")
        if self._closed or len(self._told) >= MOST:
            raise Overloaded(f"{MOST} pages are open already")

    async def listen(self, person: Any = None) -> AsyncIterator[set[str]]:
        """What changed, as it changes; an empty set where nothing did for a while. Ends when the server stops. Raises Overloaded."""
        self.require_room(person)
        woken = asyncio.Event()
        self._told[woken] = set()
        self._of[person] += 1
        self._somebody.set()
        try:
            while not self._closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), SILENCE_SECONDS)
                woken.clear()
                subjects, self._told[woken] = self._told[woken], set()
                yield subjects
        finally:
            del self._told[woken]
            self._of[person] -= 1
            if not self._of[person]:
                del self._of[person]

    async def run(self, stop: asyncio.Event) -> None:
        """Looks for what changed while somebody listens, until `stop` is set."""
        since: datetime.datetime | None = None
        presence_at = 0.0
        while not stop.is_set():
            pause = self.beat_seconds
            if not self._told:
                since = None
                self._somebody.clear()
                await _first(stop.wait(), self._somebody.wait())
                continue
            subjects: set[str] = set()
            if time.monotonic() >= presence_at:
                presence_at = time.monotonic() + PRESENCE_SECONDS
                subjects.add("presence")
            try:
                asked = await sql.database_now.value(self._pool)
                if since is not None:
                    subjects |= _concerned(await sql.happened.all(self._pool, since=since - OVERLAP))
                since = asked
            except Exception:  # pages that are not told go stale and say so; the sweep beside this must not end
                log.exception("could not look for what changed, and will look again")
                pause = 5.0
            await self._tell_in_turn(subjects)
            await _first(stop.wait(), asyncio.sleep(pause))
        self.release()

    def tell(self, subjects: set[str]) -> None:
        """Tells every open page."""
        if subjects:
            for woken, told in self._told.items():
                told.update(subjects)
                woken.set()

    def echo(self, seconds: float) -> None:
        """Tells every page once more in a while, for what was told before it was counted. What that asks for has no echo of its own."""
        if time.monotonic() - self._echoed > BEAT_SECONDS and (self._echo is None or self._echo.done()):
            self._echo = asyncio.ensure_future(self._tell_again(seconds))

    async def _tell_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._echoed = time.monotonic()
        await self._tell_in_turn({"presence"})

    async def _tell_in_turn(self, subjects: set[str]) -> None:
        for place, (woken, told) in enumerate(list(self._told.items()) if subjects else ()):
            told.update(subjects)
            woken.set()
            if place % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(BETWEEN_SECONDS)

    def release(self) -> None:
        """Ends every stream, and begins none: the server stops."""
        self._closed = True
        self._somebody.set()
        if self._echo is not None:
            self._echo.cancel()
        for woken in self._told:
            woken.set()


def _concerned(rows: list[Any]) -> set[str]:
    subjects: set[str] = set()
    for row in rows:
        action = row["action"] or ""
        subjects |= {"records", "log", *_SUBJECTS.get(row["kind"], ())}
        if action.startswith("agent"):
            subjects.add("agents")
        elif action.startswith("update"):
            subjects.add("updates")
        elif row["kind"] in {"change", "access", "service", "erasure", "snapshot"}:
            subjects.add("settings")
    return subjects


async def _first(*waits: Any) -> None:
    """Waits for whichever comes first, and for no more than that."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@router.get("")
async def stream(
    request: Request,
    visitor: Visitor = enter(Permission.READ_FLEET),
    region: Annotated[str, Query(max_length=50, description="of the page, to be sent along whenever it changed")] = "",
) -> Response:
    """The stream of a page: `pulse` events with the subjects that changed, `region` events, and `bye` when the session is over."""
    pulse = visitor.context.pulse
    # Before the answer begins: afterwards nothing can be refused
    pulse.require_room(visitor.principal.user_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    pushed = region if region in visitor.context.pushed else ""
    return StreamingResponse(
        _events(visitor, door.session_token(request), pushed), media_type="text/event-stream", headers=headers
    )


async def _events(visitor: Visitor, token: str, region: str) -> AsyncIterator[bytes]:
    pulse = visitor.context.pulse
    yield b"retry: 3000\n\n" + _event("pulse", {"subjects": [], "spread": 0})
    checked = time.monotonic()
    # Others came in between: the browser asks again, and is then refused in time
    with contextlib.suppress(Overloaded):
        async for subjects in pulse.listen(visitor.principal.user_id):
            if time.monotonic() - checked > CHECK_SECONDS:
                checked = time.monotonic()
                try:
                    await visitor.context.authenticator.authenticate(token)
                except NotAuthenticated:
                    yield _event("bye", {})
                    return
            if region and subjects:
                yield await visitor.context.pushed.event(region, visitor)
            spread = round(pulse.beat_seconds * 1000 - BEAT_SECONDS * 1000)
            yield _event("pulse", {"subjects": sorted(subjects), "spread": spread})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


@router.get("/ping")
async def ping(_visitor: Visitor = enter(Permission.READ_FLEET)) -> dict[str, str]:
    """For a page to which no stream comes through: the server is there, and the session too."""
    return {"status": "ok"}
