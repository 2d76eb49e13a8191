"""The whole agent against a real server on the loopback."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redflag_agent import config, facts
from redflag_agent.commands import HANDLERS, UNKNOWN_END
from redflag_agent.errors import StateLocked
from redflag_agent.journal import JOURNAL_NAME, Journal, read
from redflag_agent.loop import Agent, read_status
from redflag_agent.task import Handler, Outcome, Task
from unit.agent.conftest import Running
from unit.agent.fake_server import FakeServer

Start = Callable[..., Running]


def _run_shell(task: Task) -> Outcome:
    done = task.run(["sh", "-c", task.params["script"]])
    return Outcome("success" if done.ok else "failed", "ran", action="shell").with_output(done)


SHELL: dict[str, Handler] = {**HANDLERS, "shell": _run_shell}


def test_a_command_is_received_announced_run_and_reported(server: FakeServer, start: Start, state: Path) -> None:
    command = server.add("shell", {"script": "echo hello; echo oops >&2"})
    start(handlers=SHELL)

    result = server.wait_for_result(command)

    assert (result["result"], result["stdout"], result["stderr"], result["exit_code"]) == (
        "success",
        "hello\n",
        "oops\n",
        0,
    )
    assert (result["action"], result["message"], result["duration_seconds"]) == ("shell", "ran", 0)
    assert "killed" not in result
    assert result["started_at"] <= result["finished_at"]
    received, running = (call.body for call in server.named("progress")[:2])
    assert received["received"] == [command]
    assert running["running"] == [command]
    names = [call.name for call in server.calls]
    assert names[:3] == ["system-info", "commands", "progress"]


def test_a_check_in_says_how_the_host_fares_and_what_the_agent_holds(server: FakeServer, start: Start) -> None:
    command = server.add("shell", {"script": "sleep 300"})
    start(handlers=SHELL, stop_grace=0.1)

    server.wait_for(lambda: len([c for c in server.calls if c.name == "commands"]) >= 2, "two check-ins")

    first, second = (call.body for call in server.named("commands")[:2])
    assert first["protocol"] == 1
    assert first["held"] == []
    assert first["memory_total_gb"] > 0
    assert second["held"] == [command]
    assert "metadata" not in second


def test_a_command_past_its_deadline_is_killed_and_says_so(server: FakeServer, start: Start) -> None:
    command = server.add("shell", {"script": "echo begun; sleep 300"}, seconds=2)
    start(handlers=SHELL)

    result = server.wait_for_result(command)

    assert (result["result"], result["killed"], result["stdout"]) == ("failed", True, "begun\n")
    assert "its deadline had come" in result["message"]


def test_a_command_that_the_server_ends_while_it_runs_is_stopped(server: FakeServer, start: Start) -> None:
    command = server.add("shell", {"script": "echo begun; sleep 300"})
    start(handlers=SHELL, progress_every=0.2)
    server.wait_for(lambda: server.commands[command]["state"] == "running", "it runs")
    server.end(command)

    result = server.wait_for_result(command)

    assert result["result"] == "failed"
    assert "the server had ended it" in result["message"]
    assert "killed" not in result


def test_a_command_that_ended_before_its_start_is_never_started(server: FakeServer, start: Start, state: Path) -> None:
    first = server.add("shell", {"script": "sleep 2"})
    second = server.add("shell", {"script": f"touch {state}/second"})
    start(handlers=SHELL)
    server.wait_for(lambda: server.commands[first]["state"] == "running", "the first runs")
    server.end(second)
    third = server.add("shell", {"script": "true"})

    server.wait_for_result(third)

    assert not (state / "second").exists()
    assert second not in server.results
    assert read(state / JOURNAL_NAME)[0][second].state == "ended"


def test_progress_is_told_while_a_command_runs(server: FakeServer, start: Start) -> None:
    command = server.add("shell", {"script": "echo step 1; sleep 1.5"})
    start(handlers=SHELL, progress_every=0.1)
    server.wait_for_result(command)

    told = [call.body for call in server.named("progress") if call.body["progress"]]
    assert told[0]["running"] == [command]
    assert told[0]["progress"] == [{"command_id": command, "message": "step 1"}]


def test_a_result_is_sent_until_the_server_takes_it(server: FakeServer, start: Start) -> None:
    server.answer_next("logs", 503, body=b"overloaded")
    server.answer_next("logs", 429, {"Retry-After": "1"})
    command = server.add("shell", {"script": "echo once"})
    start(handlers=SHELL)

    server.wait_for_result(command)

    assert len({json.dumps(call.body) for call in server.named("logs")}) == 1
    assert len(server.named("logs")) == 3


def test_a_refused_result_is_final_and_kept_with_the_answer(server: FakeServer, start: Start, state: Path) -> None:
    server.answer_next("logs", 403, body=b'{"error": "not your command"}')
    refused = server.add("shell", {"script": "echo mine"})
    running = start(handlers=SHELL)
    server.wait_for(lambda: [c for c in server.calls if c.name == "logs"], "it is reported")
    server.end(refused)
    server.wait_for_result(server.add("shell", {"script": "true"}))
    running.stop()

    entry = read(state / JOURNAL_NAME)[0][refused]
    assert (entry.state, entry.status) == ("reported", 403)
    assert "not your command" in (entry.answer or "")
    assert entry.posts[-1][1]["stdout"] == "mine\n"
    assert refused not in server.results


def test_a_command_handed_out_again_does_not_run_twice(server: FakeServer, start: Start, state: Path) -> None:
    runs = state / "runs"
    command = server.add("shell", {"script": f"echo x >> {runs}"})
    start(handlers=SHELL)
    server.wait_for_result(command)
    with server.changed:
        server.commands[command]["state"] = "pending"
    server.wait_for(lambda: server.commands[command]["state"] == "sent", "it is handed out again")
    server.wait_for_result(server.add("shell", {"script": "true"}))

    assert runs.read_text() == "x\n"
    assert len(server.results[command]) == 1


def test_an_expired_token_is_renewed_on_the_way(server: FakeServer, start: Start, state: Path) -> None:
    server.access_token = "access-2"
    command = server.add("shell", {"script": "true"})
    start(handlers=SHELL)

    assert server.wait_for_result(command)["result"] == "success"
    assert config.load(state).access_token == "access-2"


def test_an_unknown_type_is_refused_at_once_even_while_another_command_runs(server: FakeServer, start: Start) -> None:
    server.add("shell", {"script": "sleep 300"})
    command = server.add("rollback_update")
    start(handlers=SHELL, stop_grace=0.1)

    result = server.wait_for_result(command)

    assert result["result"] == "failed"
    assert result["message"] == "this agent does not know the command type 'rollback_update'"


def test_a_host_runs_only_what_its_configuration_allows(server: FakeServer, start: Start, state: Path) -> None:
    settings = config.load(state)
    settings.allow_commands = ["collect_specs", "reboot"]
    config.save(state, settings)
    scan, reboot, specs = server.add("scan_updates"), server.add("reboot"), server.add("collect_specs")
    start()

    assert "does not allow scan_updates" in server.wait_for_result(scan)["message"]
    assert "does not allow reboot" in server.wait_for_result(reboot)["message"]
    assert server.wait_for_result(specs)["result"] == "success"
    assert len(server.named("system-info")) == 2


def test_commands_that_are_not_well_formed_are_left_alone(server: FakeServer, start: Start, state: Path) -> None:
    good = server.add("shell", {"script": "true"})
    bad = [
        {"id": "../x", "type": "shell", "params": {}},
        {"id": good, "type": 7},
        "text",
        None,
        {"id": good, "type": "a b"},
    ]
    server.answer_next("commands", 200, body=json.dumps({"commands": bad}).encode())
    start(handlers=SHELL)

    server.wait_for_result(good)

    assert list(read(state / JOURNAL_NAME)[0]) == [good]


def test_a_fault_in_a_handler_ends_its_command_and_not_the_agent(server: FakeServer, start: Start) -> None:
    command = server.add("shell", {})
    start(handlers=SHELL)

    assert server.wait_for_result(command)["message"] == "the agent itself failed: KeyError: 'script'"
    assert server.wait_for_result(server.add("shell", {"script": "true"}))["result"] == "success"


def test_the_heartbeat_brings_rapid_check_ins_at_once_and_ends_them(server: FakeServer, start: Start) -> None:
    server.interval = 60
    server.add("shell", {"script": "sleep 300"})
    command = server.add("enable_heartbeat", {"duration_minutes": 5})
    start(handlers=SHELL, rapid_interval=0.2, stop_grace=0.1)

    assert server.wait_for_result(command)["action"] == "enable_heartbeat"
    server.wait_for(lambda: len([c for c in server.calls if c.name == "commands"]) >= 3, "rapid check-ins")
    metadata = server.named("commands")[-1].body["metadata"]
    assert metadata["rapid_polling_enabled"] is True
    assert metadata["rapid_polling_duration_minutes"] == 5
    assert metadata["rapid_polling_until"].endswith("Z")

    assert server.wait_for_result(server.add("disable_heartbeat"))["result"] == "success"


def test_wait_is_used_only_after_the_server_offered_it(server: FakeServer, start: Start) -> None:
    server.wait = 7
    server.interval = 60
    start(handlers=SHELL)
    server.wait_for(lambda: len([c for c in server.calls if c.name == "commands"]) >= 2, "a second check-in")
    command = server.add("shell", {"script": "true"})
    server.wait_for_result(command)

    first, second = server.named("commands")[:2]
    assert first.path.endswith("/commands")
    assert second.path.endswith("/commands?wait=7")


def test_a_new_interval_is_kept(server: FakeServer, start: Start, state: Path) -> None:
    server.interval = 77
    running = start()
    server.wait_for(lambda: any(c.name == "commands" for c in server.calls), "a check-in")
    running.stop()

    assert config.load(state).check_in_interval == 77
    assert read_status(state)["last_check_in"]


def test_a_server_that_is_away_is_waited_for(server: FakeServer, start: Start, state: Path) -> None:
    for _ in range(2):
        server.answer_next("commands", 503)
    command = server.add("shell", {"script": "true"})
    running = start(handlers=SHELL)

    assert server.wait_for_result(command)["result"] == "success"
    running.stop()
    assert read_status(state)["last_error"] == ""


def test_a_stop_lets_a_short_command_finish_and_sends_its_result(server: FakeServer, start: Start, state: Path) -> None:
    command = server.add("shell", {"script": f"touch {state}/begun; sleep 1; echo done"})
    running = start(handlers=SHELL)
    for _ in range(3000):  # the server hears that it runs before it does
        if (state / "begun").exists():
            break
        time.sleep(0.01)
    running.stop()

    assert server.results[command][0]["stdout"] == "done\n"


def test_a_stop_cuts_a_long_command_short_and_the_next_start_reports_it(
    server: FakeServer, start: Start, state: Path
) -> None:
    command = server.add("shell", {"script": f"echo $$ > {state}/pid; sleep 300"})
    waiting = server.add("shell", {"script": "echo later"})
    running = start(handlers=SHELL, stop_grace=0.2)
    for _ in range(3000):  # the server hears that it runs before it does
        if (state / "pid").exists():
            break
        time.sleep(0.01)
    running.stop()

    assert read(state / JOURNAL_NAME)[0][command].state == "started"
    assert command not in server.results
    if (state / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.killpg(int((state / "pid").read_text()), 0)

    start(handlers=SHELL)
    result = server.wait_for_result(command)
    assert (result["result"], result["message"]) == ("failed", UNKNOWN_END)
    assert server.wait_for_result(waiting)["stdout"] == "later\n"


@pytest.mark.parametrize(("boot_id", "result"), [("another-boot", "success"), (facts.boot_id(), "failed")])
def test_a_reboot_is_a_success_when_the_boot_id_has_changed(
    server: FakeServer, start: Start, state: Path, boot_id: str, result: str
) -> None:
    command = server.add("reboot")
    with server.changed:
        server.commands[command]["state"] = "running"
    journal = Journal(state)
    journal.received(command, "reboot", {})
    journal.started(command, boot_id)
    journal.close()
    start()

    assert server.wait_for_result(command)["result"] == result


def test_a_reboot_that_is_allowed_orders_a_restart_and_withdraws_it_when_the_server_ends_it(
    server: FakeServer, start: Start, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load(state)
    settings.allow_reboot = True
    config.save(state, settings)
    tool = tmp_path / "bin" / "shutdown"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {tmp_path}/orders\necho >> {tmp_path}/orders\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    command = server.add("reboot", {"delay_minutes": 3, "message": "-c; $(id)"})
    start(progress_every=0.2)
    server.wait_for(
        lambda: any(p["message"] for c in server.calls if c.name == "progress" for p in c.body["progress"]), "it waits"
    )
    server.end(command)
    server.wait_for_result(command)

    assert (tmp_path / "orders").read_text() == "-r|--|+3|-c; $(id)|\n-c|\n"


def test_two_agents_cannot_run_on_one_state_directory(start: Start, state: Path) -> None:
    start()
    with pytest.raises(StateLocked):
        Agent(state, config.load(state))


@pytest.mark.skipif("apt" not in __import__("redflag_agent.packages").packages.available(), reason="needs apt")
@pytest.mark.usefixtures("apt_to_itself")
def test_a_scan_posts_its_updates_and_then_its_summary(server: FakeServer, start: Start) -> None:
    command = server.add("scan_updates", {})
    start()
    result = server.wait_for_result(command, seconds=90)

    (updates,) = (call.body for call in server.named("updates"))
    names = [call.name for call in server.calls]
    assert names.index("updates") < names.index("logs")
    assert updates["command_id"] == command
    assert updates["package_types"] == ["apt"]
    assert result["result"] == "success"
    assert f"apt: {len(updates['updates'])} packages can be upgraded" in result["stdout"]


@pytest.mark.skipif("apt" not in __import__("redflag_agent.packages").packages.available(), reason="needs apt")
@pytest.mark.usefixtures("apt_to_itself")
def test_a_dry_run_posts_its_dependencies_and_an_unconfirmed_change_is_not_installed(
    server: FakeServer, start: Start
) -> None:
    params = {"package_type": "apt", "package_name": "exim4", "update_id": "0198c0de-0000-7000-8000-00000000000a"}
    dry_run = server.add("dry_run_update", params)
    confirm = server.add("confirm_dependencies", {**params, "dependencies": []})
    start()

    assert server.wait_for_result(dry_run, seconds=60)["action"] == "dry_run"
    (dependencies,) = (call.body for call in server.named("dependencies"))
    assert dependencies["update_id"] == params["update_id"]
    assert "exim4-base" in dependencies["dependencies"]
    assert "exim4" not in dependencies["dependencies"]
    assert dependencies["dry_run_result"]["is_dry_run"] is True
    refused = server.wait_for_result(confirm, seconds=60)
    assert refused["result"] == "failed"
    assert "would now also change" in refused["message"]


def test_a_refused_list_of_updates_makes_the_scan_a_failure(server: FakeServer, start: Start) -> None:
    def scan(task: Task) -> Outcome:
        return Outcome("success", "scanned", posts=[("updates", {"command_id": task.id, "updates": []})])

    server.answer_next("updates", 413, body=b'{"error": "too large"}')
    command = server.add("scan_updates")
    start(handlers={"scan_updates": scan})

    result = server.wait_for_result(command)
    assert result["result"] == "failed"
    assert result["message"] == "scanned; the server refused updates: The server refused (413): too large"


def test_no_secret_reaches_the_log_or_a_file_that_others_can_read(server: FakeServer, state: Path) -> None:
    command = server.add("collect_specs")
    with subprocess.Popen(
        [sys.executable, "-m", "redflag_agent", "run", "--state-dir", str(state)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "src"},
    ) as agent:
        server.wait_for_result(command)
        agent.terminate()
        _, log = agent.communicate(timeout=30)

    assert agent.returncode == 0
    assert "agent stops" in log
    assert command in log
    assert "access-1" not in log
    assert "refresh-1" not in log
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in state.iterdir())
