"""The server that is simulated against: where it is, how it is reached, and the requests that agents send it, byte by byte."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

import redflag
from redflag.errors import RedFlagError, SettingsError

CONNECT_SECONDS = 10.0


class Unreachable(RedFlagError):
    """Nothing answers at the server's address."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server. `address` is numeric; `prefix` is the path that stands before every other.

    `certificates`: a PEM file of authorities, or, if `pinned`, of the server's own certificate, whatever name it is reached by.
    """

    url: str
    host: str
    port: int
    address: str
    prefix: str = ""
    is_tls: bool = False
    certificates: str | None = None
    pinned: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether it is this very machine."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    def tls(self) -> ssl.SSLContext | None:
        """How its certificate is checked; None without TLS. Raises SettingsError for a file that holds none."""
        if not self.is_tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self.pinned else ssl.create_default_context()
        if self.pinned:
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.certificates is not None:
            try:
                context.load_verify_locations(self.certificates)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(f"{self.certificates} holds no certificate that can be read: {error}") from None
        return context


async def resolve(url: str, certificates: Path | None = None, *, pinned: bool = False) -> list[Target]:
    """The numeric addresses at which the server of this address may be, none of them tried yet.

    Raises SettingsError for what is no address of a server, Unreachable for a name that nobody knows.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or not port or not url.isascii() or not url.isprintable():
        raise SettingsError(f"{url[:200]!r} is no address of a server", "Give one such as http://127.0.0.1:8080")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"Nobody knows where {host} is: {error.strerror or error}", "Check REDFLAG_URL") from None
    return [
        Target(
            url=url.rstrip("/"),
            host=host,
            port=port,
            address=str(address[0]).partition("%")[0],
            prefix=parts.path.rstrip("/"),
            is_tls=parts.scheme == "https",
            certificates=str(certificates) if certificates else None,
            pinned=pinned,
        )
        for *_, address in found
    ]


async def reach(targets: list[Target]) -> Target:
    """The first of them that takes a connection. Raises Unreachable."""
    for target in targets:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(target.address, target.port)
        except OSError:
            continue
        writer.close()
        return target
    raise Unreachable(f"The server does not answer at {targets[0].url}", "Start it, or check REDFLAG_URL")


async def find(url: str, certificates: Path | None = None, *, pinned: bool = False) -> Target:
    """The server of this address, as `resolve` and `reach` have it."""
    return await reach(await resolve(url, certificates, pinned=pinned))


class Requests:
    """The requests of agents to one server, as bytes."""

    def __init__(self, target: Target) -> None:
        host = f"[{target.host}]" if ":" in target.host else target.host
        default = 443 if target.is_tls else 80
        where = host if target.port == default else f"{host}:{target.port}"
        self._prefix = target.prefix.encode()
        self._same = (
            f"Host: {where}\r\nUser-Agent: redflag-simulation/{redflag.__version__}\r\n"
            "Content-Type: application/json\r\n"
        ).encode()

    def make(self, method: bytes, path: bytes, token: bytes, body: bytes = b"") -> bytes:
        """One request with a JSON body. No token is sent when it is empty."""
        authorization = b"Authorization: Bearer %b\r\n" % token if token else b""
        return b"%b %b%b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
            method, self._prefix, path, self._same, authorization, len(body), body,
        )  # fmt: skip

    def of_agent(self, method: bytes, agent_id: bytes, call: bytes, token: bytes, body: bytes) -> bytes:
        """A call of an agent's: `call` is what follows its id, as `commands?wait=30`."""
        return self.make(method, b"/api/v1/agents/%b/%b" % (agent_id, call), token, body)
