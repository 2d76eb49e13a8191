"""The agent's log: stderr, one line per event, each with the UTC time. Messages hold ids and addresses, never tokens
or output of commands."""

from __future__ import annotations

import logging
import sys
import time

logger = logging.getLogger("redflag_agent")


class _OneLine(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        # What a server sends can end up in a message; it must not be able to start a line of its own.
        return "".join(c if c.isprintable() else " " for c in super().format(record))


def configure() -> None:
    """Send the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
