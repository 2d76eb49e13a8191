"""The admin API as the commands see it: one client, whose every failure is an error of the tree.

    with connect() as api:
        agents = api.get("/api/v1/agents", limit=50)["agents"]
        for agent in api.pages("/api/v1/agents", "agents"): ...
        api.post("/api/v1/commands", {"agent_ids": [...], "command_type": "scan_updates"})

Where the server is: `--url` or REDFLAG_URL; else the server that runs on the data folder. With what token: `--token-file`
or REDFLAG_TOKEN; else the data folder's own. The folder's token goes to the folder's server and to no other address.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import httpx

import redflag
from redflag import errors
from redflag.cli.exits import ServerFailed, ServerUnreachable
from redflag.cli.place import Place, place
from redflag.settings import Settings, settings

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# For what the server works on before it answers
PATIENT = httpx.Timeout(None, connect=5.0)
_KINDS: dict[int, type[errors.RedFlagError]] = {
    400: errors.InvalidInput,
    401: errors.NotAuthenticated,
    403: errors.NotPermitted,
    404: errors.NotFound,
    405: errors.InvalidInput,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidInput,
    503: ServerUnreachable,
}
Json = dict[str, Any]


@dataclass
class Options:
    """What the command line says of the connection; empty: the environment, then the data folder."""

    url: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None


# Set once, by the root of the command line
options = Options()


class Client:
    """One server's admin API. Answers are the decoded JSON; whatever is not a success raises a RedFlagError."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        token_source: str = "the token",  # noqa: S107 - what to call it in an error
        tls: ssl.SSLContext | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> None:
        self.url = url.rstrip("/")
        self._token_source = token_source
        host = urlsplit(self.url).hostname or ""
        self._http = httpx.Client(
            base_url=self.url,
            headers={"User-Agent": f"redflag-cli/{redflag.__version__}"}
            | ({"Authorization": f"Bearer {token}"} if token else {}),
            timeout=timeout,
            verify=tls if tls is not None else True,
            # A proxy of the environment is no way to this very machine
            trust_env=not (host in {"localhost", "::1"} or host.startswith("127.")),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET; a query parameter that is None is left out."""
        return self._decoded(self._call("GET", path, query=query))

    def post(self, path: str, body: Any = None) -> Any:
        """POST with a JSON body."""
        return self._decoded(self._call("POST", path, body={} if body is None else body))

    def put(self, path: str, body: Any) -> Any:
        """PUT with a JSON body."""
        return self._decoded(self._call("PUT", path, body=body))

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with a JSON body."""
        return self._decoded(self._call("PATCH", path, body=body))

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self._decoded(self._call("DELETE", path))

    def text(self, path: str, **query: Any) -> str:
        """GET of what is no JSON, as /metrics."""
        return self._call("GET", path, query=query).text

    def download(self, path: str, to: BinaryIO, tell: Callable[[int, int | None], None], **query: Any) -> None:
        """GET of what is large, or takes the server long: written to `to` as it comes. `tell` hears how many bytes of how many."""
        given = {key: value for key, value in query.items() if value is not None}
        with self._reached(), self._http.stream("GET", path, params=given, timeout=PATIENT) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            length = response.headers.get("Content-Length", "")
            whole, read = int(length) if length.isdigit() else None, 0
            for piece in response.iter_bytes():
                to.write(piece)
                read += len(piece)
                tell(read, whole)

    def pages(self, path: str, name: str, *, most: int | None = None, **query: Any) -> Iterator[Json]:
        """The rows of a list page by page, `most` at the most; `name` is the list's key in the answer."""
        left, cursor = most, None
        while left is None or left > 0:
            asked = query if left is None else query | {"limit": min(left, int(query.get("limit") or 100))}
            answer = self.get(path, **asked, cursor=cursor)
            rows = answer[name]
            yield from rows
            cursor = answer.get("next_cursor")
            left = None if left is None else left - len(rows)
            if not cursor or not rows:
                return

    def _call(self, method: str, path: str, *, query: Json | None = None, body: Any = None) -> httpx.Response:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        with self._reached():
            # Pieces of the path that people type are ids found by look-up, or quoted by who puts them in
            response = self._http.request(method, path, params=given, json=body)
        if not response.is_success:
            raise self._refusal(response)
        return response

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """What httpx raises in the block, as errors of the tree."""
        try:
            yield
        except httpx.ConnectError as error:
            raise self._no_connection(error) from None
        except httpx.TimeoutException:
            raise ServerUnreachable(
                f"The server at {self.url} did not answer in time", "See `make logs`, then try again"
            ) from None
        except httpx.InvalidURL as error:
            raise errors.SettingsError(f"{self.url} is no address of a server: {error}") from None
        except httpx.HTTPError as error:
            raise ServerUnreachable(
                f"The connection to {self.url} broke: {error or type(error).__name__}",
                "Try again; what was asked may have been done",
            ) from None

    def _decoded(self, response: httpx.Response) -> Any:
        if response.status_code == 204:
            return None
        try:
            return response.json()
        except ValueError:
            raise self._stranger() from None

    def _no_connection(self, error: httpx.ConnectError) -> errors.RedFlagError:
        if "CERTIFICATE" in str(error).upper():
            return ServerUnreachable(
                f"The certificate of {self.url} cannot be verified: {error}",
                "Name its authority with --ca-file or REDFLAG_CA_FILE; after a renewal restart the server",
            )
        return ServerUnreachable(f"The server does not answer at {self.url}", "Start it with make up")

    def _refusal(self, response: httpx.Response) -> errors.RedFlagError:
        try:
            told = response.json()
            detail = str(told.get("detail") or told.get("error") or told["title"])
        except (ValueError, AttributeError, KeyError):
            if response.status_code in {502, 504}:
                return ServerUnreachable(
                    f"What stands before {self.url} does not reach it (HTTP {response.status_code})"
                )
            return self._stranger(response.status_code)
        if response.status_code == 429:
            after = response.headers.get("Retry-After", "")
            limited = errors.RateLimited(detail, int(after) if after.isdigit() else 60)
            limited.next_step = "" if "Try again" in detail else limited.next_step
            return limited
        if response.status_code == 401:
            return errors.NotAuthenticated(f"The server does not accept {self._token_source}: {detail}")
        return _KINDS.get(response.status_code, ServerFailed)(detail)

    def _stranger(self, status: int = 200) -> errors.RedFlagError:
        return ServerUnreachable(
            f"What answers at {self.url} is no RedFlag server (HTTP {status})", "Check REDFLAG_URL"
        )


def connect(timeout: httpx.Timeout = TIMEOUT) -> Client:
    """The client that the command line, the environment and the data folder ask for."""
    here = settings()
    folder = place(here)
    own = own_url(here, folder)
    url = options.url or own
    token, source = find_token(here, folder, url, own)
    ca_file = options.ca_file
    tls = None
    if ca_file is not None:
        tls = trusting(ca_file)
    elif url == own and here.tls_cert is not None:
        tls = pinned(here.tls_cert)
    return Client(url, token, token_source=source, tls=tls, timeout=timeout)


def own_url(here: Settings, folder: Place) -> str:
    """Where this machine reaches the server of the data folder: where it says that it listens, else as the settings have it."""
    return (folder.read(folder.server_url) if os.access(folder.run, os.X_OK) else "") or local_url(here)


def local_url(here: Settings) -> str:
    """The address on this machine that the settings give the server, whatever its public one is."""
    return here.model_copy(update={"public_url": ""}).url


def trusting(ca_file: Path) -> ssl.SSLContext:
    """TLS that knows one authority more. Raises SettingsError when the file holds none."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise errors.SettingsError(f"{ca_file} holds no certificate that can be read: {error}") from None
    return context


def pinned(certificate: Path) -> ssl.SSLContext:
    """TLS to the data folder's own server: it is known by its certificate, whatever name it is reached by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError) as error:
        raise errors.SettingsError(f"REDFLAG_TLS_CERT: {certificate} cannot be read: {error}") from None
    return context


def find_token(here: Settings, folder: Place, url: str, own: str) -> tuple[str, str]:
    """The token and what to call it in an error. Raises NotAuthenticated when there is none for this address."""
    if options.token_file is not None:
        try:
            return options.token_file.read_text().strip(), f"the token in {options.token_file}"
        except OSError as error:
            raise errors.SettingsError(f"{options.token_file} cannot be read: {error.strerror}") from None
    if token := os.environ.get("REDFLAG_TOKEN", "").strip():
        return token, "the token in REDFLAG_TOKEN"
    if url.rstrip("/") in {own, local_url(here), here.url}:
        if token := folder.read(folder.cli_token):
            return token, f"the token in {folder.cli_token}"
        raise errors.NotAuthenticated(
            f"There is no token for {url}: neither REDFLAG_TOKEN nor {folder.cli_token}",
            "Run `make up`, or set REDFLAG_VAR to the server's data folder, or REDFLAG_TOKEN",
        )
    raise errors.NotAuthenticated(
        f"There is no token for {url}",
        "Set REDFLAG_TOKEN to an API token of that server; `redflag tokens create` makes one",
    )
