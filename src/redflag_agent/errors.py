"""The errors of the agent. Each message says what happened, to what, and what to do next; `exit_code` is what the
command line returns.

AgentError                 1
├── UsageError             2   the command line or a value in it
├── ConfigError            3   not enrolled, or config.json is unusable
├── ServerRefused          4   the server answered, with an error
├── ServerUnreachable      5   no usable answer came
├── StateLocked            6   another agent uses the state directory
├── JournalError           7   the journal cannot be read or written
└── PackageError           8   the host's package manager failed or is missing
"""

from __future__ import annotations

from typing import Optional


class AgentError(Exception):
    """Something the agent cannot go on with."""

    exit_code = 1


class UsageError(AgentError):
    """A value on the command line cannot be used."""

    exit_code = 2


class ConfigError(AgentError):
    """The agent is not enrolled, or its configuration cannot be used."""

    exit_code = 3


class ServerRefused(AgentError):
    """The server answered a call with an error status."""

    exit_code = 4

    def __init__(self, status: int, message: str, retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after  # seconds


class ServerUnreachable(AgentError):
    """No answer, or none that can be read; the call may or may not have arrived."""

    exit_code = 5


class StateLocked(AgentError):
    """Another agent holds the state directory."""

    exit_code = 6


class JournalError(AgentError):
    """The journal cannot be trusted or written; the agent must stop rather than run a command unrecorded."""

    exit_code = 7


class PackageError(AgentError):
    """The package manager is missing, refused its input, or failed."""

    exit_code = 8
