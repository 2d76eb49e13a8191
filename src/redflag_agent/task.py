"""A command that runs, what it needs of the agent around it, and how it ended.

A Task runs programs within its command's deadline; an Outcome knows how it is reported. Nothing here fails by itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from redflag_agent import runner
from redflag_agent.config import Config
from redflag_agent.packages.base import PackageManager
from redflag_agent.runner import Completed, Deadline, Stop

Json = Dict[str, Any]


@dataclass
class Host:
    """What the handlers need of the agent around them."""

    config: Config
    managers: Mapping[str, PackageManager]
    set_rapid: Callable[[float], None]  # minutes; 0 ends it


@dataclass
class Task:
    """One command that runs."""

    id: str
    type: str
    params: Json
    host: Host
    deadline: Deadline
    stop: Stop = field(default_factory=Stop)
    message: str = ""  # the newest line of output, for the progress call
    ended_by: str = ""

    def run(
        self, argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, keep: Optional[int] = None
    ) -> Completed:
        """Run a program within the command's deadline."""
        size = runner.KEEP if keep is None else keep
        done = runner.run(argv, self.deadline, self.stop, env=env, keep=size, on_output=self._note)
        self.ended_by = self.ended_by or done.ended_by
        return done

    def _note(self, data: bytes) -> None:
        lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
        self.message = next((line for line in reversed(lines) if line), self.message)[:200]


@dataclass
class Outcome:
    """How a command ended. `posts` are the calls to make before the logs call: (call, body)."""

    result: str
    message: str
    action: str = ""
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    stdout_bytes: Optional[int] = None
    stderr_bytes: Optional[int] = None
    killed: bool = False
    metadata: Json = field(default_factory=dict)
    posts: List[Tuple[str, Json]] = field(default_factory=list)

    def with_output(self, done: Completed) -> Outcome:
        """Add what a program wrote."""
        self.stdout, self.stderr, self.exit_code = done.stdout, done.stderr, done.exit_code
        self.stdout_bytes, self.stderr_bytes = done.stdout_bytes, done.stderr_bytes
        return self

    def reports(self, command_id: str, started_at: str, finished_at: str, duration: float) -> List[Tuple[str, Json]]:
        """Every call that reports this outcome, the logs call last. `duration` is in seconds."""
        body = {key: value for key, value in asdict(self).items() if key != "posts" and value is not None}
        if not self.killed:
            del body["killed"]
        body.update(
            command_id=command_id, started_at=started_at, finished_at=finished_at, duration_seconds=round(duration)
        )
        return [*self.posts, ("logs", body)]


Handler = Callable[[Task], Outcome]


def failed(message: str, action: str = "") -> Outcome:
    """A command that failed without a program having run."""
    return Outcome("failed", message, action=action, stderr=message, exit_code=1)
