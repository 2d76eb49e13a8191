"""Runs an agent that kills itself with SIGKILL at one step of the journal; started as a program by the tests.

Arguments: the state directory, the file in which each run of the command leaves a line, the step (or "none"), and
when: before the line is written, torn (half of it is on the disk) or after it is durable. The step "handler" is in the
middle of the command.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from redflag_agent import config
from redflag_agent.journal import Journal
from redflag_agent.loop import Agent
from redflag_agent.task import Outcome, Task


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(directory: Path, runs: Path, step: str, when: str) -> None:
    class Crashing(Journal):
        def _write(self, line: bytes) -> None:
            if json.loads(line)["event"] != step:
                super()._write(line)
                return
            if when == "torn":
                super()._write(line[: len(line) // 2])
            elif when == "after":
                super()._write(line)
            _die()

    def handler(task: Task) -> Outcome:
        with runs.open("a") as file:
            file.write(task.id + "\n")
        if step == "handler":
            _die()
        return Outcome("success", "ran")

    agent = Agent(directory, config.load(directory), handlers={"count": handler}, open_journal=Crashing)
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    agent.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
