"""The commands that call the admin API, against a real server; what agents do is done over the agents' own protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import typer.main
import uvicorn

from redflag.access import tokens
from redflag.access.roles import Role
from redflag.alerts import rules
from redflag.audit import actor as actors
from redflag.cli import client
from redflag.cli.exits import ExitCode
from redflag.cli.main import app, main
from redflag.settings import Settings, settings
from redflag.web.app import make_app

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output of --json."""
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def url(migrated: None, dsn_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a free port, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    # One for all modules with a server, since they share a database, and its log has one key
    var = tmp_path_factory.getbasetemp() / "cli-var"
    var.mkdir(exist_ok=True)
    given = Settings(var=var, port=port, replica="cli-test", login_tries=1000, enrolment_tries=1000)
    server = uvicorn.Server(uvicorn.Config(make_app(given, dsn_server), lifespan="on", ws="none", log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{port}"
    _until(lambda: _answers(address))
    yield address
    server.should_exit = True
    thread.join(WAIT_SECONDS)


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}/healthz").is_success
    return False


def _until(condition: Callable[[], Any]) -> Any:
    """Waits for a condition; it is asked again at once, because each asking is a request."""
    for _ in range(100_000):
        if found := condition():
            return found
    raise AssertionError("it never came about")


@pytest_asyncio.fixture(scope="module")
async def token(pool: Any) -> str:
    """An administrator's API token."""
    async with pool.acquire() as connection:
        made, _ = await tokens.create(
            connection, actors.service("test", "here"), f"cli-{uuid.uuid4()}", Role.ADMIN, giver=Role.ADMIN
        )
    return made


@pytest.fixture
def cli(
    url: str, token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Cli]:
    """Runs one command of `redflag`."""
    monkeypatch.setenv("REDFLAG_URL", url)
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


class Host:
    """An agent, as the server sees it: it speaks the agents' protocol."""

    def __init__(self, url: str, enrolment: str) -> None:
        self.hostname = f"web-{uuid.uuid4().hex[:12]}"
        self._http = httpx.Client(base_url=url)
        body = {
            "hostname": self.hostname,
            "os_type": "linux",
            "os_version": "Debian 12",
            "agent_version": "1.0",
            "protocol": 1,
        }
        answer = self._http.post("/api/v1/agents/register", json=body, headers={"Authorization": f"Bearer {enrolment}"})
        assert answer.is_success, answer.text
        self.id: str = answer.json()["agent_id"]
        self._http.headers["Authorization"] = f"Bearer {answer.json()['token']}"

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def check_in(self, *held: str) -> list[dict[str, Any]]:
        """Comes by for commands."""
        answer = self._http.request(
            "GET", f"/api/v1/agents/{self.id}/commands", json={"protocol": 1, "held": list(held)}
        )
        assert answer.is_success, answer.text
        found: list[dict[str, Any]] = answer.json()["commands"]
        return found

    def report(self, command: str, result: str = "success", **more: Any) -> None:
        """Tells how a command ended."""
        body = {
            "command_id": command,
            "action": "scan_updates",
            "result": result,
            "exit_code": 0,
            "duration_seconds": 3,
        } | more
        answer = self._http.post(f"/api/v1/agents/{self.id}/logs", json=body)
        assert answer.is_success, answer.text

    def offer(self, *packages: str) -> None:
        """Tells what can be updated."""
        updates = [
            {
                "package_type": "apt",
                "package_name": name,
                "current_version": "1.0",
                "available_version": "1.1",
                "severity": "important",
            }
            for name in packages
        ]
        answer = self._http.post(f"/api/v1/agents/{self.id}/updates", json={"updates": updates})
        assert answer.is_success, answer.text


@pytest.fixture
def host(url: str, cli: Cli) -> Iterator[Host]:
    """A host that has enrolled with an invitation."""
    with Host(url, cli("agents", "invite", "--json").json["token"]) as enrolled:
        yield enrolled


def _send(cli: Cli, host: Host, *more: str) -> str:
    command: str = cli("commands", "send", "scan_updates", "--agent", host.id, "--json", *more).json["commands"][0][
        "id"
    ]
    return command


# Agents


def test_an_invitation_prints_the_one_command_to_paste_and_nothing_else_on_stdout(cli: Cli) -> None:
    ran = cli("agents", "invite", "--label", "rack 4", "--seats", "2", "--hours", "48")
    assert ran.code == 0
    assert re.fullmatch(r"curl -fsS \S+/agent/install.sh \| sudo sh -s -- \w{64}\n", ran.out)
    assert "2 hosts, 2 d" in ran.err


def test_a_host_that_enrolled_is_listed_as_online_by_its_name_or_a_tag(cli: Cli, host: Host) -> None:
    host.check_in()
    listed = cli("agents", "list", "--text", host.hostname)
    assert host.id in listed.out
    assert "online" in listed.out
    assert re.search(r"now|\d s ago", listed.out)
    label = f"tag-{uuid.uuid4().hex}"
    assert cli("agents", "tag", host.id, label, "second").out == f"{host.hostname} has the tags second {label}.\n"
    assert [row["id"] for row in cli("agents", "list", "--tag", label, "--json").json["agents"]] == [host.id]
    assert cli("agents", "tag", host.id, "--none").out == f"{host.hostname} has no tags.\n"


def test_the_json_of_a_list_is_the_apis_own(cli: Cli, host: Host, url: str, token: str) -> None:
    asked = {"text": host.hostname}
    theirs = httpx.get(f"{url}/api/v1/agents", params=asked, headers={"Authorization": f"Bearer {token}"}).json()
    assert len(theirs["agents"]) == 1
    assert cli("agents", "list", "--text", host.hostname, "--json").json == theirs


def test_an_agent_is_found_by_the_beginning_of_its_id_and_by_its_name(cli: Cli, host: Host) -> None:
    for given in (host.id, host.id[:12], host.hostname):
        shown = cli("agents", "show", given)
        assert shown.code == 0
        assert host.id in shown.out


def test_an_agent_that_is_not_there_is_said_in_one_sentence_with_the_next_step(cli: Cli) -> None:
    ran = cli("agents", "show", "ffffffffffff")
    assert (ran.code, ran.out) == (3, "")
    assert (
        ran.err
        == "redflag: No agent 'ffffffffffff': there is no id beginning with it and no name. See `redflag agents list`.\n"
    )


def test_a_beginning_that_fits_two_is_refused_and_names_both(cli: Cli, host: Host, url: str) -> None:
    name = f"same-{uuid.uuid4().hex}"
    with Host(url, cli("agents", "invite", "--json").json["token"]) as other:
        cli("agents", "rename", host.id, name)
        cli("agents", "rename", other.id, name)
        ran = cli("agents", "show", name)
        assert ran.code == 2
        assert host.id in ran.err
        assert other.id in ran.err


def test_an_agent_can_be_renamed_and_removed_and_is_then_listed_only_when_asked_for(cli: Cli, host: Host) -> None:
    assert cli("agents", "rename", host.id, "mail").out == f"{host.hostname} is now called mail.\n"
    _send(cli, host)
    refused = cli("agents", "remove", host.id)
    assert refused.code == 2
    assert "--yes" in refused.err
    assert "1 live command cancelled" in cli("agents", "remove", host.id, "--yes").out
    assert cli("agents", "list", "--text", host.hostname).out.startswith("There are no agents.")
    assert "removed" in cli("agents", "list", "--text", host.hostname, "--removed").out


def test_an_invitation_is_listed_and_can_be_ended(cli: Cli, url: str) -> None:
    label = f"label-{uuid.uuid4().hex}"
    made = cli("agents", "invite", "--label", label, "--json").json
    assert label in cli("agents", "invitations").out
    assert cli("agents", "uninvite", made["id"], "--yes").code == 0
    row = next(
        row for row in cli("agents", "invitations", "--json").json["enrolment_tokens"] if row["id"] == made["id"]
    )
    assert row["works"] is False


# Tokens and users


def test_a_token_is_printed_once_works_and_can_be_revoked_by_its_name(cli: Cli, url: str) -> None:
    name = f"ci-{uuid.uuid4().hex}"
    made = cli("tokens", "create", name, "--role", "viewer", "--hours", "2")
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.out)
    assert "viewer" in made.err
    let_in = httpx.get(f"{url}/api/v1/auth/me", headers={"Authorization": f"Bearer {made.out.strip()}"})
    assert let_in.json()["role"] == "viewer"
    assert re.search(rf"{name} .*viewer .*yes .*in 1 h", cli("tokens", "list").out)
    assert cli("tokens", "revoke", name, "--yes").code == 0
    assert re.search(rf"{name} .*revoked", cli("tokens", "list").out)
    assert made.out.strip() not in cli("tokens", "list", "--json").out


def test_a_role_that_is_none_is_wrong_usage(cli: Cli) -> None:
    ran = cli("tokens", "create", "x", "--role", "king")
    assert ran.code == 2
    assert "king" in ran.err


def test_a_token_that_may_not_do_something_is_told_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDFLAG_TOKEN", cli("tokens", "create", f"weak-{uuid.uuid4()}").out.strip())
    ran = cli("tokens", "list")
    assert ran.code == 4
    assert "manage_tokens" in ran.err


def test_a_user_is_made_with_a_generated_password_changed_kept_out_and_let_in(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"anna-{uuid.uuid4().hex[:8]}"
    made = cli("users", "create", name, "--role", "operator")
    assert made.code == 0
    assert len(made.out.strip()) >= 12
    assert re.search(rf"{name} +operator +yes +never", cli("users", "list").out)
    assert cli("users", "role", name, "auditor").out == f"{name} has the role auditor now.\n"
    assert "--yes" in cli("users", "disable", name).err
    assert cli("users", "disable", name, "--yes").code == 0
    assert re.search(rf"{name} +auditor +no, disabled", cli("users", "list").out)
    assert cli("users", "enable", name.upper()).code == 0
    monkeypatch.setattr("sys.stdin", _Lines("correct horse battery staple\n"))
    assert cli("users", "password", name, "--password-stdin").code == 0
    assert cli("users", "role", f"nobody-{name}", "viewer").code == 3


class _Lines:
    """A stdin that is no terminal."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)

    def readline(self) -> str:
        return self._lines.pop(0)

    def isatty(self) -> bool:
        return False


# Commands and their history


def test_a_command_is_told_as_a_timeline_from_its_first_event_to_its_last(cli: Cli, host: Host) -> None:
    command = _send(cli, host, "--param", "refresh=true")
    assert [one["id"] for one in host.check_in()] == [command]
    host.report(command, "failed", exit_code=100, stderr="E: no network", message="apt\tfailed")
    shown = cli("commands", "show", command[:30])
    assert shown.code == 0
    lines = shown.out
    enqueued = lines.index("scan_updates was enqueued")
    sent = lines.index("scan_updates was handed to the agent")
    ended = lines.index("scan_updates failed after 3 s (exit code 100): apt failed")
    assert enqueued < sent < ended
    assert '{"refresh": true}' in lines
    assert "E: no network" in lines
    assert cli("commands", "show", command, "--json").json["command"]["status"] == "failed"


def test_a_command_that_is_waited_for_gives_exit_code_0_when_it_completes_and_1_when_not(
    cli: Cli, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, ask = threading.Event(), client.Client.get

    def look(self: client.Client, path: str, *more: Any, **others: Any) -> Any:
        answer = ask(self, path, *more, **others)
        if path.startswith("/api/v1/commands/"):
            looked.set()
        return answer

    def answer(result: str) -> None:
        # Not before it is waited for
        commands = _until(host.check_in)
        assert looked.wait(WAIT_SECONDS)
        host.report(commands[0]["id"], result)

    monkeypatch.setattr(client.Client, "get", look)
    for result, code, told in (
        ("success", 0, "scan_updates succeeded after 3 s"),
        ("failed", 1, "scan_updates failed after 3 s"),
    ):
        looked.clear()
        agent = threading.Thread(target=answer, args=(result,))
        agent.start()
        ran = cli("commands", "send", "scan_updates", "--agent", host.hostname, "--wait")
        agent.join()
        assert ran.code == code, ran.err
        assert ran.out == f"{host.hostname}: {told}\n"
        assert "Waiting for scan_updates" in ran.err


def test_a_live_command_can_be_cancelled_with_a_reason_and_retried_once_it_has_ended(cli: Cli, host: Host) -> None:
    command = _send(cli, host)
    assert re.search(r"in \d+ min if not delivered", cli("commands", "list", "--agent", host.id, "--live").out)
    too_early = cli("commands", "retry", command)
    assert too_early.code == 5
    assert "still pending" in too_early.err
    assert cli("commands", "cancel", command, "--reason", "not today", "--yes").code == 0
    assert "was cancelled: not today" in cli("commands", "show", command).out
    assert cli("commands", "cancel", command, "--yes").code == 5
    again = cli("commands", "retry", command, "--json").json["command"]["id"]
    assert f"as a retry of {command}" in cli("commands", "show", again).out
    assert (
        cli("commands", "list", "--agent", host.id, "--status", "cancelled", "--json").json["commands"][0]["id"]
        == command
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--param", "refresh"], "NAME=VALUE"),
        (["--params", "[1]"], "no JSON object"),
        (["--params", "{"], "no JSON:"),
    ],
)
def test_parameters_that_cannot_be_read_are_refused_before_anything_is_sent(
    cli: Cli, arguments: list[str], said: str
) -> None:
    ran = cli("commands", "send", "scan_updates", "--agent", str(uuid.uuid4()), *arguments)
    assert ran.code == 2
    assert said in ran.err


def test_parameters_keep_versions_as_text_and_take_json_for_lists(cli: Cli, host: Host) -> None:
    command = _send(
        cli,
        host,
        "--params",
        '{"a": 1}',
        "--param",
        "version=1.10",
        "--param",
        "n=5",
        "--param",
        'packages=["x"]',
        "--param",
        "e=",
    )
    given = cli("commands", "show", command, "--json").json["command"]["params"]
    assert given == {"a": 1, "version": "1.10", "n": 5, "packages": ["x"], "e": ""}


def test_a_reboot_is_asked_for_once_more(cli: Cli, host: Host) -> None:
    assert "--yes" in cli("commands", "send", "reboot", "--agent", host.id).err
    assert cli("commands", "send", "reboot", "--agent", host.id, "--yes").code == 0


async def _overdue(superuser_or_owner: Any, command: str) -> None:
    await superuser_or_owner.execute(
        "UPDATE agent_commands SET next_deadline_at = now() WHERE id = $1", uuid.UUID(command)
    )


async def test_a_timeout_is_told_in_the_history_and_can_be_left_out(cli: Cli, host: Host, owner: Any) -> None:
    command = await asyncio.to_thread(_send, cli, host)
    await _overdue(owner, command)

    def ended() -> bool:
        return cli("commands", "show", command, "--json").json["command"]["status"] == "timed_out"

    await asyncio.to_thread(_until, ended)
    told = await asyncio.to_thread(cli, "history", "--agent", host.id, "--result", "timed_out")
    assert re.search(
        rf"{host.hostname}: scan_updates timed out after \S+ s: it was not delivered within 30 min 0 s; detected by cli-test, "
        r"[\d.]+ s late  \(by timeout service on cli-test\)",
        told.out,
    )
    without = await asyncio.to_thread(cli, "history", "--command", command, "--no-timeouts", "--json")
    assert [event["result"] for event in without.json["events"]] == ["pending"]


def test_the_history_can_be_asked_for_since_a_while_and_streamed_to_its_end(cli: Cli, host: Host) -> None:
    for _ in range(3):
        _send(cli, host)
    two = cli("history", "--agent", host.id, "--type", "scan_updates", "--since", "1h", "--limit", "2")
    assert two.out.count("was enqueued") == 2
    assert "more than these 2" in two.err
    everything = cli("history", "--agent", host.id, "--type", "scan_updates", "--all")
    assert everything.out.count("was enqueued") == 3
    assert cli("history", "--agent", host.id, "--until", "1h").out == "Nothing of this kind is recorded.\n"
    assert cli("history", "--since", "yesterday").code == 2


def test_what_a_host_sends_cannot_steer_the_terminal(cli: Cli, host: Host) -> None:
    command = _send(cli, host)
    host.check_in()
    host.report(command, "failed", message="\x1b[2Jgone")
    for ran in (cli("commands", "show", command), cli("history", "--command", command)):
        assert "\x1b" not in ran.out
        assert "gone" in ran.out


# Updates


def test_updates_are_listed_approved_rejected_and_shown(cli: Cli, host: Host) -> None:
    good, bad = f"good-{uuid.uuid4().hex[:8]}", f"bad-{uuid.uuid4().hex[:8]}"
    host.offer(good, bad)
    listed = cli("updates", "list", "--agent", host.id)
    assert re.search(rf"{host.hostname} +{good} +1.0 +1.1 +important +pending", listed.out)
    ids = {
        row["package_name"]: row["id"]
        for row in cli("updates", "list", "--agent", host.hostname, "--json").json["updates"]
    }
    assert cli("updates", "approve", ids[good]).out == f"{good} {ids[good]} is approved.\n"
    assert cli("updates", "reject", ids[bad]).code == 2
    assert cli("updates", "reject", ids[bad], "--reason", "breaks mail").code == 0
    assert "breaks mail" in cli("updates", "show", ids[bad]).out
    packages = cli("updates", "packages", "--text", good)
    assert re.search(rf"{good} +apt +1 +important +1.1 +1 approved", packages.out)


def test_a_decision_that_is_refused_is_told_with_why_and_gives_exit_code_5(cli: Cli, host: Host) -> None:
    name = f"early-{uuid.uuid4().hex[:8]}"
    host.offer(name)
    update = cli("updates", "list", "--agent", host.id, "--json").json["updates"][0]["id"]
    ran = cli("updates", "install", update)
    assert ran.code == 5
    assert f"{update} is pending. Nobody has approved it: approve it first." in ran.err


def test_an_installation_that_is_waited_for_tells_what_became_of_it(cli: Cli, host: Host) -> None:
    name = f"pkg-{uuid.uuid4().hex[:8]}"
    host.offer(name)
    update = cli("updates", "list", "--agent", host.id, "--json").json["updates"][0]["id"]
    cli("updates", "approve", update)

    def agent() -> None:
        examination = _until(host.check_in)[0]
        assert examination["type"] == "dry_run_update"
        host.report(examination["id"], "failed", action="dry_run_update", message="dpkg is locked")

    worker = threading.Thread(target=agent)
    worker.start()
    ran = cli("updates", "install", update, "--wait")
    worker.join()
    assert ran.code == 1
    assert name in ran.out
    assert "dpkg is locked" in ran.out


# Timeouts


def test_the_timeout_service_tells_its_state_and_runs_by_hand_under_the_callers_name(cli: Cli) -> None:
    ran = cli("timeouts", "run")
    assert ran.code == 0
    assert "timed out" in ran.out
    status = cli("timeouts", "status")
    assert re.search(r"last success +(now|\d+ s ago)", status.out)
    assert "cli-test" in status.out
    told = cli("history", "--kind", "service", "--text", "by hand", "--limit", "1")
    assert re.search(r"ran the timeout service by hand: \d+ timed out  \(by token cli-", told.out)


def test_what_expires_next_is_shown_with_when_and_why(cli: Cli, host: Host) -> None:
    command = _send(cli, host)
    shown = cli("timeouts", "preview", "--within", "40m", "--limit", "500")
    assert re.search(rf"{command} +{host.hostname} +scan_updates +pending +in \d+ min +delivery timeout", shown.out)
    assert cli("timeouts", "preview", "--within", "soon").code == 2


def test_a_policy_is_set_in_words_and_shown_in_words(cli: Cli) -> None:
    name = f"type_{uuid.uuid4().hex[:8]}"
    said = cli("timeouts", "set", name, "--delivery", "90s", "--execution", "1h30m", "--idle", "5m")
    assert said.out == f"{name}: delivery 1 min 30 s, start 1 min, execution 1 h 30 min, idle 5 min.\n"
    assert "idle none" in cli("timeouts", "set", name, "--no-idle").out
    assert re.search(rf"{name} +1 min 30 s +1 min +1 h 30 min +none", cli("timeouts", "policies").out)
    assert cli("timeouts", "set", name).code == 2
    assert cli("timeouts", "set", "../users", "--delivery", "90s").code in {2, 3}


def test_a_policy_is_applied_to_live_commands_after_a_yes(cli: Cli, host: Host) -> None:
    name = f"type_{uuid.uuid4().hex[:8]}"
    assert cli("commands", "send", name, "--agent", host.id).code == 0
    assert "--yes" in cli("timeouts", "set", name, "--delivery", "3h", "--apply-to-live").err
    assert (
        "Applied to 1 live command." in cli("timeouts", "set", name, "--delivery", "3h", "--apply-to-live", "--yes").out
    )


# Doctor


def test_doctor_finds_a_whole_installation_well(
    cli: Cli, url: str, dsn_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "var").mkdir(mode=0o700)
    monkeypatch.setenv("REDFLAG_PUBLIC_URL", url)
    monkeypatch.setenv("REDFLAG_DATABASE_URL", dsn_server)
    settings.cache_clear()
    ran = cli("doctor", "--json")
    verdicts = {check["name"]: check["verdict"] for check in ran.json["checks"]}
    assert {name: verdict for name, verdict in verdicts.items() if verdict == "not checked"} == {}
    # Other tests violate constraints on purpose, and this machine's disk is as full as it is
    machine = {"disk", "file descriptors", "refused records", "failed sweeps", "timeout lag"}
    assert {name for name, verdict in verdicts.items() if verdict != "ok" and not name.startswith("alert ")} <= machine
    assert {
        "server",
        "database",
        "database version",
        "migrations",
        "server role",
        "clock",
        "timeout service",
        "partitions",
        "replication",
    } <= set(verdicts)
    assert {name for name in verdicts if name.startswith("alert ")} == {
        *(f"alert {rule.name}" for rule in rules.RULES),
    }


def test_doctor_fails_a_server_role_that_owns_the_tables_and_a_folder_that_others_may_read(
    cli: Cli, url: str, dsn_owner: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "var"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "cli-token").write_text("secret")
    (folder / "cli-token").chmod(0o644)
    monkeypatch.setenv("REDFLAG_PUBLIC_URL", url)
    monkeypatch.setenv("REDFLAG_DATABASE_URL", dsn_owner)
    settings.cache_clear()
    ran = cli("doctor")
    assert ran.code == 7
    assert re.search(r"failed +server role +redflag_owner owns the tables", ran.out)
    assert re.search(r"failed +permissions .*var has 0755.*cli-token has 0644", ran.out)
    assert f"chmod 0700 {folder}; chmod 0600 {folder / 'cli-token'}" in ran.out
    assert "attention" in ran.err


def test_doctor_says_what_it_could_not_check_of_another_host(cli: Cli) -> None:
    ran = cli("doctor")
    assert re.search(r"ok +server +answers at", ran.out)
    assert re.search(r"ok +migrations +all \d+ applied", ran.out)
    assert re.search(r"not checked +database version, .*partitions, replication +it needs the database", ran.out)


def test_doctor_without_a_server_says_how_to_start_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("REDFLAG_URL", f"http://127.0.0.1:{port}")
    ran = cli("doctor")
    assert ran.code == 7
    assert re.search(r"failed +server .*does not answer", ran.out)


# The reference page


def _commands(group: Any, name: str = "redflag") -> Iterator[tuple[str, str]]:
    for child, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {child}")
        else:
            yield f"{name} {child}", (command.help or "").split("\n\n")[0].replace("\n", " ").strip()


def test_the_reference_page_has_one_line_for_every_command_with_its_own_words() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md").read_text()
    told = re.findall(r"^\| `(redflag [a-z -]+?)(?: [A-Z].*)?` \| (.+) \|$", page, re.MULTILINE)
    assert dict(told) == dict(_commands(typer.main.get_command(app)))
    assert len(told) == len(dict(told))


def test_the_reference_page_names_every_exit_code() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == set(ExitCode)
