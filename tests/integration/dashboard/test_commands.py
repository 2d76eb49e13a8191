"""The pages of commands: what waits and why, what ended and how, acts that leave a record with the person's name."""

from __future__ import annotations

import re
import uuid

import httpx
import pytest
import pytest_asyncio

from integration.commands.helpers import until
from redflag.access import enrolment
from redflag.access.roles import Role
from redflag.audit import actor as actors
from redflag.commands import listing
from talking import Agent

TIMED_OUT = "SELECT status = 'timed_out' FROM agent_commands WHERE id = $1"
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest_asyncio.fixture(scope="session")
async def enrol(base_url, pool):
    """Enrols a new agent."""
    async with pool.acquire() as connection:
        token, _ = await enrolment.create(connection, actors.service("tests", "here"), "commands", 1000, 24)
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:

        async def make(**more):
            return await Agent.enrol(client, token, **more)

        yield make


@pytest_asyncio.fixture(scope="session")
async def operator(person):
    """Somebody who runs the fleet."""
    return await person(Role.OPERATOR)


async def enqueue(somebody, agent, command_type="scan_updates", **fields):
    """Enqueues by the form; the id of the command."""
    answer = await somebody.act("/commands", type=command_type, agent=agent.id, **fields)
    found = re.fullmatch(r"/commands/([0-9a-f-]{36})", answer.headers["hx-redirect"])
    assert found, answer.headers
    return found[1]


async def run(agent, command_id, **report):
    """The agent takes the command and reports its end."""
    await agent.check_in()
    await agent.post("progress", {"received": [command_id], "running": [command_id]})
    body = {
        "command_id": command_id,
        "result": "success",
        "action": "scan_updates",
        "exit_code": 0,
        "duration_seconds": 3,
    }
    answer = await agent.post("logs", body | report)
    assert answer.status_code == 200, answer.text


async def records(pool, command_id):
    return await pool.fetch(
        "SELECT result, actor, message FROM update_logs WHERE command_id = $1 ORDER BY executed_at", uuid.UUID(command_id)
    )  # fmt: skip


async def test_a_live_command_says_why_it_waits_and_who_enqueued_it(operator, viewer, enrol):
    agent = await enrol(hostname=f"waits-{uuid.uuid4().hex[:6]}")
    command_id = await enqueue(operator, agent)
    row = await operator.page(f"/commands?agent={agent.id}")
    assert "its agent has never come by" in row
    assert f"by {operator.name}" in row
    await agent.check_in()
    assert "not acknowledged yet" in await operator.region(f"/commands?agent={agent.id}", "rows")
    await agent.post("progress", {"received": [], "running": [command_id]})
    await agent.post(
        "progress", {"received": [], "running": [command_id], "progress": [{"command_id": command_id, "message": "<b>42 %"}]}
    )  # fmt: skip
    for path, region in ((f"/commands?agent={agent.id}", "rows"), (f"/commands/{command_id}", "now")):
        assert "running: &lt;b&gt;42 % (last progress" in await viewer.region(path, region)
    seen = await viewer.page(f"/commands?agent={agent.id}")
    assert operator.name not in seen, "who acted is in the history, which a viewer does not read"
    assert "data-one" not in seen
    assert "/commands/new" not in seen


async def test_a_name_finds_its_agent_and_where_it_fits_several_asks_which(admin, enrol):
    stem = f"name{uuid.uuid4().hex[:6]}"
    one, _two = await enrol(hostname=f"{stem}-1"), await enrol(hostname=f"{stem}-11")
    await enqueue(admin, one)
    assert "its agent has never come by" in await admin.page(f"/commands?agent={stem}-1")
    asked = await admin.page(f"/commands?agent={stem}")
    assert "Which agent?" in asked
    assert f"/commands?agent={one.id}" in asked
    assert "No agent is called so" in await admin.page("/commands?agent=nowhere-to-be-found")
    assert "No such command" in await admin.page(f"/commands?agent={one.id}&type=reboot")
    assert "No such command" in await admin.page(f"/commands?agent={one.id}&status=running")


@pytest.mark.parametrize(
    "query",
    [
        "status=nonsense",
        "status=completed",
        "show=ended&status=running",
        "type=A+B",
        "cursor=nonsense",
        "type=%00",
        "status=%00",
    ],
)
async def test_what_no_command_can_be_is_refused_in_words(admin, query):
    answer = await admin.page(f"/commands?{query}", 422)
    assert "Traceback" not in answer
    assert "<h1" in answer


async def test_lists_go_on_page_by_page(admin, enrol, pool):
    agent = await enrol()
    await pool.execute(
        "INSERT INTO agent_commands (agent_id, command_type, created_at, act) SELECT $1, 'scan_updates', now() - n * interval '1 s',"
        """ '{"actor": "user:anna"}' FROM generate_series(1, 120) n""",
        uuid.UUID(agent.id),
    )
    ids, path = [], f"/commands?agent={agent.id}"
    while path:
        text = await admin.page(path)
        ids += re.findall(r'name="command" value="([0-9a-f-]{36})"', text)
        more = re.search(r'href="(/commands\?[^"]+)" rel="next"', text)
        path = more and more[1].replace("&amp;", "&")
    assert len(ids) == len(set(ids)) == 120
    assert "behind 19 other commands of the same agent" not in text, "an agent that has never come by is said first"


async def test_a_look_is_bounded_and_goes_on_from_where_it_ended(pool, enrol, monkeypatch):
    agent = await enrol()
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 30)
    await pool.execute(
        "INSERT INTO agent_commands (agent_id, command_type, created_at, act)"
        """ SELECT $1, CASE WHEN n % 40 = 0 THEN 'rare' ELSE 'common' END, now() - n * interval '1 s', '{"actor": "user:anna"}'"""
        " FROM generate_series(1, 100) n",
        uuid.UUID(agent.id),
    )
    await pool.execute(
        """UPDATE agent_commands SET status = 'cancelled', act = '{"actor": "user:bela"}' WHERE agent_id = $1""", uuid.UUID(agent.id)
    )  # fmt: skip
    shown = listing.Filter(live=False, command_type="rare", agent_id=uuid.UUID(agent.id))
    found, cursor, looks = [], None, 0
    async with pool.acquire() as connection:
        while True:
            page = await listing.page(connection, shown, cursor=cursor, who=True)
            found += page.commands
            looks += 1
            cursor = page.next_cursor
            if cursor is None:
                break
            assert page.cut
    assert [one["command_type"] for one in found] == ["rare", "rare"]
    assert {one["enqueued_by"] for one in found} == {"user:anna"}
    assert looks == 4


@pytest.mark.parametrize("many", [True, False], ids=["many", "few"])
async def test_live_commands_are_found_however_many_there_are(pool, enrol, many):
    agents = [await enrol() for _ in range(3)]
    for agent in agents:
        await pool.execute(
            """INSERT INTO agent_commands (agent_id, command_type, act) VALUES ($1, 'live_' || $2, '{"actor": "user:anna"}')""",
            uuid.UUID(agent.id), f"{many}".lower(),
        )  # fmt: skip
    async with pool.acquire() as connection:
        shown = listing.Filter(command_type=f"live_{many}".lower())
        page = await listing.page(connection, shown, who=False, many_live=many, limit=2)
        rest = await listing.page(connection, shown, who=False, many_live=many, limit=2, cursor=page.next_cursor)
    assert {str(one["agent_id"]) for one in page.commands + rest.commands} == {agent.id for agent in agents}
    assert {one["enqueued_by"] for one in page.commands} == {None}


async def test_the_page_of_a_command_tells_its_life_its_output_and_its_records(operator, viewer, enrol, pool):
    agent = await enrol(hostname=f"tells-{uuid.uuid4().hex[:6]}")
    command_id = await enqueue(operator, agent, param_refresh="yes")
    text = await operator.page(f"/commands/{command_id}")
    assert "Ask the package sources anew first" in text
    assert "Nothing yet: it has not been handed out." in text
    await run(agent, command_id, stdout="12 <updates>", stderr="W: old", exit_code=3, result="failed")
    text = await operator.page(f"/commands/{command_id}")
    assert "12 &lt;updates&gt;" in text
    assert "W: old" in text
    assert "exit code 3" in text
    assert "scan_updates was enqueued" in text
    assert f"by {operator.name}" in text
    ids = re.findall(r'href="/history/([0-9a-f-]{36})"', text)
    assert len(ids) == len(await records(pool, command_id)) == 4
    assert re.search(r"<summary>As the agent reads it</summary>", text)
    [link] = re.findall(rf'href="(/commands/{command_id}/output/[0-9a-f-]+/stdout)"', text)
    file = await operator.get(link)
    assert file.text == "12 <updates>"
    assert file.headers["content-type"] == "text/plain; charset=utf-8"
    assert file.headers["content-disposition"].startswith("attachment;")
    assert (await viewer.get(link)).status_code == 403
    assert (await operator.get(link.replace("stdout", "salt"))).status_code == 404
    read = "SELECT count(*) FROM update_logs WHERE action = 'history_read' AND actor = $1 AND message = $2"
    assert await pool.fetchval(read, f"user:{operator.name}", f"command_id={command_id}") == 1


@pytest.mark.parametrize(
    "headers",
    [{"HX-Target": "now"}, {"HX-Target": "x"}, {"HX-Request": "true", "HX-Target": "record"}, None],
    ids=str,
)
async def test_however_the_records_of_a_command_are_asked_for_the_reading_is_recorded(person, enrol, pool, headers):
    reader = await person(Role.OPERATOR)
    agent = await enrol()
    command_id = await enqueue(reader, agent)
    await run(agent, command_id, stdout="said in confidence")
    path = f"/commands/{command_id}"
    if headers is None:
        record = await pool.fetchval(
            "SELECT id FROM update_logs WHERE command_id = $1 AND stdout <> ''", uuid.UUID(command_id)
        )
        path += f"/output/{record}/stdout"
    assert "said in confidence" in (await reader.get(path, headers=headers)).text
    read = "SELECT count(*) FROM update_logs WHERE action = 'history_read' AND actor = $1 AND message = $2"
    assert await pool.fetchval(read, f"user:{reader.name}", f"command_id={command_id}") == 1


async def test_a_viewer_sees_where_a_command_is_and_nothing_of_its_records(viewer, operator, enrol):
    agent = await enrol()
    command_id = await enqueue(operator, agent)
    await run(agent, command_id, stdout="said in confidence")
    text = await viewer.page(f"/commands/{command_id}")
    assert "completed" in text
    assert "Output and records are for those who may read the history." in text
    for hidden in ("said in confidence", operator.name, "/history/", "retry-button", "cancel-button"):
        assert hidden not in text


async def test_a_command_that_times_out_says_so_and_its_late_result_stands_beside(operator, enrol, pool):
    agent = await enrol()
    command_id = await enqueue(operator, agent, execution="1s")
    await agent.check_in()
    await agent.post("progress", {"received": [command_id], "running": [command_id]})

    await until(pool, TIMED_OUT, uuid.UUID(command_id))
    assert "timed out" in await operator.region(f"/commands/{command_id}", "now")
    text = await operator.page(f"/commands/{command_id}")
    assert "Its agent has not reported before the deadline." in text
    mark = re.search(r"seen=([0-9.]+)", text)[1]
    headers = {"HX-Request": "true", "HX-Target": "now"}
    same = await operator.get(f"/commands/{command_id}?seen={mark}", headers=headers)
    assert "hx-trigger-after-settle" not in same.headers
    answer = await agent.post(
        "logs", {"command_id": command_id, "result": "success", "stdout": "done after all", "exit_code": 0, "duration_seconds": 9}
    )  # fmt: skip
    assert answer.status_code == 200
    changed = await operator.get(f"/commands/{command_id}?seen={mark}", headers=headers)
    assert changed.headers["hx-trigger-after-settle"] == "command-changed"
    assert "its agent reported success" in changed.text
    assert "done after all" in await operator.region(f"/commands/{command_id}", "record")


async def test_what_was_never_handed_out_says_that_nothing_ran(operator, enrol, pool):
    agent = await enrol()
    command_id = await enqueue(operator, agent, delivery="1s")

    await until(pool, TIMED_OUT, uuid.UUID(command_id))
    assert "timed out" in await operator.region(f"/commands/{command_id}", "now")
    assert "never handed out to its agent, so nothing ran" in await operator.page(f"/commands/{command_id}")


async def test_to_cancel_leaves_a_record_with_name_and_reason(operator, enrol, pool):
    command_id = await enqueue(operator, await enrol())
    answer = await operator.act(f"/commands/{command_id}/cancel", reason="the wrong host")
    assert "cancelled" in answer.headers["hx-trigger"]
    last = (await records(pool, command_id))[-1]
    assert (last["result"], last["actor"], last["message"]) == ("cancelled", f"user:{operator.name}", "the wrong host")
    again = await operator.act(f"/commands/{command_id}/cancel", 409)
    assert "has ended already" in again.json()["detail"]
    await operator.act(f"/commands/{command_id}/cancel", 422, reason="x" * 501)


async def test_a_retry_is_a_new_command_that_each_of_the_two_names(operator, enrol, pool):
    command_id = await enqueue(operator, await enrol())
    await operator.act(f"/commands/{command_id}/retry", 409)
    await operator.act(f"/commands/{command_id}/cancel")
    answer = await operator.act(f"/commands/{command_id}/retry")
    new = re.search(r'href="/commands/([0-9a-f-]{36})"', answer.text)[1]
    assert (await records(pool, new))[0]["actor"] == f"user:{operator.name}"
    assert f"Retried as {new[:8]}" in await operator.page(f"/commands/{command_id}")
    assert f"This is a retry of {command_id[:8]}" in await operator.page(f"/commands/{new}")
    plain = await operator.post(f"/commands/{command_id}/retry", data={"csrf": operator.csrf})
    assert plain.status_code == 303
    assert re.fullmatch(r"/commands/[0-9a-f-]{36}", plain.headers["location"])


async def test_many_are_cancelled_and_retried_together_each_with_its_own_record(operator, enrol, pool):
    agent = await enrol()
    ids = [await enqueue(operator, agent) for _ in range(3)]
    done = await enqueue(operator, agent)
    await operator.act(f"/commands/{done}/cancel")
    answer = await operator.act("/commands/bulk?act=cancel", command=[*ids, done], reason="all of them")
    assert "3 commands cancelled. 1 other had ended already." in answer.headers["hx-trigger"]
    for one in ids:
        last = (await records(pool, one))[-1]
        assert (last["result"], last["actor"], last["message"]) == ("cancelled", f"user:{operator.name}", "all of them")
    answer = await operator.act("/commands/bulk?act=retry", command=ids)
    assert "3 new commands enqueued." in answer.headers["hx-trigger"]
    retried = await pool.fetch(
        "SELECT act ->> 'actor' AS who FROM agent_commands WHERE retried_from_id = ANY ($1::uuid[])", ids
    )
    assert [row["who"] for row in retried] == [f"user:{operator.name}"] * 3


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/commands/bulk?act=cancel", {}),
        ("/commands/bulk?act=cancel", {"command": "nonsense"}),
        ("/commands/bulk?act=burn", {"command": NOBODY}),
        ("/commands/bulk", {"command": NOBODY}),
        ("/commands/bulk?act=retry", {"command": [str(uuid.UUID(int=number)) for number in range(101)]}),
    ],
    ids=["none chosen", "no id", "no such act", "no act", "too many"],
)
async def test_a_form_that_no_page_of_ours_sends_is_refused_in_words(operator, path, fields):
    answer = await operator.act(path, 422, **fields)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (422, {"type": "scan_updates"}),
        (422, {"type": "scan_updates", "agent": "nonsense"}),
        (404, {"type": "scan_updates", "agent": NOBODY}),
        (422, {"type": "reboot", "agent": NOBODY}),
        (422, {"type": "reboot", "agent": NOBODY, "sure": "yes", "param_delay_minutes": "soon"}),
        (422, {"type": "scan_updates", "agent": NOBODY, "delivery": "soon"}),
        (422, {"type": "scan_updates", "agent": NOBODY, "execution": "9999d"}),
        (422, {"type": "other", "agent": NOBODY}),
        (422, {"type": "other", "agent": NOBODY, "other_type": "No Type"}),
        (422, {"type": "other", "agent": NOBODY, "other_type": "update_agent", "params": "{"}),
        (422, {"type": "other", "agent": NOBODY, "other_type": "update_agent", "params": "[1]"}),
        (422, {"type": "other", "agent": NOBODY, "other_type": "update_agent", "params": '{"a": NaN}'}),
        (422, {"type": "other", "agent": NOBODY, "other_type": "update_agent", "params": "[" * 5000}),
        (422, {"type": "scan_updates", "tagged": "no-such-tag"}),
    ],
    ids=str,
)
async def test_what_cannot_be_enqueued_says_why(operator, status, fields):
    answer = await operator.act("/commands", status, **fields)
    assert answer.json()["detail"]


@pytest.mark.parametrize("params", ['{"a": "\\u0000"}', '{"a": "\\ud800"}'])
async def test_text_that_no_database_holds_is_no_fault_of_the_server(operator, enrol, params):
    agent = await enrol()
    headers = {"HX-Request": "true", "X-CSRF-Token": operator.csrf}
    data = {"type": "other", "other_type": "update_agent", "agent": agent.id, "params": params}
    assert (await operator.post("/commands", data=data, headers=headers)).status_code in {200, 422}


async def test_a_type_that_nobody_knows_is_enqueued_with_its_parameters(operator, enrol, pool):
    agent = await enrol()
    command_id = await enqueue(operator, agent, "other", other_type="update_agent", params='{"version": "2.0"}')
    assert await pool.fetchval("SELECT params FROM agent_commands WHERE id = $1", uuid.UUID(command_id)) == {
        "version": "2.0"
    }
    assert "update agent" in await operator.page(f"/commands/{command_id}")


async def test_a_command_is_enqueued_for_all_agents_with_a_tag(operator, enrol, pool):
    tag = f"rack-{uuid.uuid4().hex[:6]}"
    agents = [await enrol() for _ in range(3)]
    for agent in agents:
        await pool.execute(
            "UPDATE agents SET tags = $2, act = $3 WHERE id = $1", uuid.UUID(agent.id), [tag], {"actor": "user:anna"}
        )
    assert f"All 3 with the tag {tag}" in await operator.region(f"/commands/new?tag={tag}", "found")
    answer = await operator.act(
        "/commands", type="reboot", sure="yes", tagged=tag, agent=agents[0].id, param_message="tonight"
    )
    assert answer.headers["hx-redirect"] == "/commands?type=reboot"
    assert "3 agents" in answer.headers["hx-trigger"]
    rows = await pool.fetch(
        "SELECT agent_id, params, act ->> 'actor' AS who FROM agent_commands WHERE agent_id = ANY ($1::uuid[])", [one.id for one in agents]
    )  # fmt: skip
    assert len(rows) == 3
    assert {row["who"] for row in rows} == {f"user:{operator.name}"}
    assert rows[0]["params"] == {"message": "tonight"}


async def test_agents_that_were_ticked_stay_ticked_while_others_are_looked_for(operator, enrol):
    stem = f"tick{uuid.uuid4().hex[:6]}"
    one, two = await enrol(hostname=f"{stem}-a"), await enrol(hostname=f"{stem}-b")
    found = await operator.region(f"/commands/new?q={stem}-b&agent={one.id}", "found")
    assert re.search(rf'value="{one.id}" checked', found)
    assert re.search(rf'value="{two.id}" *>', found)
    assert "No agent is called so" in await operator.region("/commands/new?q=nobody-is-called-that", "found")


async def test_each_type_asks_for_its_own_parameters(operator):
    assert "param_refresh" in await operator.region("/commands/new?type=scan_updates", "what")
    reboot = await operator.region("/commands/new?type=reboot", "what")
    assert "param_delay_minutes" in reboot
    assert 'name="sure"' in reboot
    assert 'name="params"' in await operator.region("/commands/new?type=other", "what")
    assert 'value="rollback_update"' in await operator.page("/commands/new?type=rollback_update")


async def test_what_expires_next_and_how_many_are_live_stand_beside_the_list(operator, enrol):
    agent_name = f"soon-{uuid.uuid4().hex[:6]}"
    await enqueue(operator, await enrol(hostname=agent_name), delivery="40s")
    text = await operator.page("/commands?show=ended")
    assert "What expires next" in text
    assert agent_name in text
    assert re.search(r"<strong>\d+ live commands?</strong>", text)


async def test_a_command_that_is_not_there_is_not_there(admin):
    assert "No command" in await admin.page(f"/commands/{NOBODY}", 404)
