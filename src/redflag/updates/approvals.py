"""What people decide about updates: approve, reject, have them examined, install.

Between the approval and the installation stands the dry run: an update whose dependencies nobody has examined is examined
first. If it needs nothing else, its installation follows (`dependencies.py`); if it does, it waits as `dependencies` until
a person confirms them.

Promises: a decision on many updates is one transaction and a handful of statements; the commands are enqueued in it; each
update is decided on in the state that it is in, under its lock; what could not be done is told, with why, and does not
keep the others from being done. If the database refuses, nothing was decided and nothing enqueued.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redflag.audit import redaction
from redflag.audit.actor import Actor
from redflag.commands.queue import check_params
from redflag.database import queries
from redflag.errors import Conflict, InvalidInput, NotFound
from redflag.updates.states import APPROVABLE, EXAMINABLE, REJECTABLE, Status

sql = queries.load(__file__, "approvals.sql")

MOST_UPDATES = 10_000
REASON_LIMIT = 500


@dataclass(frozen=True)
class Decision:
    """What was done, as the updates are now; and what was refused: [{update_id, status, why}], status None if it is not there."""

    done: list[dict[str, Any]]
    refused: list[dict[str, Any]]

    def only(self) -> dict[str, Any]:
        """The update, of a decision on one. Raises NotFound or Conflict if it was refused."""
        if self.done:
            return self.done[0]
        refused = self.refused[0]
        if refused["status"] is None:
            raise NotFound(f"No update {refused['update_id']}", "See `redflag updates list`")
        raise Conflict(f"Update {refused['update_id']} stays as it is", refused["why"])


@dataclass(frozen=True)
class _Start:
    """The work that begins on an update."""

    command_type: str
    status: Status
    params: dict[str, Any]


async def approve(connection: Any, actor: Actor, update_ids: Sequence[uuid.UUID]) -> Decision:
    """Approves each for the version that is offered now."""
    rows = await sql.approve.all(
        connection, ids=_checked(update_ids), approvable=sorted(APPROVABLE), act=actor.act("update_approved")
    )
    return await _decision(connection, update_ids, rows, _why_not_approved)


async def reject(connection: Any, actor: Actor, update_ids: Sequence[uuid.UUID], reason: str = "") -> Decision:
    """Rejects each, until a person approves it. What is being installed must be cancelled instead."""
    clean = redaction.text(reason)[:REASON_LIMIT] or None
    rows = await sql.reject.all(
        connection,
        ids=_checked(update_ids),
        rejectable=sorted(REJECTABLE),
        reason=clean,
        act=actor.act("update_rejected"),
    )
    return await _decision(connection, update_ids, rows, _why_not_rejected)


async def dry_run(connection: Any, actor: Actor, update_ids: Sequence[uuid.UUID]) -> Decision:
    """Has each examined by its agent. An approved one is approved again when the answer is there, any other pending."""

    def plan(row: Any) -> _Start | str:
        if row["status"] not in EXAMINABLE:
            return _why_not_examined(row["status"])
        if row["status"] == Status.DEPENDENCIES and row["live"]:
            return "A dry run is under way: wait for it"
        return _examination(row)

    return await _start(connection, actor, update_ids, plan, action="update_examined", wanted_by=None)


async def install(connection: Any, actor: Actor, update_ids: Sequence[uuid.UUID]) -> Decision:
    """Installs what is approved; what was not examined yet is examined first."""

    def plan(row: Any) -> _Start | str:
        if row["status"] != Status.APPROVED:
            return _why_not_installed(row["status"])
        return _examination(row) if row["dependencies"] is None else installation(row)

    return await _start(connection, actor, update_ids, plan, action="update_install_wanted", wanted_by=actor.name)


async def confirm(connection: Any, actor: Actor, update_ids: Sequence[uuid.UUID]) -> Decision:
    """Installs what waits for a person, together with the dependencies that its dry run found."""

    def plan(row: Any) -> _Start | str:
        if row["status"] != Status.DEPENDENCIES:
            return _why_not_confirmed(row["status"])
        if row["dependencies"] is None:
            return (
                "Its dry run has not answered yet: wait for it"
                if row["live"]
                else "Its dry run told nothing: make another"
            )
        return installation(row)

    return await _start(connection, actor, update_ids, plan, action="update_confirmed", wanted_by=None)


async def follow(connection: Any, actor: Actor, row: Any) -> dict[str, Any]:
    """The installation that was wanted, now that the dry run found nothing else to install. The row is locked by the caller."""
    act = actor.act("update_install_followed", wanted_by=row["install_wanted_by"])
    started = await _enqueue(connection, [(row, installation(row))], act, source="automatic", wanted_by=None)
    return started[0]


def installation(row: Any) -> _Start:
    """How an update whose dependencies are known is installed."""
    params = {"package_type": row["package_type"], "package_name": row["package_name"], "update_id": str(row["id"])}
    if row["dependencies"]:
        return _Start("confirm_dependencies", Status.INSTALLING, params | {"dependencies": row["dependencies"]})
    return _Start("install_updates", Status.INSTALLING, params)


def _examination(row: Any) -> _Start:
    params = {"package_type": row["package_type"], "package_name": row["package_name"], "update_id": str(row["id"])}
    return _Start("dry_run_update", Status.DEPENDENCIES, params)


async def _start(
    connection: Any,
    actor: Actor,
    update_ids: Sequence[uuid.UUID],
    plan: Callable[[Any], _Start | str],
    *,
    action: str,
    wanted_by: str | None,
) -> Decision:
    async with connection.transaction():
        rows = await sql.hold.all(connection, ids=_checked(update_ids))
        starts: list[tuple[Any, _Start]] = []
        reasons: dict[uuid.UUID, str] = {}
        for row in rows:
            planned = "Its agent was removed" if row["removed"] else plan(row)
            if isinstance(planned, str):
                reasons[row["id"]] = planned
            else:
                starts.append((row, planned))
        done = await _enqueue(connection, starts, actor.act(action), source="manual", wanted_by=wanted_by)
    found = {row["id"]: row["status"] for row in rows}
    refused = [
        {
            "update_id": one,
            "status": found.get(one),
            "why": reasons.get(one, "No update has this id: see `redflag updates list`"),
        }
        for one in dict.fromkeys(update_ids)
        if one in reasons or one not in found
    ]
    return Decision(done, refused)


async def _enqueue(
    connection: Any, starts: list[tuple[Any, _Start]], act: dict[str, Any], *, source: str, wanted_by: str | None
) -> list[dict[str, Any]]:
    if not starts:
        return []
    rows = await sql.start.all(
        connection,
        ids=[row["id"] for row, _ in starts],
        before=[row["status"] for row, _ in starts],
        statuses=[start.status for _, start in starts],
        types=[start.command_type for _, start in starts],
        params=[check_params(start.command_type, start.params) for _, start in starts],
        source=source,
        wanted_by=[wanted_by if start.status == Status.DEPENDENCIES else None for _, start in starts],
        act=act,
    )
    return [dict(row) for row in rows]


async def _decision(
    connection: Any, update_ids: Sequence[uuid.UUID], rows: list[Any], why: Callable[[str], str]
) -> Decision:
    done = [dict(row) for row in rows]
    left = list(dict.fromkeys(update_ids))
    if len(done) == len(left):
        return Decision(done, [])
    did = {row["id"] for row in done}
    left = [one for one in left if one not in did]
    found = {row["id"]: row["status"] for row in await sql.statuses.all(connection, ids=left)}
    refused = [
        {
            "update_id": one,
            "status": found.get(one),
            "why": why(found[one]) if one in found else "No update has this id: see `redflag updates list`",
        }
        for one in left
    ]
    return Decision(done, refused)


def _checked(update_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    if len(update_ids) > MOST_UPDATES:
        raise InvalidInput(
            f"{len(update_ids)} updates at once, and {MOST_UPDATES} are the most", "Decide on them in several steps"
        )
    return list(update_ids)


def _why_not_approved(status: str) -> str:
    return {
        Status.APPROVED: "It is approved already: install it",
        Status.INSTALLING: "It is being installed: wait for it, or cancel its command",
        Status.UNCONFIRMED: "It was reported as installed: the next scan tells",
    }.get(Status(status), _SETTLED)


def _why_not_rejected(status: str) -> str:
    return {
        Status.REJECTED: "It is rejected already",
        Status.INSTALLING: "It is being installed: cancel its command first",
        Status.UNCONFIRMED: "It was reported as installed: the next scan tells",
    }.get(Status(status), _SETTLED)


def _why_not_examined(status: str) -> str:
    return {
        Status.REJECTED: "It is rejected: approve it first",
        Status.INSTALLING: "It is being installed: wait for it, or cancel its command",
        Status.UNCONFIRMED: "It was reported as installed: the next scan tells",
    }.get(Status(status), _SETTLED)


def _why_not_installed(status: str) -> str:
    return {
        Status.PENDING: "Nobody has approved it: approve it first",
        Status.DEPENDENCIES: "Its dependencies are being examined, or wait for a person: confirm it",
        Status.REJECTED: "It is rejected: approve it first",
        Status.INSTALLING: "It is being installed already",
        Status.UNCONFIRMED: "It was reported as installed: the next scan tells",
        Status.FAILED: "It failed: approve it again first",
    }.get(Status(status), _SETTLED)


def _why_not_confirmed(status: str) -> str:
    return {
        Status.PENDING: "No dependencies of it wait: approve and install it",
        Status.APPROVED: "No dependencies of it wait: install it",
        Status.FAILED: "It failed: approve it again first",
        Status.REJECTED: "It is rejected: approve it first",
        Status.INSTALLING: "It is being installed already",
        Status.UNCONFIRMED: "It was reported as installed: the next scan tells",
    }.get(Status(status), _SETTLED)


_SETTLED = "It is installed: there is nothing to decide until another version is offered"
