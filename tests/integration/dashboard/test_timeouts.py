"""The page of timeouts: what expires next, how the sweep is, and policies that are changed by whoever may, with their name."""

from __future__ import annotations

import datetime
import re
import uuid
from typing import Any

import pytest

from integration.commands.helpers import HOUR, MINUTE, make_agent, make_command
from integration.dashboard.waiting import until
from redflag.access.roles import Role
from redflag.timeouts import sweeper
from redflag.web.dashboard import timeouts


@pytest.fixture
def kind() -> str:
    """A command type that nobody else uses."""
    return f"type_{uuid.uuid4().hex[:10]}"


def form(kind: str, **more: str) -> dict[str, str]:
    """The form of a policy, filled in."""
    return {
        "command_type": kind,
        "delivery": "90s",
        "start": "1m",
        "execution": "1h30m",
        "idle": "",
        "live": "no",
    } | more


async def last(pool: Any, action: str) -> Any:
    """The last record of an action."""
    return await pool.fetchrow(
        "SELECT * FROM update_logs WHERE action = $1 ORDER BY created_at DESC, id DESC LIMIT 1", action
    )


async def test_what_expires_within_the_chosen_time_is_listed_the_nearest_first(viewer: Any, owner: Any) -> None:
    agent = await make_agent(owner)
    later, sooner, far = [
        await make_command(owner, agent, status, overdue=-left)
        for status, left in (("pending", MINUTE), ("running", MINUTE / 2), ("pending", 3 * HOUR))
    ]
    text = await viewer.region("/timeouts?within=1h", "next")
    assert text.index(str(sooner)) < text.index(str(later))
    assert str(far) not in text
    assert text.count("data-bar") >= 2
    assert f'href="/agents/{agent}"' in text
    assert str(far) in await viewer.region("/timeouts?within=6h", "next")
    text = await viewer.page("/timeouts?within=1h30m")
    assert re.search(r'<option value="1h30m" selected>\s*1 h 30 min', text)


@pytest.mark.parametrize("within", ["soon", "0s", "400d", "-1h", ""])
async def test_a_time_that_is_none_is_refused_in_words(viewer: Any, within: str) -> None:
    assert "no length of time" in await viewer.page(f"/timeouts?within={within}", 422)


async def test_the_service_is_told_with_its_replicas(viewer: Any) -> None:
    text = await until(lambda: viewer.region("/timeouts", "service"), "sweeps, since")
    assert "<strong>tests</strong>" in text
    assert "Overdue now" in text


async def test_a_policy_is_set_in_the_words_people_use_and_recorded_with_the_name(
    admin: Any, pool: Any, kind: str
) -> None:
    answer = await admin.act("/timeouts/policy", **form(kind, idle="10 min"))
    assert f"The policy of {kind} is set. It holds for new commands." in answer.headers["hx-trigger"]
    row = await pool.fetchrow("SELECT * FROM timeout_policies WHERE command_type = $1", kind)
    assert [row[f"{name}_timeout"].total_seconds() for name in ("delivery", "start", "execution", "idle")] == [
        90, 60, 5400, 600,
    ]  # fmt: skip
    record = await last(pool, "policy_changed")
    assert record["actor"] == f"user:{admin.name}"
    text = await admin.region("/timeouts", "policies")
    assert "1 h 30 min" in text
    assert kind in text
    text = await admin.region(f"/timeouts/policy?type={kind}", "policyform")
    assert 'value="1 min 30 s"' in text
    assert "0 live commands" in text
    await admin.act("/timeouts/policy", **form(kind))
    assert await pool.fetchval("SELECT idle_timeout FROM timeout_policies WHERE command_type = $1", kind) is None


async def test_live_commands_get_a_policy_only_where_that_was_chosen(
    admin: Any, owner: Any, pool: Any, kind: str
) -> None:
    command = await make_command(owner, await make_agent(owner), command_type=kind)

    async def left() -> datetime.timedelta:
        return await pool.fetchval("SELECT next_deadline_at - created_at FROM agent_commands WHERE id = $1", command)

    await admin.act("/timeouts/policy", **form(kind, delivery="7h"))
    assert await left() == 30 * MINUTE
    answer = await admin.act("/timeouts/policy", **form(kind, delivery="7h", live="yes"))
    assert "was given to 1 live command." in answer.headers["hx-trigger"]
    assert await left() == 7 * HOUR
    record = await last(pool, "policy_applied")
    assert (record["actor"], record["metadata"]["commands"]) == (f"user:{admin.name}", 1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("delivery", "soon", "Waiting: 'soon' is no length of time"),
        ("execution", "", "Finishing: '' is no length of time"),
        ("start", "400d", "Acknowledging: '400d' is no length of time"),
        ("idle", "0s", "Silence: '0s' is no length of time"),
        ("live", "", "Choose one of the two"),
        ("live", "maybe", "Choose one of the two"),
        ("command_type", "No Type", "is no command type"),
        ("command_type", "", "is no command type"),
        ("delivery", "1\x00h", "is no length of time"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_changes(
    admin: Any, pool: Any, kind: str, field: str, value: str, said: str
) -> None:
    before = await pool.fetchval("SELECT count(*) FROM timeout_policies")
    answer = await admin.act("/timeouts/policy", 422, **form(kind, **{field: value}))
    assert said in answer.json()["detail"]
    assert await pool.fetchval("SELECT count(*) FROM timeout_policies") == before


async def test_the_form_of_a_type_without_a_policy_is_not_found(admin: Any, kind: str) -> None:
    await admin.page(f"/timeouts/policy?type={kind}", 404)
    text = await admin.page("/timeouts/policy")
    assert 'name="command_type"' in text
    assert 'value="30 min"' in text, "what holds for all other types is filled in"


async def test_a_run_by_hand_says_what_it_did_and_is_recorded_with_the_name(
    person: Any, owner: Any, pool: Any, kind: str
) -> None:
    operator = await person(Role.OPERATOR)
    answer = await operator.act("/timeouts/run")
    assert "toast" in answer.headers["hx-trigger"]
    record = await last(pool, "timeout_service_run")
    assert record["actor"] == f"user:{operator.name}"
    back = await operator.post(
        "/timeouts/run", data={"csrf": operator.csrf}, headers={"Referer": f"{operator.base_url}/timeouts"}
    )
    assert (back.status_code, back.headers["location"]) == (303, "/timeouts")


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_is_offered_what_it_may_do(person: Any, role: Role) -> None:
    text = await (await person(role)).page("/timeouts")
    assert ('action="/timeouts/run"' in text) == (role in {Role.ADMIN, Role.OPERATOR})
    assert ("/timeouts/policy" in text) == (role == Role.ADMIN)
    assert ("/history?" in text) <= (role != Role.VIEWER)


def test_lateness_is_told_bucket_by_bucket() -> None:
    reached = [3, 5, 5, 5, 6, 6, 6, 7]
    told = timeouts.lateness(reached, 9)
    assert [many for _, many in told] == [3, 2, 0, 0, 1, 0, 0, 1, 2]
    assert [words for words, _ in told][:1] == ["within 50 ms"]
    assert told[-1][0] == "later than 1 h"
    assert len(told) == len(sweeper.LATENESS_BOUNDS) + 1
