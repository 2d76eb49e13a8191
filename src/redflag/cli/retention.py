"""`redflag audit erase`, `hold`, `retention`, `prune`: what becomes of old records, and of what is personal in them."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from redflag import words
from redflag.audit import actor as actors
from redflag.audit import retention as pruning
from redflag.audit.memory import Memory
from redflag.cli import databases, lookup, reopen
from redflag.cli.ask import confirm
from redflag.cli.client import Json, connect
from redflag.cli.output import AsJson, print_facts, print_json, print_table, progress, say
from redflag.errors import InvalidInput
from redflag.settings import Settings, settings

hold = typer.Typer(no_args_is_help=True, help="Legal holds: records that are neither erased nor pruned.")
policy = typer.Typer(no_args_is_help=True, help="How long records are kept.")

HOLD = lookup.Kind("hold", "/api/v1/audit/holds", "holds", "redflag audit hold list", paged=False, names=("name",))
FOR_EVER = "forever"

Reason = Annotated[
    str, typer.Option("--reason", help="On what ground. It stays in the log: name nobody in it.", show_default=False)
]


def erase(
    reason: Reason,
    record: Annotated[
        uuid.UUID | None,
        typer.Option("--record", help="One event, by its id (`redflag history --json`).", show_default=False),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="FIELD",
            show_default=False,
            help="Of that event: actor, address, message, params, stdout, stderr or metadata; several times if need be.",
        ),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor", help="Or the name and address in all events under a name, as user:alice.", show_default=False
        ),
    ] = None,
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase what is personal from the record. It cannot be taken back, and is recorded itself; all proofs still hold."""
    if (record is None) == (actor is None) or bool(fields) != (record is not None):
        raise InvalidInput("What to erase is not clear", "Give --record with --field, or --actor")
    with connect() as api:
        if record is not None:
            named = ", ".join(fields or [])
            confirm(f"Erase {named} of record {record} for good?", yes)
            answer = api.post("/api/v1/audit/erasures", {"record_id": str(record), "fields": fields, "reason": reason})
        else:
            answer = _erase_actor(api, str(actor), reason, yes, as_json)
    if as_json:
        print_json(answer)
    elif record is not None:
        done = answer["erasures"][0]
        say(f"Erased {', '.join(done['fields'])} of the record at position {done['position']:,}.")
        say(f"The erasure is recorded as {done['erasure_id']}. Copies remain in backups made before.")


def _erase_actor(api: Any, actor: str, reason: str, yes: bool, as_json: bool) -> Json:
    body: Json = {"actor": actor, "reason": reason}
    left = api.post("/api/v1/audit/erasures", body | {"dry_run": True})["left"]
    if left["erasable"]:
        confirm(f"Erase the name and address in {words.count(left['erasable'], 'record')} of {actor} for good?", yes)
    erased = 0
    with progress("Erasing") as tell:
        while True:
            answer = api.post("/api/v1/audit/erasures", body)
            erased += answer["erased"]
            tell(f"{erased:,} records")
            if not answer["erased"] or not answer["left"]["erasable"]:
                break
    answer["erased"] = erased
    if not as_json:
        say(f"Erased the name and address in {words.count(erased, 'record')} of {actor}.")
        left = answer["left"]
        reasons = (
            (left["held"], f"under the legal hold {', '.join(left['holds'])}: once it is released"),
            (left["live"], "of commands that are still live: once they have ended"),
            (left["waiting"] + left["erasable"], "without a position in the log until now: in two seconds"),
        )
        for number, why in reasons:
            if number:
                say(f"{words.count(number, 'record')} could not be erased yet, {why}. Run this again then.")
    return dict(answer)


@hold.command("list")
def list_holds(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were released.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the legal holds that are in force."""
    with connect() as api:
        answer = api.get(HOLD.path, released=everything or None)
    if as_json:
        print_json(answer)
        return
    now = words.now()
    rows = answer["holds"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "name", "covers", "reason", "placed", "released"],
        (
            [
                ids[row["id"]],
                row["name"],
                _covers(row),
                row["reason"],
                words.recent(row["created_at"], now),
                words.recent(row["released_at"], now) if row["released_at"] else "",
            ]
            for row in rows
        ),
        empty="There are no legal holds.",
    )


def _covers(row: Json) -> str:
    said = [
        f"agent {row['agent_id']}" if row["agent_id"] else "",
        f"command {row['command_id']}" if row["command_id"] else "",
        f"actor {row['actor']}" if row["actor"] else "",
        f"recorded since {words.clock(row['since'])}" if row["since"] else "",
        f"recorded before {words.clock(row['until'])}" if row["until"] else "",
    ]
    return ", ".join(filter(None, said)) or "every record"


@hold.command()
def place(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called, such as a case number.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.", show_default=False)],
    agent: Annotated[str, typer.Option("--agent", help="Records of this agent.", show_default=False)] = "",
    command: Annotated[str, typer.Option("--command", help="Records of this command.", show_default=False)] = "",
    actor: Annotated[
        str, typer.Option("--actor", help="Records by this actor, as user:alice.", show_default=False)
    ] = "",
    since: Annotated[
        str, typer.Option("--since", help="Recorded since then: 90d ago or ISO 8601.", show_default=False)
    ] = "",
    until: Annotated[str, typer.Option("--until", help="Recorded before then.", show_default=False)] = "",
    everything: Annotated[bool, typer.Option("--everything", help="Every record there is and will be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Place a legal hold on the records to which all that is given applies."""
    if everything == bool(agent or command or actor or since or until):
        raise InvalidInput(
            "What the hold covers is not clear", "Give --agent, --command, --actor, --since or --until, or --everything"
        )
    now = words.now()
    body: Json = {"name": name, "reason": reason, "actor": actor or None}
    body |= {key: words.moment(text, now).isoformat() for key, text in (("since", since), ("until", until)) if text}
    with connect() as api:
        body |= {"agent_id": lookup.one(api, lookup.AGENT, agent)} if agent else {}
        body |= {"command_id": lookup.one(api, lookup.COMMAND, command)} if command else {}
        answer = api.post(HOLD.path, body)
    if as_json:
        print_json(answer)
        return
    say(f"The hold {answer['name']} is in force. It covers: {_covers(answer)}.")


@hold.command()
def release(
    held: Annotated[str, typer.Argument(metavar="ID", help="The hold's id, its beginning, or its name.")],
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Release a legal hold: what it covered may be erased, and pruned when it is past its retention."""
    with connect() as api:
        found = lookup.one(api, HOLD, held)
        confirm(f"Release the hold {held}?", yes)
        answer = api.post(f"{HOLD.path}/{found}/release")
    if as_json:
        print_json(answer)
        return
    say(f"The hold {answer['name']} is released.")


@policy.command()
def show(as_json: AsJson = False) -> None:
    """Show how long records are kept, where the log begins, and in which bundles the rest is."""
    with connect() as api:
        answer = api.get("/api/v1/audit/retention")
    if as_json:
        print_json(answer)
        return
    now = words.now()
    error = f"{words.when(answer['last_error_at'], now)}: {answer['last_error']}" if answer["last_error"] else "none"
    print_facts(
        [
            ("records are kept", _kept(answer["keep"])),
            ("the log begins at", f"position {answer['pruned']:,}, recorded {words.recent(answer['oldest'], now)}"),
            ("last looked", "now: it is being pruned" if answer["pruning"] else words.when(answer["looked_at"], now)),
            ("last error", error),
        ]
    )
    say("")
    print_table(
        ["positions", "pruned", "commands", "still there", "bundle", "SHA-256"],
        (
            [
                f"{row['first']:,} to {row['position'] - 1:,}",
                words.clock(row["logged_at"]),
                row["commands"],
                row["kept"],
                row["bundle"],
                row["bundle_sha256"],
            ]
            for row in answer["archives"]
        ),
        empty="Nothing was pruned yet.",
        right=("commands", "still there"),
    )


@policy.command("set")
def set_policy(
    keep: Annotated[str, typer.Option("--keep", help="As 400d, from 30d on; or forever.", show_default=False)],
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set how long records are kept. What is past it is archived and pruned within a day."""
    seconds = None
    if keep.strip().lower() != FOR_EVER:
        seconds = words.duration(keep, longest=pruning.LONGEST.total_seconds())
        confirm(f"Archive and prune records that are older than {words.exact(seconds)}?", yes)
    with connect() as api:
        answer = api.put("/api/v1/audit/retention", {"keep": seconds})
    if as_json:
        print_json(answer)
        return
    say(f"Records are kept {_kept(answer['keep'])}.")


def _kept(seconds: float | None) -> str:
    return "for ever" if seconds is None else f"for {words.exact(seconds)}"


def prune(
    before: Annotated[
        str,
        typer.Option(
            "--before",
            help="What was recorded before then: 400d ago or ISO 8601; else what is past the policy.",
            show_default=False,
        ),
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The folder for the bundle; else the data folder's archive.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be pruned.")] = False,
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Prune the beginning of the log: archived as an evidence bundle first, then removed. Works on the database as its owner."""
    here = settings()
    databases.require_running(here)
    moment = words.moment(before, words.now()) if before else None
    found = databases.run(_plan(here, moment))
    told: dict[str, Any] = {"first": found.first, "end": found.end, "held": found.held, "bundles": []}
    if not dry_run:
        if found.end > found.first:
            many = words.count(found.end - found.first, "record")
            confirm(f"Archive and remove {many}, positions {found.first:,} to {found.end - 1:,} of the log?", yes)
        with progress("Pruning") as tell:
            done = databases.run(_prune(here, moment, to, tell))
        told |= {
            "first": done.first,
            "end": done.end,
            "held": done.held,
            "bundles": [str(file) for file in done.bundles],
        }
    if as_json:
        print_json(told)
        return
    _tell(told, dry_run)


def _tell(told: dict[str, Any], dry_run: bool) -> None:
    if told["end"] == told["first"]:
        say("There is nothing to prune: whole tiles of 256 records are, that are past the time and in a checkpoint.")
    else:
        number = words.count(told["end"] - told["first"], "record")
        many = f"{number}, positions {told['first']:,} to {told['end'] - 1:,}"
        say(f"{'To be archived and pruned' if dry_run else 'Archived and pruned'}: {many}.")
    for file in told["bundles"]:
        say(f"  {file}")
    if told["held"]:
        say(f"What follows stays because of {told['held']}.")


async def _plan(here: Settings, moment: datetime.datetime | None) -> pruning.Plan:
    async with databases.connected(databases.owner_url(here)) as connection:
        moment = moment or await pruning.sql.bound.value(connection)
        if moment is None:
            raise InvalidInput("Records are kept for ever, so none is past its time", "Give --before")
        # All of it, however many steps that takes
        return await pruning.plan(connection, moment, step=2**62)


async def _prune(here: Settings, moment: datetime.datetime | None, to: Path | None, tell: Any) -> pruning.Pruned:
    signer = reopen.key(here)
    memory = Memory(here.log_folder / "newest-checkpoint", signer)
    who = actors.service("retention", databases.hostname())
    folder = (to or here.folder / "archive").expanduser().absolute()
    async with databases.connected(databases.owner_url(here)) as connection:
        name = await pruning.sql.origin.value(connection)
        signer.take_name(name or signer.verifier.name)
        return await pruning.Pruner(connection, signer, memory, folder, who, tell).prune(moment)
