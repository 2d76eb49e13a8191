"""How the suite is shared out among processes, as `make test` does it (pytest-xdist, `-n auto`).

A file's tests stay in one process and in their order, so that what they share (a database, a server, an installation) is made
once, and no test meets another that it would not meet if the file were run alone. Each process has a PostgreSQL of its own.
What a machine has one of is shared out by `machine`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadFileScheduling

FOLDER = Path(__file__).parent

# Begun first, in this order: one that takes long and begins late is what all others wait for at the end. Files on one line
# go to one process, because they share what takes long to make.
FIRST = (
    ("fault/test_kill_the_server.py",),
    ("integration/operations/test_up_and_down.py",),
    ("integration/audit/test_tamper_corpus.py",),
    ("integration/operations/test_backup.py", "integration/operations/test_db.py"),
    ("unit/verify/test_tampering.py",),
    ("unit/agent/test_loop.py",),
    ("integration/operations/test_server.py",),
    ("integration/database/test_embedded_database.py",),
    ("integration/cli/test_cli_api.py",),
    ("integration/operations/test_restored_log.py",),
    ("property/test_interleavings.py",),
    ("integration/audit/test_bundle.py",),
    ("fault/test_kill_the_log.py",),
    ("unit/verify/test_hostile_input.py",),
    ("unit/agent/test_apt.py",),
    ("unit/agent/test_main.py",),
    ("integration/export/test_export.py",),
    ("integration/publishing/test_over_http.py",),
    ("integration/publishing/test_witnesses.py",),
    ("compat/test_other_implementations.py",),
    ("integration/cli/test_evidence.py",),
    ("fault/test_sigterm_drains.py",),
)
MOST_PROCESSES = 8


def processes() -> int:
    """Two for each core: the tests wait as long as they compute, for other processes, for deadlines, for the disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2 * cores, MOST_PROCESSES)


def turn(file: Path) -> int:
    """The place of a test's file among those that are begun first; the others come after them, in the order they have."""
    name = file.relative_to(FOLDER).as_posix() if file.is_relative_to(FOLDER) else ""
    return next((place for place, files in enumerate(FIRST) if name in files), len(FIRST))


class ByFile(LoadFileScheduling):
    """Whole files, in the order in which they were collected."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((files[0] for files in FIRST if file.removeprefix("tests/") in files), file)
