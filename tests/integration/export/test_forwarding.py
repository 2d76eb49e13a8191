"""Live forwarding against receivers that behave and that do not: nothing is skipped, and what may be doubled says so."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from databases import connection
from integration.audit import evidence
from integration.export.conftest import Cli, admin_token, serving
from integration.export.receiver import Receiver
from redflag.alerts import metrics
from redflag.audit import actor as actors
from redflag.audit.export import forwarding, stream, syslog
from redflag.audit.export.forwarding import Forwarding, Wanted
from redflag.database import faults
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict, InvalidInput, NotFound

ORIGIN = "evidence.example/log"
RECORDS = 200
BATCH = 20


@pytest_asyncio.fixture(scope="module")
async def here(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[evidence.Place]:
    """A log of some hundred records."""
    async with evidence.place(postgres, "export_forwarding", tmp_path_factory.mktemp("forwarding")) as made:
        await write(made, RECORDS)
        yield made


async def write(here: evidence.Place, count: int) -> int:
    """More records, in a checkpoint; returns the size of the log."""
    await here.owner.execute(
        "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, $1::int) AS i",
        count,
    )
    return await here.seal()


@dataclass(frozen=True)
class Target:
    """A receiver as the database has it."""

    here: evidence.Place
    id: uuid.UUID
    name: str

    async def row(self) -> dict[str, Any]:
        """What is listed of it."""
        async with self.here.pool.acquire() as server:
            return next(row for row in await forwarding.listed(server) if row["id"] == self.id)

    async def has_all(self) -> bool:
        """Whether it has taken everything."""
        return (await self.row())["lag"] == 0

    async def change(self, **wanted: Any) -> dict[str, Any]:
        """A change by a person."""
        async with self.here.pool.acquire() as server:
            return await forwarding.change(server, actors.user("ada"), self.id, Wanted(**wanted))


Add = Callable[..., Awaitable[Target]]


@pytest_asyncio.fixture
async def add(here: evidence.Place) -> AsyncIterator[Add]:
    """Adds a receiver, from the beginning if nothing else is said; it is removed in the end."""
    made: list[uuid.UUID] = []

    async def add(port: int, /, **more: Any) -> Target:
        wanted = {
            "name": f"siem-{uuid.uuid4()}",
            "host": "127.0.0.1",
            "port": port,
            "transport": "tcp",
            "position": 0,
        } | more
        async with here.pool.acquire() as server:
            row = await forwarding.add(server, actors.user("ada"), Wanted(**wanted))
        made.append(row["id"])
        return Target(here, row["id"], row["name"])

    yield add
    async with here.pool.acquire() as server:
        for one in made:
            with contextlib.suppress(NotFound):
                await forwarding.remove(server, actors.user("ada"), one)


@contextlib.asynccontextmanager
async def sending(here: evidence.Place, **more: Any) -> AsyncIterator[None]:
    """A server's part that sends, until the block ends; then it is stopped in order."""
    stop = asyncio.Event()
    given = {"look_seconds": 0.01, "batch": BATCH} | more
    task = asyncio.create_task(Forwarding(here.pool, **given).run(stop))
    yield
    stop.set()
    await task


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def receiver() -> Any:
    """One that behaves."""
    made = Receiver()
    yield made
    made.close()
    assert made.failures == []


# The sending


async def test_every_record_arrives_once_in_order_also_those_that_come_later(here, add, receiver):
    target = await add(receiver.port)
    async with sending(here):
        await until(target.has_all)
        size = await write(here, 30)
        await until(target.has_all)
    assert receiver.positions == list(range(size))
    assert receiver.again == []
    row = await target.row()
    assert (row["position"], row["failing_since"], row["confirmed_by"]) == (size, None, "end of stream")
    assert row["last_ok_at"] is not None
    assert b"Z evidence.example redflag - note [" in receiver.messages[-1]
    event = json.loads(receiver.messages[-1].partition(b"] ")[2])
    assert event["data"]["message"] == "note 30"


async def test_stopping_and_starting_doubles_nothing_and_skips_nothing(here, add, receiver):
    target = await add(receiver.port)
    for part in range(5):
        async with sending(here):
            await until(lambda part=part: len(receiver.messages) >= (part + 1) * 30)
    async with sending(here):
        await until(target.has_all)
    assert receiver.positions == list(range((await target.row())["position"]))
    assert receiver.again == []


async def test_two_replicas_share_the_work_and_double_nothing(here, add, receiver):
    target = await add(receiver.port)
    async with sending(here, batch=5), sending(here, batch=7), sending(here, batch=11):
        await until(target.has_all)
    assert receiver.positions == list(range((await target.row())["position"]))
    assert receiver.again == []


async def test_a_receiver_begins_with_what_comes_from_now_on_if_nothing_is_said(here, add, receiver):
    size = await write(here, 1)
    target = await add(receiver.port, position=None)
    async with sending(here):
        await write(here, 5)
        await until(target.has_all)
    assert receiver.positions == list(range(size, size + 6))  # the first says that it was added


async def test_a_receiver_that_dies_in_the_middle_misses_nothing_and_sees_what_came_twice(here, add, monkeypatch):
    monkeypatch.setattr(forwarding, "SHORTEST_PAUSE", datetime.timedelta(milliseconds=10))
    # In the first bytes, within a message, after some whole ones; and after all of a batch but its last byte
    whole = await _batch_size(here)
    dying = Receiver(dies_after=(1, 700, 2 * whole // 3, whole - 1))
    target = await add(dying.port)
    async with sending(here):
        await until(target.has_all)
    dying.close()
    doubles = dying.doubles()
    assert sorted(set(dying.positions)) == list(range((await target.row())["position"]))
    assert doubles
    assert set(doubles) < set(range(BATCH)), "only the batch that was not taken comes again"
    assert (await target.row())["last_error"]


async def _batch_size(here: evidence.Place) -> int:
    spy = Receiver()
    async with here.pool.acquire() as server:
        row = await forwarding.add(
            server, actors.user("ada"), Wanted(name="spy", host="127.0.0.1", port=spy.port, transport="tcp", position=0)
        )
    async with sending(here):
        await until(lambda: len(spy.messages) >= BATCH)
    async with here.pool.acquire() as server:
        await forwarding.remove(server, actors.user("ada"), row["id"])
    spy.close()
    return sum(len(syslog.framed(message)) for message in spy.messages[:BATCH])


async def test_a_receiver_that_is_away_gets_everything_when_it_is_back(here, add, receiver, monkeypatch):
    monkeypatch.setattr(forwarding, "SHORTEST_PAUSE", datetime.timedelta(milliseconds=10))
    away = Receiver()
    away.close()
    target = await add(away.port)
    other = await add(receiver.port)
    async with sending(here):

        async def failed() -> bool:
            return (await target.row())["failures"] > 2

        await until(failed)
        await until(other.has_all)  # one that is away holds up no other
        row = await target.row()
        assert row["position"] == 0
        assert "127.0.0.1" in row["last_error"]
        back = Receiver(port=away.port)
        await until(target.has_all)
    back.close()
    assert back.positions == list(range((await target.row())["position"]))
    assert (await target.row())["failures"] == 0


async def test_a_receiver_that_never_ends_its_side_has_taken_nothing(here, add):
    silent = Receiver(silent=True)
    target = await add(silent.port)
    async with sending(here, batch_seconds=0.3):

        async def failed() -> bool:
            return (await target.row())["failures"] > 0

        await until(failed)
    row = await target.row()
    assert row["position"] == 0
    assert "did not close the connection after the last message" in row["last_error"]
    silent.close()


async def test_what_was_sent_before_a_crash_says_so_when_it_is_sent_again(here, add, receiver):
    target = await add(receiver.port)
    # As after a SIGKILL between the receiver's word and the note of it: the batch was begun, nobody ended it
    await here.owner.execute("UPDATE log_forwarders SET handed = 30 WHERE id = $1", target.id)
    async with sending(here):
        await until(target.has_all)
    assert receiver.again == list(range(30))


async def test_a_lease_of_somebody_who_died_is_taken_over_when_it_ends(here, add, receiver):
    target = await add(receiver.port)
    await here.owner.execute(
        "UPDATE log_forwarders SET claim = gen_random_uuid(), claimed_until = now() + interval '300 ms' WHERE id = $1",
        target.id,
    )
    async with sending(here):
        assert (await target.row())["position"] == 0
        await until(target.has_all)
    assert receiver.doubles() == []


async def test_a_position_that_is_gone_stops_the_forwarding_and_is_named(here, add, receiver, postgres):
    size = await write(here, 10)
    target = await add(receiver.port, position=size - 10)
    async for superuser in connection(postgres.url("postgres", "export_forwarding")):
        async with superuser.transaction():
            await superuser.execute("ALTER TABLE audit_entries DISABLE TRIGGER ALL")
            kept = await superuser.fetchrow("DELETE FROM audit_entries WHERE position = $1 RETURNING *", size - 5)
            await superuser.execute("ALTER TABLE audit_entries ENABLE TRIGGER ALL")
        async with sending(here):

            async def failed() -> bool:
                return (await target.row())["failures"] > 0

            await until(failed)
        row = await target.row()
        assert row["position"] == size - 10
        assert f"Position {size - 5} of the log is not there" in row["last_error"]
        assert receiver.messages == []
        async with superuser.transaction():
            await superuser.execute("ALTER TABLE audit_entries DISABLE TRIGGER ALL")
            await superuser.execute("INSERT INTO audit_entries VALUES ($1, $2, $3, $4)", *kept.values())
            await superuser.execute("ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_refuse")


async def test_messages_are_as_the_receiver_wants_them(here, add, receiver):
    await here.owner.execute("INSERT INTO update_logs (result, stdout) VALUES ('failed', repeat('x', 100000))")
    size = await here.seal()
    target = await add(receiver.port, position=size - 1, body=syslog.Body.OCSF, facility=16, max_message=2048)
    async with sending(here):
        await until(target.has_all)
    (message,) = receiver.messages
    assert len(message) <= 2048
    assert message.startswith(b"<132>1 ")
    event = json.loads(message.partition(b"] ")[2])
    assert event["class_uid"] == 6003
    assert event["unmapped"]["shortened"] == ["stdout"]


# TLS


@dataclass(frozen=True)
class Authority:
    """A CA of the test's, which makes certificates."""

    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """As it is given to others."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def serving(self, folder: Path, name: str) -> ssl.SSLContext:
        """A server's TLS under a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key.public_key(), self.certificate.subject, self.key, ca=False)
        file = folder / f"{uuid.uuid4()}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _certificate(name: str, public: Any, issuer: x509.Name | None, signer: Any, *, ca: bool) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    with contextlib.suppress(ValueError):
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(public)
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )  # fmt: skip


@pytest.fixture(scope="module")
def authorities() -> tuple[Authority, Authority]:
    """Two that know nothing of each other."""
    made = []
    for name in ("one", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        made.append(Authority(key, _certificate(name, key.public_key(), None, key, ca=True)))
    return made[0], made[1]


async def test_over_tls_the_receivers_close_notify_says_that_it_has_everything(here, add, authorities, tmp_path):
    one, _ = authorities
    receiver = Receiver(tls=one.serving(tmp_path, "127.0.0.1"))
    target = await add(receiver.port, transport="tls", ca=one.pem)
    async with sending(here):
        await until(target.has_all)
    receiver.close()
    assert receiver.positions == list(range((await target.row())["position"]))
    assert receiver.again == receiver.failures == []
    assert (await target.row())["confirmed_by"] == "close_notify"


@pytest.mark.parametrize("wrong", ["authority", "name", "trust", "plain", "expects tls"])
async def test_a_receiver_that_is_not_the_one_that_was_meant_gets_nothing(here, add, authorities, tmp_path, wrong):
    one, other = authorities
    tls = None if wrong == "plain" else one.serving(tmp_path, "example.org" if wrong == "name" else "127.0.0.1")
    receiver = Receiver(tls=tls)
    ca = {"authority": other.pem, "trust": None, "expects tls": None}.get(wrong, one.pem)
    target = await add(receiver.port, transport="tcp" if wrong == "expects tls" else "tls", ca=ca)
    async with sending(here, batch_seconds=0.5):

        async def failed() -> bool:
            return (await target.row())["failures"] > 0

        await until(failed)
    receiver._closed.set()
    row = await target.row()
    assert row["position"] == 0
    assert receiver.messages == []
    said = {
        "authority": "cannot be verified", "trust": "cannot be verified", "name": "certificate is not valid for",
        "plain": "TLS", "expects tls": "127.0.0.1",
    }[wrong]  # fmt: skip
    assert said in row["last_error"]


# Receivers as people manage them


async def test_what_a_person_does_to_a_receiver_is_recorded_and_what_the_cursor_does_is_not(here, add, receiver):
    target = await add(receiver.port)
    async with sending(here):
        await until(target.has_all)
    await target.change(enabled=False)
    await target.change(position=7)
    async with here.pool.acquire() as server:
        await forwarding.remove(server, actors.user("ada"), target.id)
    rows = await here.owner.fetch(
        "SELECT kind, action, actor, message FROM update_logs WHERE message LIKE '%' || $1 || '%' ORDER BY id",
        target.name,
    )
    assert [(row["kind"], row["action"]) for row in rows] == [
        ("change", "forwarder_created"), ("change", "forwarder_changed"), ("service", "forwarder_moved"), ("change", "forwarder_changed"),
    ]  # fmt: skip
    assert {row["actor"] for row in rows} == {"user:ada"}
    assert rows[2]["message"].endswith("→ 7")


async def test_a_paused_receiver_gets_nothing_and_goes_on_where_it_stands(here, add, receiver):
    target = await add(receiver.port)
    await target.change(enabled=False)
    other = Receiver()
    witness = await add(other.port)
    async with sending(here):
        await until(witness.has_all)
        assert receiver.messages == []
        await target.change(enabled=True)
        await until(target.has_all)
    other.close()
    assert receiver.positions == other.positions


async def test_a_cursor_that_was_moved_back_sends_again_and_says_so(here, add, receiver):
    target = await add(receiver.port)
    async with sending(here):
        await until(target.has_all)
        size = (await target.row())["position"]
        await target.change(position=size - 3)
        await until(lambda: len(receiver.messages) == size + 3)
    assert receiver.doubles() == list(range(size - 3, size))


async def test_a_receiver_that_was_given_another_address_gets_everything_from_where_the_first_stood(
    here, add, receiver
):
    first = Receiver()
    target = await add(first.port)
    async with sending(here):
        await until(target.has_all)
        await target.change(port=receiver.port)
        await write(here, 10)
        await until(target.has_all)
    first.close()
    assert first.positions + receiver.positions == list(range((await target.row())["position"]))


async def test_what_no_receiver_can_be_is_refused_and_violates_no_constraint(here, add, receiver, authorities):
    target = await add(receiver.port)
    faults.waiting.clear()
    with pytest.raises(Conflict, match="already"):
        await add(receiver.port, name=target.name.upper())
    one, _ = authorities
    for wrong in (
        {"name": ""}, {"name": "x" * 101}, {"name": "a\nb"}, {"host": ""}, {"host": "a b"}, {"host": "x" * 256}, {"port": 0},
        {"port": 65536}, {"transport": "udp"}, {"facility": 24}, {"max_message": 100}, {"position": -1}, {"position": 10**9},
        {"ca": "no certificate", "transport": "tls"}, {"ca": one.pem}, {"ca": "x" * 70_000, "transport": "tls"},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            await add(receiver.port, **wrong)
    for wrong in ({"ca": one.pem}, {"position": 10**9}, {"port": -1}):
        with pytest.raises(InvalidInput):
            await target.change(**wrong)
    with pytest.raises(NotFound):
        await Target(here, uuid.uuid4(), "nobody").change(enabled=True)
    assert not faults.waiting


async def test_the_authority_can_be_set_and_taken_away_and_only_its_digest_is_recorded(
    here, add, receiver, authorities
):
    one, _ = authorities
    target = await add(receiver.port, transport="tls", ca=one.pem)
    assert (await target.row())["ca_digest"]
    assert (await target.change(ca=""))["ca_digest"] is None
    await target.change(ca=one.pem)
    assert (await target.change(transport="tcp"))["ca_digest"] is None
    told = await here.owner.fetch("SELECT message FROM update_logs WHERE message LIKE '%' || $1 || '%'", target.name)
    assert not any("BEGIN CERTIFICATE" in row["message"] for row in told)
    assert any("ca_digest" in row["message"] for row in told)


async def test_a_receiver_that_takes_nothing_for_long_is_a_fault_and_metrics_say_how_far_it_is(here, add):
    away = Receiver()
    away.close()
    target = await add(away.port)
    faults.waiting.clear()
    async with sending(here, patience=datetime.timedelta(0)):
        await until(lambda: faults.waiting)
    assert faults.waiting[0].kind == "forwarder_failed"
    assert target.name in faults.waiting[0].detail
    faults.waiting.clear()
    async with here.pool.acquire() as server:
        page = (await metrics.render(server, 60)).decode()
    assert f'redflag_audit_forwarder_lag_records{{forwarder="{target.name}"}} {(await target.row())["lag"]}.0' in page


def test_a_batch_must_be_over_before_its_lease():
    with pytest.raises(ValueError, match="lease"):
        Forwarding(None, lease=datetime.timedelta(seconds=1), batch_seconds=1)
    assert forwarding.LEASE.total_seconds() > forwarding.BATCH_SECONDS


async def test_a_name_that_is_none_is_not_taken_for_a_receiver():
    with pytest.raises(stream.NotTaken, match=r"nowhere\.invalid"):
        await stream.hand_over(stream.Receiver("nowhere.invalid", 6514), [], 10)


# On the command line, with the server that sends


@pytest.fixture
def running(postgres: EmbeddedDatabase, tmp_path: Path) -> Any:
    """A real server on a new log."""
    name = evidence.new_name("export")

    async def make() -> str:
        async with evidence.place(postgres, name, tmp_path) as made:
            await write(made, 50)
            return await admin_token(made.pool)

    token = asyncio.run(make())
    (tmp_path / "var" / "log-key").mkdir(mode=0o700, parents=True)
    (tmp_path / "key").rename(tmp_path / "var" / "log-key" / "key")
    with serving(postgres.url("redflag_server", name), token, tmp_path / "var", log_origin=ORIGIN) as found:
        yield found


def test_a_receiver_is_added_followed_paused_moved_and_removed_by_the_command_line(
    cli: Cli, running, receiver, tmp_path
):
    from integration.export.conftest import until as wait  # noqa: PLC0415

    assert "Records are sent nowhere" in cli(running, "audit", "forward", "list").out
    ran = cli(running, "audit", "forward", "add", "siem", "127.0.0.1", str(receiver.port), "--transport", "tcp", "--from", "beginning")  # fmt: skip  # noqa: E501
    assert ran.code == 0, ran.err
    assert "from position 0 on" in ran.out
    assert "TLS ends that" in ran.err
    assert cli(running, "audit", "forward", "add", "siem", "localhost", "1").code == 5

    def row() -> dict[str, Any]:
        return json.loads(cli(running, "audit", "forward", "list", "--json").out)["forwarders"][0]

    wait(lambda: row()["position"] > 50 and receiver.positions == list(range(row()["position"])))
    wait(lambda: "up to date" in cli(running, "audit", "forward", "list").out)
    assert "No records go to siem for now" in cli(running, "audit", "forward", "pause", "siem").out
    assert cli(running, "audit", "forward", "set", "siem", "--from", "3", "--yes").code == 0
    assert cli(running, "audit", "forward", "set", "siem").code == 2
    assert "paused" in cli(running, "audit", "forward", "list").out
    before = len(receiver.messages)
    assert "from position 3 on" in cli(running, "audit", "forward", "resume", "siem").out
    wait(lambda: len(receiver.messages) > before + 40)
    assert cli(running, "audit", "forward", "remove", "siem", "--yes").code == 0
    assert cli(running, "audit", "forward", "pause", "siem").code == 3
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    assert cli(running, "audit", "forward", "add", "x", "localhost", "6514", "--ca", str(empty)).code == 2
