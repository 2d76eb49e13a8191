"""What the tests of the agent share: a server, an enrolled state directory, and an agent that runs in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redflag_agent import config
from redflag_agent.loop import Agent
from unit.agent.fake_server import AGENT_ID, FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def state(tmp_path: Path, server: FakeServer) -> Path:
    """A state directory that is enrolled with the server."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    config.save(directory, config.Config(server.url, AGENT_ID, server.access_token, server.refresh_token, 1.0))
    return directory


class Running:
    """An agent in a thread."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.agent = Agent(directory, config.load(directory), **options)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.agent.run()
        except BaseException as error:  # shown by `stop`
            self.error = error

    def stop(self, *, expect: type[BaseException] | None = None) -> None:
        self.agent.stop()
        self.wait(expect=expect)

    def wait(self, *, expect: type[BaseException] | None = None) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the agent does not stop"
        if self.error is not None and (expect is None or not isinstance(self.error, expect)):
            raise self.error


@pytest.fixture
def start(state: Path) -> Iterator[Callable[..., Running]]:
    """Starts an agent on the enrolled state directory; ended with the test."""
    started: list[Running] = []

    def begin(**options: Any) -> Running:
        started.append(Running(state, **options))
        return started[-1]

    yield begin
    for agent in started:
        agent.stop(expect=Exception)
