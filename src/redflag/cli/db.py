"""`redflag db`: the schema, and psql by hand."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from redflag.cli import databases, output
from redflag.cli.exits import NeedsAttention
from redflag.database import migrate as migrations
from redflag.settings import Settings, settings

app = typer.Typer(no_args_is_help=True, help="The database: its schema, and psql.")


@app.command()
def status(as_json: output.AsJson = False) -> None:
    """Show which migrations the database has. Exit code 7 when some are missing."""
    here = settings()
    databases.require_running(here)
    states = databases.run(_states(here))
    if as_json:
        output.print_json([vars(state) for state in states])
    else:
        output.print_table(
            ["Migration", "Name", "State", "Applied"],
            [(f"{one.version:04}", one.name, one.state, one.applied_at and f"{one.applied_at:%Y-%m-%d %H:%M:%S} UTC") for one in states],
            empty="There are no migrations.",
        )  # fmt: skip
    migrations.refuse_trouble(states)
    if pending := [one for one in states if one.state == "pending"]:
        raise NeedsAttention(f"{len(pending)} migrations have not been applied", "Run `redflag db migrate`")


@app.command()
def migrate() -> None:
    """Bring the schema up to this release, and set the rights of the server's role. Makes the embedded database if there is none."""
    here = settings()
    with databases.running(here, make=True), output.progress("Applying migrations"):
        applied = databases.run(databases.migrated(here))
    for one in applied:
        output.say(f"Applied {one.version:04} {one.name}.")
    if not applied:
        output.say("The schema is this release's already.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to psql, after --.")] = None) -> None:
    """Open psql on the database as its owner. Every change by hand is recorded, under the name of that role."""
    here = settings()
    databases.require_running(here)
    program = str(databases.tool(here, "psql"))
    os.execve(program, [program, *(arguments or [])], databases.libpq_environment(databases.owner_url(here)))  # noqa: S606


async def _states(here: Settings) -> list[migrations.State]:
    async with databases.connected(databases.owner_url(here)) as connection:
        return await migrations.status(connection)
