"""The server's only requests to others: bounded in time and in size, and nothing of the answer's words is passed on.

An address is the administrator's choice, and may lie in the server's own network: so no redirect is followed, and whoever asked
learns the status and nothing else of what answered there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx

import redflag
from redflag.publishing.targets import TargetFailed

# A full answer of a witness is a few hundred bytes
LIMIT = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back. `retry_after`: seconds, 0 if the answer names none."""

    status: int
    content_type: str
    retry_after: float
    body: bytes


class Http:
    """Connections to others, made when they are needed and kept open. `patience`: seconds for a whole request."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def post(self, url: str, content: bytes, headers: dict[str, str]) -> Answer:
        """POST. Raises TargetFailed when nothing answers in time, or too much is answered."""
        try:
            async with (
                asyncio.timeout(self._patience),
                self._client(url).stream("POST", url, content=content, headers=headers) as response,
            ):
                body = b""
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > LIMIT:
                        raise TargetFailed(f"It answered with more than {LIMIT} bytes", "Check its address")
                after = response.headers.get("Retry-After", "")
                return Answer(
                    response.status_code,
                    response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
                    float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0,
                    body,
                )
        except TimeoutError:
            raise TargetFailed(f"It did not answer within {self._patience:g} s", "Is it there?") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            why = str(error) or type(error).__name__
            raise TargetFailed(f"It cannot be reached: {why[:300]}", "Check its address, and the way there") from None

    async def close(self) -> None:
        """Ends the connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    def _client(self, url: str) -> httpx.AsyncClient:
        host = urlsplit(url).hostname or ""
        # A proxy of the environment is no way to this very machine
        here = host in {"localhost", "::1"} or host.startswith("127.")
        if here not in self._clients:
            client = httpx.AsyncClient(
                # The whole is bounded above; content that is packed is not asked for, and never unpacked
                timeout=None,  # noqa: S113
                headers={"User-Agent": f"redflag/{redflag.__version__}", "Accept-Encoding": "identity"},
                trust_env=not here,
            )
            # Nobody makes this server remember anything
            client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
            self._clients[here] = client
        return self._clients[here]
