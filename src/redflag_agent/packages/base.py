"""Package managers, by the package type that the protocol names.

A package manager turns what the protocol asks into runs of the host's own tools and their output into the protocol's
words. It runs programs only through the `Run` that it is given, which knows the command's deadline. Every method
raises PackageError, with the output of the program that failed, when it cannot do what it was asked; nothing is
retried here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

from redflag_agent.errors import PackageError
from redflag_agent.runner import Completed


class Run(Protocol):
    """Runs one program to its end; `keep` is how many bytes of each end of its output are kept."""

    def __call__(
        self, argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, keep: Optional[int] = None
    ) -> Completed:
        """Run it."""


@dataclass
class Update:
    """One package that can be upgraded, in the words of the `updates` call."""

    package_type: str
    package_name: str
    current_version: str
    available_version: str
    severity: str  # low, moderate, important or critical
    package_description: str = ""
    repository_source: str = ""
    size_bytes: int = 0
    cve_list: List[str] = field(default_factory=list)
    kb_id: str = ""
    metadata: Dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> Dict[str, Any]:
        """As the protocol carries it."""
        return asdict(self)


@dataclass
class Change:
    """One package that a run would touch. `action` is install, upgrade or remove."""

    name: str
    action: str
    old_version: str = ""
    new_version: str = ""


class ProgramFailed(PackageError):
    """A program of the package manager failed; `completed` is how."""

    def __init__(self, message: str, completed: Completed) -> None:
        super().__init__(message)
        self.completed = completed


class PackageManager(Protocol):
    """What the agent asks of a package manager."""

    package_type: str

    def scan(self, run: Run, *, refresh: bool) -> List[Update]:
        """Every package that can be upgraded, after a refresh of the index if asked."""

    def plan(self, run: Run, packages: Sequence[str]) -> Tuple[Completed, List[Change]]:
        """What installing `packages` would change, without changing it."""

    def install(self, run: Run, packages: Sequence[str], *, may_remove: bool) -> Completed:
        """Install or upgrade `packages`, or everything if there are none."""
