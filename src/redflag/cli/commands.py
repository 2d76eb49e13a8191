"""`redflag commands`: what agents are asked to do, and what became of it."""

from __future__ import annotations

import json
import re
import time
from typing import Annotated, Any

import typer
from rich.text import Text

from redflag import words
from redflag.cli import lookup
from redflag.cli.ask import confirm
from redflag.cli.client import Client, Json, connect
from redflag.cli.exits import ServerUnreachable
from redflag.cli.output import AsJson, note, plain, print_facts, print_json, print_table, progress, say
from redflag.commands import sentences
from redflag.commands.states import LIVE, TERMINAL, Status
from redflag.errors import InvalidInput, RedFlagError

app = typer.Typer(no_args_is_help=True, help="Commands for agents: list, show, send, cancel and retry them.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The command's id or its beginning.")]

POLL_SECONDS = 1.0
# A server that restarts while somebody waits is waited for as well
AWAY_SECONDS = 120.0


@app.command("list")
def list_commands(
    agent: Annotated[str | None, typer.Option(help="Of this agent: id, its beginning, or name.")] = None,
    status: Annotated[Status | None, typer.Option(help="In this state.")] = None,
    command_type: Annotated[str | None, typer.Option("--type", help="Of this type.")] = None,
    live: Annotated[bool, typer.Option("--live", help="That have not ended.")] = False,
    limit: lookup.Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List commands, the newest first."""
    with connect() as api:
        agent_id = lookup.one(api, lookup.AGENT, agent) if agent else None
        answer = lookup.collect(
            api,
            "/api/v1/commands",
            "commands",
            limit,
            agent=agent_id,
            status=status,
            command_type=command_type,
            live=live or None,
        )
    if as_json:
        print_json(answer)
        return
    now = words.now()
    rows = answer["commands"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "agent", "type", "status", "enqueued", "ends"],
        (
            [
                ids[row["id"]],
                row["agent_name"],
                row["command_type"],
                Text(row["status"], sentences.style(row["status"])),
                words.recent(row["created_at"], now),
                _ends(row, now),
            ]
            for row in rows
        ),
        empty="There are no such commands.",
    )
    if answer["next_cursor"]:
        note(f"There are more than {limit}: add --limit or a filter.")


@app.command()
def show(command: Id, as_json: AsJson = False) -> None:
    """Show one command, and all that happened to it, in order."""
    with connect() as api:
        answer = api.get(f"/api/v1/commands/{lookup.one(api, lookup.COMMAND, command)}")
    if as_json:
        print_json(answer)
        return
    row, events = answer["command"], answer["events"]
    now = words.now()
    facts: list[tuple[str, Any]] = [
        ("id", row["id"]),
        ("agent", f"{row['agent_name']} ({row['agent_id']})"),
        ("type", row["command_type"]),
        ("parameters", json.dumps(row["params"], ensure_ascii=False) if row["params"] else "none"),
        ("status", Text(row["status"], sentences.style(row["status"]))),
        ("enqueued", f"{words.when(row['created_at'], now)} ({words.clock(row['created_at'])})"),
        ("ends" if row["status"] in LIVE else "ended", _ends(row, now)),
    ]
    if row["progress"] and row["status"] in LIVE:
        facts.append(("progress", row["progress"]))
    if row["retried_from_id"]:
        facts.append(("retry of", row["retried_from_id"]))
    print_facts(facts)
    say("")
    _print_timeline(row, events)


@app.command()
def send(
    command_type: Annotated[str, typer.Argument(metavar="TYPE", help="As scan_updates, reboot, collect_specs.")],
    agent: Annotated[list[str], typer.Option(help="For this agent: id, its beginning, or name. May be repeated.")],
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="A parameter; true, false, whole numbers and JSON lists are taken as such."),
    ] = None,
    params: Annotated[str | None, typer.Option(metavar="JSON", help="All parameters as one JSON object.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended; exit code 1 unless it completed.")] = False,
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Enqueue a command for each of the agents, or for none if one of them is not there."""
    given = _params(param or [], params)
    with connect() as api:
        agent_ids = lookup.many(api, lookup.AGENT, agent)
        if command_type == "reboot":
            confirm(f"Reboot {words.count(len(agent_ids), 'host')}?", yes)
        answer = api.post("/api/v1/commands", {"agent_ids": agent_ids, "command_type": command_type, "params": given})
        if wait:
            ids = [row["id"] for row in answer["commands"]]
            ended = follow(api, ids, command_type)
            if as_json:
                print_json({"commands": [one["command"] for one in ended]})
            else:
                for one in ended:
                    say(f"{one['command']['agent_name']}: {told(one)}", sentences.style(one["command"]["status"]))
            require_completed([one["command"]["status"] for one in ended])
            return
    if as_json:
        print_json(answer)
        return
    for row in answer["commands"]:
        until = words.when(row["next_deadline_at"], words.now())
        say(f"{row['command_type']} {row['id']} is {row['status']}; it ends {until} unless its agent takes it.")


@app.command()
def cancel(
    command: Id,
    reason: Annotated[str, typer.Option(help="Why; the record keeps it.")] = "",
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a live command; the updates it worked on go back to where they were."""
    with connect() as api:
        command_id = lookup.one(api, lookup.COMMAND, command)
        confirm(f"Cancel the command {command_id}?", yes)
        answer = api.post(f"/api/v1/commands/{command_id}/cancel", {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        say(f"{answer['command']['command_type']} {command_id} is cancelled.")


@app.command()
def retry(command: Id, as_json: AsJson = False) -> None:
    """Enqueue a new command like one that has ended."""
    with connect() as api:
        answer = api.post(f"/api/v1/commands/{lookup.one(api, lookup.COMMAND, command)}/retry")
    if as_json:
        print_json(answer)
    else:
        say(f"{answer['command']['command_type']} is enqueued again, as {answer['command']['id']}.")


def follow(api: Client, command_ids: list[str], what: str) -> list[Json]:
    """Waits until every one of the commands has ended: {command, events} of each, in their order.

    Its deadlines end every command, so this returns. A server that is away for a while is waited for; raises
    ServerUnreachable when it stays away.
    """
    waiting, ended = list(command_ids), dict[str, Json]()
    with progress(f"Waiting for {what}") as tell:
        while True:
            states: list[str] = []
            for one in list(waiting):
                answer = patiently(api, f"/api/v1/commands/{one}")
                if answer["command"]["status"] in TERMINAL:
                    ended[one] = answer
                    waiting.remove(one)
                else:
                    states.append(_live(answer["command"]))
            if not waiting:
                return [ended[one] for one in command_ids]
            done = f"{len(ended)} of {len(command_ids)} ended; " if len(command_ids) > 1 else ""
            tell(done + "; ".join(dict.fromkeys(states[:3])))
            time.sleep(POLL_SECONDS)


def patiently(api: Client, path: str) -> Json:
    """GET, again while the server does not answer, for two minutes. Raises ServerUnreachable."""
    since = time.monotonic()
    while True:
        try:
            answer: Json = api.get(path)
        except ServerUnreachable:
            if time.monotonic() - since > AWAY_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return answer


def told(answer: Json) -> str:
    """How a command ended, in the words of its last transition."""
    last = [event for event in answer["events"] if event["kind"] == "transition"]
    return sentences.what(last[-1]) if last else f"{answer['command']['command_type']} {answer['command']['status']}"


def require_completed(statuses: list[str]) -> None:
    """Raises RedFlagError unless all are completed."""
    if missed := sum(status != Status.COMPLETED for status in statuses):
        of = f" of {len(statuses)} commands" if len(statuses) > 1 else ""
        what = f"{missed}{of} did not complete" if of else f"The command is {statuses[0]}, not completed"
        raise RedFlagError(what, "`redflag commands show ID` tells what happened")


def _live(row: Json) -> str:
    said = f": {row['progress']}" if row["progress"] else ""
    return f"{row['agent_name']} {row['status']}{said}, {words.length(max(0.0, row['remaining_seconds'] or 0.0))} left"


def _ends(row: Json, now: Any) -> str:
    if row["status"] in LIVE:
        why = {"delivery": "if not delivered", "start": "if not received", "idle": "if silent"}.get(
            row["deadline_kind"], "at the latest"
        )
        return f"{words.distance(row['remaining_seconds'])} {why}"
    return words.recent(row["completed_at"], now)


def _print_timeline(row: Json, events: list[Json]) -> None:
    began = words.read(row["created_at"])
    lines = []
    for event in events:
        at = words.read(event["executed_at"])
        after = (at - began).total_seconds() if at and began else 0.0
        by = "the agent" if event["actor"] == f"agent:{row['agent_id']}" else sentences.who(event)
        lines.append(
            [
                words.clock(event["executed_at"]),
                f"+{words.length(after)}",
                Text(plain(sentences.what(event)), sentences.style(event["result"])),
                by,
            ]
        )
    print_table(["when", "after", "what happened", "who"], lines, empty="Nothing is recorded of it.", right=("after",))
    for event in events:
        for stream in ("stdout", "stderr"):
            if event[stream]:
                say(f"\n{stream}:", "bold")
                say(event[stream].rstrip("\n"))


def _params(pairs: list[str], whole: str | None) -> Json:
    given: Json = {}
    if whole is not None:
        try:
            parsed = json.loads(whole)
        except ValueError as error:
            raise InvalidInput(
                f"--params is no JSON: {error}", """Give an object, as --params '{"refresh": true}'"""
            ) from None
        if not isinstance(parsed, dict):
            raise InvalidInput("--params is no JSON object", """Give one, as --params '{"refresh": true}'""")
        given = parsed
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InvalidInput(f"--param {pair[:50]!r} is not NAME=VALUE", "Give it as --param refresh=true")
        given[name] = _value(value)
    return given


def _value(text: str) -> Any:
    # Versions such as 1.10 stay text
    if text in {"true", "false"} or re.fullmatch(r"-?(0|[1-9]\d{0,14})", text) or text[:1] in {"[", "{"}:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
