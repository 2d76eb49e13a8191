"""What a page offers is what can be done."""

from __future__ import annotations

from typing import Any

import pytest

from redflag.audit.actor import user
from redflag.updates import acts, batches
from redflag.updates.acts import Act
from redflag.updates.states import Status


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("dependencies", [None, [], ["libfoo"]], ids=str)
async def test_what_is_offered_for_a_state_is_never_refused(
    machine: Any, package: Any, owner: Any, status: Status, dependencies: list[str] | None
) -> None:
    offered = acts.possible(status, dependencies)
    await machine.report([package(f"p{number}") for number in range(len(offered))])
    await owner.execute(
        "UPDATE updates SET status = $2, dependencies = $3 WHERE agent_id = $1", machine.id, status, dependencies
    )
    for number, act in enumerate(offered):
        decision = await machine.decide(_perform(act), f"p{number}")
        assert (len(decision.done), decision.refused) == (1, []), act
        if status != Status.DEPENDENCIES or dependencies is not None:
            assert status in acts.OFFERED[act] or (status, act) == (Status.DEPENDENCIES, Act.DRY_RUN)


async def test_a_batch_and_what_was_done_are_kept_together_or_not_at_all(machine: Any, package: Any, pool: Any) -> None:
    await machine.report([package("curl")])
    before = await pool.fetchval("SELECT count(*) FROM update_batches")
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await batches.begin(connection, user("ada"), Act.APPROVE, [(await machine.row("curl"))["id"]])
        assert await connection.fetchval("SELECT count(*) FROM update_batches") == before + 1
        await transaction.rollback()
    assert await machine.status("curl") == "pending"
    assert await pool.fetchval("SELECT count(*) FROM update_batches") == before


async def test_batches_older_than_a_month_are_forgotten(machine: Any, package: Any, pool: Any, owner: Any) -> None:
    await machine.report([package("curl"), package("vim")])
    async with pool.acquire() as connection:
        old, _ = await batches.begin(connection, user("ada"), Act.APPROVE, [(await machine.row("curl"))["id"]])
        await owner.execute("UPDATE update_batches SET created_at = now() - interval '31 days' WHERE id = $1", old)
        new, _ = await batches.begin(connection, user("ada"), Act.APPROVE, [(await machine.row("vim"))["id"]])
    found = await pool.fetch("SELECT id FROM update_batches WHERE id = ANY ($1)", [old, new])
    assert [row["id"] for row in found] == [new]


def _perform(act: Act) -> Any:
    async def do(connection: Any, actor: Any, ids: Any) -> Any:
        return await acts.perform(connection, actor, act, ids)

    return do
