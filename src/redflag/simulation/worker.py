"""One process of a simulation: is given a job on stdin, tells how it goes on stdout, and ends when it is over or nobody listens.

    python -m redflag.simulation.worker

It imports as little as it needs. What is wrong with the process itself ends it, and is said in its last message.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from typing import Any

import msgspec
import uvloop

from redflag.simulation.closed_loop import ClosedLoop
from redflag.simulation.job import Begin, Job, Said, framed
from redflag.simulation.open_loop import OpenLoop
from redflag.simulation.plan import raise_file_limit
from redflag.simulation.tally import Tally

TELL_SECONDS = 1.0


class Worker:
    """The process."""

    def __init__(self, job: Job, begin: Begin) -> None:
        self._job = job
        self._begin = begin
        self._tally = Tally()
        self._stop = asyncio.Event()
        self._phase = "joining"
        self._told_at = time.monotonic()
        self._fault = ""
        self._loop: OpenLoop | ClosedLoop = (
            ClosedLoop(job, self._tally) if job.plan.closed else OpenLoop(job, self._tally, begin.begins)
        )

    async def run(self) -> None:
        """Works, and tells."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        loop.add_reader(sys.stdin.fileno(), self._told)
        # What is made now lives to the end: no collection has to look at it
        gc.collect()
        gc.freeze()
        telling = asyncio.ensure_future(self._tell_always())
        working = asyncio.ensure_future(self._loop.run(self._begin.measured_from, self._begin.until, self._stop))
        try:
            await self._measure(working)
            await working
        except Exception as error:  # it is told, and ends the whole simulation
            self._fault = f"{type(error).__name__}: {error}"
        finally:
            telling.cancel()
            self._loop.close()
            self._tell(self._phase)
            self._tell("over")

    def _told(self) -> None:
        """stdin has ended: nobody wants more."""
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self._stop.set()

    async def _measure(self, working: asyncio.Task[None]) -> None:
        """Has what happens counted for the phase in which it happens."""
        for phase, ends in (("joining", self._begin.measured_from), ("measuring", self._begin.until)):
            self._phase = phase
            stopped = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait(
                    {working, stopped}, timeout=max(0.0, ends - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                stopped.cancel()
            self._tell(phase)
            gc.freeze()
            if self._stop.is_set() or working.done():
                break
        self._phase = "ending"

    async def _tell_always(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._tell(self._phase)

    def _tell(self, phase: str) -> None:
        now, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        renewed, self._loop.renewed = self._loop.renewed, {}
        open_now = self._loop.open if isinstance(self._loop, ClosedLoop) else self._loop.lines.open
        said = Said(
            number=self._job.number,
            phase=phase,
            part=self._tally.take(),
            seconds=now - self._told_at,
            open=open_now,
            busy=self._loop.busy,
            processor_seconds=used.ru_utime + used.ru_stime,
            renewed=renewed,
            fault=self._fault,
        )
        self._told_at = now
        sys.stdout.buffer.write(framed(said))
        sys.stdout.buffer.flush()

    def _failed(self, _loop: Any, context: dict[str, Any]) -> None:
        """A fault of ours in a callback: nothing that is measured from now on would mean anything."""
        error = context.get("exception")
        self._fault = self._fault or f"{type(error).__name__}: {error}" if error else str(context.get("message"))
        self._stop.set()


def _read(kind: type[Any]) -> Any:
    """The next message of stdin; None when it has ended."""
    size = os.read(sys.stdin.fileno(), 4)
    left, parts = int.from_bytes(size, "big"), []
    while left > 0:
        part = os.read(sys.stdin.fileno(), left)
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return msgspec.msgpack.decode(b"".join(parts), type=kind) if size else None


def main() -> None:
    """Does one job."""
    # Ctrl-C is for the process that shows the table: it tells us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    job = _read(Job)
    if job is None:
        return
    sys.stdout.buffer.write(b"\0")
    sys.stdout.buffer.flush()
    begin = _read(Begin)
    if begin is None:
        return

    async def work() -> None:
        await Worker(job, begin).run()

    with contextlib.suppress(BrokenPipeError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


if __name__ == "__main__":
    main()
