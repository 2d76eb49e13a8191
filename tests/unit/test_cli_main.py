"""How a command ends: one sentence, an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from redflag import errors
from redflag.cli import exits, main
from redflag.cli.exits import ExitCode, exit_code


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """An app with a command that raises what the test says."""
    app = typer.Typer(pretty_exceptions_enable=False)
    monkeypatch.setattr(main, "app", app)
    monkeypatch.delenv("REDFLAG_DEBUG", raising=False)
    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("No agent x", "See `redflag agents list`"), ExitCode.NOT_FOUND),
        (errors.SettingsError("REDFLAG_PORT: too large"), ExitCode.USAGE),
        (errors.TooLarge("Too large"), ExitCode.USAGE),
        (errors.EmbeddedDatabaseError("It did not start"), ExitCode.FAILED),
        (errors.DatabaseUnreachable("It does not answer"), ExitCode.UNAVAILABLE),
        (errors.RateLimited("Too many", 3), ExitCode.UNAVAILABLE),
        (exits.NeedsAttention("Something is late"), ExitCode.ATTENTION),
        (PermissionError(13, "Permission denied", "/x"), ExitCode.NOT_PERMITTED),
        (OSError(28, "No space left on device", "/x"), ExitCode.FAILED),
        (ValueError("nobody thought of this"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    fails: typer.Typer, capsys: pytest.CaptureFixture[str], error: BaseException, code: ExitCode
) -> None:
    @fails.command()
    def command() -> None:
        raise error

    assert main.main([]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == (0 if isinstance(error, KeyboardInterrupt) else 1)
    assert "Traceback" not in told.err


def test_debug_shows_the_traceback(
    fails: typer.Typer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @fails.command()
    def command() -> None:
        raise errors.Conflict("No")

    monkeypatch.setenv("REDFLAG_DEBUG", "1")
    assert main.main([]) == ExitCode.CONFLICT
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["status", "--no-such-option"], ["server", "--workers", "many"]]
)
def test_wrong_usage_has_its_own_exit_code(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == ExitCode.USAGE
    assert "Error" in capsys.readouterr().err


def test_every_error_of_the_tree_has_a_code_other_than_ok() -> None:
    def all_of(kind: type[errors.RedFlagError]) -> list[type[errors.RedFlagError]]:
        return [kind, *(one for below in kind.__subclasses__() for one in all_of(below))]

    for kind in all_of(errors.RedFlagError):
        # Each has its own arguments, and none of them decides on the code
        assert exit_code(kind.__new__(kind)) != ExitCode.OK


def test_the_help_names_every_exit_code() -> None:
    epilog = main.app.info.epilog
    assert epilog
    for code in ExitCode:
        if code is not ExitCode.INTERRUPTED:
            assert f" {code.value} " in epilog


def test_a_reader_that_goes_away_is_no_fault() -> None:
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "redflag.cli.main", "service", "print", "--user", "redflag"],
            env=env, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 1
