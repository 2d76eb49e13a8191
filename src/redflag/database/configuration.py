"""PostgreSQL's settings for the embedded database: sized for a small machine of two cores, and never beyond its memory.

Owns the contents of redflag.conf and nothing on disk. What an administrator sets with ALTER SYSTEM wins over it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

_MIB = 1024 * 1024


def settings(socket_folder: Path, port: int) -> dict[str, str]:
    """The settings, by name, for a database that listens in `socket_folder` and nowhere else."""
    memory = _memory_bytes()
    return {
        "listen_addresses": "",
        "port": str(port),
        # A list, in which double quotes keep commas and spaces of a path together.
        "unix_socket_directories": f'"{socket_folder}"',
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "shared_buffers": f"{max(16, min(256, memory // 4 // _MIB))}MB",
        "effective_cache_size": f"{max(64, memory // 2 // _MIB)}MB",
        "random_page_cost": "1.1",
        "jit": "off",  # short statements: compiling costs more than it saves
        "wal_compression": "on",
        "wal_buffers": "16MB",
        "min_wal_size": "256MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "autovacuum_naptime": "10s",  # the queues' dead rows must go before they slow down the claims
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d %a ",
        # Statements can hold secrets that somebody typed, so not even those that fail are logged.
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "log_min_error_statement": "panic",
    }


def as_file(values: Mapping[str, str]) -> str:
    """The text of a configuration file with these settings."""
    head = "# Written anew at each start. For settings of your own use ALTER SYSTEM, which wins over this file.\n"
    return head + "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _memory_bytes() -> int:
    """The memory that this machine or container may use."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
