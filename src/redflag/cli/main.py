"""The entry point of `redflag`: the command groups, and how an error ends a command.

Every failure is one sentence on stderr with the next step, and an exit code of `exits`. REDFLAG_DEBUG=1 shows the
traceback. A group is one file with an `app` (a group) or functions (single commands), and is registered here.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import redflag
from redflag.cli import (
    agents,
    audit,
    backup,
    client,
    commands,
    db,
    doctor,
    env,
    history,
    imports,
    output,
    server,
    service,
    simulate,
    timeouts,
    tokens,
    up,
    updates,
    users,
)
from redflag.cli.exits import ExitCode, exit_code
from redflag.errors import RedFlagError

app = typer.Typer(
    name="redflag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not permitted, 5 conflict, "
    "6 server or database away, 7 something needs attention.",
)

RUNNING = "Running RedFlag"
app.command(rich_help_panel=RUNNING)(up.up)
app.command(rich_help_panel=RUNNING)(up.down)
app.command(rich_help_panel=RUNNING)(up.status)
app.command(rich_help_panel=RUNNING)(env.env)
app.command(rich_help_panel=RUNNING)(server.server)
app.command(rich_help_panel=RUNNING)(backup.backup)
app.command(rich_help_panel=RUNNING)(backup.restore)
app.add_typer(db.app, name="db", rich_help_panel=RUNNING)
app.add_typer(imports.app, name="import", rich_help_panel=RUNNING)
app.add_typer(service.app, name="service", rich_help_panel=RUNNING)
app.command(rich_help_panel=RUNNING)(simulate.simulate)

FLEET = "The fleet"
app.add_typer(agents.app, name="agents", rich_help_panel=FLEET)
app.add_typer(commands.app, name="commands", rich_help_panel=FLEET)
app.command(rich_help_panel=FLEET)(history.history)
app.add_typer(updates.app, name="updates", rich_help_panel=FLEET)
app.add_typer(timeouts.app, name="timeouts", rich_help_panel=FLEET)
app.add_typer(audit.app, name="audit", rich_help_panel=FLEET)
ACCESS = "Access"
app.add_typer(tokens.app, name="tokens", rich_help_panel=ACCESS)
app.add_typer(users.app, name="users", rich_help_panel=ACCESS)
app.command(rich_help_panel=RUNNING)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"redflag {redflag.__version__}")
        raise typer.Exit


@app.callback()
def root(
    url: Annotated[str, typer.Option(envvar="REDFLAG_URL", help="The server's address.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="A file that holds the API token; or set REDFLAG_TOKEN.", show_default=False)
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(envvar="REDFLAG_CA_FILE", help="The authority (PEM) that signed the server's certificate."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Self-hosted fleet updates and commands, with an audit trail that cannot be altered unseen."""
    client.options = client.Options(url.rstrip("/"), token_file, ca_file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except (KeyboardInterrupt, typer.Abort):
        _tell("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get("REDFLAG_DEBUG", "") not in {"", "0"}:
            traceback.print_exc()
        return _explain(error)


def _run(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=None if arguments is None else list(arguments), prog_name="redflag", standalone_mode=False
        )
        sys.stdout.flush()
    except typer.TyperException as error:
        show = getattr(error, "show", None)  # a usage error shows how the command is used
        if show is None:
            raise
        show()
        return ExitCode(getattr(error, "exit_code", ExitCode.USAGE))
    return code if isinstance(code, int) else ExitCode.OK


def _explain(error: Exception) -> int:
    if isinstance(error, RedFlagError):
        _tell(str(error))
        return exit_code(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        if isinstance(error, PermissionError):
            _tell(f"{where}{error.strerror}. Run this as the user whom it belongs to.")
            return ExitCode.NOT_PERMITTED
        _tell(f"{where}{error.strerror}. REDFLAG_DEBUG=1 shows where it happened.")
        return ExitCode.FAILED
    _tell(
        f"a fault of RedFlag: {type(error).__name__}: {error}. REDFLAG_DEBUG=1 shows where it happened; please report it."
    )
    return ExitCode.FAILED


def _tell(text: str) -> None:
    output.note(f"redflag: {text}", style="red")


if __name__ == "__main__":
    sys.exit(main())
