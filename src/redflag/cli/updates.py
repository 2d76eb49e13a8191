"""`redflag updates`: what can be updated where, and the decisions about it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.text import Text

from redflag import words
from redflag.cli import lookup
from redflag.cli.client import Client, Json, connect
from redflag.cli.commands import POLL_SECONDS, patiently
from redflag.cli.output import AsJson, note, print_facts, print_json, print_table, progress, say
from redflag.errors import Conflict, RedFlagError
from redflag.updates.states import Severity, Status

app = typer.Typer(no_args_is_help=True, help="Updates: list, approve, reject, examine and install them.")

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The updates' ids or their beginnings.")]

_SEVERITY = {"critical": "bold red", "important": "red", "moderate": "yellow"}
_STATUS = {"installed": "green", "unconfirmed": "green", "failed": "red", "approved": "cyan", "rejected": "dim"}
INSTALLED = frozenset({Status.INSTALLED, Status.UNCONFIRMED})


@app.command("list")
def list_updates(
    agent: Annotated[str | None, typer.Option(help="Of this agent: id, its beginning, or name.")] = None,
    text: Annotated[str | None, typer.Option(help="A part of the package's name.")] = None,
    status: Annotated[Status | None, typer.Option(help="In this state.")] = None,
    severity: Annotated[Severity | None, typer.Option(help="Of this severity.")] = None,
    package_type: Annotated[str | None, typer.Option("--type", help="Of this package type, as apt or dnf.")] = None,
    limit: lookup.Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List updates by package and agent."""
    with connect() as api:
        agent_id = lookup.one(api, lookup.AGENT, agent) if agent else None
        answer = lookup.collect(
            api,
            "/api/v1/updates",
            "updates",
            limit,
            agent=agent_id,
            text=text,
            status=status,
            severity=severity,
            package_type=package_type,
        )
    if as_json:
        print_json(answer)
        return
    rows = answer["updates"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "agent", "package", "installed", "offered", "severity", "status"],
        (
            [
                ids[row["id"]],
                row["agent_name"],
                row["package_name"],
                row["current_version"],
                row["available_version"],
                _severity(row["severity"]),
                _status(row["status"]),
            ]
            for row in rows
        ),
        empty="There are no such updates. `redflag commands send scan_updates --agent ID` looks for some.",
    )
    if answer["next_cursor"]:
        note(f"There are more than {limit}: add --limit or a filter.")


@app.command()
def packages(
    text: Annotated[str | None, typer.Option(help="A part of the package's name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At the most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List packages across the fleet: how many agents have an update of each, by state."""
    with connect() as api:
        answer = api.get("/api/v1/updates/packages", text=text, limit=limit)
    if as_json:
        print_json(answer)
        return
    print_table(
        ["package", "type", "agents", "severity", "offered", "states"],
        (
            [
                row["package_name"],
                row["package_type"],
                row["agents"],
                _severity(row["severity"]),
                ", ".join(row["versions"] or []),
                ", ".join(f"{number} {state}" for state, number in sorted(row["by_status"].items())),
            ]
            for row in answer["packages"]
        ),
        empty="There are no such packages.",
        right=("agents",),
    )


@app.command()
def show(
    update: Annotated[str, typer.Argument(metavar="ID", help="The update's id or its beginning.")],
    as_json: AsJson = False,
) -> None:
    """Show one update, and the versions that were seen of it."""
    with connect() as api:
        row = api.get(f"/api/v1/updates/{lookup.one(api, lookup.UPDATE, update)}")
    if as_json:
        print_json(row)
        return
    now = words.now()
    dependencies = row["dependencies"]
    facts: list[tuple[str, Any]] = [
        ("id", row["id"]),
        ("package", f"{row['package_name']} ({row['package_type']})"),
        ("agent", f"{row['agent_name']} ({row['agent_id']})"),
        ("installed", row["current_version"]),
        ("offered", row["available_version"]),
        ("severity", _severity(row["severity"])),
        ("status", _status(row["status"])),
        ("since", words.when(row["status_at"], now)),
        ("reason", row["reason"]),
        ("approved for", row["approved_version"]),
        ("dependencies", "not examined" if dependencies is None else ", ".join(dependencies) or "none"),
        ("vulnerabilities", ", ".join(row["cve_list"])),
        ("knowledge base", row["kb_id"]),
        ("source", row["repository_source"]),
        ("size", words.size(row["size_bytes"]) if row["size_bytes"] else ""),
        ("command", row["command_id"]),
        ("first seen", words.when(row["first_seen_at"], now)),
        ("last seen", words.when(row["last_seen_at"], now)),
        ("description", row["description"]),
    ]
    print_facts((name, value) for name, value in facts if value)
    say("")
    print_table(
        ["when", "what", "from", "to", "why"],
        (
            [words.recent(one["seen_at"], now), one["event"], one["version_from"], one["version_to"], one["reason"]]
            for one in row["versions"]
        ),
        empty="No version was seen yet.",
    )


@app.command()
def approve(updates: Ids, as_json: AsJson = False) -> None:
    """Approve updates, for the version that is offered now."""
    _decide("approve", updates, "approved", as_json)


@app.command()
def reject(
    updates: Ids,
    reason: Annotated[str, typer.Option(help="Why; the record keeps it.")],
    as_json: AsJson = False,
) -> None:
    """Reject updates, with the reason."""
    _decide("reject", updates, "rejected", as_json, reason=reason)


@app.command("dry-run")
def dry_run(updates: Ids, as_json: AsJson = False) -> None:
    """Have the agents work out what each update would change."""
    _decide("dry-run", updates, "being examined by its agent", as_json)


@app.command()
def install(
    updates: Ids,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is installed; exit code 1 unless all are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Install approved updates; what was not examined yet is examined first."""
    if not wait:
        _decide("install", updates, "on its way", as_json)
        return
    with connect() as api:
        answer = _ask(api, "install", updates)
        _tell_refused(answer)
        ended = _follow(api, [row["id"] for row in answer["done"]])
    if as_json:
        print_json({"done": ended, "refused": answer["refused"]})
    else:
        for row in ended:
            say(f"{_named(row)}: {_outcome(row)}", _STATUS.get(row["status"], ""))
    missed = sum(row["status"] not in INSTALLED for row in ended) + len(answer["refused"])
    if missed:
        of = len(ended) + len(answer["refused"])
        raise RedFlagError(
            f"{missed} of {words.count(of, 'update')} not installed", "`redflag updates show ID` tells why"
        )


@app.command()
def confirm(updates: Ids, as_json: AsJson = False) -> None:
    """Install updates together with the dependencies that were found."""
    _decide("confirm", updates, "being installed with its dependencies", as_json)


def _ask(api: Client, decision: str, updates: list[str], **more: str) -> Json:
    answer: Json = api.post(
        f"/api/v1/updates/{decision}", {"update_ids": lookup.many(api, lookup.UPDATE, updates)} | more
    )
    return answer


def _decide(decision: str, updates: list[str], what: str, as_json: bool, **more: str) -> None:
    with connect() as api:
        answer = _ask(api, decision, updates, **more)
    if as_json:
        print_json(answer)
    else:
        for row in answer["done"]:
            say(f"{row['package_name']} {row['id']} is {what}.")
        _tell_refused(answer)
    if answer["refused"]:
        done, refused = len(answer["done"]), len(answer["refused"])
        raise Conflict(
            f"{refused} of {words.count(done + refused, 'update')} refused",
            "The others are as you wished" if done else "",
        )


def _tell_refused(answer: Json) -> None:
    for one in answer["refused"]:
        state = f" is {one['status']}" if one["status"] else ""
        note(f"{one['update_id']}{state}. {one['why'].rstrip('.')}.", "yellow")


def _follow(api: Client, update_ids: list[str]) -> list[Json]:
    """Waits until every one is installed, has failed, or waits for a person. The deadlines of commands end this."""
    waiting, ended = list(update_ids), dict[str, Json]()
    with progress(f"Installing {words.count(len(update_ids), 'update')}") as tell:
        while True:
            states: list[str] = []
            for one in list(waiting):
                row = patiently(api, f"/api/v1/updates/{one}")
                examined = row["status"] == Status.DEPENDENCIES and row["dependencies"] is None
                if row["status"] == Status.INSTALLING or examined:
                    states.append("examined" if examined else "installing")
                else:
                    ended[one] = row
                    waiting.remove(one)
            if not waiting:
                return [ended[one] for one in update_ids]
            tell(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
            time.sleep(POLL_SECONDS)


def _named(row: Json) -> str:
    return f"{row['package_name']} on {row['agent_name']}"


def _outcome(row: Json) -> str:
    if row["status"] == Status.UNCONFIRMED:
        return "installed, says the agent; the next scan confirms it"
    if row["status"] == Status.DEPENDENCIES:
        return (
            f"needs also {', '.join(row['dependencies'])}: `redflag updates confirm {row['id']}` installs it with them"
        )
    return str(row["status"]) + (f": {row['reason']}" if row["reason"] else "")


def _severity(severity: str) -> Text:
    return Text(severity, _SEVERITY.get(severity, ""))


def _status(status: str) -> Text:
    return Text(status, _STATUS.get(status, ""))
