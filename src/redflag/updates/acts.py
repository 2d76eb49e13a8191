"""What a person can do with an update, from where, and what the obvious next step is.

`approvals` does it and judges each update again under its lock; this is for what a page offers and how many it would be for.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from redflag.audit.actor import Actor
from redflag.updates import approvals
from redflag.updates.approvals import Decision
from redflag.updates.states import APPROVABLE, EXAMINABLE, REJECTABLE, Status


class Act(enum.StrEnum):
    """What a person does."""

    APPROVE = "approve"
    DRY_RUN = "dry_run"
    INSTALL = "install"
    CONFIRM = "confirm"
    REJECT = "reject"


# What each is offered for. Narrower than what `approvals` takes: what is under examination is left to it, unless it is chosen by itself
OFFERED: dict[Act, frozenset[Status]] = {
    Act.APPROVE: APPROVABLE - {Status.DEPENDENCIES},
    Act.DRY_RUN: EXAMINABLE - {Status.DEPENDENCIES},
    Act.INSTALL: frozenset({Status.APPROVED}),
    Act.CONFIRM: frozenset({Status.DEPENDENCIES}),
    Act.REJECT: REJECTABLE,
}


def possible(status: str, dependencies: Sequence[str] | None = None) -> list[Act]:
    """What can be done with an update in this state, the obvious next step first. `dependencies`: None before a dry run answered."""
    if status == Status.DEPENDENCIES:
        return [Act.REJECT] if dependencies is None else [Act.CONFIRM, Act.DRY_RUN, Act.REJECT]
    if status == Status.APPROVED:
        return [Act.INSTALL, Act.DRY_RUN, Act.REJECT]
    return [act for act in Act if Status(status) in OFFERED[act]]


def tally(by_status: Mapping[str, int]) -> dict[Act, int]:
    """How many of these updates each act is for."""
    return {act: sum(number for status, number in by_status.items() if Status(status) in OFFERED[act]) for act in Act}


async def perform(
    connection: Any, actor: Actor, act: Act, update_ids: Sequence[uuid.UUID], *, reason: str = ""
) -> Decision:
    """Does it. Raises what `approvals` raises."""
    if act == Act.REJECT:
        return await approvals.reject(connection, actor, update_ids, reason)
    do = {
        Act.APPROVE: approvals.approve,
        Act.DRY_RUN: approvals.dry_run,
        Act.INSTALL: approvals.install,
        Act.CONFIRM: approvals.confirm,
    }[act]
    return await do(connection, actor, update_ids)
