"""An agent that is killed with SIGKILL at each step of a command: nothing runs twice, and every result arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from redflag_agent.commands import UNKNOWN_END
from redflag_agent.journal import JOURNAL_NAME, read
from unit.agent.fake_server import FakeServer

STEPS = [
    (step, when) for step in ("received", "started", "finished", "reported") for when in ("before", "torn", "after")
]


def _agent(state: Path, runs: Path, step: str, when: str) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("crashing_agent.py")
    source = Path(__file__).parents[3] / "src"
    return subprocess.Popen(
        [sys.executable, script, state, runs, step, when], env={**os.environ, "PYTHONPATH": str(source)}
    )


@pytest.mark.parametrize(("step", "when"), [*STEPS, ("handler", "during")])
def test_a_killed_agent_runs_no_command_twice_and_loses_no_result(
    server: FakeServer, state: Path, tmp_path: Path, step: str, when: str
) -> None:
    runs = tmp_path / "runs"
    command = server.add("count")

    with _agent(state, runs, step, when) as victim:
        assert victim.wait(30) == -9
    ran_before_the_crash = runs.exists()
    seen = len(server.named("commands"))

    with _agent(state, runs, "none", "never") as agent:
        result = server.wait_for_result(command)
        # The server has the result before the journal says so; a check-in tells when both do.
        server.wait_for(
            lambda: any(call.body["held"] == [] for call in server.named("commands")[seen:]),
            "the agent holds it no more",
        )
        agent.terminate()
        assert agent.wait(30) == 0

    not_started = (step, when) in STEPS[: STEPS.index(("started", "after"))]
    finished = (step, when) in STEPS[STEPS.index(("finished", "after")) :]
    assert ran_before_the_crash == (step in {"finished", "reported", "handler"})
    # Started on the disk but without a result: it may have run or not, so it is not run again.
    assert runs.exists() == ((step, when) != ("started", "after"))
    if runs.exists():
        assert runs.read_text() == command + "\n"
    assert len(server.results[command]) == 1
    if not_started or finished:
        assert (result["result"], result["message"]) == ("success", "ran")
    else:
        assert (result["result"], result["message"]) == ("failed", UNKNOWN_END)
    assert read(state / JOURNAL_NAME)[0][command].state == "reported"
