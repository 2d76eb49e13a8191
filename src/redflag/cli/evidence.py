"""`redflag audit bundle` and `redflag audit report`: what is handed to an auditor."""

from __future__ import annotations

import contextlib
import enum
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

import redflag_verify
from redflag import words
from redflag.cli import lookup
from redflag.cli.client import Json, connect
from redflag.cli.exits import NeedsAttention
from redflag.cli.output import AsJson, note, print_json, progress, say
from redflag.commands.states import Kind, Result
from redflag.errors import Conflict, InvalidInput

Since = Annotated[str | None, typer.Option(help="Recorded so long ago (2h, 3d) or later, or a time in ISO 8601.")]
Until = Annotated[str | None, typer.Option(help="Recorded before so long ago, or before a time.")]


class Format(enum.StrEnum):
    """What a report is given as."""

    HTML = "html"
    PDF = "pdf"
    JSON = "json"


def bundle(
    to: Annotated[Path, typer.Option("--to", help="The .zip to make; it must not exist.", show_default=False)],
    since: Since = None,
    until: Until = None,
    agent: Annotated[str | None, typer.Option(help="Of this agent: id, its beginning, or name.")] = None,
    command: Annotated[str | None, typer.Option(help="Of this command: id or its beginning.")] = None,
    command_type: Annotated[str | None, typer.Option("--type", help="Of commands of this type.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Of this kind.")] = None,
    result: Annotated[Result | None, typer.Option(help="With this result.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="By user:NAME, token:NAME, agent:ID, service:NAME@HOST, db:ROLE.")
    ] = None,
    since_checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint that was kept: prove that the log goes on from it.", show_default=False),
    ] = None,
    pinned: Annotated[
        str,
        typer.Option(
            "--key", help="The log's key as you pinned it; else the server's word is taken.", show_default=False
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make an evidence bundle: events, proofs, checkpoint, report and verifier in one signed zip. It is verified at once."""
    now = words.now()
    query: Json = {
        "since": words.moment(since, now).isoformat() if since else None,
        "until": words.moment(until, now).isoformat() if until else None,
        "command_type": command_type,
        "kind": kind,
        "result": result,
        "actor": actor,
        "consistency_from": _size(since_checkpoint) if since_checkpoint else None,
    }
    with connect() as api, progress("Making the bundle") as tell, _draft(to) as (file, draft):
        query["agent"] = lookup.one(api, lookup.AGENT, agent) if agent else None
        query["command"] = lookup.one(api, lookup.COMMAND, command) if command else None
        key = pinned or api.get("/api/v1/audit/log")["key"]
        tell("the server writes it")
        api.download("/api/v1/audit/bundle", file, _telling(tell), **query)
        file.flush()
        tell("verifying it")
        found = _verified(draft, key, since_checkpoint)
    facts = found.facts
    if as_json:
        print_json({"file": str(to), "key": key, "checked": found.checked, "not_checked": found.not_checked} | facts)
        return
    say(
        f"{to}: {words.size(to.stat().st_size)}, verified against the log of {facts['size']:,} events.",
        style="bold green",
    )
    for line in found.checked:
        say(f"  {line}")
    if not pinned:
        note("The key was the server's own word: --key takes the one that you pinned.")
    say(f"Next: hand it over. Whoever gets it checks it with  python3 redflag_verify.py bundle {to.name} --key '{key}'")


def report(
    since: Annotated[
        str, typer.Option(help="Recorded so long ago (30d) or later, or a time in ISO 8601.", show_default=False)
    ],
    until: Until = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to make; else it is printed.", show_default=False)
    ] = None,
    given: Annotated[
        Format | None, typer.Option("--format", help="Else by the file's name; html.", show_default=False)
    ] = None,
) -> None:
    """Report on a period of up to 400 days: commands, timeouts, completeness, who did what; mapped to PCI, ISO, NIST, SOC 2."""
    now = words.now()
    format_ = given or (Format(to.suffix[1:]) if to and to.suffix[1:] in set(Format) else Format.HTML)
    query = {
        "since": words.moment(since, now).isoformat(),
        "until": (words.moment(until, now) if until else now).isoformat(),
        "format": format_,
    }
    if to is None and format_ == Format.PDF and sys.stdout.isatty():
        raise InvalidInput("A PDF is not for the terminal", "Give --to FILE")
    with connect() as api, progress("Counting") as tell:
        if to is None:
            api.download("/api/v1/audit/report", sys.stdout.buffer, _telling(tell), **query)
            sys.stdout.flush()
            return
        with _draft(to) as (file, _):
            api.download("/api/v1/audit/report", file, _telling(tell), **query)
    say(f"{to}: the report. The evidence behind it:  redflag audit bundle --since {query['since']} "
        f"--until {query['until']} --to evidence.zip")  # fmt: skip


def _telling(tell: Callable[[str], None]) -> Callable[[int, int | None], None]:
    return lambda read, whole: tell(words.size(read) + (f" of {words.size(whole)}" if whole else ""))


@contextlib.contextmanager
def _draft(to: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside `to` that gets its name when the block ends well, on the disk; else nothing stays. Raises Conflict."""
    if to.exists():
        raise Conflict(f"{to} exists already", "Choose another name, or remove it first")
    handle, name = tempfile.mkstemp(prefix=f".{to.name}.", dir=to.parent)  # mode 0600: it holds what is private
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, draft
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, to)  # unlike a rename it never replaces a file that came in between
    except FileExistsError:
        raise Conflict(f"{to} exists already", "Choose another name, or remove it first") from None
    finally:
        draft.unlink(missing_ok=True)


def _size(checkpoint: Path) -> int:
    """The size that a saved checkpoint names; whether it is the log's is for the verifier to say. Raises InvalidInput."""
    lines = checkpoint.read_bytes()[: redflag_verify.NOTE_LIMIT].decode("utf-8", "replace").split("\n")
    if len(lines) < 4 or not lines[1].isascii() or not lines[1].isdigit() or len(lines[1]) > 18:
        raise InvalidInput(f"{checkpoint} is no checkpoint", "Give one that was fetched from /log/checkpoint")
    return int(lines[1])


def _verified(file: Path, key: str, since_checkpoint: Path | None) -> redflag_verify.Report:
    """What the verifier says of the bundle. Raises NeedsAttention when it does not verify."""
    found = redflag_verify.Report()
    try:
        trust = redflag_verify.Trust(redflag_verify.Key.parse(key, redflag_verify.ED25519))
        earlier = None
        if since_checkpoint is not None:
            data = redflag_verify.read_file(since_checkpoint, redflag_verify.NOTE_LIMIT)
            old = redflag_verify.open_older(data, trust, str(since_checkpoint))
            earlier = redflag_verify.Earlier(old)
        checkpoint = redflag_verify.verify_bundle(file, trust, found, earlier)
    except redflag_verify.Unreadable as error:
        raise InvalidInput(str(error), "Give the key as `redflag audit key` prints it") from None
    except redflag_verify.NotVerified as error:
        where = f" ({error.where})" if error.where else ""
        raise NeedsAttention(
            f"The bundle does NOT verify, and was not kept: {error.what}{where}", "Run `redflag audit fsck`"
        ) from None
    found.facts.update(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root.hex())
    return found
