"""What commands print, for people and for programs."""

from __future__ import annotations

import datetime
import io
import json
import sys
import uuid

import pytest

from redflag.cli import output


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_json_is_exact_in_times_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime.datetime(2033, 1, 31, 12, 0, 0, 123456, datetime.UTC)
    one = uuid.UUID(int=1)
    output.print_json({"at": at, "id": one, "none": None})
    assert json.loads(capsys.readouterr().out) == {"at": "2033-01-31T12:00:00.123456Z", "id": str(one), "none": None}


def test_a_table_without_a_terminal_is_neither_cut_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    output.print_table(["Name", "Number"], [(long, 1)], empty="None.", right=["Number"])
    printed = capsys.readouterr().out
    assert any(long in line for line in printed.splitlines())
    assert "\x1b" not in printed


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["Name"], [], empty="There are no agents.")
    assert capsys.readouterr().out == "There are no agents.\n"


def test_what_a_host_sent_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "host\x1b[2J\x07[red]name[/red]\r"
    output.say(evil)
    output.print_table(["Name"], [(evil,)], empty="")
    output.print_facts([("Name", evil)])
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r"} & set(printed)
    assert printed.count("[red]name[/red]") == 3


def test_colour_on_a_terminal_only_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", coloured)
    output.say("words", style="red")
    assert "\x1b[31m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", plain)
    output.say("words", style="red")
    assert "\x1b[31m" not in plain.getvalue()


def test_progress_goes_to_stderr_and_what_is_quick_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("Copying") as tell:
        tell("1 MiB")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == ""


def test_progress_shows_what_takes_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_SAY_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(output, "_SAY_EVERY_SECONDS", 0.0)
    told = ""
    with output.progress("Copying") as tell:
        while "Copying …\n" not in told:
            told += capsys.readouterr().err
        tell("1 MiB")
    assert "Copying … 1 MiB" in told + capsys.readouterr().err
