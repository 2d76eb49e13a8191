"""Simulated agents against a real server: what the report says is what the database has."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from redflag.audit import actor as actors
from redflag.commands import queue
from redflag.errors import InvalidInput
from redflag.simulation import engine
from redflag.simulation.job import Request
from redflag.simulation.plan import Plan, Protocol
from redflag.simulation.target import Unreachable

QUICK = {"settle": 0.3, "hourly": 0.0, "work": 0.2, "output": 300, "patience": 10.0}


async def _commands(owner: Any, agents: list[tuple[str, str, str]]) -> list[Any]:
    return await owner.fetch(
        "SELECT * FROM agent_commands WHERE agent_id = ANY ($1)", [uuid.UUID(one[0]) for one in agents]
    )


async def _records(owner: Any, commands: list[Any], result: str) -> int:
    return await owner.fetchval(
        "SELECT count(*) FROM update_logs WHERE kind = 'transition' AND result = $2 AND command_id = ANY ($1)",
        [one["id"] for one in commands],
        result,
    )


async def test_a_polling_fleets_counts_are_those_of_the_database(running, token, fleet, owner):
    agents = await fleet(50)
    plan = Plan(interval=0.5, duration=1.5, commands=40.0, admin_token=token, lost=0.4, **QUICK)
    report = await engine.run(plan, running.url, agents)
    commands = await _commands(owner, agents)
    counts, ended = report.counts, [one for one in commands if one["status"] == "completed"]
    assert report.failures == {}
    assert counts["enqueued"] == len(commands)
    assert len(commands) >= 10
    assert counts["delivered"] == sum(one["sent_at"] is not None for one in commands)
    assert counts["recorded"] == len(ended) == await _records(owner, commands, "success")
    assert counts["delivered"] == counts["recorded"] + counts["lost"] == await _records(owner, commands, "sent")
    assert counts["lost"] >= 1
    assert len(await _stdout(owner, ended)) == len(ended)
    seen = await owner.fetch(
        "SELECT metrics FROM agent_presence WHERE agent_id = ANY ($1)", [uuid.UUID(one[0]) for one in agents]
    )
    assert len(seen) == 50
    assert all({"memory_percent", "disk_percent"} <= set(one["metrics"]) for one in seen)
    # Fifty agents twice a second for a second and a half, the first and the last of which may fall to one side or the other
    assert 40 <= report.check_ins <= 200
    assert report.latency.total >= report.check_ins
    assert report.most_open == 50


async def _stdout(owner: Any, commands: list[Any]) -> list[Any]:
    return await owner.fetch(
        "SELECT stdout FROM update_logs WHERE result = 'success' AND command_id = ANY ($1) AND length(stdout) = 300",
        [one["id"] for one in commands],
    )


async def test_a_held_fleet_is_woken_at_once_and_says_what_it_received_and_runs(running, token, fleet, owner):
    agents = await fleet(40, protocol=1)
    plan = Plan(protocol=Protocol.HELD, duration=2.0, ramp=200.0, commands=15.0, admin_token=token, **QUICK)
    report = await engine.run(plan, running.url, agents)
    commands = await _commands(owner, agents)
    assert report.failures == {}
    assert report.counts["enqueued"] == report.counts["delivered"] == report.counts["recorded"] == len(commands) > 5
    assert {one["status"] for one in commands} == {"completed"}
    assert all(one["acknowledged_at"] is not None for one in commands)
    assert await _records(owner, commands, "running") == len(commands)
    woken = report.durations("woken")
    assert woken.total > 1
    # Longer than a look at the database takes, and far from the half minute for which the calls were held
    assert woken.quantile(0.5) < 10.0
    # A second connection for the reports of those that had any
    assert 40 < report.most_open <= 80


async def test_what_is_lost_on_purpose_times_out_and_a_held_fleet_hears_of_it(running, token, fleet, owner):
    agents = await fleet(5, protocol=1)
    plan = Plan(
        protocol=Protocol.HELD, duration=3.0, commands=4.0, admin_token=token, lost=1.0, command_timeout=1.0, **QUICK
    )
    report = await engine.run(plan, running.url, agents)
    commands = await _commands(owner, agents)
    # One or the other may have run out before its agent came by
    assert 3 <= report.counts["lost"] == report.counts["delivered"] <= len(commands)
    assert "recorded" not in report.counts
    assert report.counts["ended_by_server"] >= 1
    async with asyncio.timeout(20):
        while {one["status"] for one in commands} != {"timed_out"}:
            await asyncio.sleep(0.1)
            commands = await _commands(owner, agents)
    assert await _records(owner, commands, "timed_out") == len(commands)


async def test_held_agents_look_at_the_log_and_tell_of_their_hosts(running, fleet, owner):
    agents = await fleet(10, protocol=1)
    plan = Plan(protocol=Protocol.HELD, duration=1.5, hourly=0.5, patience=10.0, settle=0.3)
    report = await engine.run(plan, running.url, agents)
    assert report.failures == {}
    assert report.counts["log_looks"] >= 1
    told = await owner.fetchval(
        "SELECT count(*) FROM agents WHERE id = ANY ($1) AND metadata ->> 'cpu_model' = 'simulated'",
        [uuid.UUID(one[0]) for one in agents],
    )
    assert told == 10


async def test_a_closed_loop_asks_for_each_agent_as_often_as_it_is_told_and_reports_what_it_is_handed(
    running, fleet, owner, server
):
    agents = await fleet(30)
    ids = [uuid.UUID(one[0]) for one in agents]
    await queue.enqueue(server, actors.service("tests", "here"), ids, "scan_updates")
    report = await engine.run(Plan(closed=8, rounds=2, duration=30.0, hourly=0.0), running.url, agents)
    assert report.seconds < 25
    assert report.check_ins == 60
    assert report.counts["delivered"] == report.counts["recorded"] == 30
    assert {one["status"] for one in await _commands(owner, agents)} == {"completed"}
    assert report.most_open <= 8


async def test_a_closed_loop_makes_the_requests_that_it_is_given_once_each(running, fleet, owner, server):
    agents = await fleet(12)
    ids = [uuid.UUID(one[0]) for one in agents]
    made = await queue.enqueue(server, actors.service("tests", "here"), ids, "scan_updates")
    await queue.deliver(server, [queue.Asking(one, actors.agent(one, "127.0.0.1")) for one in ids])
    tokens = {one[0]: one[1] for one in agents}
    requests = [
        Request(
            str(one["agent_id"]), tokens[str(one["agent_id"])], "logs",
            b'{"command_id":"%b","result":"success","stdout":"done"}' % str(one["id"]).encode(),
        )
        for one in made
    ]  # fmt: skip
    report = await engine.run(Plan(closed=4, duration=30.0), running.url, [], requests=requests)
    assert report.durations("report").total == report.counts["recorded"] == 12
    trivial = await engine.run(Plan(closed=4, rounds=3, path="/healthz", duration=30.0), running.url, agents)
    assert (trivial.check_ins, trivial.failures) == (36, {})
    assert {one["status"] for one in await _commands(owner, agents)} == {"completed"}


async def test_two_processes_share_the_work(running, fleet):
    agents = await fleet(20)
    report = await engine.run(Plan(interval=0.5, duration=1.0, processes=2, **QUICK), running.url, agents)
    assert report.processes == 2
    assert set(report.processor_seconds) == {0, 1}
    assert report.most_open == 20
    assert 15 <= report.check_ins <= 60


async def test_agents_share_connections_if_told_so(running, fleet):
    report = await engine.run(Plan(interval=0.5, duration=1.0, connections=3, **QUICK), running.url, await fleet(12))
    assert report.most_open == 3
    assert report.failures == {}
    assert report.check_ins >= 6


async def test_an_access_token_that_is_over_is_renewed_and_the_new_one_is_told(running, fleet, owner):
    agents = await fleet(3)
    await owner.execute(
        "UPDATE agent_tokens SET expires_at = now() WHERE purpose = 'access' AND agent_id = ANY ($1)",
        [uuid.UUID(one[0]) for one in agents],
    )
    renewed: dict[int, str] = {}
    report = await engine.run(Plan(interval=0.5, duration=1.0, **QUICK), running.url, agents, renewed=renewed.update)
    assert set(renewed) == {0, 1, 2}
    assert report.check_ins >= 3
    assert report.failures == {}


async def test_agents_whose_tokens_open_nothing_are_counted_with_an_example_and_go_on_at_their_times(running, fleet):
    agents = [(one[0], "wrong" * 8) for one in await fleet(4)]
    report = await engine.run(Plan(interval=0.5, duration=1.0, **QUICK), running.url, agents)
    assert set(report.failures) == {"401"}
    assert 4 <= report.failures["401"].count <= 20
    assert "token is not valid" in report.failures["401"].example
    assert report.check_ins == 0


async def test_an_overloaded_server_is_given_the_time_it_asks_for(make, fleet):
    agents = await fleet(60)
    with make() as small:
        small.context.check_ins._presence._most_waiting = 1
        report = await engine.run(Plan(closed=40, duration=1.5, hourly=0.0), small.url, agents)
    # A connection that was told to come back in five seconds or more asks once in that time
    assert 1 <= report.failures["503"].count <= 40
    assert "calls wait for the database" in report.failures["503"].example


async def test_a_stall_is_measured_from_when_each_check_in_was_due(running, fleet):
    agents = await fleet(20)
    gathering = running.context.check_ins._presence
    real, stalled = gathering._answer, asyncio.Event()

    async def stall(connection: Any, batch: list[Any]) -> list[Any]:
        if stalled.is_set():
            stalled.clear()
            await asyncio.sleep(1.0)
        return await real(connection, batch)

    def tell(now: engine.Now) -> None:
        if now.phase == "measuring" and now.report.check_ins:
            tell_once.append(stalled.set())

    tell_once: list[None] = []
    gathering._answer, gathering._in_flight = stall, 1
    try:
        plan = Plan(interval=0.2, duration=3.0, **QUICK)
        report = await engine.run(plan, running.url, agents, tell=lambda now: None if tell_once else tell(now))
    finally:
        gathering._answer, gathering._in_flight = real, 2
    # Each agent should have come by five times in that second, and waited a second, 0.8 s, 0.6 s …; it asked once
    assert report.counts["missed"] >= 40
    assert report.latency.quantile(0.95) > 0.5
    assert report.durations("answer").total < report.latency.total


async def test_a_server_that_is_gone_for_a_moment_loses_no_report(make, fleet, token, owner):
    agents, go, away = await fleet(10, protocol=1), asyncio.Event(), asyncio.Event()

    def tell(now: engine.Now) -> None:
        if now.report.counts.get("recorded"):
            go.set()
        if "refused" in now.report.failures:
            away.set()

    plan = Plan(protocol=Protocol.HELD, duration=5.0, commands=8.0, admin_token=token, **QUICK)
    with make() as first:
        run = asyncio.create_task(engine.run(plan, first.url, agents, tell=tell))
        await go.wait()
        await asyncio.to_thread(first.stop)
        await away.wait()
    with make(port=first.port):
        report = await run
    commands = await _commands(owner, agents)
    assert report.counts["recorded"] == sum(one["status"] == "completed" for one in commands)
    assert report.counts["recorded"] == report.counts["delivered"] > 2
    assert report.counts.get("unreported", 0) == 0
    assert set(report.failures) <= {
        "refused",
        "closed",
        "reset",
        "503",
        "enqueue refused",
        "enqueue closed",
        "enqueue reset",
        "enqueue 503",
    }


async def test_it_ends_in_order_when_it_is_told_to(running, fleet, token, owner):
    agents, stop = await fleet(10), asyncio.Event()
    seen = []

    def tell(now: engine.Now) -> None:
        seen.append(now)
        if now.report.counts.get("delivered"):
            stop.set()

    began = time.monotonic()
    plan = Plan(interval=0.5, duration=600.0, commands=20.0, admin_token=token, hourly=0.0, work=60.0, settle=0.3)
    report = await engine.run(plan, running.url, agents, tell=tell, stop=stop)
    assert time.monotonic() - began < 60
    assert seen
    assert report.counts["delivered"] == report.counts["recorded"]
    assert sum(one["status"] == "completed" for one in await _commands(owner, agents)) == report.counts["recorded"]


async def test_what_cannot_be_is_refused_before_anything_is_sent(running, fleet):
    with pytest.raises(InvalidInput, match="connection of its own"):
        await engine.run(Plan(protocol=Protocol.HELD, connections=2), running.url, await fleet(1))
    with pytest.raises(InvalidInput, match="no agents"):
        await engine.run(Plan(), running.url, [])
    with pytest.raises(InvalidInput, match="id or a token that is none"):
        await engine.run(Plan(), running.url, [("x", "two words\r\nHost: y")])
    with pytest.raises(Unreachable):
        await engine.run(Plan(), "http://127.0.0.1:1", [("x", "y")])
