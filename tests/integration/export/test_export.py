"""The export over HTTP and on the command line: streamed, bounded, resumable, and never short without saying so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from databases import connection
from integration.audit import evidence
from integration.export.conftest import WAIT_SECONDS, Cli, Serving, admin_token, serving
from redflag.audit.export.formats import SHAPES, Format
from redflag.database.embedded import EmbeddedDatabase

EXPORT = "/api/v1/audit/export"


@pytest.fixture
def until(history: evidence.Place) -> str:
    """The moment until which nothing changes any more."""
    return history.known["until"].isoformat()


def _whole(served: Serving, **query: Any) -> bytes:
    with served.client() as api:
        answer = api.get(EXPORT, params=query)
        assert answer.status_code == 200, answer.text
        return answer.content


def _lines(format_: Format, data: bytes) -> list[bytes]:
    """The records of a file, each with its end."""
    if format_ != Format.CSV:
        return data.splitlines(keepends=True)
    found, begun = [], b""
    for line in data.splitlines(keepends=True):
        begun += line
        if begun.count(b'"') % 2 == 0 and line.endswith(b"\n"):
            found.append(begun)
            begun = b""
    return found


@pytest.mark.parametrize("format_", list(Format))
def test_an_export_resumed_at_every_position_is_the_same_as_one_in_one_go(served, history, until, format_):
    whole = _whole(served, format=format_, until=until)
    shape = SHAPES[format_]
    lines = _lines(format_, whole.removeprefix(shape.header))
    assert whole.startswith(shape.header)
    assert [shape.position(line) for line in lines] == list(range(history.known["size"]))
    with served.client() as api:
        for position in range(-1, len(lines)):
            rest = api.get(EXPORT, params={"format": format_, "until": until, "after": position})
            assert rest.content == b"".join(lines[position + 1 :]), position
        assert rest.headers["content-type"] == shape.media_type
        assert rest.headers["content-disposition"] == f'attachment; filename="audit-trail.{shape.suffix}"'


async def test_an_export_is_filtered_as_the_history_is(served, history, until):
    known = history.known
    for query, where in (
        ({"agent_id": str(known["agent"])}, f"agent_id = '{known['agent']}'"),
        ({"command_id": str(known["late"])}, f"command_id = '{known['late']}'"),
        ({"command_type": "reboot"}, "command_type = 'reboot'"),
        ({"kind": "change"}, "kind = 'change'"),
        ({"result": "timed_out"}, "result = 'timed_out'"),
        ({"actor": "user:ada"}, "actor = 'user:ada'"),
        ({"actor": "user:ada", "kind": "transition"}, "actor = 'user:ada' AND kind = 'transition'"),
        ({"since": known["before"].isoformat(), "kind": "note"}, f"kind = 'note' AND created_at >= '{known['before']}'"),
    ):  # fmt: skip
        data = await asyncio.to_thread(_whole, served, until=until, **query)
        found = {json.loads(line)["id"] for line in data.splitlines()}
        rows = await history.owner.fetch(f"SELECT id FROM update_logs WHERE {where} AND created_at < '{until}'")
        assert found == {str(row["id"]) for row in rows}, query
        assert found


def test_what_cannot_be_exported_is_refused_before_anything_is_sent(served):
    with served.client() as api:
        for query in (
            {"format": "xml"}, {"after": -2}, {"after": 2**63}, {"agent_id": "x"}, {"kind": "x"}, {"since": "x"},
            {"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}, {"actor": "x\x00"},
        ):  # fmt: skip
            assert api.get(EXPORT, params=query).status_code == 422, query
        assert api.get(EXPORT, params={"since": "2100-01-01T00:00:00Z"}).content == b""


async def test_who_exports_is_recorded_with_what_once_an_hour(served, history):
    for _ in range(2):
        await asyncio.to_thread(_whole, served, kind="note", format="csv")
    rows = await history.owner.fetch(
        "SELECT actor, message, result FROM update_logs WHERE action = 'audit_exported' AND message = 'csv kind=note'"
    )
    assert len(rows) == 1
    assert rows[0]["actor"].startswith("token:export-")
    assert rows[0]["result"] == "success"


@contextlib.contextmanager
def _stalled(served: Serving, **query: Any) -> Iterator[Iterator[bytes]]:
    """An export of which nobody reads more than the first piece; the others."""
    with served.client() as api, api.stream("GET", EXPORT, params=query) as answer:
        pieces = answer.iter_raw(1000)
        next(pieces)
        yield pieces


@pytest.fixture(scope="module")
def large(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server whose log is larger than all buffers on the way."""
    folder = tmp_path_factory.mktemp("large")

    async def make() -> str:
        async with evidence.place(postgres, "export_large", folder) as here:
            await here.owner.execute(
                "INSERT INTO update_logs (result, stdout) SELECT 'success', repeat(md5(i::text), 20000) FROM generate_series(1, 80) AS i"
            )
            await here.seal()
            return await admin_token(here.pool)

    token = asyncio.run(make())
    (folder / "log-key").mkdir(mode=0o700)
    shutil.copy(folder / "key", folder / "log-key" / "key")
    dsn = postgres.url("redflag_server", "export_large")
    with serving(dsn, token, folder, log_origin="evidence.example/log", database_pool=2) as running:
        yield running


def test_whoever_reads_slowly_holds_no_connection(large):
    with contextlib.ExitStack() as stack, large.client() as api:
        for _ in range(4):
            stack.enter_context(_stalled(large))
        for _ in range(3):
            assert api.get("/api/v1/audit/log").status_code == 200


def _read_on(large: Serving, begun: threading.Event, gone: threading.Event) -> int:
    with _stalled(large) as pieces:
        begun.set()
        gone.wait(WAIT_SECONDS)
        return sum(len(piece) for piece in pieces)


async def test_an_export_that_fails_in_the_middle_is_cut_and_never_ends_in_order(large, postgres):
    begun, gone = threading.Event(), threading.Event()
    reading = asyncio.create_task(asyncio.to_thread(_read_on, large, begun, gone))
    await asyncio.to_thread(begun.wait, WAIT_SECONDS)
    async for superuser in connection(postgres.url("postgres", "export_large")):
        try:
            await superuser.execute("ALTER DATABASE export_large CONNECTION LIMIT 0")
            await superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'redflag_server' AND datname = 'export_large'"
            )
            gone.set()
            with pytest.raises(httpx.RemoteProtocolError):
                await reading
        finally:
            await superuser.execute("ALTER DATABASE export_large CONNECTION LIMIT -1")


class Cutting:
    """A connection to the server that is cut after some bytes of the answer."""

    def __init__(self, server: Serving, after: int) -> None:
        self._port = int(server.url.rpartition(":")[2])
        self._left = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serving = Serving(f"http://127.0.0.1:{self._listener.getsockname()[1]}", server.token)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while self._left > 0:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                while self._left > 0 and (data := server.recv(min(4096, self._left))):
                    self._left -= len(data)
                    client.sendall(data)
                for one in (client, server):
                    # Also under whoever waits for something to read
                    one.shutdown(socket.SHUT_RDWR)
                    one.close()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(4096):
                server.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_SECONDS)


@pytest.mark.parametrize("format_", list(Format))
def test_a_file_that_broke_off_says_so_and_resume_makes_it_whole(cli: Cli, served, tmp_path: Path, until, format_):
    file = tmp_path / "trail"
    arguments = ("audit", "export", "--format", format_, "--to", str(file), "--until", until)
    cutting = Cutting(served, after=9000)
    ran = cli(cutting.serving, *arguments)
    cutting.close()
    assert ran.code == 6
    assert "broke off after" in ran.err
    assert f"The same command with --resume goes on with {file}" in ran.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    whole = _whole(served, format=format_, until=until)
    begun = file.read_bytes()
    assert whole.startswith(begun)
    assert 0 < len(begun) < len(whole)
    ran = cli(served, *arguments)
    assert (ran.code, "exists already" in ran.err) == (5, True)
    ran = cli(served, *arguments, "--resume", "--json")
    assert ran.code == 0, ran.err
    assert file.read_bytes() == whole
    told = json.loads(ran.out)
    shape = SHAPES[format_]
    lines = _lines(format_, whole.removeprefix(shape.header))
    assert told["records"] == len(lines) - 1 - (told["after"] if told["after"] is not None else -1)
    # Once more there is nothing to add
    assert "0 records more" in cli(served, *arguments, "--resume").out
    assert file.read_bytes() == whole


def test_an_export_grows_by_what_came_since(cli: Cli, served, tmp_path: Path, until):
    file = tmp_path / "trail.csv"
    ran = cli(served, "audit", "export", "--format", "csv", "--to", str(file), "--until", until)
    assert f"{file}: " in ran.out
    assert "--resume adds what comes later" in ran.out
    first = file.read_bytes()
    assert cli(served, "audit", "export", "--format", "csv", "--to", str(file), "--resume").code == 0
    assert file.read_bytes().startswith(first)
    assert file.read_bytes() == _whole(served, format="csv")[: len(file.read_bytes())]


def test_a_file_with_nothing_but_its_header_is_gone_on_with(cli: Cli, served, tmp_path: Path, until):
    file = tmp_path / "trail.csv"
    for begun in (b"", b"posi", SHAPES[Format.CSV].header):
        file.write_bytes(begun)
        assert (
            cli(served, "audit", "export", "--format", "csv", "--to", str(file), "--until", until, "--resume").code == 0
        )
        assert file.read_bytes() == _whole(served, format="csv", until=until)


def test_without_a_file_the_export_is_printed(cli: Cli, served, until):
    ran = cli(served, "audit", "export", "--type", "reboot", "--until", until)
    assert ran.code == 0
    assert ran.out.encode() == _whole(served, command_type="reboot", until=until)


def test_what_makes_no_sense_is_refused_and_nothing_is_left_behind(cli: Cli, served, tmp_path: Path):
    file = tmp_path / "trail"
    assert cli(served, "audit", "export", "--resume").code == 2
    assert cli(served, "audit", "export", "--to", str(file), "--resume", "--after", "3").code == 2
    assert cli(served, "audit", "export", "--to", str(file), "--agent", "nobody-has-this-name").code == 3
    assert not file.exists()
    file.write_text("something else\n")
    ran = cli(served, "audit", "export", "--to", str(file), "--resume")
    assert (ran.code, "is no export in this format" in ran.err) == (2, True)
    assert file.read_text() == "something else\n"
