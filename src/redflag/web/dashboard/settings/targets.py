"""Where checkpoints are sent: witnesses, files, git repositories, webhooks."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from redflag import words
from redflag.access.roles import Permission
from redflag.audit import sequencer
from redflag.errors import InvalidInput
from redflag.publishing import targets
from redflag.publishing.targets import Kind
from redflag.web.api.fields import span
from redflag.web.api.targets import record_try
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.pages import done, fragment
from redflag.web.dashboard.settings.menu import settings_page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/settings/targets", route_class=GuardedRoute, include_in_schema=False)
MANAGER = enter(Permission.MANAGE_LOG)

WORDS = {
    Kind.WITNESS: "a witness, which signs that it has seen nothing removed",
    Kind.WEBHOOK: "a webhook",
    Kind.GIT: "a git repository in the folder of checkpoints",
    Kind.FILE: "a file in the folder of checkpoints",
}


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """Every target, and how far behind it is."""
    async with visitor.pool.acquire() as connection:
        newest = await sequencer.sql.newest_checkpoint.one(connection)
        rows = await targets.list_targets(connection)
    size = newest["size"] if newest else 0
    return settings_page(request, visitor, "targets.html", targets=rows, size=size, kinds=WORDS)


@router.post("")
async def add(
    request: Request,
    kind: Annotated[str, Form(max_length=20)] = "",
    name: Annotated[str, Form(max_length=100)] = "",
    address: Annotated[str, Form(max_length=1000)] = "",
    vkey: Annotated[str, Form(max_length=500)] = "",
    every: Annotated[str, Form(max_length=50)] = "",
    visitor: Visitor = MANAGER,
) -> Response:
    """Adds a target; the newest checkpoint is sent to it at once."""
    try:
        chosen = Kind(kind)
    except ValueError:
        raise InvalidInput(f"{kind[:50]!r} is no kind of target", f"Choose one of {', '.join(Kind)}") from None
    async with visitor.pool.acquire() as connection:
        row, secret = await targets.add(
            connection, visitor.actor, kind=chosen, name=name.strip(), address=address.strip(), vkey=vkey.strip() or None,
            every=span(words.duration(every) if every.strip() else None),
        )  # fmt: skip
    if not secret:
        return done(request, f"Checkpoints go to {row['name']}", subjects={"settings"})
    shown = fragment(
        "settings/once.html", visitor, title=f"The secret of {row['name']}",
        text="What is sent to this webhook is signed with it. It is shown this once.", secret=secret,
    )  # fmt: skip
    return done(request, "", subjects={"settings"}, content=shown)


@router.post("/{target_id}/try")
async def try_now(request: Request, target_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Sends the newest checkpoint now, and says what became of it."""
    outcome = await record_try(visitor, target_id)
    if outcome.error:
        return done(request, f"{outcome.name}: {outcome.error}", kind="danger", subjects={"settings"})
    text = f"{outcome.name} has the checkpoint of {words.count(outcome.size, 'record')}"
    return done(request, text, subjects={"settings"})


@router.post("/{target_id}/switch")
async def switch(
    request: Request, target_id: uuid.UUID, enabled: Annotated[bool, Form()] = False, visitor: Visitor = MANAGER
) -> Response:
    """Sends to a target, or for now not."""
    async with visitor.pool.acquire() as connection:
        row = await targets.change(connection, visitor.actor, target_id, enabled=enabled)
    said = f"Checkpoints go to {row['name']} again" if enabled else f"Nothing is sent to {row['name']} for now"
    return done(request, said, subjects={"settings"})


@router.post("/{target_id}/remove")
async def remove(request: Request, target_id: uuid.UUID, visitor: Visitor = MANAGER) -> Response:
    """Removes a target. The cosignatures that it gave stay."""
    async with visitor.pool.acquire() as connection:
        await targets.remove(connection, visitor.actor, target_id)
    return done(request, "Nothing more is sent there", subjects={"settings"})
