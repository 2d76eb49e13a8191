"""What the tests of updates share: agents that nobody else uses."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from machines import Json, Machine, item


@pytest.fixture
def machine(pool: Any, agent_id: uuid.UUID) -> Machine:
    """An agent that nobody else uses."""
    return Machine(pool, agent_id)


@pytest.fixture
def new_machine(pool: Any, owner: Any) -> Callable[[], Awaitable[Machine]]:
    """Makes agents that nobody else uses."""

    async def make() -> Machine:
        agent_id = await owner.fetchval(
            "INSERT INTO agents (hostname, protocol) VALUES ($1, 1) RETURNING id", f"host-{uuid.uuid4()}"
        )
        return Machine(pool, agent_id)

    return make


@pytest.fixture
def package() -> Callable[..., Json]:
    """Makes items of a report."""
    return item
