"""The server's log: one line an event on stderr, with the UTC time, the level and who says it.

There is no access log: addresses of requests may hold what nobody should read there, and the metrics count them.
"""

from __future__ import annotations

import logging
import time
from typing import Any


class Line(logging.Formatter):
    """`2030-01-31T12:00:00.123Z INFO redflag.web: text`. What a caller sent cannot begin a line of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The first line; a traceback follows on lines that are set in."""
        return "".join(char if char.isprintable() else " " for char in super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """The traceback, set in."""
        return "\n".join("    " + line for line in super().formatException(ei).splitlines())


def configuration(level: str) -> dict[str, Any]:
    """For logging.config: our own loggers at `level`, uvicorn's at info, everybody else's at warning."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "redflag.cli.logs.Line"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"redflag": {"level": level.upper()}, "uvicorn": {"level": "INFO"}},
    }
