"""`redflag users`: people, and what they may do."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from redflag import words
from redflag.access.roles import Role
from redflag.cli import ask, lookup
from redflag.cli.client import Client, Json, connect
from redflag.cli.output import AsJson, note, print_json, print_table, say
from redflag.errors import NotFound

app = typer.Typer(no_args_is_help=True, help="People: list, create, give roles and passwords, let in and keep out.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user name.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin, one line.")]


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List every user."""
    with connect() as api:
        answer = api.get("/api/v1/users")
    if as_json:
        print_json(answer)
        return
    now = words.now()
    print_table(
        ["name", "role", "may come in", "last log-in", "made"],
        (
            [
                row["username"],
                row["role"],
                Text("no, disabled", "dim") if row["disabled_at"] else Text("yes", "green"),
                words.when(row["last_login_at"], now),
                words.when(row["created_at"], now),
            ]
            for row in answer["users"]
        ),
        empty="There are no users. `redflag users create NAME` makes one.",
    )


@app.command()
def create(
    name: Name,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.VIEWER,
    password_stdin: FromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Make a user. Without a password one is generated, and shown this once."""
    body: Json = {"username": name, "role": role}
    if password_stdin:
        body["password"] = ask.password(True, name)
    with connect() as api:
        answer = api.post("/api/v1/users", body)
    if as_json:
        print_json(answer)
    elif "password" in answer:
        note(f"{name} can log in with this password and must then choose another. It cannot be shown again:")
        say(answer["password"])
    else:
        say(f"{name} can log in, with the role {answer['role']}.")


@app.command()
def role(
    name: Name, new: Annotated[Role, typer.Argument(metavar="ROLE", help=", ".join(Role))], as_json: AsJson = False
) -> None:
    """Give a user another role."""
    _change(name, {"role": new}, f"{name} has the role {new} now.", as_json)


@app.command()
def disable(name: Name, yes: lookup.Yes = False, as_json: AsJson = False) -> None:
    """Keep a user out; their sessions end, and their tokens stop working."""
    ask.confirm(f"Keep {name} out and end their sessions?", yes)
    _change(name, {"disabled": True}, f"{name} can no longer log in, and their sessions have ended.", as_json)


@app.command()
def enable(name: Name, as_json: AsJson = False) -> None:
    """Let a disabled user in again."""
    _change(name, {"disabled": False}, f"{name} can log in again.", as_json)


@app.command()
def password(name: Name, password_stdin: FromStdin = False, as_json: AsJson = False) -> None:
    """Give a user a new password; their sessions end."""
    chosen = ask.password(password_stdin, name)
    _change(name, {"password": chosen}, f"{name} has a new password, and their sessions have ended.", as_json)


def _change(name: str, change: Json, told: str, as_json: bool) -> None:
    with connect() as api:
        answer = api.patch(f"/api/v1/users/{_id(api, name)}", change)
    if as_json:
        print_json(answer)
    else:
        say(told)


def _id(api: Client, name: str) -> str:
    for row in api.get("/api/v1/users")["users"]:
        # Names differ in more than capitals
        if row["username"].lower() == name.lower():
            return str(row["id"])
    raise NotFound(f"No user {name!r}", "See `redflag users list`")
