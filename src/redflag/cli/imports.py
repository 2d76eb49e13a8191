"""`redflag import`: what another system knew comes over."""

from __future__ import annotations

from typing import Annotated

import typer

from redflag.audit import redaction
from redflag.cli import databases, output
from redflag.imports import redflag as importer
from redflag.settings import settings

app = typer.Typer(no_args_is_help=True, help="Bring another system's data over.")

BAR = 24


@app.callback()
def group() -> None:
    """Bring another system's data over."""


@app.command()
def redflag(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="REDFLAG_IMPORT_FROM",
            show_envvar=True,
            show_default=False,
            help="The RedFlag v0.1.18 database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE. It is only read.",
        ),
    ],
    source_timezone: Annotated[
        str, typer.Option(help="The time zone that RedFlag's database writes times without zone in.")
    ] = "UTC",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do it all, print what would come over, and undo it.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Import agents, tokens, users, commands, history and updates of a RedFlag v0.1.18. Run again it adds nothing."""  # fmt: skip
    here = settings()
    redaction.add_patterns(here.redact)
    with databases.running(here), output.progress("Importing") as tell:
        outcome = databases.run(
            importer.run(
                databases.owner_url(here),
                source,
                zone=source_timezone,
                dry_run=dry_run,
                more_patterns=bool(here.redact),
                longest_output=here.max_output,
                tell=lambda done, what: tell(f"{bar(done)} {what}"),
            )
        )
    if as_json:
        output.print_json(as_data(outcome))
        return
    output.print_table(
        ["Table", "Read", "Imported", "Already there", "Skipped", "Why"],
        [
            (line.table, line.read, line.imported, line.there, sum(line.skipped.values()),
             "\n".join(f"{rows}: {why}" if len(line.skipped) > 1 else why for why, rows in sorted(line.skipped.items())))
            for line in outcome.lines
        ],
        empty="", right=["Read", "Imported", "Already there", "Skipped"],
    )  # fmt: skip
    for table, why in outcome.left_out.items():
        output.say(f"{table} is left out: {why}.")
    if outcome.missing:
        output.say(f"That database has no {', '.join(outcome.missing)}.")
    if outcome.expired:
        output.say(f"{outcome.expired} commands were past their deadline: timed out, and never delivered.")
    if outcome.reconstructed:
        output.say(f"{outcome.reconstructed} timeouts that RedFlag could not record have their record now.")
    if outcome.dry_run:
        output.say("Nothing was changed: this was a dry run.")
    elif not outcome.imported:
        output.say(f"Nothing was added: all that {outcome.source} can bring is here already.")
    else:
        output.say(f"Imported {outcome.imported} rows from {outcome.source}.")


def bar(done: float) -> str:
    """How much is done (0 to 1), as a bar and in per cent."""
    full = int(done * BAR)
    return f"{'━' * full}{'─' * (BAR - full)} {done:4.0%}"


def as_data(outcome: importer.Outcome) -> dict[str, object]:
    """An import as programs read it."""
    return {
        "source": outcome.source,
        "dry_run": outcome.dry_run,
        "imported": outcome.imported,
        "expired": outcome.expired,
        "reconstructed": outcome.reconstructed,
        "redacted": outcome.cleaned,
        "tables": [vars(line) for line in outcome.lines],
        "left_out": outcome.left_out,
        "missing": outcome.missing,
    }
