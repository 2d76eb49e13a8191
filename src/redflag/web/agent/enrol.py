"""Enrolment and renewal of tokens: the two calls that need no access token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from redflag.access import agent_tokens, rate
from redflag.audit import events
from redflag.errors import NotAuthenticated
from redflag.fleet import enrolment
from redflag.web.agent import wire
from redflag.web.context import address, context
from redflag.web.guards import bearer

WINDOW_SECONDS = 300
# Whoever sends these has shown no token yet
SMALL = 256 * 1024


@wire.answered
async def register(request: Request) -> Response:
    """POST /api/v1/agents/register. The token comes as bearer, in the body, or both."""
    here = context(request)
    where = address(request)
    body = await wire.read(request, most=SMALL)
    token = wire.text(body, "registration_token") or bearer(request)
    host = enrolment.Host(
        hostname=wire.text(body, "hostname"),
        os_type=wire.text(body, "os_type"),
        os_version=wire.text(body, "os_version"),
        os_architecture=wire.text(body, "os_architecture"),
        agent_version=wire.text(body, "agent_version"),
        protocol=1 if body.get("protocol") == 1 else 0,
        metadata=wire.mapping(body, "metadata"),
    )
    async with here.pool.acquire() as connection:
        await rate.allow(connection, f"enrol:{rate.place(where)}", here.settings.enrolment_tries, WINDOW_SECONDS)
        try:
            enrolled = await enrolment.enrol(connection, token, host, where)
        except NotAuthenticated:
            await events.count_refusal(connection, where, action="enrolment")
            raise
    told = {
        "agent_id": str(enrolled.agent_id),
        "token": enrolled.access_token,
        "refresh_token": enrolled.refresh_token,
        "config": {"check_in_interval": here.settings.check_in_interval, "server_url": here.settings.url},
    }
    if host.protocol:
        # Pinned by the agent, which checks the log's checkpoints with it from then on
        told["log_key"] = here.signer.verifier.vkey()
    return wire.ok(told)


@wire.answered
async def renew(request: Request) -> Response:
    """POST /api/v1/agents/renew: a new access token for a refresh token."""
    here = context(request)
    where = address(request)
    body = await wire.read(request, most=SMALL)
    agent_id = wire.identifier(body.get("agent_id"), "agent_id")
    refresh_token = wire.text(body, "refresh_token")
    async with here.pool.acquire() as connection:
        try:
            token = await agent_tokens.renew(connection, agent_id, refresh_token)
        except NotAuthenticated:
            await events.count_refusal(connection, where, action="token renewal")
            raise
    return wire.ok({"token": token})
