"""How often somebody may try: counted in the database, so that all servers count together.

A window begins with the first try and is over after its seconds, whatever was tried meanwhile; each try is one statement.
Call `allow` outside of a transaction that its error would roll back, or the try does not count. The counters are lost
when the database crashes; nothing else is.
"""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

from redflag.database import queries
from redflag.errors import RateLimited

sql = queries.load(__file__, "rate.sql")

# A counter is forgotten this long after its window began; no window is longer
KEPT = datetime.timedelta(days=1)


def place(address: str | None) -> str:
    """The part of an address that one party is taken to have: an IPv4 address, the /64 network of an IPv6 address."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known), 64), strict=False))


async def allow(connection: Any, key: str, tries: int, window_seconds: float) -> None:
    """Counts one try. Raises RateLimited past `tries` within the window; its `retry_after` is in whole seconds.

    A key names what is tried and by whom: `login:address:192.0.2.1`, `login:user:bob`, `enrol:192.0.2.1`.
    """
    window = datetime.timedelta(seconds=window_seconds)
    if tries < 1 or not datetime.timedelta(0) < window <= KEPT:
        raise ValueError(f"{tries} tries in {window} cannot be counted")
    row = await sql.count.one(connection, key=key, most=tries, spell=window)
    if row["tries"] > tries:
        raise RateLimited("Too many tries", max(1, row["retry_after"]))


async def purge(connection: Any) -> int:
    """Forgets the counters whose window is long over. Returns how many."""
    return await sql.purge.run(connection, kept=KEPT)
