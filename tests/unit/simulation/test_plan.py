"""What a machine can simulate is known before it begins."""

from __future__ import annotations

import pytest

from redflag.errors import InvalidInput, SettingsError
from redflag.simulation import plan
from redflag.simulation.plan import Plan, Protocol
from redflag.simulation.target import Requests, Target, resolve

HERE = Target(url="http://127.0.0.1:8080", host="127.0.0.1", port=8080, address="127.0.0.1")
THERE = Target(url="http://192.0.2.1", host="192.0.2.1", port=80, address="192.0.2.1")


def test_a_fleet_joins_evenly_and_no_faster_than_it_may() -> None:
    assert Plan(interval=60, ramp=2000).joining(100_000) == (1, 65)
    assert Plan(interval=60, ramp=1000).joining(100_000) == (2, 125)
    assert Plan(interval=60, ramp=2000).joining(10) == (1, 65)
    assert Plan(protocol=Protocol.HELD, ramp=1000).joining(10_000) == (1, 15)
    assert Plan(closed=64).joining(10_000) == (1, 0)


def test_processes_follow_from_the_files_that_each_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "most_files", lambda: 20_100)
    monkeypatch.setattr(plan.os, "cpu_count", lambda: 2)
    assert plan.processes(Plan(), 100) == 1
    assert plan.processes(Plan(), 100_000) == 5
    assert plan.processes(Plan(closed=64), 100_000) == 1
    assert plan.processes(Plan(connections=500), 100_000) == 1
    assert plan.processes(Plan(interval=2.0), 20_000) == 2
    assert plan.processes(Plan(processes=7), 100_000) == 7
    with pytest.raises(InvalidInput, match=r"--processes 5, or raise the limit: ulimit -n 50100"):
        plan.processes(Plan(processes=2), 100_000)
    monkeypatch.setattr(plan, "most_files", lambda: 200)
    with pytest.raises(InvalidInput, match="more files than this machine lets 64 processes open"):
        plan.processes(Plan(), 100_000)


def test_a_machine_has_many_addresses_of_its_own_and_one_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.sys, "platform", "linux")
    monkeypatch.setattr(plan, "_ports", lambda: 28_232)
    assert plan.sources(Plan(), 10_000, HERE) == []
    assert plan.sources(Plan(), 25_000, HERE) == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    assert plan.sources(Plan(), 27_000, THERE) == []
    with pytest.raises(InvalidInput, match="28,232 ports"):
        plan.sources(Plan(), 30_000, THERE)
    assert plan.sources(Plan(connections=100), 30_000, THERE) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"interval": 0.0}, "no time"),
        ({"duration": 1e9}, "no time"),
        ({"lost": 1.5}, "between 0 and 1"),
        ({"commands": 1.0}, "needs an API token"),
        ({"commands": 1.0, "admin_token": "x", "closed": 4}, "open loop only"),
        ({"protocol": Protocol.HELD, "connections": 5}, "connection of its own"),
        ({"ramp": 0.0}, "below zero"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        Plan(**wrong).check()  # type: ignore[arg-type]


async def test_a_server_is_known_by_its_address() -> None:
    (found,) = await resolve("https://127.0.0.1:8443/redflag/")
    assert (found.port, found.prefix, found.is_tls, found.is_loopback) == (8443, "/redflag", True, True)
    assert Requests(found).make(b"GET", b"/x", b"").startswith(b"GET /redflag/x HTTP/1.1\r\nHost: 127.0.0.1:8443\r\n")
    (other,) = await resolve("http://[::1]")
    assert other.is_loopback
    assert b"Host: [::1]\r\n" in Requests(other).make(b"GET", b"/", b"")
    assert not THERE.is_loopback
    for nonsense in ("127.0.0.1:8080", "ftp://x", "http://", "http://x:99999", "http://x\r\ny"):
        with pytest.raises(SettingsError):
            await resolve(nonsense)
