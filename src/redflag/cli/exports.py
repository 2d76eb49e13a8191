"""`redflag audit export`: the audit trail for other systems, into a file that can be gone on with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import typer

from redflag import words
from redflag.audit.export import formats
from redflag.audit.export.formats import SHAPES, Format, Shape
from redflag.cli import lookup
from redflag.cli.client import Json, connect
from redflag.cli.exits import ServerUnreachable
from redflag.cli.output import AsJson, note, print_json, progress, say
from redflag.commands.states import Kind, Result
from redflag.errors import Conflict, InvalidInput


def export(
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to make; else it is printed.", show_default=False)
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What each record is written as.")] = Format.CLOUDEVENTS,
    since: Annotated[
        str | None, typer.Option(help="Recorded so long ago (30d) or later, or a time in ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Recorded before so long ago, or before a time.")] = None,
    agent: Annotated[str | None, typer.Option(help="Of this agent: id, its beginning, or name.")] = None,
    command: Annotated[str | None, typer.Option(help="Of this command: id or its beginning.")] = None,
    command_type: Annotated[str | None, typer.Option("--type", help="Of commands of this type.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Of this kind.")] = None,
    result: Annotated[Result | None, typer.Option(help="With this result.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="By user:NAME, token:NAME, agent:ID, service:NAME@HOST, db:ROLE.")
    ] = None,
    after: Annotated[
        int | None, typer.Option(min=-1, help="Go on after this position of the log.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the file after its last whole record: with the same filters.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export the audit trail: CloudEvents, OCSF, CSV or syslog. What broke off, or grew since, is gone on with by --resume."""
    if to is None and (resume or as_json):
        raise InvalidInput("--resume and --json go with a file", "Give --to FILE")
    if resume and after is not None:
        raise InvalidInput("--resume and --after contradict each other", "Give one of them")
    now = words.now()
    query: Json = {
        "format": format_,
        "since": words.moment(since, now).isoformat() if since else None,
        "until": words.moment(until, now).isoformat() if until else None,
        "command_type": command_type,
        "kind": kind,
        "result": result,
        "actor": actor,
        "after": after,
    }
    shape = SHAPES[format_]
    began = time.monotonic()
    with connect() as api, _target(to, resume, shape) as (file, last), progress("Exporting") as tell:
        query["agent_id"] = lookup.one(api, lookup.AGENT, agent) if agent else None
        query["command_id"] = lookup.one(api, lookup.COMMAND, command) if command else None
        if resume:
            # A file that has its header and nothing else goes on before the first record
            query["after"] = last if last is not None else -1 if file.tell() else None
        counted = _Counted(file, shape, headed=query["after"] is None)

        def told(read: int, _whole: int | None) -> None:
            rate = counted.records / max(time.monotonic() - began, 0.001)
            tell(f"{words.count(counted.records, 'record')}, {rate:,.0f} a second, {words.size(read)}")

        try:
            api.download("/api/v1/audit/export", cast(BinaryIO, counted), told, **query)
        except ServerUnreachable as error:
            if not counted.bytes:
                raise
            raise ServerUnreachable(
                f"The export broke off after {words.count(counted.records, 'record')}: {error.what}",
                f"The same command with --resume goes on with {to}"
                if to
                else "What was printed ends before its end; export into a file with --to, which --resume goes on with",
            ) from None
    if to is None:
        return
    seconds = time.monotonic() - began
    if as_json:
        print_json(
            {"file": str(to), "format": format_, "records": counted.records, "bytes": counted.bytes, "after": query["after"],
             "seconds": round(seconds, 3)}
        )  # fmt: skip
        return
    say(
        f"{to}: {words.count(counted.records, 'record')}{' more' if resume else ''}, {words.size(counted.bytes)}, "
        f"in {words.length(seconds)}. The same command with --resume adds what comes later.",
        style="bold green",
    )


class _Counted:
    """A file, and how many whole records were written to it."""

    def __init__(self, file: BinaryIO, shape: Shape, *, headed: bool) -> None:
        self._file = file
        self._quotes = shape.quotes
        self._quoted = False
        # The header is no record
        self.records = -1 if headed and shape.header else 0
        self.bytes = 0

    def write(self, data: bytes) -> int:
        """Writes and counts."""
        self.bytes += len(data)
        if self._quotes:
            for place, part in enumerate(data.split(b'"')):
                self._quoted ^= place > 0
                self.records += 0 if self._quoted else part.count(b"\n")
        else:
            self.records += data.count(b"\n")
        return self._file.write(data)


@contextlib.contextmanager
def _target(to: Path | None, resume: bool, shape: Shape) -> Iterator[tuple[Any, int | None]]:
    """The file to write to, on the disk when the block ends, and the position of the last record that is in it."""
    if to is None:
        yield sys.stdout.buffer, None
        sys.stdout.flush()
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if resume else os.O_EXCL)
    try:
        handle = os.open(to, flags, 0o600)
    except FileExistsError:
        raise Conflict(f"{to} exists already", "Add --resume to go on with it, or choose another name") from None
    with os.fdopen(handle, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{to} is being written by another export", "Wait for its end") from None
        try:
            yield file, _go_on(file, to, shape) if resume else None
        finally:
            file.flush()
            os.fsync(file.fileno())
            if not resume and not os.fstat(file.fileno()).st_size:
                to.unlink()


def _go_on(file: BinaryIO, to: Path, shape: Shape) -> int | None:
    """Cuts a torn last record off, and stands at the end. Returns the position of the last whole record."""
    try:
        whole, last = formats.last_whole(shape, file)
    except ValueError as error:
        raise InvalidInput(f"{to} is no export in this format: {error}", "Give its format, or another file") from None
    if file.seek(0, os.SEEK_END) > whole:
        note(f"{to}: its last record is torn, and is written anew.")
        file.truncate(whole)
    file.seek(whole)
    return last
