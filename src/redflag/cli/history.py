"""`redflag history`: the record in sentences, the newest first."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from redflag import words
from redflag.cli import lookup
from redflag.cli.client import Client, Json, connect
from redflag.cli.output import AsJson, console, note, plain, print_json, say
from redflag.commands import sentences
from redflag.commands.states import Kind, Result

PATH = "/api/v1/commands/history"


def history(
    agent: Annotated[str | None, typer.Option(help="Of this agent: id, its beginning, or name.")] = None,
    command: Annotated[str | None, typer.Option(help="Of this command: id or its beginning.")] = None,
    command_type: Annotated[str | None, typer.Option("--type", help="Of commands of this type.")] = None,
    result: Annotated[Result | None, typer.Option(help="With this result.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="By user:NAME, token:NAME, agent:ID, service:NAME@HOST, db:ROLE.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Of this kind.")] = None,
    since: Annotated[str | None, typer.Option(help="So long ago (2h, 3d), or a time in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Before so long ago, or before a time.")] = None,
    text: Annotated[str | None, typer.Option(help="With this text in message, output, action or actor.")] = None,
    no_timeouts: Annotated[bool, typer.Option("--no-timeouts", help="Without timeouts.")] = False,
    limit: lookup.Limit = 50,
    everything: Annotated[bool, typer.Option("--all", help="All of it, page after page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what happened, when, and who did it. With --all --json each page is a document of its own."""
    now = words.now()
    query: Json = {
        "command_type": command_type,
        "result": result,
        "actor": actor,
        "kind": kind,
        "since": words.moment(since, now).isoformat() if since else None,
        "until": words.moment(until, now).isoformat() if until else None,
        "text": text,
        "include_timeout": False if no_timeouts else None,
    }
    with connect() as api:
        query["agent"] = lookup.one(api, lookup.AGENT, agent) if agent else None
        query["command"] = lookup.one(api, lookup.COMMAND, command) if command else None
        if everything:
            _print_all(api, query, as_json)
            return
        answer = lookup.collect(api, PATH, "events", limit, **query)
        if as_json:
            print_json(answer)
            return
        _print(answer["events"], lookup.Names(api))
    if not answer["events"]:
        say("Nothing of this kind is recorded.")
    if answer["next_cursor"]:
        note(f"There is more than these {limit}: add --limit or --all.")


def _print_all(api: Client, query: Json, as_json: bool) -> None:
    names, cursor = lookup.Names(api), None
    while True:
        answer = api.get(PATH, **query, cursor=cursor, limit=lookup.PAGE)
        if as_json:
            print_json(answer)
        else:
            _print(answer["events"], names)
        cursor = answer["next_cursor"]
        if cursor is None:
            return


def _print(events: list[Json], names: lookup.Names) -> None:
    now, screen = words.now(), console()
    for event in events:
        name = names.of(event["agent_id"])
        line = Text(f"{words.recent(event['executed_at'], now):>19}  ", "dim")
        if name:
            line.append(f"{plain(name)}: ", "bold not dim")
        line.append(plain(sentences.what(event)), f"not dim {sentences.style(event['result'])}".strip())
        line.append(f"  (by {plain(_by(event, names))})")
        screen.print(line)


def _by(event: Json, names: lookup.Names) -> str:
    kind, _, agent_id = str(event["actor"]).partition(":")
    if kind != "agent":
        return sentences.who(event)
    return "itself" if agent_id == event["agent_id"] else f"agent {names.of(agent_id)}"
