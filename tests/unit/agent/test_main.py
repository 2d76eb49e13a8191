"""The command line, run as a program."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from redflag_agent import __version__, config, packages
from redflag_agent.api import Api
from redflag_agent.files import StateLock
from redflag_agent.journal import JOURNAL_NAME, Journal
from redflag_agent.witness import STATE_NAME, Witness
from unit.agent.fake_log import FakeLog
from unit.agent.fake_server import AGENT_ID, REGISTRATION_TOKEN, FakeServer

SOURCE = Path(__file__).parents[3] / "src"
COMMAND = "0198c0de-0000-7000-8000-00000000000c"


def agent(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "redflag_agent", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_enroll_registers_the_host_and_keeps_the_enrolment_private(server: FakeServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(REGISTRATION_TOKEN + "\n")
    state = tmp_path / "a" / "state"

    done = agent("enroll", "--server", server.url + "/", "--token-file", token, "--state-dir", state)

    assert done.returncode == 0, done.stderr
    assert f"Enrolled with {server.url} as {AGENT_ID}" in done.stdout
    assert "unencrypted" in done.stderr
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "config.json").stat().st_mode) == 0o600
    saved = config.load(state)
    assert (saved.server, saved.access_token, saved.allow_reboot) == (server.url, "access-1", False)
    body = server.calls[0].body
    assert body["protocol"] == 1
    assert body["registration_token"] == REGISTRATION_TOKEN
    assert body["os_type"] in {"linux", "darwin"}
    assert body["agent_version"] == __version__
    assert all(isinstance(value, str) for value in body["metadata"].values())


def test_the_token_can_come_from_standard_input_and_the_answer_as_json(server: FakeServer, tmp_path: Path) -> None:
    done = agent(
        "enroll",
        "--server",
        server.url,
        "--token-stdin",
        "--json",
        "--state-dir",
        tmp_path / "s",
        stdin=REGISTRATION_TOKEN,
    )

    assert json.loads(done.stdout)["agent_id"] == AGENT_ID


def test_an_enrolment_is_not_replaced_without_force_and_the_old_journal_is_put_aside(
    server: FakeServer, state: Path
) -> None:
    journal = Journal(state)
    journal.received(COMMAND, "scan_updates", {})
    journal.close()
    settings = config.load(state)
    settings.allow_commands = ["scan_updates"]
    config.save(state, settings)
    arguments = ["enroll", "--server", server.url, "--token", REGISTRATION_TOKEN, "--state-dir", state]

    refused = agent(*arguments)
    assert refused.returncode == 3
    assert "enrolled already" in refused.stderr
    assert server.calls == []

    assert agent(*arguments, "--force").returncode == 0
    assert config.load(state).allow_commands == ["scan_updates"]
    assert not (state / JOURNAL_NAME).exists()
    assert len(list(state.glob(f"{JOURNAL_NAME}.*"))) == 1


def test_a_refused_token_leaves_nothing_behind(server: FakeServer, tmp_path: Path) -> None:
    done = agent("enroll", "--server", server.url, "--token", "x" * 64, "--state-dir", tmp_path / "s")

    assert done.returncode == 4
    assert "this registration token is not valid" in done.stderr
    assert "x" * 64 not in done.stderr
    assert not (tmp_path / "s" / "config.json").exists()


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = agent("enroll", "--server", "http://127.0.0.1:9", "--token", "x" * 64, "--state-dir", tmp_path / "s")

    assert done.returncode == 5
    assert "127.0.0.1:9 cannot be reached" in done.stderr


def test_a_directory_that_holds_other_things_is_not_closed_to_others(server: FakeServer, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "other").touch()

    done = agent("enroll", "--server", server.url, "--token", REGISTRATION_TOKEN, "--state-dir", tmp_path)

    assert done.returncode == 3
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_status_shows_the_enrolment_and_what_is_open_while_an_agent_runs(state: Path) -> None:
    journal = Journal(state)
    journal.received(COMMAND, "scan_updates", {})
    journal.finished(COMMAND, [("logs", {"command_id": COMMAND})])
    lock = StateLock(state)

    text = agent("status", "--state-dir", state)
    data = json.loads(agent("status", "--state-dir", state, "--json").stdout)

    lock.release()
    journal.close()
    assert "1 open, 1 results unsent, 0 refused" in text.stdout
    assert "none yet" in text.stdout
    assert data["agent_id"] == AGENT_ID
    assert data["open_commands"][0]["state"] == "finished"
    assert "access-1" not in text.stdout + json.dumps(data)


LOG, OTHER = FakeLog(), FakeLog(key="another")


def test_enroll_pins_the_key_of_the_log_that_the_server_gives(server: FakeServer, tmp_path: Path) -> None:
    server.log_key = LOG.key
    arguments = ["enroll", "--server", server.url, "--token", REGISTRATION_TOKEN, "--state-dir"]
    assert agent(*arguments, tmp_path / "a").returncode == 0
    assert config.load(tmp_path / "a").log_key == LOG.key
    # A key that an administrator gave is pinned if it is the server's, or the server says nothing of one
    assert agent(*arguments, tmp_path / "b", "--log-key", LOG.key).returncode == 0
    server.log_key = None
    assert agent(*arguments, tmp_path / "c", "--log-key", LOG.key).returncode == 0
    assert config.load(tmp_path / "c").log_key == LOG.key
    server.log_key = "no key"
    done = agent(*arguments, tmp_path / "d")
    assert done.returncode == 0
    assert "gave no key of its log" in done.stderr
    assert config.load(tmp_path / "d").log_key is None


def test_a_host_that_was_told_another_key_of_the_log_is_not_enrolled(server: FakeServer, tmp_path: Path) -> None:
    server.log_key = OTHER.key
    arguments = ["enroll", "--server", server.url, "--token", REGISTRATION_TOKEN, "--state-dir", tmp_path / "s"]
    done = agent(*arguments, "--log-key", LOG.key)
    assert done.returncode == 3
    assert f"have agent {AGENT_ID} removed" in done.stderr
    assert not (tmp_path / "s" / "config.json").exists()
    assert agent(*arguments, "--log-key", "nonsense").returncode == 2


def _witness(state: Path, *answers: dict[str, object]) -> None:
    settings = config.load(state)
    settings.log_key = LOG.key
    config.save(state, settings)
    witness = Witness(state, Api(state, settings))
    for answer in answers:
        witness.take(answer)


def test_another_enrolment_keeps_what_was_seen_of_the_same_log_only(server: FakeServer, state: Path) -> None:
    _witness(state, LOG.answer(0, 100))
    arguments = ["enroll", "--server", server.url, "--token", REGISTRATION_TOKEN, "--state-dir", state, "--force"]
    server.log_key = LOG.key
    assert agent(*arguments).returncode == 0
    assert (state / STATE_NAME).exists()
    server.log_key = OTHER.key
    assert agent(*arguments).returncode == 0
    assert not (state / STATE_NAME).exists()
    assert len(list(state.glob(f"{STATE_NAME}.*"))) == 1


def test_status_shows_the_log_and_whether_it_is_doubted(state: Path) -> None:
    assert "Audit log       not seen yet" in agent("status", "--state-dir", state).stdout
    _witness(state, LOG.answer(0, 100))
    assert "Audit log       100 records of redflag.example/log, seen 20" in agent("status", "--state-dir", state).stdout
    _witness(state, LOG.answer(100, 40))
    text = agent("status", "--state-dir", state).stdout
    assert "LOG DOUBTED" in text
    assert "the log has 40 records, and this host holds a checkpoint of 100" in text
    data = json.loads(agent("status", "--state-dir", state, "--json").stdout)
    assert (data["log"]["size"], data["log"]["doubted"], data["log"]["key"]) == (100, True, LOG.key)
    assert data["log"]["alarm"]["reason"] == "smaller_tree"


def test_another_log_is_pinned_by_hand_while_the_agent_does_not_run(state: Path) -> None:
    _witness(state, LOG.answer(0, 100), LOG.answer(100, 40))
    lock = StateLock(state)
    assert agent("pin-log", "--state-dir", state, "--log-key", OTHER.key).returncode == 6
    lock.release()
    done = agent("pin-log", "--state-dir", state, "--log-key", OTHER.key)
    assert done.returncode == 0
    assert "start the agent again" in done.stdout
    assert config.load(state).log_key == OTHER.key
    assert "not seen yet" in agent("status", "--state-dir", state).stdout


@pytest.mark.parametrize("command", ["run", "status"])
def test_without_an_enrolment_the_next_step_is_told(command: str, tmp_path: Path) -> None:
    done = agent(command, "--state-dir", tmp_path)

    assert done.returncode == 3
    assert "run: redflag-agent enroll" in done.stderr


def test_a_second_agent_is_refused(state: Path) -> None:
    lock = StateLock(state)
    done = agent("run", "--state-dir", state)
    lock.release()

    assert done.returncode == 6
    assert "Another agent uses" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent_id": "1; rm -rf /"}, "agent_id is no UUID"),
        ({"access_token": "a\r\nX: y"}, "access_token"),
        ({"allow_reboot": "false"}, "allow_reboot must be true or false"),
        ({"server": "nowhere"}, "names no http or https server"),
    ],
)
def test_a_damaged_configuration_is_refused(state: Path, change: dict[str, str], message: str) -> None:
    path = state / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    done = agent("run", "--state-dir", state)

    assert done.returncode == 3
    assert message in done.stderr


def test_a_configuration_that_others_can_read_is_refused(state: Path) -> None:
    (state / "config.json").chmod(0o644)

    assert "chmod 600" in agent("run", "--state-dir", state).stderr


@pytest.mark.skipif("apt" not in packages.available(), reason="needs apt")
@pytest.mark.usefixtures("apt_to_itself")
def test_a_scan_needs_no_server() -> None:
    data = json.loads(agent("scan", "--json").stdout)
    text = agent("scan").stdout

    assert data["package_types"] == ["apt"]
    assert text.rstrip().splitlines()[-1].startswith(f"{len(data['updates'])} packages can be upgraded")


def test_a_wrong_command_line_is_exit_code_2(tmp_path: Path) -> None:
    assert agent("enroll").returncode == 2
    assert agent("enroll", "--server", "ftp://x", "--token", "t", "--state-dir", tmp_path).returncode == 2


def test_it_runs_as_a_zipapp(tmp_path: Path) -> None:
    shutil.copytree(
        SOURCE / "redflag_agent", tmp_path / "app" / "redflag_agent", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(SOURCE / "redflag_verify.py", tmp_path / "app")
    archive = tmp_path / "redflag-agent.pyz"
    (tmp_path / "app" / "__main__.py").write_text("import sys\nfrom redflag_agent.main import main\nsys.exit(main())\n")
    zipapp.create_archive(tmp_path / "app", archive)

    done = subprocess.run([sys.executable, "-I", archive, "version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"redflag-agent {__version__}\n"


def test_the_agent_imports_only_the_standard_library_and_the_verifier() -> None:
    script = (
        "import sys, redflag_agent.main, redflag_agent.__main__;"
        "print([m for m in {n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)"
        " if m not in ('redflag_agent', 'redflag_verify', '__main__', '__mp_main__')])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE)},
    )

    assert done.stdout == "[]\n"
