"""`redflag tokens`: API tokens, with which programs come in."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from redflag import words
from redflag.access.roles import Role
from redflag.cli import lookup
from redflag.cli.ask import confirm
from redflag.cli.client import connect
from redflag.cli.output import AsJson, note, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="API tokens, for programs: list, create, revoke.")


@app.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List API tokens, without the tokens themselves."""
    with connect() as api:
        answer = api.get("/api/v1/tokens")
    if as_json:
        print_json(answer)
        return
    now = words.now()
    rows = answer["tokens"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "name", "role", "works", "ends", "made", "by"],
        (
            [
                ids[row["id"]],
                row["name"],
                row["role"],
                Text("yes", "green") if row["works"] else Text(_why_not(row), "dim"),
                words.when(row["expires_at"], now),
                words.when(row["created_at"], now),
                row["created_by"],
            ]
            for row in rows
        ),
        empty="There are no tokens. `redflag tokens create NAME` makes one.",
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What uses it; the record shows token:NAME.")],
    role: Annotated[Role, typer.Option(help="What it may do; not more than you may.")] = Role.VIEWER,
    hours: Annotated[int | None, typer.Option(min=1, max=87_600, help="For so long; else until it is revoked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API token. It is shown this once."""
    with connect() as api:
        answer = api.post("/api/v1/tokens", {"name": name, "role": role, "hours": hours})
    if as_json:
        print_json(answer)
        return
    ends = f"for {words.length(hours * 3600.0)}" if hours else "until it is revoked"
    note(f"The token {answer['name']}, with the role {answer['role']}, {ends}. It cannot be shown again:")
    say(answer["token"])


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, its beginning, or its name.")],
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a token: within 5 s no server lets it in."""
    with connect() as api:
        token_id = lookup.one(api, lookup.TOKEN, token)
        confirm(f"Revoke the token {token}?", yes)
        answer = api.delete(f"/api/v1/tokens/{token_id}")
    if as_json:
        print_json(answer)
    else:
        say(f"The token {token} is revoked; within 5 s no server lets it in.")


def _why_not(row: dict[str, Any]) -> str:
    if row["revoked_at"]:
        return "revoked"
    expires = words.read(row["expires_at"])
    return "over" if expires is not None and expires <= words.now() else "its user is disabled"
