"""Makes simulated agents members of the server's fleet, by its real API: enrols them, renews their tokens, removes them.

Several calls are under way at once, and each is bounded: a server that says when to come back is obeyed by all of them, and says so
once. What was done is in the state file even if the rest fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec

from redflag.errors import NotAuthenticated, NotFound, NotPermitted, RedFlagError
from redflag.simulation import says
from redflag.simulation.answers import Answer
from redflag.simulation.connection import Caller, Gone
from redflag.simulation.plan import Protocol
from redflag.simulation.state import Member, State
from redflag.simulation.target import Requests, Target, Unreachable

T = TypeVar("T")
Tell = Callable[[str], None]

AT_ONCE = 16
# An access token lasts a day
RENEW_AFTER_SECONDS = 20 * 3600.0
MOST_SEATS = 100_000
MOST_TRIES = 6
LONGEST_PAUSE_SECONDS = 4.0
_INVITATIONS = b"/api/v1/enrolment-tokens"
_HOSTNAME = re.compile(r"simulated-\d{6,}")


class _Enrolled(msgspec.Struct):
    agent_id: str
    token: str
    refresh_token: str


class Membership:
    """One server's fleet, as far as it is simulated. `tell` hears how far it is, `warn` once what somebody should know."""

    def __init__(self, target: Target, state: State, admin_token: str, tell: Tell, warn: Tell) -> None:
        self._target = target
        self._tls = target.tls()
        self._requests = Requests(target)
        self._state = state
        self._admin_token = admin_token
        self._tell = tell
        self._warn = warn
        self._warned: set[int] = set()
        self._wait_until = 0.0

    async def enrol(self, count: int, protocol: Protocol, token: str) -> None:
        """Enrols agents until the state has `count`. Without an enrolment token one is made with the API token, and ended afterwards.

        Raises NotAuthenticated, NotPermitted, Unreachable.
        """
        missing = count - len(self._state.agents)
        if missing <= 0:
            return
        numbers = self._state.free_numbers(missing)
        try:
            if token:
                await self._enrol_all(numbers, protocol, token)
                return
            if not self._admin_token:
                raise NotAuthenticated(
                    f"To enrol {missing:,} simulated agents needs an enrolment token or an API token",
                    "Give --enrolment-token, or set REDFLAG_TOKEN to an operator's token",
                )
            while numbers:
                part, numbers = numbers[:MOST_SEATS], numbers[MOST_SEATS:]
                wanted = {"label": "simulation", "seats": len(part), "hours": 24}
                made = msgspec.json.decode((await self._admin(b"POST", _INVITATIONS, wanted)).body)
                try:
                    await self._enrol_all(part, protocol, str(made["token"]))
                except BaseException:
                    # The seats that are left are nobody's
                    with contextlib.suppress(RedFlagError):
                        await self._admin(b"DELETE", b"%b/%b" % (_INVITATIONS, str(made["id"]).encode()))
                    raise
        finally:
            self._state.save()

    async def renew(self, agents: list[Member]) -> None:
        """Renews the access tokens that are near their end. Raises NotFound when the server does not know such an agent."""
        old = [one for one in agents if time.time() - one.issued > RENEW_AFTER_SECONDS]
        if not old:
            return
        try:
            await self._each(old, self._renew, "tokens renewed")
        finally:
            self._state.save()

    async def remove(self) -> int:
        """Removes all simulated agents that the state has, and those that the server knows by their mark. Returns how many.

        Raises NotAuthenticated or NotPermitted without an API token that may.
        """
        found = {one.agent_id for one in self._state.agents}
        async for agent_id in self._marked():
            found.add(agent_id)
        removed = 0

        async def remove(caller: Caller, agent_id: str) -> None:
            nonlocal removed
            answer = await self._ask(caller, b"DELETE", b"/api/v1/agents/%b" % agent_id.encode(), self._admin_token)
            if answer.status not in {200, 404}:
                raise _refusal(answer, "remove a simulated agent")
            removed += answer.status == 200
            gone.add(agent_id)

        gone: set[str] = set()
        try:
            await self._each(sorted(found), remove, "agents removed")
        finally:
            self._state.agents = [one for one in self._state.agents if one.agent_id not in gone]
            self._state.save()
        return removed

    async def check(self) -> None:
        """That the server knows the agents of the state: asks for one of them. Raises NotFound."""
        if self._state.agents:
            caller = Caller(self._target, self._tls)
            try:
                await self._renew(caller, self._state.agents[0])
            finally:
                caller.drop()

    async def _enrol_all(self, numbers: list[int], protocol: Protocol, token: str) -> None:
        async def enrol(caller: Caller, number: int) -> None:
            body = says.enrolment(number, protocol.number, token)
            answer = await self._ask(caller, b"POST", b"/api/v1/agents/register", token, body)
            if answer.status != 200:
                raise _refusal(answer, f"enrol {says.hostname(number)}")
            told = msgspec.json.decode(answer.body, type=_Enrolled)
            self._state.add(Member(number, told.agent_id, told.token, told.refresh_token, time.time()))

        await self._each(numbers, enrol, "agents enrolled")

    async def _renew(self, caller: Caller, agent: Member) -> None:
        body = {"agent_id": agent.agent_id, "refresh_token": agent.refresh}
        answer = await self._ask(caller, b"POST", b"/api/v1/agents/renew", "", body)
        if answer.status in {401, 404}:
            raise NotFound(
                f"{self._target.url} does not know the simulated agents of {self._state.path} (any more)",
                "Delete that file, or give another one with --state",
            )
        if answer.status != 200:
            raise _refusal(answer, "renew a simulated agent's token")
        agent.token, agent.issued = msgspec.json.decode(answer.body, type=says.Renewed).token, time.time()

    async def _marked(self) -> AsyncIterator[str]:
        """Simulated agents that the server has, whether this machine knows them or not."""
        cursor = ""
        while True:
            path = b"/api/v1/agents?text=simulated-&limit=500" + (b"&cursor=" + cursor.encode() if cursor else b"")
            told = msgspec.json.decode((await self._admin(b"GET", path)).body)
            for row in told["agents"]:
                if _HOSTNAME.fullmatch(row["hostname"]) and row["os_version"] == "simulated":
                    yield row["id"]
            cursor = told.get("next_cursor") or ""
            if not cursor:
                return

    async def _admin(self, method: bytes, path: bytes, body: Any = None) -> Answer:
        caller = Caller(self._target, self._tls)
        try:
            answer = await self._ask(caller, method, path, self._admin_token, body)
        finally:
            caller.drop()
        if answer.status not in {200, 201}:
            raise _refusal(answer, "use the API")
        return answer

    async def _each(self, things: Iterable[T], do: Callable[[Caller, T], Awaitable[None]], what: str) -> None:
        waiting, done = list(things)[::-1], 0
        whole = len(waiting)

        async def work() -> None:
            nonlocal done
            caller = Caller(self._target, self._tls)
            try:
                while waiting:
                    await do(caller, waiting.pop())
                    done += 1
                    self._tell(f"{done:,} of {whole:,} {what}")
            finally:
                caller.drop()

        workers = [asyncio.ensure_future(work()) for _ in range(min(AT_ONCE, whole))]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _ask(self, caller: Caller, method: bytes, path: bytes, token: str, body: Any = None) -> Answer:
        """One call; again while the server says to come back later, or does not answer for a moment. Raises Unreachable."""
        request = self._requests.make(method, path, token.encode(), b"" if body is None else msgspec.json.encode(body))
        failures = 0
        while True:
            if (wait := self._wait_until - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            try:
                answer = await caller.call(request)
            except ssl.SSLError as error:
                raise Unreachable(
                    f"The certificate of {self._target.url} cannot be verified: {error}",
                    "Name its authority with --ca-file or REDFLAG_CA_FILE",
                ) from None
            except (Gone, OSError) as error:
                failures += 1
                if failures >= MOST_TRIES:
                    raise Unreachable(
                        f"The server at {self._target.url} does not answer: {error}", "See its log"
                    ) from None
                await asyncio.sleep(min(0.25 * 2**failures, LONGEST_PAUSE_SECONDS))
                continue
            if answer.status not in {429, 503}:
                return answer
            failures += 1
            if answer.status == 503 and failures >= MOST_TRIES:
                raise Unreachable(f"The server at {self._target.url} is overloaded for too long", "See its log")
            self._come_back(path, answer)

    def _come_back(self, path: bytes, answer: Answer) -> None:
        seconds = (answer.retry_after or 5.0) + 0.5
        self._wait_until = max(self._wait_until, time.monotonic() + seconds)
        if answer.status in self._warned:
            return
        self._warned.add(answer.status)
        if answer.status == 429 and path.endswith(b"/register"):
            self._warn(
                f"The server lets no more hosts of one address enrol for {seconds:.0f} s: set REDFLAG_ENROLMENT_TRIES to the number of "
                "agents and restart it, or wait; this goes on by itself."
            )
        else:
            self._warn(
                f"The server asks to come back in {seconds:.0f} s (HTTP {answer.status}); this goes on by itself."
            )


def _refusal(answer: Answer, what: str) -> RedFlagError:
    try:
        told = msgspec.json.decode(answer.body)
        detail = str(told.get("detail") or told.get("error") or answer.status)
    except (msgspec.DecodeError, AttributeError):
        detail = f"HTTP {answer.status}"
    kind = {401: NotAuthenticated, 403: NotPermitted, 404: NotFound}.get(answer.status, RedFlagError)
    return kind(f"The server refused to {what}: {detail}")
