"""`redflag audit reopen`: the log is closed, and goes on under a new name that says so.

The way on after a restored backup took back what was signed (docs/howto/back-up-and-restore.md). It works on the database as
its owner, and on what this server remembers in its data folder; servers that run take the new name by themselves.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from redflag import words
from redflag.audit import memory, origins
from redflag.audit.checkpoint import Checkpoint, Signer, load_key
from redflag.audit.origins import Opened, Standing
from redflag.cli import databases
from redflag.cli.output import AsJson, note, print_json, progress, say
from redflag.errors import InvalidInput, SettingsError
from redflag.settings import Settings, settings


def reopen(
    origin: Annotated[
        str,
        typer.Option("--origin", help="The new log's name, such as fleet.example.com/log-2.", show_default=False),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.", show_default=False)] = "",
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            help="A checkpoint of the old log that was kept elsewhere; the newest one is named in the new log.",
            show_default=False,
        ),
    ] = None,
    planned: Annotated[bool, typer.Option("--planned", help="Close a log that could go on, to rename it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Close the log that a restored backup has stopped, and go on under a new name that names the old one."""
    here = settings()
    signer = key(here)
    known = remembered(here, signer.verifier.public, checkpoints or [])
    with databases.running(here):
        with progress("Holding the log against what is known of it"):
            asked = databases.run(_reopen(here, signer, known, origin, reason, planned=planned, apply=False))
        _explain(asked)
        _confirm(origin, yes)
        with progress("Opening the new log"):
            opened = databases.run(_reopen(here, signer, known, origin, reason, planned=planned, apply=True))
    signer.take_name(origin)
    if as_json:
        print_json(_as_data(opened, signer))
        return
    say(f"The log goes on as {opened.origin}. Its key, to be pinned by whoever checks it:", style="bold green")
    say(f"  {signer.verifier.vkey()}")
    say("Servers that run take the new name within a second, and set aside what they remember of the old log.")
    if here.log_origin and here.log_origin != origin:
        say(f"Next: set REDFLAG_LOG_ORIGIN={origin} (it says {here.log_origin}): no server starts with another name.")
    say("Next: `redflag audit fsck`, and tell whoever keeps checkpoints of the old log.")


def key(here: Settings) -> Signer:
    """The log's key, under a name that does not matter here. Raises SettingsError when there is none: one that is made now is no help."""
    file = here.log_folder / "key"
    if not here.log_key and not file.is_file():
        raise SettingsError(
            f"There is no key of the log in {here.log_folder}", "Put it back from its backup, or set REDFLAG_LOG_KEY"
        )
    return load_key(here.origin, file, here.log_key)


def remembered(here: Settings, public: bytes, more: Sequence[Path] = ()) -> list[Checkpoint]:
    """What this server remembers, and what else is given, as far as the log's key signed it. Raises Conflict, InvalidInput."""
    own = here.log_folder / "newest-checkpoint"
    if missing := next((file for file in more if not file.is_file()), None):
        raise InvalidInput(f"There is no file {missing}", "Give a checkpoint that was kept")
    return [memory.read(file, public) for file in (own, *more) if file.is_file()]


async def standing(connection: Any, here: Settings) -> Standing | None:
    """How the log in the database stands to what this server remembers; None where this server keeps no key. Raises Conflict."""
    if not here.log_key and not (here.log_folder / "key").is_file():
        return None
    public = key(here).verifier.public
    return await origins.standing(connection, public, remembered(here, public))


async def _reopen(
    here: Settings, signer: Signer, known: Sequence[Checkpoint], origin: str, reason: str, *, planned: bool, apply: bool
) -> Opened:
    """Opens the new log; without `apply` all of it is tried, and undone."""
    async with databases.connected(databases.owner_url(here)) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            opened = await origins.reopen(
                connection,
                signer.verifier.public,
                origin,
                known,
                reason=" ".join(reason.split()),
                planned=planned,
                taken=memory.closed_names(here.log_folder),
            )
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.commit() if apply else transaction.rollback())
    return opened


def _explain(asked: Opened) -> None:
    known = asked.known
    note(
        f"The log {asked.previous_origin} is closed with the {asked.first_size:,} records that its tree has in this database."
    )
    if asked.abandoned:
        lost = known.size - asked.first_size
        of = f" of {known.origin}" if known.origin != asked.previous_origin else ""
        given_up = (
            f"the last {words.count(lost, 'record')} of it {'is' if lost == 1 else 'are'} not here"
            if lost > 0
            else "its records are not those that are here"
        )
        note(
            f"The newest checkpoint{of} that is known is of {known.size:,}: {given_up}. They are given up, and the new log says so."
        )
    note(
        f"The new log {asked.origin} begins with these records, and signs with the same key. This cannot be taken back."
    )


def _confirm(origin: str, yes: bool) -> None:
    """Goes on when the person types the new name. Raises InvalidInput where nobody can be asked, or for another answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("Closing the log needs a yes, and nobody can be asked here", "Add --yes")
    if typer.prompt("Type the new log's name to go on", err=True).strip() != origin:
        raise InvalidInput("That is not its name; nothing was changed", "Try again")


def _as_data(opened: Opened, signer: Signer) -> dict[str, Any]:
    return {
        "origin": opened.origin,
        "number": opened.number,
        "first_size": opened.first_size,
        "previous_origin": opened.previous_origin,
        "known": {
            "origin": opened.known.origin,
            "size": opened.known.size,
            "root": base64.b64encode(opened.known.root).decode(),
        },
        "abandoned": opened.abandoned,
        "key": signer.verifier.vkey(),
    }
