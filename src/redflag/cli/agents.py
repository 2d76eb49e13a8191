"""`redflag agents`: who is in the fleet, what they are called, and how a host joins or leaves it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from redflag import words
from redflag.cli import lookup
from redflag.cli.ask import confirm
from redflag.cli.client import connect
from redflag.cli.output import AsJson, note, print_facts, print_json, print_table, say
from redflag.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="The hosts: list, name, tag, invite and remove them.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The agent's id, its beginning, or its name.")]

_PRESENCE = {"online": "green", "late": "yellow", "lost": "red"}


@app.command("list")
def list_agents(
    text: Annotated[str | None, typer.Option(help="A part of the name or the host name.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag only.")] = None,
    removed: Annotated[bool, typer.Option("--removed", help="Also those that were removed.")] = False,
    limit: lookup.Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List agents in the order of their enrolment, and whether they are there."""
    with connect() as api:
        answer = lookup.collect(api, "/api/v1/agents", "agents", limit, text=text, tag=tag, removed=removed or None)
    if as_json:
        print_json(answer)
        return
    rows = answer["agents"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "name", "presence", "last seen", "system", "agent", "tags"],
        (
            [
                ids[row["id"]],
                row["display_name"],
                _presence(row),
                _seen(row),
                row["os_version"] or row["os_type"],
                row["agent_version"],
                " ".join(row["tags"]),
            ]
            for row in rows
        ),
        empty="There are no agents. `redflag agents invite` makes the command that adds one.",
    )
    if answer["next_cursor"]:
        note(f"There are more than {limit}: add --limit, --text or --tag.")


@app.command()
def show(agent: Id, as_json: AsJson = False) -> None:
    """Show one agent: what it is, whether it is there, and what it last said of itself."""
    with connect() as api:
        row = api.get(f"/api/v1/agents/{lookup.one(api, lookup.AGENT, agent)}")
    if as_json:
        print_json(row)
        return
    now = words.now()
    facts: list[tuple[str, Any]] = [
        ("id", row["id"]),
        ("name", row["display_name"]),
        ("host name", row["hostname"]),
        ("presence", _presence(row)),
        ("last seen", f"{_seen(row)}" + (f", from {row['address']}" if row["address"] else "")),
        ("system", " ".join(part for part in (row["os_type"], row["os_version"], row["os_architecture"]) if part)),
        ("agent", row["agent_version"] + (" (cannot say what it received)" if row["protocol"] == 0 else "")),
        ("tags", " ".join(row["tags"]) or "none"),
        ("enrolled", f"{words.when(row['created_at'], now)} ({words.clock(row['created_at'])})"),
    ]
    if row["removed_at"]:
        facts.append(("removed", f"{words.when(row['removed_at'], now)} ({words.clock(row['removed_at'])})"))
    said = (row["metadata"] or {}) | (row["metrics"] or {})
    facts += [
        (str(name).replace("_", " "), value) for name, value in said.items() if isinstance(value, str | int | float)
    ]
    print_facts(facts)


@app.command()
def rename(agent: Id, name: Annotated[str, typer.Argument(metavar="NAME")], as_json: AsJson = False) -> None:
    """Give an agent a name; its host name stays beside it."""
    with connect() as api:
        row = api.patch(f"/api/v1/agents/{lookup.one(api, lookup.AGENT, agent)}", {"name": name})
    if as_json:
        print_json(row)
    else:
        say(f"{row['hostname']} is now called {row['display_name']}.")


@app.command()
def tag(
    agent: Id,
    tags: Annotated[list[str] | None, typer.Argument(metavar="TAG...", help="All of its tags from now on.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Take all tags away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give an agent these tags, and no others."""
    if bool(tags) == none:
        raise InvalidInput("Which tags it should have is not clear", "Name them all, or give --none")
    with connect() as api:
        row = api.patch(f"/api/v1/agents/{lookup.one(api, lookup.AGENT, agent)}", {"tags": tags or []})
    if as_json:
        print_json(row)
    else:
        say(f"{row['display_name']} has " + (f"the tags {' '.join(row['tags'])}." if row["tags"] else "no tags."))


@app.command()
def remove(agent: Id, yes: lookup.Yes = False, as_json: AsJson = False) -> None:
    """Remove an agent: its tokens end, its live commands are cancelled, its history stays."""
    with connect() as api:
        agent_id = lookup.one(api, lookup.AGENT, agent)
        name = api.get(f"/api/v1/agents/{agent_id}")["display_name"]
        confirm(f"Remove {name} and cancel what it still has to do?", yes)
        answer = api.delete(f"/api/v1/agents/{agent_id}")
    if as_json:
        print_json(answer)
    else:
        cancelled = words.count(answer["cancelled_commands"], "live command")
        say(f"{name} was removed, and {cancelled} cancelled. To join again it needs a new invitation.")


@app.command()
def invite(
    label: Annotated[str, typer.Option(help="What the invitation is for.")] = "enrolment",
    seats: Annotated[int, typer.Option(min=1, max=100_000, help="For so many hosts.")] = 1,
    hours: Annotated[int, typer.Option(min=1, max=8760, help="For so long.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Make an enrolment token and print the one command to paste on the host. It is shown this once."""
    with connect() as api:
        answer = api.post("/api/v1/enrolment-tokens", {"label": label, "seats": seats, "hours": hours})
    if as_json:
        print_json(answer)
        return
    note(
        f"Paste this on {'the host' if seats == 1 else 'each host'}; good for {words.count(seats, 'host')}, {words.length(hours * 3600.0)}:"
    )
    say(answer["command"])


@app.command()
def invitations(as_json: AsJson = False) -> None:
    """List invitations: for how many hosts, how many came, and until when."""
    with connect() as api:
        answer = api.get("/api/v1/enrolment-tokens")
    if as_json:
        print_json(answer)
        return
    now = words.now()
    rows = answer["enrolment_tokens"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "label", "works", "used", "of", "ends", "made", "by"],
        (
            [
                ids[row["id"]],
                row["label"],
                Text("yes", "green") if row["works"] else Text(_why_not(row), "dim"),
                row["seats_used"],
                row["seats"],
                words.when(row["expires_at"], now),
                words.when(row["created_at"], now),
                row["created_by"],
            ]
            for row in rows
        ),
        empty="There are no invitations. `redflag agents invite` makes one.",
        right=("used", "of"),
    )


@app.command()
def uninvite(
    invitation: Annotated[str, typer.Argument(metavar="ID", help="The invitation's id or its beginning.")],
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """End an invitation; the agents that came by it stay."""
    with connect() as api:
        token_id = lookup.one(api, lookup.INVITATION, invitation)
        confirm(f"End the invitation {token_id}?", yes)
        answer = api.delete(f"/api/v1/enrolment-tokens/{token_id}")
    if as_json:
        print_json(answer)
    else:
        say("The invitation has ended; the agents that came by it stay.")


def _presence(row: dict[str, Any]) -> Text:
    if row["removed_at"]:
        return Text("removed", "dim")
    return Text(row["presence"], _PRESENCE.get(row["presence"], ""))


def _seen(row: dict[str, Any]) -> str:
    seconds = row["seconds_since_seen"]
    return "never" if seconds is None else words.distance(-seconds)


def _why_not(row: dict[str, Any]) -> str:
    if row["revoked_at"]:
        return "ended"
    return "used up" if row["seats_used"] >= row["seats"] else "over"
