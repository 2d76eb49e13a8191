"""`redflag audit`: the log's key, proofs, and fsck."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from redflag.audit import fsck as log_fsck
from redflag.audit.checkpoint import Verifier
from redflag.cli import databases, words
from redflag.cli.client import connect
from redflag.cli.exits import NeedsAttention
from redflag.cli.output import AsJson, print_facts, print_json, progress, say
from redflag.commands import replay
from redflag.settings import settings

app = typer.Typer(no_args_is_help=True, help="The audit trail: the log's key, proofs, fsck.")


@app.command()
def key(as_json: AsJson = False) -> None:
    """The log's public key, to be pinned by whoever checks it, and how far the log is."""
    with connect() as api:
        log = api.get("/api/v1/audit/log")
    if as_json:
        print_json(log)
        return
    newest = log["checkpoint"]
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
        ]
    )


@app.command()
def proof(
    event: Annotated[
        uuid.UUID, typer.Argument(help="The event's id, as `redflag history --json` shows it.", show_default=False)
    ],
    to: Annotated[Path | None, typer.Option("--to", help="A file; else it is printed.", show_default=False)] = None,
) -> None:
    """The proof that an event stands in the log (C2SP tlog-proof), with the event's values in it."""
    with connect() as api:
        text = api.text(f"/api/v1/audit/events/{event}/proof")
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
        "pending": examined.pending,
        "root": examined.root.hex(),
        "seconds": round(seconds, 3),
        "events_per_second": round(examined.events / seconds) if seconds else None,
        "finding": vars(finding) if finding else None,
        "replay": None
        if difference is None
        else {name: value and str(value) for name, value in vars(difference).items()},
    }
    if as_json:
        print_json(told)
    else:
        waiting = f"{examined.pending:,} records wait for their position"
        say(f"{examined.events:,} events and {examined.checkpoints:,} checkpoints in {seconds:.1f} s; {waiting}.")
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


async def _examine(verifier: Verifier | None, tell: Any) -> tuple[log_fsck.Examined, replay.Difference | None]:
    async with (
        databases.connected(databases.server_url(settings())) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await log_fsck.examine(connection, verifier, tell), await replay.first_difference(connection)
