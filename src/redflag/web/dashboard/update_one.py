"""One update: what it is, what was decided about it and by whom, and the next step."""

from __future__ import annotations

import uuid

from fastapi import APIRouter, Request, Response

from redflag.access.roles import Permission
from redflag.audit import events
from redflag.updates import acts, listing
from redflag.web.dashboard import update_words as said
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/updates", route_class=GuardedRoute, include_in_schema=False)


@router.get("/{update_id}")
async def show(request: Request, update_id: uuid.UUID, visitor: Visitor = enter(Permission.READ_FLEET)) -> Response:
    """The page. Who decided is history: it is shown to whoever may read that, and that they read it is recorded."""
    decisions = None
    async with visitor.pool.acquire() as connection:
        update = await listing.show(connection, update_id)
        if visitor.may(Permission.READ_HISTORY):
            decisions = await listing.decisions(connection, update)
            await events.record_read(
                connection, visitor.actor, action="history_read", session=visitor.principal.session,
                query=f"update={update_id}",
            )  # fmt: skip
    metadata = dict(update["metadata"])
    return page(
        request,
        visitor,
        "updates_one.html",
        update=update,
        changelog=metadata.pop("changelog", None),
        facts=sorted(
            (name.replace("_", " "), value) for name, value in metadata.items() if value not in ("", None, [], {})
        ),
        decisions=decisions,
        acts=said.ACTS,
        questions=said.QUESTIONS,
        possible=acts.possible(update["status"], update["dependencies"]),
        step=said.next_step(update["status"], update["dependencies"]),
    )
