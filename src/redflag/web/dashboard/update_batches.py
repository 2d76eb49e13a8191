"""What people do with updates, and how far the updates are that they did it with.

What is chosen on a page is done in one step and kept together as a batch; its page shows what was refused and why, how many
updates are where, what the dry runs found, and the next step for all of them at once.
"""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from redflag.access.roles import Permission
from redflag.errors import InvalidInput
from redflag.fleet.agents import presence
from redflag.updates import acts, batches, packages
from redflag.updates.acts import Act
from redflag.updates.approvals import MOST_UPDATES, REASON_LIMIT
from redflag.updates.states import Status
from redflag.web.dashboard import update_words as said
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/updates", route_class=GuardedRoute, include_in_schema=False)

ROWS = 50
SUBJECTS = ("updates", "commands")


@router.get("/batches/{batch_id}")
async def show(request: Request, batch_id: uuid.UUID, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """How far the updates are that somebody decided on together."""
    status = said.read({"status": request.query_params.get("status", "")}).status
    number = said.word(request.query_params, "page", 4) or "1"
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise InvalidInput(f"{number!r} is no page", "Begin again with the first")
    async with visitor.pool.acquire() as connection, connection.transaction(readonly=True):
        batch = await batches.show(
            connection,
            batch_id,
            statuses=[Status(status)] if status and status != "all" else None,
            limit=ROWS,
            offset=(int(number) - 1) * ROWS,
        )
    interval = visitor.context.settings.check_in_interval
    for row in batch["rows"]:
        row["presence"] = presence(row["seconds_since_seen"], interval)
    settled = {Status.INSTALLED, Status.FAILED, Status.REJECTED}
    return page(
        request,
        visitor,
        "updates_batch.html",
        batch=batch,
        bar=said.bar(batch["by_status"]),
        settled=sum(batch["by_status"].get(one, 0) for one in settled),
        examined=batch["by_status"].get(Status.DEPENDENCIES, 0) - batch["waits"],
        only=status,
        number=int(number),
        cut="cut" in request.query_params,
        acts=said.ACTS,
        questions=said.QUESTIONS,
        next_step=said.next_step,
        Act=Act,
    )


@router.post("/act")
async def act(request: Request, visitor: Visitor = enter(Permission.DECIDE)) -> Response:
    """Does something with updates: those that are named, those of packages, all that match a filter, or those of a batch."""
    form = await request.form()
    doing = _act_of(form)
    reason = said.word(form, "reason", REASON_LIMIT)
    if batch := said.word(form, "batch", 50):
        of = said.read({"status": form.get("of", "")}).status
        async with visitor.pool.acquire() as connection:
            decision = await batches.go_on(
                connection,
                visitor.actor,
                doing,
                said.identifier(batch, "batch"),
                of=Status(of) if of and of != "all" else None,
                reason=reason,
            )
        text, kind = said.outcome(doing, decision)
        return done(request, text, kind=kind, subjects=SUBJECTS)
    async with visitor.pool.acquire() as connection:
        ids = await _chosen(connection, form, doing)
        cut = len(ids) > MOST_UPDATES
        ids = ids[:MOST_UPDATES]
        if not ids:
            nothing = f"There is nothing to {said.ACTS[doing].button.lower()} among what was chosen."
            return done(request, nothing, kind="warning")
        if said.word(form, "here", 10):
            decision = await acts.perform(connection, visitor.actor, doing, ids, reason=reason)
            text, kind = said.outcome(doing, decision)
            return done(request, text, kind=kind, subjects=SUBJECTS)
        batch_id, _ = await batches.begin(connection, visitor.actor, doing, ids, reason=reason)
    return done(request, "", to=f"/updates/batches/{batch_id}" + ("?cut=yes" if cut else ""))


async def _chosen(connection: Any, form: FormData, doing: Act) -> list[uuid.UUID]:
    """The ids that a form means: one more than the most where there are more."""
    names = [value for value in form.getlist("packages") if isinstance(value, str)]
    ids = [said.identifier(value, "update") for value in form.getlist("update_ids") if isinstance(value, str)]
    everything = bool(said.word(form, "everything", 10))
    if ids and not everything:
        return list(dict.fromkeys(ids))[: MOST_UPDATES + 1]
    if not names and not everything:
        raise InvalidInput("Nothing was chosen", "Choose some updates first")
    if len(names) > packages.MOST_PACKAGES:
        raise InvalidInput(f"{len(names)} packages at once, and {packages.MOST_PACKAGES} are the most", "Choose fewer")
    meant = said.read(form).filter
    shown = packages.Filter(
        text=meant.text,
        package_type=meant.package_type,
        statuses=tuple(one for one in meant.statuses if one in acts.OFFERED[doing]),
        severities=meant.severities,
        agent_id=meant.agent_id,
    )
    if not shown.statuses:
        return []
    keys = None if everything else [said.key_of(value) for value in names]
    if name := said.word(form, "name", said.NAME_LIMIT):
        keys = [(name, said.word(form, "type", 50))]
    return await packages.matching(connection, shown, keys=keys, limit=MOST_UPDATES + 1)


def _act_of(form: FormData) -> Act:
    given = said.word(form, "act", 50)
    try:
        return Act(given)
    except ValueError:
        raise InvalidInput(f"{given!r} is nothing that is done with updates", f"Use one of {', '.join(Act)}") from None
