"""`redflag simulate`, as people run it: enrols, simulates, tells, goes on with the same agents, removes."""

from __future__ import annotations

import datetime
import ipaddress
import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from redflag.cli import client
from redflag.cli.main import main
from redflag.settings import settings
from redflag.simulation.membership import Membership
from redflag.simulation.plan import Protocol
from redflag.simulation.state import State
from redflag.simulation.target import find

FAST = ("--interval", "0.5", "--duration", "1s", "--work", "0.1")


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(
    running: Any, token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Cli]:
    """Runs one command of `redflag`."""
    monkeypatch.setenv("REDFLAG_URL", running.url)
    monkeypatch.setenv("REDFLAG_TOKEN", token)
    monkeypatch.setenv("REDFLAG_VAR", str(tmp_path / "var"))
    monkeypatch.delenv("REDFLAG_DATABASE_URL", raising=False)
    settings.cache_clear()

    def run(*arguments: str) -> Ran:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Ran(int(code), captured.out, captured.err)

    yield run
    settings.cache_clear()
    client.options = client.Options()


def _state(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "var" / "simulation.json").read_text())["agents"]
    return found


def test_a_fleet_is_enrolled_once_used_again_and_removed_whole(cli: Cli, tmp_path: Path) -> None:
    ran = cli("simulate", "--agents", "6", *FAST, "--command-share", "0.5", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["failures"] == {}
    assert told["agents"] == told["connections"] == 6
    assert told["counts"]["enqueued"] >= 4
    assert told["counts"]["delivered"] == told["counts"]["recorded"]
    assert told["durations"]["check_in"]["p99_ms"] > 0
    file = tmp_path / "var" / "simulation.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = _state(tmp_path)
    assert [one["number"] for one in first] == list(range(6))

    ran = cli("simulate", "--agents", "8", *FAST, "--protocol", "held")
    assert ran.code == 0, ran.err
    assert "8 agents held their calls, each on a connection of its own, for" in ran.out
    assert [one["agent_id"] for one in _state(tmp_path)][:6] == [one["agent_id"] for one in first]
    assert "failed" in ran.out
    listed = json.loads(cli("agents", "list", "--text", "simulated-", "--json").out)["agents"]
    assert {one["hostname"] for one in listed} == {f"simulated-{number:06d}" for number in range(8)}
    assert {one["os_version"] for one in listed} == {"simulated"}

    # What is not in the file is removed as well: it is known by its mark
    file.unlink()
    refused = cli("simulate", "--remove")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    ran = cli("simulate", "--remove", "--yes")
    assert (ran.code, ran.out) == (0, "8 simulated agents removed. Their history stays.\n")
    assert json.loads(cli("agents", "list", "--text", "simulated-", "--json").out)["agents"] == []
    assert not file.exists()
    assert json.loads(cli("simulate", "--remove", "--yes", "--json").out) == {"removed": 0}


def test_a_closed_loop_tells_what_the_server_can_do(cli: Cli) -> None:
    ran = cli("simulate", "--agents", "4", "--closed", "-c", "2", "--duration", "1")
    assert ran.code == 0, ran.err
    assert "2 connections asked without a pause, as 4 agents, for 1 s." in ran.out
    assert "µs a request" in ran.out
    assert cli("simulate", "--remove", "--yes").code == 0


async def _no_more_tries(owner: Any, tries: int) -> None:
    await owner.execute(
        "INSERT INTO rate_limits (key, tries, since) VALUES ('enrol:127.0.0.1', $1, now() - interval '298.5 s') "
        "ON CONFLICT (key) DO UPDATE SET tries = EXCLUDED.tries, since = EXCLUDED.since",
        tries,
    )


async def test_a_server_that_lets_no_more_enrol_is_waited_for_and_the_setting_is_named(
    make: Callable[..., Any], owner: Any, token: str, tmp_path: Path
) -> None:
    warned: list[str] = []
    with make(enrolment_tries=5) as small:
        await _no_more_tries(owner, 5)
        state = State.load(tmp_path / "simulation.json", small.url)
        membership = Membership(await find(small.url), state, token, lambda _: None, warned.append)
        await membership.enrol(4, Protocol.HELD, "")
        assert len(state.agents) == 4
        await membership.remove()
    (told,) = warned
    assert "set REDFLAG_ENROLMENT_TRIES to the number of agents" in told
    assert "this goes on by itself" in told


def test_another_machine_is_not_flooded_by_mistake(cli: Cli) -> None:
    ran = cli("--url", "http://192.0.2.1:8080", "simulate")
    assert ran.code == 4
    assert "http://192.0.2.1:8080 is another machine" in ran.err
    assert "--yes-this-is-my-server" in ran.err


def test_what_cannot_go_on_says_what_to_do(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "other.json"
    state.write_text('{"server": "http://127.0.0.1:1", "agents": []}')
    ran = cli("simulate", "--state", str(state))
    assert ran.code == 5
    assert "holds the simulated agents of http://127.0.0.1:1, not of" in ran.err
    state.write_text("[")
    assert cli("simulate", "--state", str(state)).code == 2
    url = client.options.url
    state.write_text(
        json.dumps({"server": url, "agents": [{"number": 0, "agent_id": "9f0f7c2e-0000-4000-8000-000000000000", "token": "a",
                                              "refresh": "b", "issued": 0}]})
    )  # fmt: skip
    ran = cli("simulate", "--state", str(state))
    assert ran.code == 3
    assert "does not know the simulated agents" in ran.err
    monkeypatch.delenv("REDFLAG_TOKEN")
    ran = cli("simulate")
    assert ran.code == 4
    assert "--enrolment-token" in ran.err
    assert cli("simulate", "--command-share", "0.1", "--commands-per-minute", "3").code == 2
    assert cli("--url", "http://127.0.0.1:1", "simulate").code == 6


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulation")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def test_tls_is_spoken_and_the_certificate_is_checked(cli: Cli, make: Callable[..., Any], tmp_path: Path) -> None:
    certificate, private = _certificate(tmp_path)
    with make(tls_cert=certificate, tls_key=private) as server:
        url = server.url.replace("http:", "https:")
        ran = cli("--url", url, "--ca-file", str(certificate), "simulate", "--agents", "3", *FAST, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["check_ins"] >= 3
        refused = cli("--url", url, "simulate", "--agents", "3", *FAST)
        assert refused.code == 6
        assert "certificate" in refused.err.lower()
        assert cli("--url", url, "--ca-file", str(certificate), "simulate", "--remove", "--yes").code == 0
