"""Every change of a command leaves exactly one record, in the same transaction, whoever makes it and by whatever path.

The rules are written out here from redflag.commands.states alone, and held against the database: for each pair of states,
each role and each path. A change that is refused has not happened, and one that changes nothing leaves nothing.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from integration.commands.helpers import (
    MINUTE,
    agent_actor,
    as_json,
    command,
    make_command,
    person,
    records,
    replay,
    results,
)
from redflag.audit import actor as actors
from redflag.commands import queue
from redflag.commands import results as reports
from redflag.commands.states import AFTER_DELIVERY, LIVE, RESULTS, TERMINAL, TRANSITIONS, Status
from redflag.errors import Conflict
from redflag.timeouts import sweeper

ROLES = ("server", "owner", "superuser", "replica")
BY_HAND = {"owner": "db:redflag_owner", "superuser": "db:postgres", "replica": "db:postgres"}
ACTOR = "user:tester"
PATHS = ("UPDATE", "MERGE", "upsert")
INSERT_PATHS = ("INSERT", "COPY", "MERGE", "upsert")

ILLEGAL = "RF001"
NO_ACTOR = "RF002"
KEPT = "RF003"
NO_RIGHT = "42501"


@dataclass(frozen=True)
class Change:
    """One try: who, how, from where to where. `sent`: handed out before; `due`: its deadline has passed."""

    role: str
    path: str
    old: Status
    new: Status
    sent: bool
    due: bool = False

    def __str__(self) -> str:
        state = f"{self.old}{' (taken back)' if self.old == Status.PENDING and self.sent else ''}{' (overdue)' if self.due else ''}"
        told = {"none": "no record", "one": "one record", "forced": "one record, forced", "refused": "refused"}[
            self.expected
        ]
        return f"{state} -> {self.new} by the {self.role} with {self.path}: {told}"

    @property
    def legal(self) -> bool:
        """The table of states.py, and what it says beside the table."""
        if self.new not in TRANSITIONS[self.old]:
            return False
        if self.old == Status.PENDING and self.new in AFTER_DELIVERY and not self.sent:
            return False
        return self.new != Status.TIMED_OUT or self.due

    @property
    def expected(self) -> str:
        if self.old == self.new:
            return "none"
        if self.legal:
            return "one"
        return "refused" if self.role == "server" else "forced"


def changes() -> Iterator[Change]:
    for role, path, old, new in itertools.product(ROLES, PATHS, Status, Status):
        yield Change(role, path, old, new, sent=old in {Status.SENT, Status.RUNNING, Status.COMPLETED, Status.FAILED})
    for role, path, new in itertools.product(ROLES, PATHS, Status):
        yield Change(role, path, Status.PENDING, new, sent=True)
    for role, path, old in itertools.product(ROLES, PATHS, sorted(LIVE)):
        yield Change(role, path, old, Status.TIMED_OUT, sent=old != Status.PENDING, due=True)


def named(cases: Iterator[Any]) -> list[Any]:
    return [pytest.param(case, id=str(case)) for case in cases]


@pytest.fixture
def by(server: Any, owner: Any, superuser: Any) -> Any:
    """A transaction of a role, rolled back in the end."""
    connections = {"server": server, "owner": owner, "superuser": superuser, "replica": superuser}

    @contextlib.asynccontextmanager
    async def transaction(role: str) -> AsyncIterator[Any]:
        connection = connections[role]
        whole = connection.transaction()
        await whole.start()
        try:
            if role == "replica":
                await connection.execute("SET LOCAL session_replication_role = replica")
            yield connection
        finally:
            await whole.rollback()

    return transaction


@pytest.fixture
async def disposable(owner: Any, agent_id: uuid.UUID) -> AsyncIterator[Any]:
    """Makes commands for this test, and ends those that it left alive, so that no later sweep finds them."""
    made: list[uuid.UUID] = []

    async def make(status: str, **how: Any) -> uuid.UUID:
        made.append(await make_command(owner, agent_id, status, **how))
        return made[-1]

    yield make
    await owner.execute(
        "UPDATE agent_commands SET status = 'cancelled' WHERE id = ANY ($1) AND status = ANY ('{pending,sent,running}')",
        made,
    )


async def attempt(connection: Any, work: Any) -> asyncpg.PostgresError | None:
    """Runs a statement in a savepoint; returns what the database said against it."""
    try:
        async with connection.transaction():
            await work
    except asyncpg.PostgresError as error:
        return error
    return None


async def state_of(connection: Any, command_id: uuid.UUID) -> tuple[Any, list[Any], int]:
    """The row, all of its records, and how many of them are in the outbox."""
    waiting = await connection.fetchval(
        "SELECT count(*) FROM audit_pending p JOIN update_logs u ON (u.created_at, u.id) = (p.created_at, p.id) WHERE u.command_id = $1",
        command_id,
    )
    return await command(connection, command_id), await records(connection, command_id, None), waiting


def assert_the_record(record: Any, role: str, after: Any, *, version: int, forced: bool, came_from: str | None) -> None:
    """The one new record says who, what, and from where; and it is a transition of this very version."""
    assert record["kind"] == "transition"
    assert record["version"] == version == after["version"]
    assert record["actor"] == (ACTOR if role == "server" else BY_HAND[role])
    assert record["result"] == RESULTS[Status(after["status"])][0]
    assert record["metadata"].get("from") == came_from
    assert record["metadata"].get("forced", False) is forced
    for column in ("agent_id", "command_type", "sent_at", "completed_at"):
        assert record[column] == after[column]


def set_status(connection: Any, path: str, command_id: uuid.UUID, status: str, act: dict[str, Any]) -> Any:
    """The same change by one of the statements that can make it."""
    if path == "UPDATE":
        statement = "UPDATE agent_commands SET status = $2, act = $3 WHERE id = $1"
    elif path == "MERGE":
        statement = """MERGE INTO agent_commands c USING (SELECT $1::uuid AS id) s ON c.id = s.id
                       WHEN MATCHED THEN UPDATE SET status = $2, act = $3"""
    else:
        statement = """INSERT INTO agent_commands (id, agent_id, command_type, act)
                       SELECT id, agent_id, command_type, $3 FROM agent_commands WHERE id = $1
                       ON CONFLICT (id) DO UPDATE SET status = $2, act = EXCLUDED.act"""
    return connection.execute(statement, command_id, status, act)


@pytest.mark.parametrize("change", named(changes()))
async def test_a_change_of_status(change: Change, by: Any, disposable: Any) -> None:
    how = {"sent": MINUTE if change.sent else None, "overdue": MINUTE if change.due else None}
    command_id = await disposable(change.old, age=2 * MINUTE, **how)
    async with by(change.role) as connection:
        before, recorded, waiting = await state_of(connection, command_id)
        error = await attempt(
            connection, set_status(connection, change.path, command_id, change.new, {"actor": ACTOR, "request_id": "1"})
        )
        after, now_recorded, now_waiting = await state_of(connection, command_id)

        if change.expected in {"refused", "none"}:
            assert (error.sqlstate if error else None) == (ILLEGAL if change.expected == "refused" else None)
            assert after == before
            assert now_recorded == recorded
            assert now_waiting == waiting
            return
        assert error is None
        assert after["status"] == change.new
        assert len(now_recorded) == len(recorded) + 1
        assert now_waiting == waiting + 1
        forced = change.expected == "forced"
        assert_the_record(now_recorded[-1], change.role, after, version=2, forced=forced, came_from=change.old)
        assert (after["next_deadline_at"] is not None) == (change.new in LIVE)
        assert (after["completed_at"] is not None) == (change.new in TERMINAL)
        assert await replay(connection, [command_id]) == []


@dataclass(frozen=True)
class Insertion:
    """A new command by a role and a path, in a status."""

    role: str
    path: str
    status: Status

    @property
    def expected(self) -> str:
        if self.status == Status.PENDING:
            return "one"
        return "refused" if self.role == "server" else "forced"

    def __str__(self) -> str:
        told = {"one": "one record", "forced": "one record, forced", "refused": "refused"}[self.expected]
        return f"new as {self.status} by the {self.role} with {self.path}: {told}"


def insert(connection: Any, path: str, command_id: uuid.UUID, agent_id: uuid.UUID, status: str) -> Any:
    """A new command, with a version that is none of the writer's business."""
    act = {"actor": ACTOR, "request_id": "1"}
    if path == "COPY":
        line = f"{command_id}\t{agent_id}\tscan_updates\t{status}\t7\t{as_json(act)}\n"
        columns = ["id", "agent_id", "command_type", "status", "version", "act"]
        return connection.copy_to_table(
            "agent_commands", source=io.BytesIO(line.encode()), columns=columns, format="text"
        )
    values = "VALUES ($1::uuid, $2::uuid, 'scan_updates', $3::text, 7, $4::jsonb)"
    statement = {
        "INSERT": f"INSERT INTO agent_commands (id, agent_id, command_type, status, version, act) {values}",
        "MERGE": f"""MERGE INTO agent_commands c USING ({values}) AS s (id, agent_id, command_type, status, version, act) ON c.id = s.id
                     WHEN NOT MATCHED THEN INSERT (id, agent_id, command_type, status, version, act)
                     VALUES (s.id, s.agent_id, s.command_type, s.status, s.version, s.act)""",
        "upsert": f"""INSERT INTO agent_commands (id, agent_id, command_type, status, version, act) {values}
                      ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status""",
    }[path]
    return connection.execute(statement, command_id, agent_id, status, act)


@pytest.mark.parametrize("new", named(Insertion(*one) for one in itertools.product(ROLES, INSERT_PATHS, Status)))
async def test_a_new_command(new: Insertion, by: Any, agent_id: uuid.UUID) -> None:
    command_id = uuid.uuid4()
    async with by(new.role) as connection:
        error = await attempt(connection, insert(connection, new.path, command_id, agent_id, new.status))
        after, recorded, waiting = await state_of(connection, command_id)
        if new.expected == "refused":
            assert error is not None
            assert error.sqlstate == ILLEGAL
            assert (after, recorded) == (None, [])
            return
        assert error is None
        assert (after["status"], len(recorded), waiting) == (new.status, 1, 1)
        assert_the_record(recorded[0], new.role, after, version=1, forced=new.expected == "forced", came_from=None)
        assert recorded[0]["params"] == {}
        assert (after["sent_at"] is not None) == (new.status in {Status.SENT, Status.RUNNING})
        assert await replay(connection, [command_id]) == []


# What may be edited, as SQL; and in which states the server may
EDITS: dict[str, tuple[str, frozenset[Status]]] = {
    "params": ("""params = params || '{"more": 1}'""", frozenset({Status.PENDING})),
    "command_type": ("command_type = 'collect_specs'", frozenset()),
    "agent_id": ("agent_id = (SELECT id FROM agents WHERE id <> c.agent_id LIMIT 1)", frozenset()),
    "sent_at": ("sent_at = created_at + interval '1 second'", LIVE),
    "status and params": ("""status = 'sent', params = params || '{"more": 1}'""", frozenset()),
}


@dataclass(frozen=True)
class Edit:
    """An UPDATE of another column than the status."""

    role: str
    old: Status
    what: str

    @property
    def expected(self) -> str:
        if self.old in EDITS[self.what][1]:
            return "one"
        return "refused" if self.role == "server" else "forced"

    def __str__(self) -> str:
        told = {"one": "one record", "forced": "one record, forced", "refused": "refused"}[self.expected]
        return f"{self.what} of one that is {self.old} by the {self.role}: {told}"


@pytest.mark.parametrize("edit", named(Edit(*one) for one in itertools.product(ROLES, Status, EDITS)))
async def test_an_edit_of_what_is_recorded(edit: Edit, by: Any, disposable: Any, owner: Any) -> None:
    await owner.execute("INSERT INTO agents (hostname) SELECT 'another' WHERE (SELECT count(*) FROM agents) < 2")
    command_id = await disposable(edit.old, age=2 * MINUTE)
    async with by(edit.role) as connection:
        before, recorded, _ = await state_of(connection, command_id)
        statement = f"UPDATE agent_commands c SET {EDITS[edit.what][0]}, act = $2 WHERE id = $1"
        error = await attempt(
            connection, connection.execute(statement, command_id, {"actor": ACTOR, "request_id": "1"})
        )
        after, now_recorded, _ = await state_of(connection, command_id)
        if edit.expected == "refused":
            assert error is not None
            assert error.sqlstate == ILLEGAL
            assert (after, now_recorded) == (before, recorded)
            return
        assert error is None
        assert len(now_recorded) == len(recorded) + 1
        assert_the_record(
            now_recorded[-1], edit.role, after, version=2, forced=edit.expected == "forced", came_from=edit.old
        )
        assert now_recorded[-1]["params"] == (after["params"] if "params" in edit.what else None)
        assert await replay(connection, [command_id]) == []


NOTHING = {
    "the status that it has": "status = status",
    "the parameters that it has": "params = params",
    "every recorded column to what it is": (
        "status = status, params = params, agent_id = agent_id, sent_at = sent_at, completed_at = completed_at, command_type = command_type"
    ),
    "its version and who acted": """version = version + 5, act = '{"actor": "user:forger"}'""",
    "what an agent says of its progress": "progress = 'half', last_progress_at = now()",
}


@pytest.mark.parametrize("what", NOTHING)
@pytest.mark.parametrize("status", sorted(Status))
@pytest.mark.parametrize("role", ROLES)
async def test_an_update_that_changes_nothing_leaves_no_record(
    role: str, status: Status, what: str, by: Any, disposable: Any
) -> None:
    command_id = await disposable(status, age=2 * MINUTE)
    async with by(role) as connection:
        before, recorded, waiting = await state_of(connection, command_id)
        await connection.execute(f"UPDATE agent_commands SET {NOTHING[what]} WHERE id = $1", command_id)
        after, now_recorded, now_waiting = await state_of(connection, command_id)
        assert (after["version"], after["act"]) == (before["version"], before["act"])
        assert (now_recorded, now_waiting) == (recorded, waiting)


@pytest.mark.parametrize("status", sorted(LIVE))
@pytest.mark.parametrize("role", ROLES)
async def test_a_live_command_has_no_end_and_being_given_one_changes_nothing(
    role: str, status: Status, by: Any, disposable: Any
) -> None:
    command_id = await disposable(status, age=2 * MINUTE)
    async with by(role) as connection:
        before = await state_of(connection, command_id)
        await connection.execute(
            "UPDATE agent_commands SET completed_at = now(), act = $2 WHERE id = $1",
            command_id,
            {"actor": ACTOR, "request_id": "1"},
        )
        assert await state_of(connection, command_id) == before


@pytest.mark.parametrize("status", sorted(LIVE))
@pytest.mark.parametrize("role", ROLES)
async def test_moving_a_deadline_alone_is_no_change(role: str, status: Status, by: Any, disposable: Any) -> None:
    command_id = await disposable(status)
    moved = "UPDATE agent_commands SET next_deadline_at = next_deadline_at + $2 WHERE id = $1"
    async with by(role) as connection:
        before, recorded, _ = await state_of(connection, command_id)
        if role == "server":
            # It may give more time to what waits for delivery, up to a day from now; nothing else
            for span in (-60 * MINUTE, 30 * 60 * MINUTE) if status == Status.PENDING else (-60 * MINUTE, 60 * MINUTE):
                with pytest.raises(asyncpg.PostgresError, match="is not the server's to set"):
                    async with connection.transaction():
                        await connection.execute(moved, command_id, span)
            assert (await state_of(connection, command_id))[0] == before
            if status != Status.PENDING:
                return
        await connection.execute(moved, command_id, 60 * MINUTE)
        after, now_recorded, _ = await state_of(connection, command_id)
        assert after["next_deadline_at"] > before["next_deadline_at"]
        assert (after["version"], now_recorded) == (before["version"], recorded)


REFUSED = {
    "another id": ("UPDATE agent_commands SET id = uuidv7() WHERE id = $1", KEPT, KEPT),
    "another created_at": ("UPDATE agent_commands SET created_at = now() - interval '1 h' WHERE id = $1", KEPT, KEPT),
    "DELETE": ("DELETE FROM agent_commands WHERE id = $1", NO_RIGHT, KEPT),
    "DELETE of nothing": ("DELETE FROM agent_commands WHERE id = $1 AND false", NO_RIGHT, KEPT),
    "DELETE by MERGE": (
        "MERGE INTO agent_commands c USING (SELECT $1::uuid AS id) s ON c.id = s.id WHEN MATCHED THEN DELETE",
        NO_RIGHT,
        KEPT,
    ),
    "DELETE of its agent": (
        "DELETE FROM agents WHERE id = (SELECT agent_id FROM agent_commands WHERE id = $1)",
        NO_RIGHT,
        "23503",
    ),
    "TRUNCATE": ("TRUNCATE agent_commands", NO_RIGHT, KEPT),
    "TRUNCATE CASCADE": ("TRUNCATE agent_commands CASCADE", NO_RIGHT, KEPT),
    "TRUNCATE of the agents CASCADE": ("TRUNCATE agents CASCADE", NO_RIGHT, KEPT),
    "TRUNCATE of the record": ("TRUNCATE update_logs", NO_RIGHT, KEPT),
    "TRUNCATE of a month of the record": ("TRUNCATE {month}", NO_RIGHT, KEPT),
}


# A replica checks no foreign keys; what it leaves when it removes an agent has a test of its own
REFUSALS = [one for one in itertools.product(ROLES, REFUSED) if one != ("replica", "DELETE of its agent")]


@pytest.mark.parametrize(("role", "what"), REFUSALS)
async def test_what_is_always_refused(role: str, what: str, by: Any, disposable: Any) -> None:
    statement, by_server, by_others = REFUSED[what]
    command_id = await disposable(Status.SENT)
    async with by(role) as connection:
        before = await state_of(connection, command_id)
        month = await connection.fetchval("SELECT 'update_logs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
        arguments = [command_id] if "$1" in statement else []
        error = await attempt(connection, connection.execute(statement.format(month=month), *arguments))
        assert error is not None
        assert error.sqlstate == (by_server if role == "server" else by_others)
        if error.sqlstate == KEPT:
            assert "refused" in str(error) or "never change" in str(error)
        assert await state_of(connection, command_id) == before


async def test_a_replica_that_removes_an_agent_leaves_its_commands_and_their_history(by: Any, disposable: Any) -> None:
    command_id = await disposable(Status.SENT)
    async with by("replica") as connection:
        before = await state_of(connection, command_id)
        await connection.execute("DELETE FROM agents WHERE id = $1", before[0]["agent_id"])
        assert await state_of(connection, command_id) == before


WITHOUT_NAME: dict[str, Any] = {
    "the act of the last change": None,
    "no act at all": "null",
    "an act without an actor": {"request_id": "2"},
    "an empty actor": {"actor": "", "request_id": "2"},
}


@pytest.mark.parametrize("what", WITHOUT_NAME)
async def test_the_server_cannot_change_a_command_without_saying_who_acts(
    what: str, server: Any, agent_id: uuid.UUID
) -> None:
    made = await queue.enqueue(server, person(), [agent_id], "scan_updates")
    command_id = made[0]["id"]
    before = await state_of(server, command_id)
    act = WITHOUT_NAME[what]
    if act is None:
        change = server.execute("UPDATE agent_commands SET status = 'sent' WHERE id = $1", command_id)
    elif act == "null":
        change = server.execute("UPDATE agent_commands SET status = 'sent', act = NULL WHERE id = $1", command_id)
    else:
        change = server.execute("UPDATE agent_commands SET status = 'sent', act = $2 WHERE id = $1", command_id, act)
    error = await attempt(server, change)
    assert error is not None
    assert error.sqlstate == NO_ACTOR
    assert await state_of(server, command_id) == before


async def test_a_change_whose_record_cannot_be_written_does_not_happen(owner: Any, agent_id: uuid.UUID) -> None:
    command_id = await make_command(owner, agent_id)
    whole = owner.transaction()
    await whole.start()
    try:
        await owner.execute("ALTER TABLE update_logs ADD CONSTRAINT probe CHECK (result <> 'cancelled') NOT VALID")
        error = await attempt(
            owner, owner.execute("UPDATE agent_commands SET status = 'cancelled' WHERE id = $1", command_id)
        )
        assert isinstance(error, asyncpg.CheckViolationError)
        assert (await command(owner, command_id))["status"] == Status.PENDING
    finally:
        await whole.rollback()
    assert await results(owner, command_id) == ["pending"]


async def test_a_change_that_is_rolled_back_takes_its_record_along(owner: Any, agent_id: uuid.UUID) -> None:
    command_id = await make_command(owner, agent_id)
    before = await state_of(owner, command_id)
    whole = owner.transaction()
    await whole.start()
    await owner.execute("UPDATE agent_commands SET status = 'cancelled' WHERE id = $1", command_id)
    assert await results(owner, command_id) == ["pending", "cancelled"]
    await whole.rollback()
    assert await state_of(owner, command_id) == before


async def test_a_batch_records_each_change_under_its_own_actor(server: Any, owner: Any, agent_id: uuid.UUID) -> None:
    ids = [await make_command(owner, agent_id) for _ in range(5)]
    acts = [{"actor": f"user:number-{n}", "request_id": str(n)} for n in range(5)]
    await server.execute(
        """UPDATE agent_commands c SET status = 'sent', act = t.act
           FROM unnest($1::uuid[], $2::jsonb[]) AS t (id, act) WHERE c.id = t.id""",
        ids, acts,
    )  # fmt: skip
    for command_id, act in zip(ids, acts, strict=True):
        assert [record["actor"] for record in await records(server, command_id)] == ["db:redflag_owner", act["actor"]]


async def test_a_superuser_who_takes_the_servers_role_is_not_the_server(
    superuser: Any, agent_id: uuid.UUID, owner: Any
) -> None:
    command_id = await make_command(owner, agent_id)
    whole = superuser.transaction()
    await whole.start()
    try:
        await superuser.execute("SET LOCAL ROLE redflag_server")
        await set_status(superuser, "UPDATE", command_id, "sent", {"actor": "user:alice", "request_id": "1"})
        assert (await records(superuser, command_id))[-1]["actor"] == "db:postgres"
    finally:
        await whole.rollback()


# --- The rooms: what the server itself does. For each, where it leads from each state; from all others it changes nothing ---

PENDING, SENT, RUNNING = Status.PENDING, Status.SENT, Status.RUNNING
TAKEN_BACK = "pending (taken back)"
STATES = (*Status, TAKEN_BACK)

ROOMS: dict[str, dict[str, Status]] = {
    "delivery": {PENDING: SENT, TAKEN_BACK: SENT},
    "delivery once more": {PENDING: SENT, TAKEN_BACK: SENT, SENT: SENT},
    "word that it runs": {TAKEN_BACK: RUNNING, SENT: RUNNING},
    "word that it was received": {},
    "a report of success": {TAKEN_BACK: Status.COMPLETED, SENT: Status.COMPLETED, RUNNING: Status.COMPLETED},
    "a report of failure": {TAKEN_BACK: Status.FAILED, SENT: Status.FAILED, RUNNING: Status.FAILED},
    "cancelling": dict.fromkeys((PENDING, TAKEN_BACK, SENT, RUNNING), Status.CANCELLED),
    "the sweep": dict.fromkeys((PENDING, TAKEN_BACK, SENT, RUNNING), Status.TIMED_OUT),
    "the sweep of what was not started": {SENT: PENDING},
}


async def enter(room: str, connection: Any, agent_id: uuid.UUID, command_id: uuid.UUID) -> str:
    """Does what the room does. Returns the actor that the record must name."""
    agent = agent_actor(agent_id)
    if room.startswith("delivery"):
        await queue.deliver(connection, [queue.Asking(agent_id, agent, protocol=1 if "once more" in room else 0)])
        return agent.name
    if room == "word that it runs":
        await queue.acknowledge(connection, agent, agent_id, queue.Progress(running=(command_id,)))
        return agent.name
    if room == "word that it was received":
        await queue.acknowledge(connection, agent, agent_id, queue.Progress(received=(command_id,)))
        return agent.name
    if room.startswith("a report"):
        told = reports.Report(room.removeprefix("a report of "), stdout="said", exit_code=3, duration_seconds=4)
        with contextlib.suppress(Conflict):
            await reports.report(connection, agent, agent_id, command_id, told, max_output=1000)
        return agent.name
    if room == "cancelling":
        with contextlib.suppress(Conflict):
            await queue.cancel(connection, person(), command_id, "enough")
        return person().name
    act = actors.detection(actors.service("timeout", "one"), service_name="timeout@one", method="sweep")
    await sweeper.sql.sweep.all(connection, batch=1000, act=act, replica="one")
    return "service:timeout@one"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("room", ROOMS)
async def test_a_room(room: str, state: str, server: Any, owner: Any, disposable: Any) -> None:
    old = PENDING if state == TAKEN_BACK else Status(state)
    command_id = await disposable(old, age=2 * MINUTE, sent=MINUTE if state == TAKEN_BACK else None)
    before = await command(owner, command_id)
    if old in LIVE and (room != "the sweep of what was not started" or old == SENT):
        # As it is when an agent of ours has been handed it and has not answered; overdue where a sweep is to find it
        await owner.execute(
            """UPDATE agent_commands SET acknowledges = true, deadline_kind = CASE WHEN $2 THEN 'start' ELSE deadline_kind END,
               next_deadline_at = CASE WHEN $3 THEN now() - interval '1 second' ELSE next_deadline_at END WHERE id = $1""",
            command_id, "not started" in room or "once more" in room, "sweep" in room,
        )  # fmt: skip
    actor = await enter(room, server, before["agent_id"], command_id)
    after, told = await command(owner, command_id), await records(owner, command_id)
    new = ROOMS[room].get(state)
    if new is None:
        assert (after["status"], after["version"], len(told)) == (old, 1, 1)
    else:
        assert (after["status"], after["version"], len(told)) == (new, 2, 2)
        assert (told[-1]["actor"], told[-1]["result"]) == (actor, RESULTS[new][0])
        assert "forced" not in told[-1]["metadata"]
    late = await records(owner, command_id, "late_result")
    assert len(late) == (1 if room.startswith("a report") and old in TERMINAL else 0)
    assert await replay(owner, [command_id]) == []


async def test_no_status_is_without_its_cases() -> None:
    assert {change.old for change in changes()} == {change.new for change in changes()} == set(Status)
    assert set().union(*(set(room) for room in ROOMS.values())) >= {*LIVE, TAKEN_BACK}
