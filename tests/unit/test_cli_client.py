"""The commands' client: what it asks, where it sends the token, and what an answer becomes."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redflag import errors
from redflag.cli import client
from redflag.cli.client import Client, connect
from redflag.cli.exits import ExitCode, ServerFailed, ServerUnreachable, exit_code
from redflag.settings import settings


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers each path with what the test put there, and notes what was asked."""

    answers: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, str, str, str]]

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        self.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
        status, headers, answer = self.answers.get(
            self.path, (404, {}, b'{"title": "Not found", "detail": "No such thing."}')
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        return


@pytest.fixture
def server() -> Iterator[Any]:
    """A server; `url`, `answers` by path, `asked`."""
    handler = type("Handler", (Answers,), {"answers": {}, "asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.answers, running.asked = handler.answers, handler.asked  # type: ignore[attr-defined]
    running.url = f"http://127.0.0.1:{running.server_address[1]}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings of the machine, and a data folder of the test's own."""
    for name in ("REDFLAG_TOKEN", "REDFLAG_URL", "REDFLAG_PORT", "REDFLAG_HOST", "REDFLAG_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDFLAG_VAR", str(tmp_path / "var"))
    monkeypatch.setattr(client, "options", client.Options())
    settings.cache_clear()
    yield
    settings.cache_clear()


def put(server: Any, path: str, status: int, body: Any, **headers: str) -> None:
    server.answers[path] = (status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_an_answer_comes_decoded_and_the_token_goes_in_the_header(server: Any) -> None:
    put(server, "/api/v1/agents?limit=2", 200, {"agents": []})
    with Client(server.url, "secret") as api:
        assert api.get("/api/v1/agents", limit=2, text=None) == {"agents": []}
    assert server.asked == [("GET", "/api/v1/agents?limit=2", "Bearer secret", "")]


def test_a_list_is_read_page_by_page(server: Any) -> None:
    put(server, "/things?limit=2", 200, {"things": [1, 2], "next_cursor": "a"})
    put(server, "/things?limit=2&cursor=a", 200, {"things": [3], "next_cursor": None})
    with Client(server.url, "") as api:
        assert list(api.pages("/things", "things", limit=2)) == [1, 2, 3]


def test_a_list_ends_after_as_many_as_were_wanted(server: Any) -> None:
    put(server, "/things?limit=2", 200, {"things": [1, 2], "next_cursor": "a"})
    with Client(server.url, "") as api:
        assert list(api.pages("/things", "things", most=2)) == [1, 2]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, errors.InvalidInput, ExitCode.USAGE),
        (401, errors.NotAuthenticated, ExitCode.NOT_PERMITTED),
        (403, errors.NotPermitted, ExitCode.NOT_PERMITTED),
        (404, errors.NotFound, ExitCode.NOT_FOUND),
        (409, errors.Conflict, ExitCode.CONFLICT),
        (413, errors.TooLarge, ExitCode.USAGE),
        (422, errors.InvalidInput, ExitCode.USAGE),
        (429, errors.RateLimited, ExitCode.UNAVAILABLE),
        (500, ServerFailed, ExitCode.FAILED),
        (503, ServerUnreachable, ExitCode.UNAVAILABLE),
    ],
)
def test_a_problem_becomes_an_error_of_the_tree_with_the_servers_words(
    server: Any, status: int, kind: type[errors.RedFlagError], code: ExitCode
) -> None:
    put(server, "/x", status, {"title": "T", "status": status, "detail": "It was so. Do this."}, **{"Retry-After": "7"})
    with Client(server.url, "") as api, pytest.raises(errors.RedFlagError) as raised:
        api.get("/x")
    assert type(raised.value) is kind
    assert exit_code(raised.value) is code
    assert "It was so. Do this" in str(raised.value)
    assert ".." not in str(raised.value)


def test_a_wrong_token_is_named_by_where_it_came_from(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDFLAG_TOKEN", "old")
    client.options.url = server.url
    put(server, "/x", 401, {"detail": "The token is not valid."})
    with connect() as api, pytest.raises(errors.NotAuthenticated, match="REDFLAG_TOKEN"):
        api.get("/x")


def test_who_is_no_redflag_server_is_called_so(server: Any) -> None:
    put(server, "/page", 200, b"<html>hello</html>")
    put(server, "/missing", 404, b"<html>not here</html>")
    with Client(server.url, "") as api:
        for path in ("/page", "/missing"):
            with pytest.raises(ServerUnreachable, match="no RedFlag server"):
                api.get(path)


def test_a_redirect_is_not_followed_with_the_token(server: Any) -> None:
    put(server, "/x", 302, b"", Location=f"{server.url}/elsewhere")
    with Client(server.url, "secret") as api, pytest.raises(ServerUnreachable):
        api.get("/x")
    assert [path for _, path, _, _ in server.asked] == ["/x"]


def test_nobody_at_the_address_says_how_to_start_the_server() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with Client(url, "") as api, pytest.raises(ServerUnreachable) as raised:
            api.get("/healthz")
    assert str(raised.value) == f"The server does not answer at {url}. Start it with make up."


def test_the_folders_token_goes_to_the_folders_server(server: Any, tmp_path: Path) -> None:
    folder = tmp_path / "var"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "server.url").write_text(server.url + "\n")
    (folder / "cli-token").write_text("of the folder\n")
    put(server, "/x", 200, {})
    with connect() as api:
        api.get("/x")
    assert server.asked[0][2] == "Bearer of the folder"


def test_the_folders_token_goes_to_no_other_address(server: Any, tmp_path: Path) -> None:
    folder = tmp_path / "var"
    folder.mkdir()
    (folder / "cli-token").write_text("of the folder\n")
    client.options.url = "http://elsewhere.example"
    with pytest.raises(errors.NotAuthenticated, match="There is no token for"):
        connect()


def test_without_any_token_it_says_where_one_would_be(tmp_path: Path) -> None:
    with pytest.raises(errors.NotAuthenticated, match="cli-token"):
        connect()


def test_a_token_file_goes_before_the_environment(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDFLAG_TOKEN", "of the environment")
    file = tmp_path / "token"
    file.write_text("of the file\n")
    client.options.url, client.options.token_file = server.url, file
    put(server, "/x", 200, {})
    with connect() as api:
        api.get("/x")
    assert server.asked[0][2] == "Bearer of the file"
