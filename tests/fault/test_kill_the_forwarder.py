"""SIGKILL to who sends and restarts of who receives, rsyslog among them: nothing is skipped, what comes twice says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from fault import forwarder_process
from integration.audit import evidence
from integration.export.receiver import Receiver
from redflag.audit import actor as actors
from redflag.audit.export import forwarding, syslog
from redflag.audit.export.forwarding import Forwarding, Wanted
from redflag.database.embedded import EmbeddedDatabase

LONG = os.environ.get("REDFLAG_LONG") == "1"
SEED = int(os.environ.get("REDFLAG_SEED", "20260101"))
KILLS = int(os.environ.get("REDFLAG_KILLS", "100" if LONG else "5"))
RESTARTS = 30 if LONG else 3
PART = 200  # records written before each

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200 if LONG else 120)]


@pytest_asyncio.fixture
async def here(postgres: EmbeddedDatabase, tmp_path: Path) -> AsyncIterator[evidence.Place]:
    """A log of its own."""
    async with evidence.place(postgres, evidence.new_name("forward"), tmp_path) as made:
        yield made


async def _write(here: evidence.Place) -> int:
    await here.owner.execute(
        "INSERT INTO update_logs (result, message, stdout) SELECT 'success', 'note ' || i, repeat('é', CASE WHEN i % 20 = 0 THEN 3000 END) "
        "FROM generate_series(1, $1::int) AS i",
        PART,
    )
    return await here.seal()


async def _add(here: evidence.Place, port: int) -> None:
    async with here.pool.acquire() as server:
        wanted = Wanted(name="siem", host="127.0.0.1", port=port, transport="tcp", position=0)
        await forwarding.add(server, actors.user("ada"), wanted)


async def _until_taken(here: evidence.Place) -> int:
    for _ in range(6000):
        async with here.pool.acquire() as server:
            (row,) = await forwarding.listed(server)
        if not row["lag"]:
            return row["position"]
        await asyncio.sleep(0.01)
    raise AssertionError(row)


@contextlib.contextmanager
def _sender(dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, forwarder_process.__file__, dsn], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_whoever_sends_may_be_killed_at_any_moment(here, postgres):
    rng = random.Random(SEED)
    receiver = Receiver()
    await _add(here, receiver.port)
    dsn = postgres.url("redflag_server", await here.owner.fetchval("SELECT current_database()"))
    for _ in range(KILLS):
        await _write(here)
        wanted = len(receiver.messages) + rng.randrange(1, PART // 2)
        with _sender(dsn):
            for _ in range(6000):
                if len(receiver.messages) >= wanted:
                    break
                await asyncio.sleep(0.005)
            await asyncio.sleep(rng.random() * 0.02)  # so that it dies at other points than where a message arrived
    with _sender(dsn) as last:
        end = await _until_taken(here)
        last.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(last.wait, 30) == 0
    receiver.close()
    doubles = receiver.doubles()
    assert sorted(set(receiver.positions)) == list(range(end))
    assert len(doubles) <= KILLS * forwarder_process.BATCH
    once = list(dict.fromkeys(receiver.positions))
    assert once == sorted(once), "what came first is in order"


RSYSLOG = """
global(workDirectory="{folder}")
module(load="imtcp")
template(name="whole" type="string" string="%rawmsg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="take")
ruleset(name="take") {{ action(type="omfile" file="{folder}/taken" template="whole") }}
"""


class Rsyslog:
    """rsyslogd, as Debian has it, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._folder = folder
        self._configuration = folder / "rsyslog.conf"
        self._configuration.write_text(RSYSLOG.format(folder=folder, port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns when it listens."""
        command = ["rsyslogd", "-n", "-f", str(self._configuration), "-i", str(self._folder / "pid")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None
        raise AssertionError("rsyslogd does not listen")

    def stop(self) -> None:
        """SIGTERM, as a restart of the service does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def messages(self) -> list[bytes]:
        """What it has written, without what it says of itself."""
        taken = (self._folder / "taken").read_bytes().splitlines()
        return [line for line in taken if b" redflag - " in line]


async def test_rsyslog_takes_everything_also_when_it_is_restarted_in_between(here, tmp_path):
    if shutil.which("rsyslogd") is None:
        pytest.skip("rsyslogd is not installed; it is Debian's package rsyslog")
    rng = random.Random(SEED)
    rsyslog = Rsyslog(tmp_path)
    await _add(here, rsyslog.port)
    stop = asyncio.Event()
    sending = asyncio.create_task(Forwarding(here.pool, look_seconds=0.02, batch=20).run(stop))
    try:
        for _ in range(RESTARTS):
            await asyncio.to_thread(rsyslog.start)
            await _write(here)
            await asyncio.sleep(rng.random() * 0.2)
            await asyncio.to_thread(rsyslog.stop)
        await asyncio.to_thread(rsyslog.start)
        end = await _until_taken(here)
    finally:
        stop.set()
        await sending
        await asyncio.to_thread(rsyslog.stop)
    _require_all(rsyslog.messages(), end)


def _require_all(messages: list[bytes], end: int) -> None:
    seen: set[int] = set()
    for message in messages:
        position = syslog.position(message)
        json.loads(message.partition(b"] ")[2])  # none was cut, with rsyslog's own limit
        assert position not in seen or re.search(rb'\[[^]]* again="1"\]', message), message[:200]
        seen.add(position)
    assert seen == set(range(end))
