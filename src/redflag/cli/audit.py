"""`redflag audit`: the log's key, proofs, and fsck."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import typer

from redflag import words
from redflag.audit import actor as actors
from redflag.audit import events
from redflag.audit import fsck as log_fsck
from redflag.audit.checkpoint import Verifier
from redflag.cli import databases, evidence, exports, forward, reopen, retention, targets
from redflag.cli.client import connect
from redflag.cli.exits import NeedsAttention
from redflag.cli.output import AsJson, print_facts, print_json, progress, say
from redflag.commands import replay
from redflag.errors import DatabaseError
from redflag.settings import settings

app = typer.Typer(
    no_args_is_help=True, help="The audit trail: the log's key, proofs, fsck, where checkpoints are sent."
)
app.add_typer(targets.app, name="targets")
app.add_typer(forward.app, name="forward")
app.command()(exports.export)
app.command()(reopen.reopen)
app.command()(evidence.bundle)
app.command()(evidence.report)
app.add_typer(retention.hold, name="hold")
app.add_typer(retention.policy, name="retention")
app.command()(retention.erase)
app.command()(retention.prune)


@app.command()
def key(as_json: AsJson = False) -> None:
    """The log's public key, to be pinned by whoever checks it, and how far the log is."""
    with connect() as api:
        log = api.get("/api/v1/audit/log")
    if as_json:
        print_json(log)
        return
    newest, cosigned = log["checkpoint"], log["cosigned"]
    print_facts(
        [
            ("log", log["origin"]),
            ("key", log["key"]),
            ("fingerprint", f"SHA-256 {log['fingerprint']}"),
            ("records", f"{log['integrated']:,} in the tree, {log['pending']:,} waiting"),
            (
                "checkpoint",
                f"of {newest['size']:,} records, {words.when(newest['published_at'], words.now())}"
                if newest
                else "none yet",
            ),
            (
                "cosigned",
                f"of {cosigned['size']:,} records, by {words.count(len(cosigned['cosignatures']), 'witness', 'witnesses')}"
                if cosigned
                else "none: see `redflag audit targets`",
            ),
            *(
                (
                    "goes on from",
                    f"{one['origin']}, closed with {one['size']:,} records, {words.when(one['closed_at'], words.now())}",
                )
                for one in log["previous"]
            ),
        ]
    )


@app.command()
def proof(
    event: Annotated[
        uuid.UUID, typer.Argument(help="The event's id, as `redflag history --json` shows it.", show_default=False)
    ],
    to: Annotated[Path | None, typer.Option("--to", help="A file; else it is printed.", show_default=False)] = None,
    quorum: Annotated[
        int, typer.Option(min=0, max=15, help="Of a checkpoint that so many witnesses have cosigned.")
    ] = 0,
) -> None:
    """The proof that an event stands in the log (C2SP tlog-proof), with the event's values in it."""
    with connect() as api:
        text = api.text(f"/api/v1/audit/events/{event}/proof", quorum=quorum or None)
    if to is None:
        print(text, end="")
        return
    to.write_text(text)
    say(f"{to}: check it with  python3 verify/redflag_verify.py proof {to} --key …")


@app.command()
def fsck(
    pinned: Annotated[
        str,
        typer.Option(
            "--key", help="The log's key as you pinned it; else signatures are not checked.", show_default=False
        ),
    ] = "",
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Leave no record of the outcome: for a database that can only be read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine every record, leaf, tile and checkpoint, and replay all transitions. Exit code 7 if anything is wrong."""
    verifier = Verifier.parse(pinned) if pinned else None
    began = time.monotonic()
    with progress("Examining the log") as tell:
        examined, difference = databases.run(_examine(verifier, lambda done, of: tell(f"{done:,} of {of:,} events")))
    seconds = time.monotonic() - began
    finding = examined.finding
    told: dict[str, Any] = {
        "events": examined.events,
        "checkpoints": examined.checkpoints,
        "signatures_checked": verifier is not None,
        "cosignatures": examined.cosignatures,
        "pending": examined.pending,
        "erased": examined.erased,
        "pruned": examined.pruned,
        "root": examined.root.hex(),
        "seconds": round(seconds, 3),
        "events_per_second": round(examined.events / seconds) if seconds else None,
        "finding": vars(finding) if finding else None,
        "replay": None
        if difference is None
        else {name: value and str(value) for name, value in vars(difference).items()},
    }
    if not no_record:
        databases.run(_record(told))
    if as_json:
        print_json(told)
    else:
        waiting = f"{examined.pending:,} records wait for their position"
        say(f"{examined.events:,} events and {examined.checkpoints:,} checkpoints in {seconds:.1f} s; {waiting}.")
        if examined.cosignatures:
            say(
                f"{words.count(examined.cosignatures, 'cosignature')} of witnesses verified under the keys of their targets."
            )
        if examined.erased:
            say(f"{words.count(examined.erased, 'event')} lack what an erasure in the log names, and nothing else.")
        if examined.pruned:
            say(
                f"The log begins at position {examined.pruned:,}, as a snapshot in it says; the rest is in archived bundles."
            )
        if verifier is None:
            say("Signatures were not checked: give --key with the key that you pinned (`redflag audit key`).")
    if finding:
        place = f" at position {finding.position:,}" if finding.position is not None else ""
        names = "".join(
            f", {kind} {one}" for kind, one in (("record", finding.record_id), ("command", finding.command_id)) if one
        )
        raise NeedsAttention(
            f"The log is not whole{place}{names}: {finding.what}", "--json shows what it says and what was logged"
        )
    if difference:
        raise NeedsAttention(
            f"Command {difference.command_id} is not what its records say: {difference.what}",
            "See `redflag commands show`",
        )
    if not as_json:
        say("Every record is what was logged, and every command is what its records say.", style="bold green")


async def _record(told: dict[str, Any]) -> None:
    """Leaves the outcome in the record, for the compliance report. Raises DatabaseError when that is not possible."""
    finding, difference = told["finding"], told["replay"]
    message = f"examined {told['events']:,} events and {told['checkpoints']:,} checkpoints: "
    if finding:
        message += finding["what"]
    elif difference:
        message += f"command {difference['command_id']}: {difference['what']}"
    else:
        message += "every record is what was logged, and every command is what its records say"
    # What it says and what was logged would be a copy of what may have to be erased
    kept = finding and {name: finding[name] for name in ("what", "position", "record_id", "command_id")}
    try:
        async with databases.connected(databases.server_url(settings())) as connection:
            await events.record(
                connection,
                actors.service("fsck", databases.hostname()),
                kind="service",
                action="fsck",
                result="failed" if finding or difference else "success",
                message=message[:2000],
                size=told["pruned"] + told["events"],
                root=told["root"],
                checkpoints=told["checkpoints"],
                signatures_checked=told["signatures_checked"],
                seconds=told["seconds"],
                finding=kept,
                replay=difference and {name: difference[name] for name in ("command_id", "what")},
            )
    except asyncpg.PostgresError as error:
        raise DatabaseError(
            f"{message[0].upper()}{message[1:]}. That could not be recorded: {error}",
            "Give --no-record if this database can only be read",
        ) from error


async def _examine(verifier: Verifier | None, tell: Any) -> tuple[log_fsck.Examined, replay.Difference | None]:
    async with (
        databases.connected(databases.server_url(settings())) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await log_fsck.examine(connection, verifier, tell), await replay.first_difference(connection)
