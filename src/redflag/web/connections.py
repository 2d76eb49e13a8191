"""Connections as a large fleet needs them: the more there are, the sooner an idle one is closed.

RedFlag's agents come by every half minute or so and keep their connection for it; one that is closed under them costs them
and the server a handshake. So the shortest time is a little more than that, and only as many files as the process may have
open make it shorter than the usual one.
"""

from __future__ import annotations

import functools
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_SECONDS = 75
SHORTEST_SECONDS = 40


def idle_seconds(connections: int, files: int) -> int:
    """After how many seconds an idle connection is closed: the longest time up to half of the files, the shortest from nine tenths on."""
    used = connections / files
    part = min(max((used - 0.5) / 0.4, 0.0), 1.0)
    return round(LONGEST_SECONDS - part * (LONGEST_SECONDS - SHORTEST_SECONDS))


@functools.lru_cache(maxsize=1)
def most_files() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with an idle time that follows how many there are."""

    @property
    def timeout_keep_alive(self) -> int:
        """Asked for after each answer. Seconds."""
        return idle_seconds(len(self.connections), most_files())

    @timeout_keep_alive.setter
    def timeout_keep_alive(self, _seconds: Any) -> None:
        """What uvicorn was configured with is the same for all, and not used."""
