"""The calls of one enrolled agent, and the credentials that they use.

Owns the configuration while the agent runs: a renewed token or a new interval is saved at once. That it cannot be saved
is logged and costs a renewal after the next start. Errors of calls are those of the client.
"""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any, Optional

from redflag_agent import config as configuration
from redflag_agent.client import Client, Json
from redflag_agent.config import Config
from redflag_agent.errors import ConfigError, ServerUnreachable
from redflag_agent.log import logger

_random = random.SystemRandom()


def back_off(attempt: int, *, first: float = 1.0, most: float = 300.0, retry_after: Optional[float] = None) -> float:
    """Seconds to wait after the `attempt`th failure (from 1): doubling, with jitter; never less than the server asked
    for."""
    delay = min(most, first * 2.0 ** min(attempt - 1, 20)) * _random.uniform(0.5, 1.0)
    return max(delay, retry_after or 0.0)


def jitter(seconds: float) -> float:
    """`seconds`, ten per cent more or less, so that a fleet does not check in in step."""
    return seconds * _random.uniform(0.9, 1.1)


class Api:
    """Makes calls for the enrolled agent. Thread-safe."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.config = config
        self._directory = directory
        self._saving = threading.Lock()
        self.client = Client(config.server, access_token=config.access_token, renew=self._renew, ca_file=config.ca_file)

    def post(self, call: str, body: Json) -> Json:
        """POST to `/api/v1/agents/{id}/{call}`."""
        return self.client.call("POST", self._path(call), body)

    def check_in(self, body: Json, wait: int) -> Json:
        """Ask for commands; the server may hold the call for `wait` seconds."""
        path = self._path("commands")
        return self.client.call("GET", f"{path}?wait={wait}" if wait else path, body, extra_time=float(wait))

    def update(self, **changes: Any) -> None:
        """Change the configuration and save it, if anything differs.

        Only what changed is written into the file: an administrator may have edited the rest since the agent started.
        """
        with self._saving:
            different = {key: value for key, value in changes.items() if getattr(self.config, key) != value}
            if not different:
                return
            for key, value in different.items():
                setattr(self.config, key, value)
            try:
                on_disk = configuration.load(self._directory)
                for key, value in different.items():
                    setattr(on_disk, key, value)
                configuration.save(self._directory, on_disk)
            except ConfigError as error:
                # After a restart the old token is renewed again: no reason to stop.
                logger.warning("a change of %s was not saved: %s", ", ".join(different), error)

    def _path(self, call: str) -> str:
        return f"/api/v1/agents/{self.config.agent_id}/{call}"

    def _renew(self, client: Client) -> str:
        body = {"agent_id": self.config.agent_id, "refresh_token": self.config.refresh_token}
        token = client.call("POST", "/api/v1/agents/renew", body, authorised=False).get("token")
        if not isinstance(token, str) or not configuration.clean_token(token):
            raise ServerUnreachable(
                "The server renewed the access token with something that is no token; check the server URL."
            )
        self.update(access_token=token)
        return token
