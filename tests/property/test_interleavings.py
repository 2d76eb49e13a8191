"""Whatever happens to commands, in whatever order and at once: each change has its one record, and the record tells the whole life.

Random interleavings of all that people, agents, the sweep and an administrator do, on a real database. REDFLAG_LONG=1 tries many more.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from integration.commands.helpers import (
    AUDITED,
    STATUS_OF,
    agent_actor,
    make_agent,
    make_database,
    move_deadline,
    person,
    replay,
)
from redflag.commands import queue
from redflag.commands.queue import Asking, Progress
from redflag.commands.results import Report, report
from redflag.commands.states import LIVE, TERMINAL, TRANSITIONS, Status
from redflag.database import pool as pools
from redflag.errors import Conflict, NotFound
from redflag.timeouts.sweeper import Sweeper

LONG = os.environ.get("REDFLAG_LONG") == "1"
PROFILE = settings(
    max_examples=int(os.environ.get("REDFLAG_EXAMPLES", "1500" if LONG else "90")),
    stateful_step_count=60 if LONG else 25,
    deadline=None,
    database=None,
    derandomize=not LONG,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
SECOND = datetime.timedelta(seconds=1)

OPERATIONS = (
    "enqueue", "enqueue briefly", "deliver", "deliver", "received", "running", "running", "success", "failure", "other end", "cancel",
    "retry", "sweep", "overdue", "overdue", "sent long ago", "parameters",
)  # fmt: skip
# What is done, by or to which agent, and with which command
operations = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 1), st.integers(0, 30))


@dataclass
class World:
    """A database, the connections into it, and the loop that they live on."""

    loop: asyncio.AbstractEventLoop
    owner: Any
    pool: Any

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))


@pytest.fixture(scope="module")
def world(postgres: Any) -> Iterator[World]:
    loop = asyncio.new_event_loop()
    addresses = loop.run_until_complete(make_database(postgres, "interleavings"))
    one = World(
        loop,
        loop.run_until_complete(pools.connect(addresses.owner)),
        loop.run_until_complete(pools.open_pool(addresses.server, size=6)),
    )
    yield one
    one.run(one.owner.close())
    one.run(one.pool.close())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class Lives(RuleBasedStateMachine):
    """Two agents, one of each protocol, their commands, and everybody who may change them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.agents: list[uuid.UUID] = []
        self.commands: list[uuid.UUID] = []
        self.whose: dict[uuid.UUID, uuid.UUID] = {}
        self.handed: dict[uuid.UUID, list[uuid.UUID]] = collections.defaultdict(list)
        self.ended: dict[uuid.UUID, tuple[Any, ...]] = {}
        self.by_hand_one_at_a_time = asyncio.Lock()

    @initialize()
    def begin(self) -> None:
        self.agents = [self.world.run(make_agent(self.world.owner, protocol=protocol)) for protocol in (0, 1)]
        self.sweepers = [Sweeper(self.world.pool, f"life-{n}") for n in range(2)]

    @rule(one=operations)
    def alone(self, one: tuple[str, int, int]) -> None:
        overdue = self.overdue()
        self.world.run(self.do(*one))
        if one[0] == "deliver":
            assert self.overdue().items() >= overdue.items(), "handed out past its deadline"

    @rule(some=st.lists(operations, min_size=2, max_size=3))
    def at_once(self, some: list[tuple[str, int, int]]) -> None:
        async def together() -> None:
            await asyncio.gather(*(self.do(*one) for one in some))

        self.world.run(together())

    def overdue(self) -> dict[uuid.UUID, int]:
        """What is past its deadline, and how often it was handed out."""
        rows = self.world.run(
            self.world.owner.fetch(
                "SELECT id, deliveries FROM agent_commands WHERE next_deadline_at <= now() AND id = ANY ($1)",
                self.commands,
            )
        )
        return {row["id"]: row["deliveries"] for row in rows}

    async def do(self, what: str, whose: int, which: int) -> None:
        """One operation, on connections of its own. What is refused is refused by a Conflict or a NotFound, and by nothing else."""
        agent_id = self.agents[whose]
        if what.startswith("enqueue"):
            await self.enqueue(agent_id, briefly="briefly" in what)
        elif what == "sweep":
            await self.sweepers[whose].sweep()
        elif what == "deliver":
            await self.deliver(agent_id, whose, held=self.handed[agent_id][:which])
        elif self.commands:
            one = self.commands[which % len(self.commands)]
            # Mostly the agent whose command it is; now and then another
            agent_id = agent_id if which % 7 == 6 else self.whose[one]
            with contextlib.suppress(Conflict, NotFound):
                await self.touch(what, agent_id, one)

    async def enqueue(self, agent_id: uuid.UUID, *, briefly: bool) -> None:
        timeout = datetime.timedelta(milliseconds=1) if briefly else None
        async with self.world.pool.acquire() as connection:
            made = await queue.enqueue(
                connection, person(), [agent_id], "scan_updates", {"n": len(self.commands)}, execution_timeout=timeout
            )
        self.keep(made[0])

    def keep(self, made: dict[str, Any]) -> None:
        self.whose[made["id"]] = made["agent_id"]
        self.commands.append(made["id"])

    async def deliver(self, agent_id: uuid.UUID, protocol: int, held: list[uuid.UUID]) -> None:
        async with self.world.pool.acquire() as connection:
            handed = await queue.deliver(connection, [Asking(agent_id, agent_actor(agent_id), protocol, tuple(held))])
        self.handed[agent_id] += [one["id"] for one in handed[agent_id]]

    async def touch(self, what: str, agent_id: uuid.UUID, one: uuid.UUID) -> None:
        if what in {"overdue", "sent long ago", "parameters"}:
            await self.by_hand(what, one)
            return
        async with self.world.pool.acquire() as connection:
            if what == "received":
                await queue.acknowledge(connection, agent_actor(agent_id), agent_id, Progress(received=(one,)))
            elif what == "running":
                await queue.acknowledge(connection, agent_actor(agent_id), agent_id, Progress(running=(one,)))
            elif what == "cancel":
                await queue.cancel(connection, person(), one)
            elif what == "retry":
                self.keep(await queue.retry(connection, person(), one))
            else:
                word = {"success": "success", "failure": "failed"}.get(what, "never heard of")
                told = Report(word, stdout=what)
                await report(connection, agent_actor(agent_id), agent_id, one, told, max_output=1000)

    async def by_hand(self, what: str, one: uuid.UUID) -> None:
        """The owner, one statement at a time on the one connection."""
        async with self.by_hand_one_at_a_time:
            if what == "overdue":
                await move_deadline(self.world.owner, one, SECOND)
            elif what == "sent long ago":
                await self.world.owner.execute(
                    "UPDATE agent_commands SET sent_at = now() - interval '3 hours' WHERE id = $1 AND status = ANY ('{sent,running}')",
                    one,
                )
            else:
                await self.world.owner.execute(
                    """UPDATE agent_commands SET params = params || '{"by hand": true}' WHERE id = $1 AND status = 'pending'""",
                    one,
                )

    @invariant()
    def the_record_arrives_at_the_live_row(self) -> None:
        if self.commands:
            assert self.world.run(replay(self.world.owner, self.commands)) == []

    @invariant()
    def what_has_ended_never_changes(self) -> None:
        if not self.commands:
            return
        rows = self.world.run(
            self.world.owner.fetch(
                "SELECT * FROM agent_commands WHERE id = ANY ($1) AND status = ANY ($2)", self.commands, [*TERMINAL]
            )
        )
        now = {row["id"]: (row["version"], row["result"], *(row[name] for name in AUDITED)) for row in rows}
        for command_id, before in self.ended.items():
            assert now.get(command_id) == before
        self.ended = now

    @invariant()
    def every_recorded_step_is_one_of_the_table(self) -> None:
        if not self.commands:
            return
        rows = self.world.run(
            self.world.owner.fetch(
                """SELECT command_id, result, actor, metadata FROM update_logs WHERE command_id = ANY ($1) AND kind = 'transition'
                   ORDER BY command_id, version""",
                self.commands,
            )
        )
        was: dict[uuid.UUID, Status] = {}
        for row in rows:
            now, old = STATUS_OF[row["result"]], was.get(row["command_id"])
            if old is None:
                assert now == Status.PENDING
            else:
                assert now in TRANSITIONS[old]
                assert row["metadata"]["from"] == old
            assert "forced" not in row["metadata"]
            assert row["actor"].split(":")[0] in {"user", "agent", "service", "db"}
            was[row["command_id"]] = now

    @invariant()
    def what_is_live_has_a_deadline(self) -> None:
        if self.commands:
            wrong = self.world.run(
                self.world.owner.fetchval(
                    "SELECT count(*) FROM agent_commands WHERE id = ANY ($1) AND (next_deadline_at IS NOT NULL) <> (status = ANY ($2))",
                    self.commands,
                    [*LIVE],
                )
            )
            assert wrong == 0

    def teardown(self) -> None:
        if self.commands:
            # Whatever is left ends: the last sweep finds it, and the record is still whole
            self.world.run(
                self.world.owner.execute(
                    "UPDATE agent_commands SET next_deadline_at = now() - interval '1 second', deadline_kind = 'execution' "
                    "WHERE id = ANY ($1) AND next_deadline_at IS NOT NULL",
                    self.commands,
                )
            )
            self.world.run(self.sweepers[0].sweep())
            assert self.world.run(replay(self.world.owner, self.commands)) == []
            left = self.world.run(
                self.world.owner.fetchval(
                    "SELECT count(*) FROM agent_commands WHERE id = ANY ($1) AND next_deadline_at IS NOT NULL",
                    self.commands,
                )
            )
            assert left == 0


@pytest.mark.timeout(7200 if LONG else 300)
def test_every_interleaving_leaves_a_record_that_replays_to_the_live_table(world: World) -> None:
    run_state_machine_as_test(lambda: Lives(world), settings=PROFILE)
    told = world.run(
        world.owner.fetch(
            "SELECT result, count(*) AS n FROM update_logs WHERE kind = ANY ('{transition,late_result}') GROUP BY kind, result"
        )
    )
    # The machine has been everywhere
    assert {row["result"] for row in told} >= {
        "pending",
        "sent",
        "running",
        "success",
        "failed",
        "error",
        "timed_out",
        "cancelled",
    }
