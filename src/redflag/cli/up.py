"""`redflag up`, `down` and `status`: the whole installation on this machine, in the background.

`up` brings up what is missing and leaves alone what is there, so that it can be run again at any time: the database, its
schema, the first administrator, the server, an agent for this very host, that agent's first scan. What it makes up only
once (the administrator's password, the token) it also shows only once, even when a later step fails.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Annotated, Any

import httpx
import typer

import redflag
from redflag.cli import access, checks, client, databases, host_agent, output
from redflag.cli.checks import Check, Verdict
from redflag.cli.client import Client
from redflag.cli.exits import NeedsAttention, ServerUnreachable
from redflag.cli.place import Place, place
from redflag.cli.processes import program, server_environment
from redflag.cli.server import GRACE_SECONDS, listen
from redflag.errors import Conflict, ProcessError, RedFlagError
from redflag.settings import Settings, settings
from redflag.supervisor import Stopped, exclusive_lock, make_private_folder

START_SECONDS = 60.0
SCAN_SECONDS = 180.0
AGENT_STOP_SECONDS = 30.0
# Longer than the server gives the requests under way and its own background work
SERVER_STOP_SECONDS = GRACE_SECONDS + 30.0
POLL_SECONDS = 0.25


def up(
    agent: Annotated[bool, typer.Option("--agent/--no-agent", help="Enrol this host and run its agent.")] = True,
) -> None:
    """Start everything: database, server, and an agent for this host. Safe to run again."""
    here = settings()
    folder = place(here)
    make_private_folder(folder.root)
    with exclusive_lock(folder.run / "up.lock"):
        running = folder.server_runs()
        if running:
            _require_same_port(here, folder)
        else:
            listen(here).close()
        databases.start(here, make=True) if here.embedded else None
        with output.progress("Preparing the database"):
            applied = databases.run(databases.migrated(here))
            made = databases.run(access.ensure(here, folder))
        try:
            _start_server(here, folder, restart=running and bool(applied))
            scanned = _start_agent(here, folder) if agent else ""
        except BaseException:
            _show_secrets(folder, made)
            raise
        _show_running(here, folder, made, scanned, already=running)


def down() -> None:
    """Stop everything that `redflag up` started: the agent, the server (requests under way are finished), the database."""
    here = settings()
    folder = place(here)
    if not folder.root.is_dir():
        output.say(f"Nothing runs: there is no data folder {folder.root}.")
        return
    with exclusive_lock(folder.run / "up.lock"):
        with output.progress("Stopping the agent"):
            _say_stopped("The agent", folder.agent_daemon().stop(AGENT_STOP_SECONDS))
        with output.progress("Stopping the server"):
            _say_stopped("The server", folder.server_daemon().stop(SERVER_STOP_SECONDS))
        if folder.server_runs():
            raise Conflict(
                f"A server that `redflag up` did not start still runs on {folder.root}",
                "Stop it where it was started, as by systemctl stop redflag; its database was left running",
            )
        if here.embedded:
            with output.progress("Stopping the database"):
                stopped = databases.embedded(here).stop()
            output.say("The database: stopped." if stopped else "The database: was not running.")


def status(as_json: output.AsJson = False) -> None:
    """What runs on this machine, in short. Exit code 7 when something does not; `redflag doctor` says more."""
    here = settings()
    folder = place(here)
    url = client.own_url(here, folder)
    answer = health(here, folder)
    database = databases.embedded(here).running() if here.embedded else None
    agent = folder.agent_daemon().status()
    enrolled = host_agent.enrolled(folder)
    found: dict[str, Any] = {
        "data_folder": str(folder.root),
        "url": url,
        "server": {"running": folder.server_runs(), "pid": folder.server_daemon().status(), "answers": answer},
        "database": {"embedded": here.embedded, "running": database},
        "agent": {"enrolled": enrolled, "running": agent is not None, "pid": agent},
        "version": redflag.__version__,
    }
    log = _log(here, folder) if answer else None
    found["log"] = log and log.as_json()
    runs = answer and database is not False and (agent is not None or not enrolled)
    whole = runs and (log is None or log.verdict != Verdict.FAILED)
    if as_json:
        output.print_json(found | {"ok": whole})
    else:
        output.print_facts(
            [
                (
                    "Server",
                    f"{_running(found['server'])}{', answers at ' + url if answer else ', does not answer at ' + url}",
                ),
                ("Database", "your own" if database is None else "running" if database else "not running"),
                ("Agent", _running(found["agent"]) if enrolled else "this host is not enrolled"),
                ("Audit log", log.found if log else "not asked"),
                ("Data folder", folder.root),
                ("Version", redflag.__version__),
            ]
        )
    if not runs:
        raise NeedsAttention("Not everything runs", "Start it with `redflag up`, or ask `redflag doctor`")
    if log is not None and log.verdict == Verdict.FAILED:
        raise NeedsAttention("The audit log needs attention", log.next_step)


def _log(here: Settings, folder: Place) -> Check | None:
    """How the log is, as the server says; None where it does not say."""
    with contextlib.suppress(RedFlagError), _own_client(here, folder, folder.read(folder.cli_token)) as api:
        told = api.get("/api/v1/status")
        return checks.audit_log(told["log"], checks.stopped(told["alerts"]))
    return None


def health(here: Settings, folder: Place) -> bool:
    """Whether the server of the data folder answers and reaches its database."""
    try:
        with _own_client(here, folder) as api:
            return bool(api.get("/healthz")["status"] == "ok")
    except (ServerUnreachable, KeyError, TypeError):
        return False


def _own_client(here: Settings, folder: Place, token: str = "") -> Client:
    tls = client.pinned(here.tls_cert) if here.tls_cert is not None else None
    return Client(client.own_url(here, folder), token, tls=tls, timeout=httpx.Timeout(30.0, connect=5.0))


def _require_same_port(here: Settings, folder: Place) -> None:
    running, asked = client.own_url(here, folder), client.local_url(here)
    if running != asked and {"port", "host"} & here.model_fields_set:
        raise Conflict(
            f"The server of {folder.root} runs already, at {running} and not at {asked}",
            "Stop it first: make down. Or choose another data folder: make up VAR=var2",
        )


def _start_server(here: Settings, folder: Place, *, restart: bool) -> None:
    daemon = folder.server_daemon()
    if daemon.status() is not None and (restart or _is_other_release(here, folder)):
        with output.progress("Restarting the server, for its new release"):
            daemon.stop(SERVER_STOP_SECONDS)
    with output.progress("Starting the server"):
        if not folder.server_runs():
            folder.server_url.unlink(missing_ok=True)  # a server that was killed leaves it behind
            daemon.start(program("redflag.cli.main", "server"), server_environment(here), folder.root)
        if daemon.status() is None and folder.server_runs():
            _wait_for_foreign_server(here, folder)
            return
        daemon.wait_until(lambda: health(here, folder), START_SECONDS, f"answering at {client.local_url(here)}")


def _wait_for_foreign_server(here: Settings, folder: Place) -> None:
    ends = time.monotonic() + START_SECONDS
    while not health(here, folder):
        if time.monotonic() > ends:
            raise ProcessError(
                f"A server that `redflag up` did not start holds {folder.root} and does not answer", "See its own log"
            )
        time.sleep(POLL_SECONDS)


def _is_other_release(here: Settings, folder: Place) -> bool:
    with contextlib.suppress(Exception), _own_client(here, folder, folder.read(folder.cli_token)) as api:
        return bool(api.get("/api/v1/status")["version"] != redflag.__version__)
    return False


def _start_agent(here: Settings, folder: Place) -> str:
    """Enrols this host when it is not, runs its agent, and waits for the first scan. Returns what to say of that."""
    with _own_client(here, folder, folder.read(folder.cli_token)) as api:
        standing = host_agent.standing(api, folder)
        if standing is host_agent.Standing.REMOVED:
            return (
                "This host's agent was removed by an administrator and does not run; remove its state to enrol it anew."
            )
        daemon = folder.agent_daemon()
        command = ""
        if standing is host_agent.Standing.NONE:
            with output.progress("Enrolling this host"):
                daemon.stop(AGENT_STOP_SECONDS)
                agent_id = host_agent.enrol(here, folder, api)
                command = host_agent.enqueue_scan(api, agent_id)
        elif host_agent.is_elsewhere(here, folder):
            daemon.stop(AGENT_STOP_SECONDS)
            host_agent.point_here(here, folder)
        if daemon.status() is None:
            daemon.start(
                program("redflag_agent", "run", "--state-dir", str(folder.agent)),
                host_agent.environment(),
                folder.root,
            )
        return _wait_for_scan(api, folder, command) if command else ""


def _wait_for_scan(api: Client, folder: Place, command: str) -> str:
    daemon = folder.agent_daemon()
    ends = time.monotonic() + SCAN_SECONDS
    with output.progress("Waiting for this host's first scan") as tell:
        while time.monotonic() < ends:
            shown = api.get(f"/api/v1/commands/{command}")
            state = shown["command"]["status"]
            if state == "completed":
                return "This host was scanned for updates: see `redflag updates list`."
            if state not in {"pending", "sent", "running"}:
                said = next((one["message"] for one in reversed(shown["events"]) if one.get("message")), "")
                return f"This host's first scan {state.replace('_', ' ')}: {said or 'see `redflag history`'}"
            if daemon.status() is None:
                return f"This host's agent has ended; see {folder.agent_log}."
            tell(state)
            time.sleep(POLL_SECONDS)
    return (
        f"This host's first scan has not ended within {SCAN_SECONDS:.0f} s; it goes on. "
        f"See `redflag commands show {command}` and {folder.agent_log}."
    )


def _show_running(here: Settings, folder: Place, made: access.Made, scanned: str, *, already: bool) -> None:
    local, does = client.own_url(here, folder), "runs already" if already else "runs"
    where = f"{here.url} (on this machine {local})" if here.public_url else local
    output.say(f"RedFlag {redflag.__version__} {does} at {where}", style="bold green")
    if scanned:
        output.say(scanned)
    with _own_client(here, folder, folder.read(folder.cli_token)) as api:
        log = api.get("/api/v1/audit/log")
    output.say(f"The audit log's key has the fingerprint SHA-256 {log['fingerprint']}")
    _show_secrets(folder, made)
    cli = os.environ.get("REDFLAG_CLI", "redflag")
    output.say("")
    output.say("Next:")
    output.print_facts(
        [
            (f"  {cli} agents list", "the hosts, and whether they are there"),
            (f"  {cli} agents invite", "a command to paste on another host"),
            (f"  {cli} doctor", "is everything as it should be"),
            ("  make logs", "what it does; make down stops it"),
        ]
    )


def _show_secrets(folder: Place, made: access.Made) -> None:
    """What was made just now and is never shown again."""
    if not (made.password or made.token):
        return
    output.say("")
    output.say("Shown this once:", style="bold")
    facts = []
    if made.password:
        facts += [
            ("  Administrator", "admin"),
            ("  Password", f"{made.password}   (to be changed at the first log-in)"),
        ]
    if made.token:
        facts += [("  API token", made.token), ("", f"the command line keeps it in {folder.cli_token}")]
    output.print_facts(facts)


def _say_stopped(name: str, how: Stopped) -> None:
    output.say(f"{name}: {how.value}.")


def _running(part: dict[str, Any]) -> str:
    if not part["running"]:
        return "not running"
    return f"running (pid {part['pid']})" if part["pid"] else "running"
