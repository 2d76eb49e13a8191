"""Connections of simulated agents, against servers that behave well and others that do not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from redflag.simulation.answers import Answer
from redflag.simulation.connection import Caller, Connection, Dialer, Gone
from redflag.simulation.lines import CHECK_IN, Call, Line, Lines
from redflag.simulation.tally import Tally
from redflag.simulation.target import Requests, Target

BODY = b'{"commands":[]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + BODY
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Target]:
    """A server that does with each connection what the handler does."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield Target(url=f"http://127.0.0.1:{port}", host="127.0.0.1", port=port, address="127.0.0.1")
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


class Agent:
    """Asks, and remembers what it was told."""

    def __init__(self, target: Target) -> None:
        self._requests = Requests(target)
        self.told: asyncio.Queue[Answer | str] = asyncio.Queue()

    def request(self, call: Call) -> bytes:
        """A check-in."""
        return self._requests.of_agent(b"GET", b"an-id", b"commands", b"token", b"{}")

    def answered(self, call: Call, answer: Answer) -> None:
        """Remembers it."""
        self.told.put_nowait(answer)

    def failed(self, call: Call, kind: str, example: str) -> None:
        """Remembers the kind."""
        self.told.put_nowait(kind)


class Asker:
    """An agent with a line, and what is counted."""

    def __init__(self, target: Target, patience: float = 10.0, source: str = "") -> None:
        self.tally = Tally()
        self.lines = Lines(Dialer(target, 1000.0), self.tally, patience)
        self.line: Line = self.lines.make(source)
        self.agent = Agent(target)

    def submit(self) -> None:
        """Asks without waiting."""
        self.line.submit(Call(self.agent, CHECK_IN, time.monotonic()))

    async def ask(self) -> Answer | str:
        """Asks, and returns the answer or the kind of failure."""
        self.submit()
        return await asyncio.wait_for(self.agent.told.get(), 10)


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


async def _well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await _read(reader)
        writer.write(OK)


async def test_a_connection_is_kept_for_one_request_after_the_other() -> None:
    async with serving(_well) as target:
        asker = Asker(target)
        for _ in range(3):
            assert await asker.ask() == Answer(200, BODY, False, None)
        assert asker.tally.counts["connected"] == 1
        assert asker.lines.open == 1
        asker.line.drop()
        assert asker.lines.open == 0


async def test_what_is_asked_while_a_call_is_under_way_waits_its_turn() -> None:
    seen: list[int] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await _read(reader)
            with contextlib.suppress(TimeoutError):
                # Nothing may come before this one is answered
                async with asyncio.timeout(0.02):
                    seen.append(len(await reader.read(1)))
            writer.write(OK)

    async with serving(slow) as target:
        asker = Asker(target)
        for _ in range(3):
            asker.submit()
        for _ in range(3):
            assert await asyncio.wait_for(asker.agent.told.get(), 10) == Answer(200, BODY, False, None)
        assert seen == []
        asker.line.drop()


async def test_a_server_that_closes_after_each_answer_is_asked_on_a_new_connection() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length"))

    async with serving(once) as target:
        asker = Asker(target)
        for _ in range(5):
            assert await asker.ask() == Answer(200, BODY, True, None)
        assert asker.tally.counts["connected"] == 5
        assert asker.tally.failures == {}
        assert asker.lines.open == 0


async def test_a_connection_that_was_closed_while_idle_is_opened_again_unseen() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(OK)

    async with serving(once) as target:
        asker = Asker(target)
        for count in range(1, 4):
            assert await asker.ask() == Answer(200, BODY, False, None)
            while asker.lines.open:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert asker.tally.counts["closed_idle"] == count
        assert asker.tally.failures == {}


async def test_what_was_sent_on_a_kept_connection_just_as_it_was_closed_is_sent_once_more() -> None:
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(OK)
        await _read(reader)

    async with serving(twice) as target:
        asker = Asker(target)
        assert await asker.ask() == Answer(200, BODY, False, None)
        assert await asker.ask() == Answer(200, BODY, False, None)
        assert asker.tally.counts["asked_again"] == 1
        assert asker.tally.failures == {}
        asker.line.drop()


async def test_a_server_that_never_answers_and_only_closes_is_a_failure() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)

    async with serving(never) as target:
        asker = Asker(target)
        assert await asker.ask() == "closed"
        assert asker.tally.failures["closed"].count == 1


async def test_no_answer_in_time_is_a_failure_and_the_next_call_goes_on() -> None:
    async def silent_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        if asker.tally.failures:
            writer.write(OK)
        await reader.read(1)

    async with serving(silent_once) as target:
        asker = Asker(target, patience=0.05)
        asker.submit()
        asker.submit()
        while not asker.tally.failures:
            await asyncio.sleep(0.01)
            asker.lines.expire(1.0)
        assert await asker.agent.told.get() == "timeout"
        assert await asyncio.wait_for(asker.agent.told.get(), 10) == Answer(200, BODY, False, None)
        assert "was not answered within" in asker.tally.failures["timeout"].example
        asker.line.drop()


@pytest.mark.parametrize("nonsense", [b"SSH-2.0-x\r\n\r\n", OK + OK])
async def test_what_is_no_answer_is_a_failure(nonsense: bytes) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(nonsense)
        await reader.read(1)

    async with serving(strange) as target:
        asker = Asker(target)
        assert await asker.ask() == "bad answer"
        assert asker.lines.open == 0


async def test_nobody_there_is_a_failure_by_its_kind() -> None:
    async with serving(_well) as target:
        pass
    assert await Asker(target).ask() == "refused"


async def test_connections_are_opened_from_the_address_that_is_asked_for() -> None:
    peers: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        await _well(reader, writer)

    async with serving(note) as target:
        for source in ("127.0.0.2", "127.0.0.3"):
            asker = Asker(target, source=source)
            assert await asker.ask() == Answer(200, BODY, False, None)
            asker.line.drop()
    assert peers == ["127.0.0.2", "127.0.0.3"]


async def test_connections_are_opened_no_faster_than_is_allowed() -> None:
    class Opened(Connection):
        def opened(self) -> None:
            times.append(time.monotonic())

    times: list[float] = []
    async with serving(_well) as target:
        dialer = Dialer(target, 100.0)
        made = [Opened() for _ in range(30)]
        for connection in made:
            dialer.open(connection)
        while len(times) < 30:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in made:
            connection.drop()
    # A few at once, then a hundred a second
    assert times[-1] - times[0] > 0.2


async def test_a_caller_asks_again_when_its_connection_was_closed_meanwhile_and_says_when_nobody_answers() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(OK)
        await _read(reader)

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)

    async with serving(once) as target:
        caller = Caller(target, None)
        request = Requests(target).make(b"GET", b"/", b"")
        assert b"Authorization" not in request
        for _ in range(3):
            assert (await caller.call(request)).body == BODY
        caller.drop()
    async with serving(never) as target:
        with pytest.raises(Gone):
            await Caller(target, None).call(request)
