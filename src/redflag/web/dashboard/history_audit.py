"""The audit trail as a whole: how the log stands, how to examine it, and what is handed out of it.

What is handed out is made by what the API answers with, and leaves the same records.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from redflag.access.roles import Permission
from redflag.audit import standing
from redflag.audit.export.formats import Format
from redflag.audit.export.reading import Selection
from redflag.errors import InvalidInput
from redflag.web.api import evidence, exports
from redflag.web.dashboard import door, history_filter
from redflag.web.dashboard.door import Visitor, enter
from redflag.web.dashboard.history_filter import NOT_EXPORTED, Asked
from redflag.web.dashboard.pages import HEADERS, page
from redflag.web.guards import GuardedRoute

router = APIRouter(prefix="/history/audit", route_class=GuardedRoute, include_in_schema=False)

PATH = "/history/audit"
# A report brings its own style, and is to do nothing but to be read
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; sandbox"
FORMATS = (
    (Format.CLOUDEVENTS, "CloudEvents (JSON lines)"),
    (Format.OCSF, "OCSF (JSON lines)"),
    (Format.CSV, "CSV"),
    (Format.SYSLOG, "syslog (RFC 5424)"),
)

E = TypeVar("E", bound=enum.StrEnum)


@router.get("")
async def show(request: Request, visitor: Visitor = enter(Permission.READ_HISTORY)) -> Response:
    """How the log stands; and for auditors what can be taken of it, by the filter of the address."""
    error = ""
    async with visitor.pool.acquire() as connection:
        log = await standing.standing(connection, visitor.context.signer)
        try:
            asked = await history_filter.read(connection, request.query_params)
        except InvalidInput as wrong:
            asked, error = await history_filter.read(connection, {}), str(wrong)
        names = await history_filter.names_of(connection, [], asked.filter.agent_id)
    return page(
        request, visitor, "history_audit.html", 422 if error else 200, asked=asked, names=names, log=log, error=error, formats=FORMATS,
        not_exported=[history_filter.FIELDS[name] for name in NOT_EXPORTED if name in asked.typed],
    )  # fmt: skip


@router.get("/export")
async def export(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """The records of a filter in a format of others, as a file."""
    asked = await _asked(request, visitor)
    return await exports.hand_out_export(visitor, asked, _choice(Format, request.query_params, Format.CLOUDEVENTS))


@router.get("/bundle")
async def bundle(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """The records of a filter with all that proves them, as a signed file."""
    return await evidence.hand_out_bundle(visitor, await _asked(request, visitor))


@router.get("/report")
async def report(request: Request, visitor: Visitor = enter(Permission.READ_AUDIT)) -> Response:
    """The compliance report of a period: to be read here, or as a file."""
    asked = await _asked(request, visitor)
    if asked.since is None:
        raise InvalidInput("A report is of a period", "Say since when: 30d, or a date")
    form = _choice(evidence.Format, request.query_params, evidence.Format.HTML)
    answer = await evidence.hand_out_report(visitor, Selection(since=asked.since, until=asked.until), form)
    if form == evidence.Format.HTML:
        del answer.headers["content-disposition"]
        answer.headers.update(HEADERS | {"Content-Security-Policy": REPORT_POLICY})
    return answer


async def _asked(request: Request, visitor: Visitor) -> Selection:
    """What is to be handed out. Another site's page cannot ask for it in a person's name."""
    door.require_same_site(request)
    async with visitor.pool.acquire() as connection:
        asked = await history_filter.read(connection, request.query_params)
    refuse_what_is_not_exported(asked)
    return asked.selection()


def refuse_what_is_not_exported(asked: Asked) -> None:
    """An export that silently was of more than its filter says would mislead. Raises InvalidInput."""
    if wrong := [history_filter.FIELDS[name] for name in NOT_EXPORTED if name in asked.typed]:
        raise InvalidInput(f"What is exported cannot be narrowed by {', '.join(wrong)}", "Take that filter away")


def _choice(kind: type[E], query: Mapping[str, str], otherwise: E) -> E:
    given = query.get("format", "")
    try:
        return kind(given) if given else otherwise
    except ValueError:
        raise InvalidInput(f"There is no format {given[:50]!r}", f"Use one of {', '.join(kind)}") from None
