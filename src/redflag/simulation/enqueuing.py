"""Commands for the simulated agents, enqueued as people's programs do it, and how long each takes to reach its agent.

Measured from the moment at which the request to enqueue was sent: what the API takes is in it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from redflag.simulation import tally
from redflag.simulation.agents import HeldAgent
from redflag.simulation.connection import Caller, Gone
from redflag.simulation.job import Job

if TYPE_CHECKING:
    from redflag.simulation.open_loop import OpenLoop

COMMAND_TYPE = "simulated_work"
# Requests a second of one process; with more commands than that each request enqueues several
MOST_REQUESTS = 20.0
MOST_UNDER_WAY = 8


class _Row(msgspec.Struct):
    id: str
    agent_id: str


class _Enqueued(msgspec.Struct):
    commands: list[_Row]


class _Asked:
    """A command that was or is being enqueued."""

    __slots__ = ("is_held", "sent_at")

    def __init__(self, sent_at: float, is_held: bool) -> None:
        self.sent_at = sent_at
        self.is_held = is_held


class Enqueuer:
    """Enqueues a process's share of the commands."""

    def __init__(self, world: OpenLoop, job: Job) -> None:
        self._world = world
        self._target = job.target
        self._tls = job.target.tls()
        self._rate = job.plan.commands * len(job.agents) / job.of
        self._order = list(range(len(job.agents)))
        world.chance.shuffle(self._order)
        self._next = 0
        self._free: list[Caller] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        # By command, once its id is known; by agent, while the request is under way; and what came before its request was answered
        self._asked: dict[str, _Asked] = {}
        self._under_way: dict[str, int] = {}
        self._came_early: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Commands that were enqueued and have not reached their agents."""
        return len(self._asked) + len(self._tasks)

    def stop(self) -> None:
        """Enqueues nothing more."""
        self._stopped = True

    async def run(self, begins: float) -> None:
        """Enqueues at its times until it is stopped."""
        pause = max(1.0 / self._rate, 1.0 / MOST_REQUESTS)
        size, owed, due = self._rate * pause, 0.0, begins
        while not self._stopped:
            await asyncio.sleep(max(0.0, min(due - time.monotonic(), 0.25)))
            if time.monotonic() < due or self._stopped:
                continue
            due += pause
            owed = min(owed + size, self._rate * 10 + 1)
            if int(owed) and len(self._tasks) < MOST_UNDER_WAY:
                task = asyncio.ensure_future(self._enqueue(int(owed)))
                owed -= int(owed)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for caller in self._free:
            caller.drop()

    def received(self, agent_id: bytes, command_id: str, now: float) -> None:
        """An agent has a command."""
        asked = self._asked.pop(command_id, None)
        if asked is not None:
            self._measure(asked, now)
        elif agent_id.decode() in self._under_way:
            self._came_early[command_id] = now

    async def _enqueue(self, count: int) -> None:
        agents = self._world.agents
        count = min(count, len(agents), 10_000)
        chosen = [agents[self._order[(self._next + step) % len(agents)]] for step in range(count)]
        self._next += count
        now = time.monotonic()
        asked = {
            agent.id.decode(): _Asked(now, isinstance(agent, HeldAgent) and agent.is_held(now)) for agent in chosen
        }
        for agent_id in asked:
            self._under_way[agent_id] = self._under_way.get(agent_id, 0) + 1
        counted = self._world.tally
        body = msgspec.json.encode(
            {"agent_ids": list(asked), "command_type": COMMAND_TYPE,
             "delivery_timeout": self._world.plan.command_timeout, "execution_timeout": self._world.plan.command_timeout}
        )  # fmt: skip
        request = self._world.requests.make(b"POST", b"/api/v1/commands", self._world.plan.admin_token.encode(), body)
        caller = self._free.pop() if self._free else Caller(self._target, self._tls)
        try:
            answer = await caller.call(request, self._world.plan.patience)
            if answer.status == 201:
                counted.durations["enqueue"].add(time.monotonic() - now)
                self._made(msgspec.json.decode(answer.body, type=_Enqueued), asked)
            else:
                counted.fail(f"enqueue {answer.status}", answer.body[:300].decode("utf-8", "replace"))
                if answer.status in {401, 403, 404}:
                    self._stopped = True  # it will not be otherwise the next time
                elif answer.retry_after:
                    await asyncio.sleep(min(answer.retry_after, 60.0) * self._world.chance.uniform(1.0, 1.25))
        except (Gone, OSError) as error:
            counted.fail(
                f"enqueue {tally.kind_of(error if isinstance(error, OSError) else error.__cause__)}", str(error)
            )
        except msgspec.DecodeError as error:
            counted.fail(f"enqueue {tally.BAD_ANSWER}", str(error))
        finally:
            self._free.append(caller)
            for agent_id in asked:
                self._under_way[agent_id] -= 1
                if not self._under_way[agent_id]:
                    del self._under_way[agent_id]
            if not self._under_way:
                self._came_early.clear()

    def _made(self, told: _Enqueued, asked: dict[str, _Asked]) -> None:
        self._world.tally.counts["enqueued"] += len(told.commands)
        for row in told.commands:
            known = asked.get(row.agent_id)
            if known is None:
                continue
            early = self._came_early.pop(row.id, None)
            if early is None:
                self._asked[row.id] = known
            else:
                self._measure(known, early)

    def _measure(self, asked: _Asked, now: float) -> None:
        durations = self._world.tally.durations
        self._world.tally.counts["reached"] += 1
        durations["reached"].add(now - asked.sent_at)
        if asked.is_held:
            durations["woken"].add(now - asked.sent_at)
