"""`redflag timeouts`: the service that ends what takes too long, what it ends next, and how long each type may take."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from redflag import words
from redflag.cli import lookup
from redflag.cli.ask import confirm
from redflag.cli.client import Json, connect
from redflag.cli.output import AsJson, print_facts, print_json, print_table, say
from redflag.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Timeouts: the service, what expires next, and the policies.")

_LENGTH = "As 90s, 30m or 2h."


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the timeout service: its last run, its lag, failures and totals."""
    with connect() as api:
        answer = api.get("/api/v1/admin/timeout-service/status")
    if as_json:
        print_json(answer)
        return
    now = words.now()
    totals, lag = answer["totals"], answer["lag_seconds"]
    failed = answer["recent_failures"]
    print_facts(
        [
            ("last run", words.when(answer["last_run_at"], now)),
            ("last success", words.when(answer["last_success_at"], now)),
            (
                "overdue",
                words.count(answer["overdue"], "command") + (f", the longest by {words.length(lag)}" if lag else ""),
            ),
            ("next deadline", words.when(answer["next_deadline_at"], now, "none")),
            ("failed sweeps", Text(f"{failed} in the last 5 minutes", "red" if failed else "")),
            ("timed out", words.count(totals["timed_out"], "command")),
            ("taken back", words.count(totals["redelivered"], "command")),
            ("runs", f"{totals['runs']:,}, {totals['failures']:,} of them failed"),
        ]
    )
    say("")
    print_table(
        ["replica", "state", "last success", "runs", "failed", "timed out", "last error"],
        (
            [
                row["replica"],
                f"stopped {words.when(row['stopped_at'], now)}"
                if row["stopped_at"]
                else f"started {words.when(row['started_at'], now)}",
                words.when(row["last_success_at"], now),
                row["runs"],
                row["failures"],
                row["timed_out"],
                f"{words.when(row['last_error_at'], now)}: {row['last_error']}" if row["last_error"] else "",
            ]
            for row in answer["replicas"]
        ),
        empty="No server has swept yet.",
        right=("runs", "failed", "timed out"),
    )


@app.command()
def run(as_json: AsJson = False) -> None:
    """Sweep now. The run is recorded with your name."""
    with connect() as api:
        answer = api.post("/api/v1/admin/timeout-service/run")
    if as_json:
        print_json(answer)
        return
    late = (
        f", the latest {words.length(answer['max_lateness_ms'] / 1000)} after its deadline"
        if answer["timed_out"]
        else ""
    )
    back = f" {words.count(len(answer['redelivered']), 'command')} taken back." if answer["redelivered"] else ""
    say(f"{words.count(answer['timed_out'], 'command')} timed out{late}.{back}")
    for one in answer["commands"]:
        say(f"  {one}")


@app.command()
def preview(
    within: Annotated[str, typer.Option(help=f"From now on. {_LENGTH}")] = "1h",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At the most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show what expires next, and when."""
    seconds = words.duration(within)
    with connect() as api:
        answer = api.get("/api/v1/admin/timeout-service/preview", within=seconds, limit=limit)
    if as_json:
        print_json(answer)
        return
    rows = answer["commands"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "agent", "type", "status", "expires", "because of"],
        (
            [
                ids[row["id"]],
                row["agent_name"],
                row["command_type"],
                row["status"],
                words.distance(row["remaining_seconds"]),
                f"{row['deadline_kind']} timeout",
            ]
            for row in rows
        ),
        empty=f"Nothing expires within {words.length(seconds)}.",
    )


@app.command()
def policies(as_json: AsJson = False) -> None:
    """Show how long commands may wait, start, run, and be silent, by type; * is every type without a row."""
    with connect() as api:
        answer = api.get("/api/v1/timeout-policies")
    if as_json:
        print_json(answer)
        return
    now = words.now()
    print_table(
        ["type", "delivery", "start", "execution", "idle", "changed"],
        ([row["command_type"], *_times(row), words.when(row["updated_at"], now)] for row in answer["policies"]),
        empty="There are no policies.",
    )


@app.command("set")
def set_policy(
    command_type: Annotated[str, typer.Argument(metavar="TYPE", help="A type of command, or * for every other.")],
    delivery: Annotated[str | None, typer.Option(help=f"To be handed to its agent. {_LENGTH}")] = None,
    start: Annotated[str | None, typer.Option(help=f"To be confirmed by its agent. {_LENGTH}")] = None,
    execution: Annotated[str | None, typer.Option(help=f"To be done. {_LENGTH}")] = None,
    idle: Annotated[str | None, typer.Option(help=f"Without a sign of life. {_LENGTH}")] = None,
    no_idle: Annotated[bool, typer.Option("--no-idle", help="However long it is silent.")] = False,
    apply_to_live: Annotated[bool, typer.Option("--apply-to-live", help="Also to commands that are live.")] = False,
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set the policy of a type; what is not given stays. It holds for new commands."""
    given = {"delivery_timeout": delivery, "start_timeout": start, "execution_timeout": execution, "idle_timeout": idle}
    body: Json = {name: words.duration(text) for name, text in given.items() if text is not None}
    if idle is not None and no_idle:
        raise InvalidInput("--idle and --no-idle contradict each other", "Give one of them")
    if not (body or no_idle or apply_to_live):
        raise InvalidInput("Nothing to set is given", "Give --delivery, --start, --execution, --idle or --no-idle")
    if apply_to_live:
        confirm(f"Give these times to live commands of type {command_type} too? What is past them ends at once", yes)
    with connect() as api:
        answer = api.put(
            f"/api/v1/timeout-policies/{quote(command_type, safe='')}",
            body | {"no_idle": no_idle, "apply_to_live": apply_to_live},
        )
    if as_json:
        print_json(answer)
        return
    names = ("delivery", "start", "execution", "idle")
    told = ", ".join(f"{name} {value}" for name, value in zip(names, _times(answer["policy"]), strict=True))
    applied = f" Applied to {words.count(answer['applied_to_live'], 'live command')}." if apply_to_live else ""
    say(f"{command_type}: {told}.{applied}")


def _times(row: dict[str, Any]) -> list[str]:
    columns = ("delivery_timeout", "start_timeout", "execution_timeout", "idle_timeout")
    return ["none" if row[column] is None else words.exact(row[column]) for column in columns]
