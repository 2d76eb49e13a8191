"""`redflag up`, `status`, `env`, `down`: as often as one likes, and after every accident."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess

import httpx
import pytest

from redflag.database.embedded import EmbeddedDatabase
from redflag.supervisor import Process, started_at

from .conftest import Installation

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: \S")


def token_of(installation: Installation) -> str:
    return (installation.var / "cli-token").read_text().strip()


def server_process(installation: Installation) -> Process:
    pid, started = (installation.var / "run" / "server.pid").read_text().splitlines()
    return Process(int(pid), started)


def test_the_first_up_shows_the_administrator_the_password_and_the_token(installation: Installation) -> None:
    assert "Administrator  admin" in installation.first_words
    password = re.search(r"Password +(\S+)", installation.first_words)
    assert password
    answer = httpx.post(f"{installation.url}/api/v1/auth/login", json={"username": "admin", "password": password[1]})
    assert answer.status_code == 200, answer.text
    assert token_of(installation) in installation.first_words


def test_up_again_is_fine_says_so_and_shows_no_secret(installation: Installation) -> None:
    before = server_process(installation)
    again = installation.redflag("up")
    assert again.returncode == 0, again.stderr
    assert "runs already" in again.stdout
    assert "Password" not in again.stdout
    assert token_of(installation) not in again.stdout
    assert server_process(installation) == before


def test_this_host_is_an_agent_and_was_scanned(installation: Installation) -> None:
    with httpx.Client(base_url=installation.url, headers={"Authorization": f"Bearer {token_of(installation)}"}) as api:
        agents = api.get("/api/v1/agents").json()["agents"]
        scans = api.get("/api/v1/commands", params={"command_type": "scan_updates", "limit": 500}).json()["commands"]
    assert len(agents) == 1
    assert {one["agent_id"] for one in scans} == {agents[0]["id"]}
    assert scans[-1]["status"] in {"completed", "failed"}, "the first of them has ended before up did"


def test_who_made_the_first_administrator_and_the_tokens_is_recorded(installation: Installation) -> None:
    made = installation.sql(
        "SELECT action, actor FROM update_logs WHERE action IN ('user_created', 'token_created') ORDER BY created_at LIMIT 2"
    )
    host = socket.gethostname()
    assert made.splitlines() == [f"user_created|service:up@{host}", f"token_created|service:up@{host}"]


def test_secrets_are_readable_by_their_owner_only(installation: Installation) -> None:
    for name in ("cli-token", "log/server.log", "log/agent.log", "run/server.pid"):
        assert stat.S_IMODE((installation.var / name).stat().st_mode) == 0o600, name
    for name in ("database", "agent", "log", "run"):
        assert stat.S_IMODE((installation.var / name).stat().st_mode) == 0o700, name
    # Root's PostgreSQL may have to pass through as another user; nobody may look around
    assert stat.S_IMODE(installation.var.stat().st_mode) & 0o066 == 0


def test_every_line_of_the_log_has_a_time_a_level_and_no_secret(installation: Installation) -> None:
    httpx.get(f"{installation.url}/healthz?secret=in-the-address")
    text = (installation.var / "log" / "server.log").read_text()
    assert text
    assert [line for line in text.splitlines() if not LINE.match(line)] == []
    assert "in-the-address" not in text
    assert token_of(installation) not in text


def test_answers_do_not_name_the_server_software(installation: Installation) -> None:
    assert "server" not in httpx.get(f"{installation.url}/healthz").headers


def test_status_says_what_runs(installation: Installation) -> None:
    done = installation.redflag("status", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["url"] == installation.url
    assert told["server"]["answers"]
    assert told["agent"]["running"]


def test_status_of_nothing_has_an_exit_code_of_its_own(another: Installation) -> None:
    done = another.redflag("status")
    assert done.returncode == 7
    assert "Traceback" not in done.stderr


def test_env_gives_a_script_all_it_needs(installation: Installation) -> None:
    env = installation.assignments()
    assert set(env) == {"REDFLAG_URL", "REDFLAG_TOKEN", "REDFLAG_DSN", "REDFLAG_SUPERUSER_DSN", "REDFLAG_LOG"}
    answer = httpx.get(f"{env['REDFLAG_URL']}/metrics", headers={"Authorization": f"Bearer {env['REDFLAG_TOKEN']}"})
    assert answer.status_code == 200
    psql = EmbeddedDatabase(installation.var / "database").tool("psql")
    for name, role in (("REDFLAG_DSN", "redflag_owner|f"), ("REDFLAG_SUPERUSER_DSN", "postgres|t")):
        who = "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user"
        done = subprocess.run([psql, env[name], "-XAtwc", who], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == role
    assert env["REDFLAG_LOG"] == str(installation.var / "log" / "server.log")


def test_every_env_makes_a_token_of_its_own_for_twelve_hours_and_records_it(installation: Installation) -> None:
    first, second = installation.assignments(), installation.assignments()
    assert first["REDFLAG_TOKEN"] != second["REDFLAG_TOKEN"]
    hours = installation.sql(
        "SELECT DISTINCT expires_at - created_at FROM api_tokens WHERE name LIKE 'env-%' AND role = 'admin'"
    )
    assert hours == "12:00:00"
    unrecorded = installation.sql(
        "SELECT count(*) FROM api_tokens t WHERE name LIKE 'env-%' AND NOT EXISTS (SELECT FROM update_logs u "
        "WHERE u.action = 'token_created' AND u.actor LIKE 'service:env@%' AND u.metadata ->> 'subject_id' = t.id::text)"
    )
    assert unrecorded == "0"


def test_a_port_of_somebody_else_is_named_at_once(another: Installation) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", another.port))
        somebody.listen()
        done = another.redflag("up")
    assert done.returncode == 5
    assert f"Port {another.port} is taken" in done.stderr
    assert f"make up PORT={another.port + 1}" in done.stderr
    assert not (another.var / "database").exists(), "nothing was made before the port was asked for"


def test_one_data_folder_is_not_served_on_two_ports(installation: Installation, another: Installation) -> None:
    done = installation.redflag("up", REDFLAG_PORT=str(another.port))
    assert done.returncode == 5
    assert installation.url in done.stderr
    second = installation.redflag("server", REDFLAG_PORT=str(another.port))
    assert second.returncode == 5
    assert "runs on" in second.stderr


def test_requests_under_way_are_finished_and_a_killed_server_comes_back_as_it_was(installation: Installation) -> None:
    # One installation for both: each start takes seconds
    enrolment = (installation.var / "agent" / "config.json").read_text()
    body = b'{"name": "while-stopping", "role": "viewer"}'
    head = (
        f"POST /api/v1/tokens HTTP/1.1\r\nHost: redflag\r\nAuthorization: Bearer {token_of(installation)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    server = server_process(installation)
    with socket.create_connection(("127.0.0.1", installation.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:10])
        log = installation.var / "log" / "server.log"
        said = log.stat().st_size
        server.send(signal.SIGTERM)
        while b"Waiting for connections to close" not in log.read_bytes()[said:]:
            assert not server.wait(0.05)
        connection.sendall(body[10:])
        assert b" 201 " in connection.makefile("rb").readline()
    assert server.wait(30)

    assert installation.redflag("status").returncode == 7
    assert installation.redflag("up").returncode == 0
    killed = server_process(installation)
    killed.send(signal.SIGKILL)
    assert killed.wait(10)
    again = installation.redflag("up")
    assert again.returncode == 0, again.stderr
    assert "Password" not in again.stdout
    assert server_process(installation) != killed
    assert (installation.var / "agent" / "config.json").read_text() == enrolment, "the agent stays who it was"


def test_a_token_of_the_folder_that_was_lost_is_revoked_and_made_anew(installation: Installation) -> None:
    lost = token_of(installation)
    (installation.var / "cli-token").unlink()
    assert installation.redflag("up").returncode == 0
    assert token_of(installation) != lost
    live = installation.sql("SELECT count(*) FROM api_tokens WHERE name LIKE 'cli@%' AND revoked_at IS NULL")
    assert live == "1"


def test_down_stops_everything_and_twice_is_fine(another: Installation) -> None:
    assert another.redflag("up", "--no-agent").returncode == 0
    server = server_process(another)
    postmaster = int((another.var / "database" / "data" / "postmaster.pid").read_text().splitlines()[0])
    assert started_at(postmaster)
    first = another.redflag("down")
    assert first.returncode == 0, first.stderr
    assert "The server: stopped." in first.stdout
    assert not server.alive()
    assert started_at(postmaster) is None
    second = another.redflag("down")
    assert second.returncode == 0
    assert "The server: was not running." in second.stdout


@pytest.mark.parametrize("command", [["env"], ["db", "status"], ["db", "psql"], ["backup", "nowhere/x"]])
def test_without_a_database_a_command_says_how_to_start_one(another: Installation, command: list[str]) -> None:
    done = another.redflag(*command)
    assert done.returncode == 6
    assert "up" in done.stderr
    assert "Traceback" not in done.stderr
