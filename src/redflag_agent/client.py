"""The agent's side of the HTTP protocol: one keep-alive connection per thread, and the credentials they share.

Promises: TLS is verified; a token is sent to the configured server only (redirects are refused) and never logged; no
answer takes more memory than MAX_ANSWER bytes or more time than its time limit allows. A 401 renews the access token
once and tries the call once more. Failures are ServerRefused (the server said no) or ServerUnreachable (nothing usable
came back): after the latter the call may have arrived, so only calls that may be repeated are made.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Optional, Set
from urllib.parse import urlsplit

from redflag_agent import __version__
from redflag_agent.errors import ConfigError, ServerRefused, ServerUnreachable

MAX_ANSWER = 8 * 1024 * 1024
CALL_TIMEOUT = 30.0
FINAL_STATUSES = frozenset({400, 403, 404, 409, 413, 422})

Json = Dict[str, Any]


class Client:
    """Calls the server. Any thread may call; each has a connection of its own."""

    def __init__(
        self,
        server: str,
        *,
        access_token: str = "",
        renew: Optional[Callable[[Client], str]] = None,
        ca_file: Optional[str] = None,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        parts = urlsplit(server)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._token = access_token
        self._renew = renew
        self._renewing = threading.Lock()
        self._timeout = timeout
        self._tls = _tls_context(ca_file) if parts.scheme == "https" else None
        self._local = threading.local()
        self._open: Set[http.client.HTTPConnection] = set()
        self._aborted = False

    @property
    def host(self) -> str:
        """The server's host name, without the port."""
        return self._host

    def call(self, method: str, path: str, body: Json, *, extra_time: float = 0.0, authorised: bool = True) -> Json:
        """Make one call and return the JSON object of its 200 answer.

        `extra_time` (seconds) is added to the time limit, for calls that the server holds open. Raises ServerRefused
        or ServerUnreachable.
        """
        token = self._token
        try:
            return self._exchange(method, path, body, token if authorised else None, extra_time)
        except ServerRefused as refusal:
            if refusal.status != 401 or not authorised or self._renew is None:
                raise
        with self._renewing:
            # Another thread may have renewed while this one waited.
            if self._token == token:
                self._token = self._renew(self)
            token = self._token
        return self._exchange(method, path, body, token, extra_time)

    def enrol(self, registration_token: str, body: Json) -> Json:
        """Register this host: the token goes both into the header and the body, as RedFlag's server expects it."""
        message = dict(body, registration_token=registration_token)
        return self._exchange("POST", "/api/v1/agents/register", message, registration_token, 0.0)

    def abort(self) -> None:
        """End every call that is under way, from another thread; later calls fail at once."""
        self._aborted = True
        for connection in list(self._open):
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the calling thread's connection."""
        connection: Optional[http.client.HTTPConnection] = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            self._open.discard(connection)
            connection.close()

    def _exchange(self, method: str, path: str, body: Json, token: Optional[str], extra_time: float) -> Json:
        payload = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"redflag-agent/{__version__}",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        limit = self._timeout + extra_time
        reused = getattr(self._local, "connection", None) is not None
        try:
            return self._once(method, path, payload, headers, limit)
        except _ConnectionWasGone as gone:
            # A kept connection may have been closed by the server in the meantime: that says nothing about the server
            # being there.
            if not reused:
                raise ServerUnreachable(str(gone)) from None
        try:
            return self._once(method, path, payload, headers, limit)
        except _ConnectionWasGone as gone:
            raise ServerUnreachable(str(gone)) from None

    def _once(self, method: str, path: str, payload: bytes, headers: Dict[str, str], limit: float) -> Json:
        ends = time.monotonic() + limit
        where = f"{self._host}{':' + str(self._port) if self._port else ''}"
        try:
            connection = self._connection(limit)
            connection.request(method, self._prefix + path, body=payload, headers=headers)
            response = connection.getresponse()
            raw = _read_bounded(response, ends, where)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise ServerUnreachable(
                f"The certificate of {where} cannot be verified ({error.verify_message}); "
                "check the URL, or name your CA by --ca-file."
            ) from None
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            raise _ConnectionWasGone(
                f"{where} closed the connection without an answer; check that it is a RedFlag server."
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            reason = "no answer in time" if isinstance(error, socket.timeout) else str(error) or type(error).__name__
            raise ServerUnreachable(
                f"The server {where} cannot be reached: {reason}; check the URL and the network."
            ) from None
        except BaseException:
            self.close()
            raise
        if response.will_close:
            self.close()
        return _interpret(response, raw, where)

    def _connection(self, limit: float) -> http.client.HTTPConnection:
        if self._aborted:
            raise OSError("the agent is stopping")
        connection: Optional[http.client.HTTPConnection] = getattr(self._local, "connection", None)
        if connection is None:
            if self._tls is not None:
                connection = http.client.HTTPSConnection(self._host, self._port, timeout=limit, context=self._tls)
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=limit)
            self._local.connection = connection
            self._open.add(connection)
        connection.timeout = limit
        if connection.sock is not None:
            connection.sock.settimeout(limit)
        return connection


class _ConnectionWasGone(Exception):
    """The server closed the connection before it answered."""


def _tls_context(ca_file: Optional[str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The CA file {ca_file} cannot be used ({error.strerror or error}); name a PEM file by --ca-file."
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_bounded(response: http.client.HTTPResponse, ends: float, where: str) -> bytes:
    parts = []
    size = 0
    while True:
        part = response.read1(65536)
        if not part:
            break
        size += len(part)
        if size > MAX_ANSWER:
            raise ValueError(f"the answer of {where} is larger than {MAX_ANSWER} bytes")
        if time.monotonic() > ends:
            raise socket.timeout
        parts.append(part)
    if response.length:  # read1 ends quietly when the connection does; a cut answer must not pass for a whole one
        raise http.client.IncompleteRead(b"", response.length)
    # Some versions of read1 leave it open at its end, and the connection would refuse another request.
    response.close()
    return b"".join(parts)


def _interpret(response: http.client.HTTPResponse, raw: bytes, where: str) -> Json:
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        data = None
    status = response.status
    if status == 200:
        if isinstance(data, dict):
            return data
        # Not a confirmation: a proxy or a login page may have answered in the server's place.
        raise ServerUnreachable(
            f"{where} answered with something that is no JSON object; check the server URL and any proxy."
        )
    if 300 <= status < 400:
        raise ServerRefused(
            status,
            f"{where} redirects elsewhere, which the agent never follows; give the final address as the server URL.",
        )
    said = data.get("error") if isinstance(data, dict) else None
    reason = str(said)[:1000] if said else (response.reason or "no reason given")[:200]
    retry_after = parse_retry_after(response.getheader("Retry-After"))
    raise ServerRefused(status, f"The server refused ({status}): {reason}", retry_after)


def parse_retry_after(value: Optional[str]) -> Optional[float]:
    """Seconds to wait from a Retry-After header (RFC 9110 §10.2.3: seconds or a date), at most an hour; None if it
    says nothing usable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), 3600.0)
    with suppress(TypeError, ValueError, OverflowError):
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0), 3600.0)
    return None
