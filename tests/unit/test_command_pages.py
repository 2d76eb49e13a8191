"""What a command's page says of its life, of its output, and of what it was asked."""

from __future__ import annotations

import datetime

import pytest

from redflag.commands import catalogue, life, output
from redflag.commands.states import Status
from redflag.errors import InvalidInput
from redflag_agent.commands import HANDLERS

T = datetime.datetime(2030, 1, 31, 12, tzinfo=datetime.UTC)


def _at(seconds):
    return T + datetime.timedelta(seconds=seconds)


def _command(status, **more):
    return {
        "status": status, "created_at": T, "sent_at": None, "acknowledged_at": None, "completed_at": None, "acknowledges": True,
        "deliveries": 0, "protocol": 1, "reported_on": True, "progress": None, "command_type": "scan_updates",
    } | more  # fmt: skip


def _told(kind="transition", result="running", **more):
    return {
        "kind": kind,
        "result": result,
        "executed_at": _at(12),
        "stdout": None,
        "stderr": None,
        "metadata": {},
    } | more


def _life(command, *events):
    return [(step.name, str(step.reached), step.took) for step in life.steps(command, events)]


def test_what_waits_has_the_rest_before_it():
    assert _life(_command("pending")) == [
        ("Enqueued", "now", None), ("Handed out", "not_yet", None), ("Acknowledged", "not_yet", None), ("Running", "not_yet", None),
        ("Ended", "not_yet", None),
    ]  # fmt: skip


def test_each_step_tells_how_long_it_took():
    command = _command("completed", sent_at=_at(5), acknowledged_at=_at(6), completed_at=_at(72), deliveries=1)
    assert _life(command, _told()) == [
        ("Enqueued", "before", None), ("Handed out", "before", 5), ("Acknowledged", "before", 1), ("Running", "before", 6),
        ("Ended", "now", 60),
    ]  # fmt: skip


def test_what_ends_early_never_reached_the_steps_between():
    command = _command("timed_out", completed_at=_at(1800))
    assert [reached for _, reached, _ in _life(command)] == ["before", "never", "never", "never", "now"]


def test_what_was_taken_back_begins_anew():
    command = _command("pending", sent_at=_at(5), deliveries=2)
    assert [reached for _, reached, _ in _life(command)] == ["now", "not_yet", "not_yet", "not_yet", "not_yet"]


def test_an_agent_that_says_nothing_on_the_way_passes_over_two_steps():
    command = _command("sent", sent_at=_at(5), acknowledges=False, deliveries=1)
    steps = life.steps(command)
    assert [str(step.reached) for step in steps] == ["before", "now", "never", "never", "not_yet"]
    assert steps[2].said == "this agent does not say"


def test_without_records_a_running_command_runs_all_the_same():
    command = _command("running", sent_at=_at(5), acknowledged_at=_at(6), deliveries=1)
    assert [str(step.reached) for step in life.steps(command)] == ["before", "before", "before", "now", "not_yet"]


@pytest.mark.parametrize(
    ("command", "events", "words"),
    [
        (_command("pending"), [], "has not been handed out"),
        (_command("running", sent_at=T), [], "comes with its agent's report, at the end"),
        (_command("running", sent_at=T, progress="5 %"), [], "Until then the agent says how far it is"),
        (_command("sent", sent_at=T, protocol=0, reported_on=False), [], "reports nothing of scan_updates"),
        (_command("timed_out"), [], "never handed out"),
        (_command("timed_out", sent_at=T, protocol=0, reported_on=False), [], "there is never any output"),
        (_command("timed_out", sent_at=T), [_told(metadata={"deadline_kind": "execution"})], "If it still does"),
        (_command("timed_out", sent_at=T), [_told(metadata={"deadline_kind": "delivery"})], "never said that it received it"),
        (_command("cancelled"), [], "never handed out"),
        (_command("cancelled", sent_at=T), [], "What it may have done before is not known"),
        (_command("completed", sent_at=T), [_told(result="success", exit_code=0)], "without any output. It ended with exit code 0"),
        (_command("failed", sent_at=T), [_told(result="failed", exit_code=None)], "reported the end without any output."),
        (_command("completed", sent_at=T), [], "pruned with the log"),
    ],
)  # fmt: skip
def test_where_there_is_no_output_it_says_why(command, events, words):
    assert words in output.why_none(command, events)


def test_every_state_says_why_there_is_no_output():
    for status in Status:
        for sent_at in (None, T):
            assert output.why_none(_command(status, sent_at=sent_at), [])


def test_what_was_cut_says_how_much_there_was_and_what_was_erased_that_it_was():
    event = _told(
        stdout="x" * 1024, metadata={"stdout_bytes": 5 * 2**20, "stdout_cut": True}, stderr=None, erased=["stderr"]
    )
    [out, err] = output.streams(event)
    assert (out.name, out.note) == ("stdout", "cut to 1.0 KiB; there were 5.0 MiB")
    assert (err.name, err.text) == ("stderr", "")
    assert "erased" in err.note
    assert output.streams(_told(stdout="all of it"))[0].note == ""
    assert output.streams(_told()) == []


def test_the_catalogue_knows_what_the_agent_knows():
    assert set(catalogue.CATALOGUE) == set(HANDLERS)


def test_parameters_become_what_the_agent_reads():
    given = {"package_type": "apt", "packages": "nginx, curl  openssl", "package_name": " ", "unknown": "x"}
    assert catalogue.parameters("install_updates", given) == {
        "package_type": "apt",
        "packages": ["nginx", "curl", "openssl"],
    }
    assert catalogue.parameters("scan_updates", {"refresh": "yes"}) == {"refresh": True}
    assert catalogue.parameters("scan_updates", {}) == {}
    assert catalogue.parameters("reboot", {"delay_minutes": "0"}) == {"delay_minutes": 0}


@pytest.mark.parametrize(
    ("command_type", "given"),
    [
        ("install_updates", {}),
        ("install_updates", {"package_type": "brew"}),
        ("install_updates", {"package_type": "apt", "packages": "a " * 201}),
        ("reboot", {"delay_minutes": "-1"}),
        ("reboot", {"delay_minutes": "10081"}),
        ("reboot", {"delay_minutes": "²"}),
        ("reboot", {"delay_minutes": "0" * 5000}),
        ("enable_heartbeat", {"duration_minutes": "0"}),
        ("dry_run_update", {"package_type": "apt"}),
    ],
)
def test_what_no_agent_could_read_is_refused(command_type, given):
    with pytest.raises(InvalidInput):
        catalogue.parameters(command_type, given)


def test_parameters_are_told_in_words():
    params = {"zone": {"a": [1, None]}, "packages": ["nginx", "curl"], "package_type": "apt"}
    assert catalogue.in_words("install_updates", params) == [
        ("Package manager", "apt"), ("Packages", "nginx, curl"), ("zone", "a: 1, nothing"),
    ]  # fmt: skip
    assert catalogue.in_words("rollback_update", {"force": True}) == [("force", "yes")]
    assert catalogue.in_words("scan_updates", {}) == []
    assert catalogue.word("rollback_update") == "rollback update"
