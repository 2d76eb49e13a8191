"""What agents are told of the log, at nearly no cost, and what becomes of their alarms."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

import redflag_verify
from databases import connection, connections, make_database
from redflag.access import agent_tokens, enrolment
from redflag.audit import actor as actors
from redflag.audit import sequencer
from redflag.audit.checkpoint import Checkpoint, Signer, load_key
from redflag.audit.memory import Memory
from redflag.database import faults
from redflag.database import pool as pools
from redflag.errors import InvalidInput
from redflag.fleet.checkpoints import Alarm, Checkpoints, Newest, held, read_newest, record_alarm
from redflag.settings import Settings
from redflag.web.app import make_app

NAME = "agents_as_witnesses"


@pytest_asyncio.fixture(scope="module")
async def own(postgres: Any) -> str:
    """A log of their own, that nobody works on beside these tests."""
    await make_database(postgres, NAME)
    return NAME


@pytest_asyncio.fixture(scope="module")
async def owner(postgres: Any, own: str) -> AsyncIterator[Any]:
    async for opened in connection(postgres.url("redflag_owner", own)):
        yield opened


@pytest_asyncio.fixture(scope="module")
async def counted(postgres: Any, own: str) -> AsyncIterator[Any]:
    """The server's connections; `statements` of the class are those that they ran."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "Connection", Counted)
        async for opened in connections(postgres.url("redflag_server", own), 8):
            yield opened


class Counted(pools.Connection):
    """A connection whose statements are counted."""

    statements = 0

    async def _examined(self, statement: Any) -> Any:
        Counted.statements += 1
        return await super()._examined(statement)


class Statements:
    """How many statements a block ran."""

    def __enter__(self) -> Statements:
        self._before = Counted.statements
        return self

    def __exit__(self, *_: object) -> None:
        self.ran = Counted.statements - self._before


@dataclass
class Log:
    """The log, and the steps that its server does."""

    pool: Any
    owner: Any
    signer: Signer
    memory: Memory

    async def grow(self, by: int = 1) -> Checkpoint:
        """More records, and a checkpoint that has them."""
        await self.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, $1)", by)
        async with self.pool.acquire() as one:
            await sequencer.sequence(one)
            await sequencer.integrate(one)
            signed = await sequencer.publish(one, self.signer, self.memory)
        assert signed is not None
        return signed

    def told(self, **options: Any) -> Checkpoints:
        """As a server process that has just been started."""
        return Checkpoints(self.pool, self.signer.verifier.public, **options)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Where the log's key is."""
    return Settings(var=tmp_path_factory.mktemp("witnesses"), log_origin="example.com/log")


@pytest_asyncio.fixture(scope="module")
async def log(owner: Any, counted: Any, settings: Settings) -> Log:
    settings.log_folder.mkdir(mode=0o700)
    signer = load_key("example.com/log", settings.log_folder / "key")
    made = Log(counted, owner, signer, Memory(settings.log_folder / "newest", signer))
    await made.grow(10)
    return made


async def _agent(owner: Any) -> uuid.UUID:
    return await owner.fetchval("INSERT INTO agents (hostname, protocol) VALUES ('witness', 1) RETURNING id")


def _verified(answer: dict[str, Any], old: Checkpoint | None) -> int:
    """The size of the checkpoint, checked as an agent does."""
    trust = redflag_verify.Trust(redflag_verify.Key.parse(answer["key"], redflag_verify.ED25519))
    new = redflag_verify.open_checkpoint(answer["checkpoint"].encode(), trust, redflag_verify.Report())
    proof = [base64.b64decode(one) for one in answer["consistency"]]
    if old is not None:
        assert answer["old"] == old.size
        assert redflag_verify.verify_consistency(old.size, old.root, new.size, new.root, proof)
    return new.size


async def test_an_agent_is_told_the_newest_checkpoint_and_that_the_log_begins_with_its_own(log):
    old = await log.grow()
    new = await log.grow(300)
    answer = await log.told().answer(uuid.uuid4(), {"size": old.size, "origin": old.origin})
    assert answer is not None
    assert _verified(answer, old) == new.size
    assert answer["key"] == log.signer.verifier.vkey()
    first = await log.told().answer(uuid.uuid4(), {})
    assert first is not None
    assert (first["old"], first["consistency"]) == (0, [])
    assert _verified(first, None) == new.size
    same = await log.told().answer(uuid.uuid4(), {"size": new.size})
    assert same is not None
    assert (same["old"], same["consistency"]) == (new.size, [])


async def test_a_thousand_agents_that_hold_few_sizes_cost_few_statements(log):
    old = [await log.grow() for _ in range(3)]
    new = await log.grow()
    told = log.told()
    with Statements() as statements:
        answers = await asyncio.gather(
            *[told.answer(uuid.uuid4(), {"size": old[i % 3].size, "origin": "example.com/log"}) for i in range(1000)]
        )
    assert statements.ran == 4  # the newest checkpoint once, and a proof for each size
    for i, answer in enumerate(answers[:10]):
        assert answer is not None
        assert _verified(answer, old[i % 3]) == new.size


async def test_the_newest_checkpoint_is_read_again_after_a_while_and_at_once_for_who_holds_a_larger_one(log):
    told = log.told(newest_seconds=1000)
    before = await told.answer(uuid.uuid4(), {})
    grown = await log.grow()
    assert await told.answer(uuid.uuid4(), {}) == before
    answer = await told.answer(uuid.uuid4(), {"size": grown.size})
    assert answer is not None
    assert _verified(answer, grown) == grown.size
    fresh = log.told(newest_seconds=0)
    await fresh.answer(uuid.uuid4(), {})
    again = await log.grow()
    answer = await fresh.answer(uuid.uuid4(), {"size": grown.size})
    assert answer is not None
    assert _verified(answer, grown) == again.size


async def test_an_agent_that_holds_more_than_there_is_is_shown_what_there_is(log):
    new = await log.grow()
    answer = await log.told().answer(uuid.uuid4(), {"size": new.size + 1000, "origin": "example.com/log"})
    assert answer is not None
    assert _verified(answer, None) == new.size
    assert answer["consistency"] == []


async def test_an_agent_is_told_once_an_hour_and_others_are_too(log):
    told = log.told()
    one = uuid.uuid4()
    assert await told.answer(one, {}) is not None
    with Statements() as statements:
        assert await told.answer(one, {}) is None
        assert await told.answer(uuid.uuid4(), {}) is not None
    assert statements.ran == 0
    assert await log.told(every=0.0).answer(one, {}) is not None


async def test_who_was_told_is_forgotten_when_the_hour_is_over_or_they_are_too_many(log, monkeypatch):
    monkeypatch.setattr("redflag.fleet.checkpoints.MOST_AGENTS", 10)
    told = log.told()
    agents = [uuid.uuid4() for _ in range(25)]
    for one in agents:
        assert await told.answer(one, {}) is not None
    assert len(told._told) == 10
    assert await told.answer(agents[-1], {}) is None
    assert await told.answer(agents[0], {}) is not None


@pytest.mark.parametrize(
    "said", [None, 5, "x", [], {"size": -1}, {"size": True}, {"size": 2**63}, {"size": 1.5}, {"size": "1"}, {"size": None}, {"origin": 5}],
    ids=str,
)  # fmt: skip
async def test_what_makes_no_sense_is_passed_over(log, said):
    with Statements() as statements:
        assert await log.told().answer(uuid.uuid4(), said) is None
    assert statements.ran == 0


async def test_a_database_that_is_away_fails_no_check_in_and_the_agent_may_ask_again(log, migrated, dsn_server):
    away = await pools.open_pool(dsn_server, size=1)
    told = Checkpoints(away, log.signer.verifier.public)
    one = uuid.uuid4()
    await away.close()
    assert await told.answer(one, {}) is None
    told.pool = log.pool
    assert await told.answer(one, {}) is not None


async def test_a_log_whose_tiles_are_damaged_is_shown_without_a_proof(log, postgres):
    old = await log.grow()
    await log.grow(10)
    edge = old.size // 256
    async for superuser in connection(postgres.url("postgres", NAME)):
        async with superuser.transaction():
            await superuser.execute("ALTER TABLE audit_tiles DISABLE TRIGGER ALL")
            kept = await superuser.fetchval("SELECT hashes FROM audit_tiles WHERE level = 0 AND index = $1", edge)
            await superuser.execute("UPDATE audit_tiles SET hashes = sha256('') WHERE level = 0 AND index = $1", edge)
        answer = await log.told().answer(uuid.uuid4(), {"size": old.size})
        async with superuser.transaction():
            await superuser.execute("UPDATE audit_tiles SET hashes = $1 WHERE level = 0 AND index = $2", kept, edge)
            await superuser.execute("ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_tiles_refuse")
            await superuser.execute("ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_tiles_grow")
    assert answer is not None
    assert answer["consistency"] == []


def test_of_a_log_that_was_closed_the_proof_leads_on_from_what_is_left_of_it():
    root = base64.b64encode(bytes(32)).decode()
    note = f"c\n200\n{root}\nprevious b 120 {root}\nabandoned b 150 {root}\nprevious a 140 {root}\nprevious x y z\nprevious\n\n— c sig\n"
    newest = read_newest(200, note)
    assert newest == Newest(200, root, note, "c", {"b": 120, "a": 120})
    for size, origin, begin in (
        (110, "b", 110), (130, "b", 120), (130, "a", 120), (130, "c", 130), (130, None, 130), (130, "unknown", 130),
    ):  # fmt: skip
        said = held({"size": size, "origin": origin})
        assert said is not None
        assert newest.begin(said) == begin


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    asked: asyncio.Queue[Any] = asyncio.Queue()
    told: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert await told.get() == {"type": "lifespan.startup.complete"}
    yield
    await asked.put({"type": "lifespan.shutdown"})
    assert await told.get() == {"type": "lifespan.shutdown.complete"}
    await task


@pytest_asyncio.fixture(scope="module")
async def client(log: Log, settings: Settings, postgres: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A server that does nothing beside answering."""

    async def nothing(_context: Any, stop: asyncio.Event) -> None:
        await stop.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redflag.web.background.run", nothing)
        app: Any = make_app(settings, postgres.url("redflag_server", NAME))
        async with (
            _lifespan(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as opened,
        ):
            yield opened


async def _come_by(client: httpx.AsyncClient, owner: Any, **body: Any) -> tuple[dict[str, Any], int]:
    """The second check-in of a new agent, when its token is known: the answer, and the statements that it took."""
    agent_id = await _agent(owner)
    async with owner.transaction():
        token, _ = await agent_tokens.issue(owner, agent_id)
    path, headers = f"/api/v1/agents/{agent_id}/commands", {"Authorization": f"Bearer {token}"}
    await client.request("GET", path, json={"protocol": 1}, headers=headers)
    with Statements() as statements:
        answer = await client.request("GET", path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json(), statements.ran


async def test_a_check_in_that_asks_for_the_log_is_one_statement_as_any_other(client, log, owner):
    old = await log.grow()
    new = await log.grow()
    plain, statements = await _come_by(client, owner, protocol=1)
    assert statements == 1
    assert "log" not in plain
    first, statements = await _come_by(client, owner, protocol=1, log={"size": old.size, "origin": old.origin})
    assert statements == 3  # and the newest checkpoint, and the proof: once for all
    again, statements = await _come_by(client, owner, protocol=1, log={"size": old.size, "origin": old.origin})
    assert statements == 1
    assert again["log"] == first["log"]
    assert _verified(again["log"], old) == new.size


async def test_our_own_agents_are_given_the_logs_key_to_pin_when_they_are_enrolled(client, log):
    async with log.pool.acquire() as one:
        token, _ = await enrolment.create(one, actors.service("tests", "here"), "witnesses", 2, 1)
    keys = []
    for protocol in (0, 1):
        body = {"hostname": "witness", "registration_token": token, "protocol": protocol}
        answer = await client.post("/api/v1/agents/register", json=body)
        assert answer.status_code == 200, answer.text
        keys.append(answer.json().get("log_key"))
    assert keys == [None, log.signer.verifier.vkey()]


async def test_redflags_own_agents_are_told_nothing_of_it(client, owner):
    answer, statements = await _come_by(client, owner, log={"size": 0})
    assert answer == {"commands": []}
    assert statements == 1


async def _alarms(owner: Any, agent_id: uuid.UUID) -> list[Any]:
    return await owner.fetch(
        "SELECT * FROM update_logs WHERE agent_id = $1 AND actor LIKE 'agent:%' ORDER BY created_at", agent_id
    )


async def _report(
    log: Log, agent_id: uuid.UUID, reason: str, note: str, given: str = "", message: str = "seen"
) -> bool:
    async with log.pool.acquire() as one:
        alarm = Alarm(reason, message, note, given)
        return await record_alarm(one, actors.agent(agent_id, "192.0.2.9"), agent_id, alarm, log.signer.verifier.public)


@pytest.fixture(autouse=True)
def _no_faults() -> None:
    faults.waiting.clear()


def _faults() -> list[faults.Fault]:
    return [one for one in faults.waiting if one.kind == "log_rollback_seen"]


async def test_an_alarm_is_one_record_and_one_fault_an_hour_for_an_agent_and_a_reason(log, owner):
    one, other = await _agent(owner), await _agent(owner)
    now = await log.grow()
    note, given = log.signer.sign(now.size + 50, bytes(32)), now.note
    assert [await _report(log, one, "smaller_tree", note, given) for _ in range(3)] == [True, False, False]
    assert await _report(log, one, "bad_proof", note, given)
    assert await _report(log, other, "smaller_tree", note, given)

    first, second = await _alarms(owner, one)
    assert (first["kind"], first["action"], first["result"]) == ("access", "log_rollback_seen", "failed")
    assert (first["actor"], first["agent_id"]) == (f"agent:{one}", one)
    assert first["metadata"]["reason"] == "smaller_tree"
    assert (first["metadata"]["held"], first["metadata"]["given"]) == (note, given)
    assert (first["metadata"]["held_size"], first["metadata"]["given_size"]) == (now.size + 50, now.size)
    assert first["metadata"]["address"] == "192.0.2.9"
    assert second["metadata"]["reason"] == "bad_proof"
    assert len(_faults()) == 3
    assert str(one) in _faults()[0].detail


async def test_an_alarm_says_whether_the_agent_shows_a_proof_or_only_says_so(log, owner):
    old = await log.grow()
    now = await log.grow()
    stranger = load_key("example.com/log", Path("unused"), base64.b64encode(bytes(32)).decode())
    said = {
        log.signer.sign(now.size + 1, bytes(32)): f"that this log's key has signed, and this log has {now.size}",
        log.signer.sign(old.size, bytes(32)): "has signed, and this log does not begin with it",
        old.note: "has signed, and this log begins with it",
        stranger.sign(now.size + 1, bytes(32)): "showed no checkpoint that this log's key has signed",
        "nonsense password=hunter2 \x00": "showed no checkpoint that this log's key has signed",
        "": "held none yet",
    }
    for note, words in said.items():
        one = await _agent(owner)
        assert await _report(log, one, "bad_proof", note)
        (record,) = await _alarms(owner, one)
        assert words in record["message"], note
        assert words in _faults()[-1].detail
        assert "hunter2" not in str(record["metadata"])


async def test_a_log_that_was_renamed_is_recorded_and_is_no_alarm(log, owner):
    one = await _agent(owner)
    now = await log.grow()
    assert await _report(log, one, "log_renamed", now.note, message="the log a goes on as b")
    (record,) = await _alarms(owner, one)
    assert (record["action"], record["result"]) == ("log_renamed_seen", "success")
    assert record["message"].startswith("the log a goes on as b")
    assert _faults() == []


async def test_a_report_is_bounded(log, owner):
    one = await _agent(owner)
    for reason, note in (("whatever", ""), ("", ""), ("bad_proof", "x" * 70_000)):
        with pytest.raises(InvalidInput):
            await _report(log, one, reason, note)
    assert await _report(log, one, "bad_proof", "x" * 65_536, "y" * 65_536, "z" * 100_000)
    (record,) = await _alarms(owner, one)
    assert len(record["message"]) < 700
    assert len(record["metadata"]["held"]) == 4000


async def test_the_route_records_what_an_agent_reports_of_itself(client, log, owner):
    agent_id = await _agent(owner)
    async with owner.transaction():
        token, _ = await agent_tokens.issue(owner, agent_id)
    path, headers = f"/api/v1/agents/{agent_id}/log-alarm", {"Authorization": f"Bearer {token}"}
    body = {"reason": "smaller_tree", "message": "seen", "held": log.signer.sign(10**6, bytes(32)), "given": "x"}
    answers = [await client.post(path, json=body, headers=headers) for _ in range(2)]
    assert [one.json() for one in answers] == [{"status": "recorded"}, {"status": "counted"}]
    assert (await client.post(path, json={"reason": 5}, headers=headers)).status_code == 400
    assert (await client.post(path, json={"reason": "new"}, headers=headers)).status_code == 400
    assert (await client.post(path, json=body | {"held": "x" * 2**20}, headers=headers)).status_code == 413
    assert len(await _alarms(owner, agent_id)) == 1
