"""What the routes of one server process share, made at start and closed at the end."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from redflag.access.principals import Authenticator
from redflag.audit.checkpoint import Signer
from redflag.audit.memory import Memory
from redflag.audit.pruning import Daily
from redflag.fleet.checkin import CheckIns
from redflag.fleet.checkpoints import Checkpoints
from redflag.fleet.finding import Facets
from redflag.fleet.holds import Holds
from redflag.publishing.sender import Sender
from redflag.settings import Settings
from redflag.timeouts.sweeper import Sweeper
from redflag.updates.outcomes import Reports

if TYPE_CHECKING:
    from redflag.web.dashboard.live import Pulse
    from redflag.web.dashboard.pushed import Pushed
    from redflag.web.dashboard.summary import Summary


@dataclass
class Context:
    """Pool, caches and services of this process."""

    settings: Settings
    pool: Any
    authenticator: Authenticator
    check_ins: CheckIns
    reports: Reports
    holds: Holds
    sweeper: Sweeper
    signer: Signer
    memory: Memory
    checkpoints: Checkpoints
    sender: Sender
    pruning: Daily
    pulse: Pulse
    pushed: Pushed
    summary: Summary
    facets: Facets


def context(request: HTTPConnection) -> Context:
    """The context of the app that this request came to."""
    found: Context = request.app.state.context
    return found


def address(request: HTTPConnection) -> str:
    """Who is at the other end. X-Forwarded-For is read from the right, and only as far as trusted proxies wrote it."""
    peer = request.client.host if request.client else "0.0.0.0"  # noqa: S104 - said of an unknown peer, not bound
    return caller_of(peer, request.headers.getlist("x-forwarded-for"), context(request).settings.trusted_proxies)


def trusted_peer(request: HTTPConnection) -> bool:
    """Whether a proxy that is trusted is at the other end of the connection."""
    trusted = [ipaddress.ip_network(network) for network in context(request).settings.trusted_proxies]
    return request.client is not None and _within(request.client.host, trusted)


def caller_of(peer: str, forwarded_for: list[str], trusted_proxies: list[str]) -> str:
    """Who calls, given who is at the other end of the connection and what proxies on the way say."""
    if not trusted_proxies:
        return _plain(peer)
    trusted = [ipaddress.ip_network(network) for network in trusted_proxies]
    hops = [hop.strip() for hop in ",".join(forwarded_for).split(",") if hop.strip()]
    while hops and _within(peer, trusted):
        peer = hops.pop()
    return _plain(peer)


def _within(peer: str, networks: list[Any]) -> bool:
    try:
        one = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(one in network for network in networks)


@functools.lru_cache(maxsize=65_536)
def _plain(peer: str) -> str:
    try:
        return str(ipaddress.ip_address(peer))
    except ValueError:
        return "0.0.0.0"  # noqa: S104 - an address that is none; said, not bound
