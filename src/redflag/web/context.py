"""What the routes of one server process share, made at start and closed at the end."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection

from redflag.access.principals import Authenticator
from redflag.audit.checkpoint import Signer
from redflag.audit.sequencer import Memory
from redflag.fleet.checkin import CheckIns
from redflag.fleet.holds import Holds
from redflag.settings import Settings
from redflag.timeouts.sweeper import Sweeper


@dataclass
class Context:
    """Pool, caches and services of this process."""

    settings: Settings
    pool: Any
    authenticator: Authenticator
    check_ins: CheckIns
    holds: Holds
    sweeper: Sweeper
    signer: Signer
    memory: Memory


def context(request: HTTPConnection) -> Context:
    """The context of the app that this request came to."""
    found: Context = request.app.state.context
    return found


def address(request: HTTPConnection) -> str:
    """Who is at the other end. X-Forwarded-For is read from the right, and only as far as trusted proxies wrote it."""
    peer = request.client.host if request.client else "0.0.0.0"  # noqa: S104 - said of an unknown peer, not bound
    trusted = [ipaddress.ip_network(network) for network in context(request).settings.trusted_proxies]
    if not trusted:
        return _plain(peer)
    hops = [hop.strip() for hop in ",".join(request.headers.getlist("x-forwarded-for")).split(",") if hop.strip()]
    while hops and _within(peer, trusted):
        peer = hops.pop()
    return _plain(peer)


def _within(peer: str, networks: list[Any]) -> bool:
    try:
        one = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(one in network for network in networks)


def _plain(peer: str) -> str:
    try:
        return str(ipaddress.ip_address(peer))
    except ValueError:
        return "0.0.0.0"  # noqa: S104 - an address that is none; said, not bound
