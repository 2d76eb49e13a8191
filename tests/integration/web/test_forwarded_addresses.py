"""Whom a request comes from, when somebody says otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from starlette.requests import HTTPConnection

from redflag.settings import Settings
from redflag.web.context import address


def _connection(peer: str, forwarded: list[str], trusted: list[str]) -> HTTPConnection:
    app = SimpleNamespace(state=SimpleNamespace(context=SimpleNamespace(settings=Settings(trusted_proxies=trusted))))
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return HTTPConnection({"type": "http", "client": (peer, 1), "headers": headers, "app": app})


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("203.0.113.9", ["198.51.100.1"], [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.2"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", [], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense"], ["10.0.0.0/8"], "0.0.0.0"),
        ("::1", ["2001:db8::1"], ["::1/128"], "2001:db8::1"),
    ],
)
def test_only_what_trusted_proxies_wrote_is_believed(peer, forwarded, trusted, expected):
    assert address(_connection(peer, forwarded, trusted)) == expected
