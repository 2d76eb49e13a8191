"""`redflag backup` and `redflag restore`: the whole database as one file.

A backup is a tar archive of three members, in this order:

    manifest.json    what it is: format, release, time, PostgreSQL's version, migrations with their checksums
    database.dump    pg_dump's own format; `tar -xOf FILE database.dump | pg_restore …` reads it without us
    sha256           the SHA-256 of database.dump, in hex

Promises
- A backup that was broken off leaves nothing behind: the file appears under its name when it is whole and on the disk.
- It is consistent (one snapshot) and can be made while the server runs. It is readable by its owner only, as it holds the
  hashes of passwords and tokens. Not in it: the data folder's keys and log files, and the database roles' passwords.
- A restore is one transaction: it comes whole, or the database is as it was. It brings back every row as it was recorded:
  rows are loaded before the triggers exist, so that nothing is recorded, guarded or renumbered on the way.
- A backup that is damaged, or newer than this release, is refused before anything is touched.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

import redflag
from redflag import words
from redflag.cli import databases, output, reopen
from redflag.cli.place import place
from redflag.database import migrate, pool, queries
from redflag.errors import Conflict, DatabaseError, InvalidInput, MigrationError, RedFlagError
from redflag.settings import Settings, settings

FORMAT = 1
MANIFEST, DUMP, SUM = "manifest.json", "database.dump", "sha256"
CHUNK = 1024 * 1024
EMPTY = Path(__file__).with_name("empty_schema.sql")

sql = queries.load(__file__, "backup.sql")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself. `migrations`: version, name and checksum of each that the database had."""

    format: int
    version: str
    made_at: str
    postgresql: int
    migrations: list[dict[str, Any]]


def backup(
    file: Annotated[Path, typer.Argument(help="The file to make; it must not exist.", show_default=False)],
) -> None:
    """Save the whole database into one file, while everything runs."""
    here = settings()
    if file.exists():
        raise Conflict(f"{file} exists already", "Choose another name, or remove it first")
    with databases.running(here):
        manifest = databases.run(_manifest(here))
        with output.progress(f"Saving the database into {file}") as tell:
            size = write(file, manifest, _dump(here, _schema(here)), tell)
    output.say(f"Saved {words.size(size)} into {file}; `redflag restore` reads it.")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `redflag backup` made.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Give up what the database holds now.")] = False,
) -> None:
    """Put a backup in place of the database, whole or not at all. The server must not run."""
    here = settings()
    if place(here).server_runs():
        raise Conflict("The server runs", "Stop it with `redflag down`, restore, then start it again")
    with output.progress(f"Checking {file}") as tell:
        manifest = check(file, tell)
    _refuse_newer(manifest)
    with databases.running(here, make=True):
        databases.run(_require_free(here, replace=replace))
        with output.progress(f"Restoring {file}") as tell:
            _load(here, file, tell)
        with output.progress("Bringing the schema up to this release"):
            applied = databases.run(databases.migrated(here))
        why = databases.run(_log_stops(here))
    output.say(f"Restored the backup of {manifest.made_at}, made by RedFlag {manifest.version}.")
    if applied:
        output.say(f"Applied {words.count(len(applied), 'migration')} that it did not have.")
    if why:
        output.say(f"The audit log will not go on as it is. {why}.", "yellow")
        output.say(
            "Next: `redflag audit reopen`, as docs/howto/back-up-and-restore.md says. Commands and records go on meanwhile."
        )
    output.say("Next: `redflag up`. Tokens and passwords are those of the backup.")


async def _log_stops(here: Settings) -> str:
    """Why the log of the restored database is not the one that this server remembers; "" if it is."""
    async with databases.connected(databases.owner_url(here)) as connection:
        try:
            standing = await reopen.standing(connection, here)
        except RedFlagError as error:
            return error.what
    return standing.why if standing else ""


def write(file: Path, manifest: Manifest, dump: contextlib.AbstractContextManager[IO[bytes]], tell: Tell) -> int:
    """Writes a backup of what `dump` yields, in one step; returns its size in bytes."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mode 0600
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(_member(MANIFEST, json.dumps(asdict(manifest), indent=2).encode() + b"\n"))
            header_at = target.tell()
            target.write(bytes(tarfile.BLOCKSIZE))  # the header, once the size is known
            digest, size = hashlib.sha256(), 0
            with dump as source:
                while data := source.read(CHUNK):
                    target.write(data)
                    digest.update(data)
                    size += len(data)
                    tell(words.size(size))
            target.write(_padding(size))
            target.write(_member(SUM, digest.hexdigest().encode() + b"\n"))
            target.write(bytes(2 * tarfile.BLOCKSIZE))
            whole = target.tell()
            target.seek(header_at)
            target.write(_header(DUMP, size))
            target.flush()
            os.fsync(target.fileno())
        os.link(draft, file)  # unlike a rename it never replaces a file that came in between
    except FileExistsError:
        raise Conflict(f"{file} exists already", "Choose another name, or remove it first") from None
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return whole


def check(file: Path, tell: Tell) -> Manifest:
    """Reads a whole backup and returns what it says of itself. Raises InvalidInput when it is none, or damaged."""
    try:
        with tarfile.open(file, "r:") as archive:
            manifest = Manifest(**json.loads(_read(archive, MANIFEST)))
            if manifest.format != FORMAT:
                raise InvalidInput(
                    f"{file} has the format {manifest.format}, and this release reads {FORMAT}",
                    "Use the release that made it",
                )
            digest, size = hashlib.sha256(), 0
            with _open(archive, DUMP) as dump:
                while data := dump.read(CHUNK):
                    digest.update(data)
                    size += len(data)
                    tell(words.size(size))
            same = _read(archive, SUM).decode().strip() == digest.hexdigest()
    except (tarfile.TarError, ValueError, TypeError, KeyError, EOFError):
        raise InvalidInput(f"{file} is no backup of `redflag backup`, or it is not whole", "Use another copy") from None
    if not same:
        raise InvalidInput(f"{file} is damaged: its SHA-256 is not what it was", "Use another copy")
    return manifest


async def _manifest(here: Settings) -> Manifest:
    async with databases.connected(databases.owner_url(here)) as connection:
        states = await migrate.status(connection)
        migrate.refuse_trouble(states)
        applied = [dict(row) for row in await sql.applied.all(connection)]
        number = pool.number(connection)
    made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Manifest(FORMAT, redflag.__version__, made_at, number, applied)


def _refuse_newer(manifest: Manifest) -> None:
    known = {one.version: one for one in migrate.available()}
    for one in manifest.migrations:
        mine = known.get(one["version"])
        if mine is None:
            raise MigrationError(
                f"The backup was made by RedFlag {manifest.version} and has migration {one['version']:04} ({one['name']}), "
                f"which this release ({redflag.__version__}) does not know",
                "Restore it with that release or a newer one; nothing was touched",
            )
        if mine.checksum != one["checksum"]:
            raise MigrationError(
                f"The backup has another migration {one['version']:04} ({one['name']}) than this release",
                f"Restore it with RedFlag {manifest.version}; nothing was touched",
            )


async def _require_free(here: Settings, *, replace: bool) -> None:
    async with databases.connected(databases.owner_url(here)) as connection:
        sessions = await sql.sessions.value(connection, role=databases.server_role(here))
        if sessions:
            raise Conflict(
                f"A server is connected to the database ({words.count(sessions, 'session')})",
                "Stop every server first; nothing was touched",
            )
        tables = await sql.tables.value(connection)
        if tables and not replace:
            raise Conflict(
                f"The database is not empty ({words.count(tables, 'table')})",
                "Give --replace to put the backup in the place of what it holds; save that first with `redflag backup`",
            )


@contextlib.contextmanager
def _dump(here: Settings, schema: str) -> Iterator[IO[bytes]]:
    """What pg_dump writes. Owners and rights are left out: migrations give them to the roles of the database restored to."""
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--schema={schema}", "--lock-wait-timeout=30s"]
    with _started(here, "pg_dump", *options) as process:
        yield _pipe(process.stdout)


def _load(here: Settings, file: Path, tell: Tell) -> None:
    """Empties the schema and restores into it, in one transaction.

    psql gets its COMMIT from here, and only after pg_restore has ended well: whatever breaks before leaves nothing behind.
    """
    options = [
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        f"--schema={_schema(here)}",
        "--file=-",
    ]
    quiet = ["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    with _started(here, "psql", *quiet) as psql:
        _feed(psql, b"BEGIN;\n" + EMPTY.read_bytes())
        with (
            tarfile.open(file, "r:") as archive,
            _open(archive, DUMP) as dump,
            _started(here, "pg_restore", *options) as script,
        ):
            feeder = threading.Thread(target=_copy, args=(dump, _pipe(script.stdin)), daemon=True)
            feeder.start()
            size = 0
            while data := _pipe(script.stdout).read(CHUNK):
                _feed(psql, data)
                size += len(data)
                tell(words.size(size))
            feeder.join()
        _feed(psql, b"\nCOMMIT;\n")


@contextlib.contextmanager
def _started(here: Settings, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of PostgreSQL's programs, connected as the owner. Raises DatabaseError, with its words, unless it ends well.

    When the block fails, the program's own failure is the better explanation, if there is one.
    """
    argv = [str(databases.tool(here, name)), *options]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            argv, env=databases.libpq_environment(databases.owner_url(here)), stdin=pipe, stdout=pipe, stderr=said
        )
        try:
            yield process
        except BrokenPipeError:
            pass  # it has ended early, and says why
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                _pipe(process.stdin).close()
            process.wait()
            _pipe(process.stdout).close()
        if process.returncode != 0:
            said.seek(0)
            reason = said.read().decode(errors="replace").strip()[-2000:] or f"exit code {process.returncode}"
            raise DatabaseError(
                f"{name} failed: {reason}", "The database is as it was; correct the cause and try again"
            )


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    _pipe(process.stdin).write(data)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Feeds a program to the end of its input; one that ends early says itself why."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        while data := source.read(CHUNK):
            target.write(data)
    with contextlib.suppress(BrokenPipeError, ValueError):
        target.close()


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise RuntimeError("the program was started without this pipe")
    return end


def _schema(here: Settings) -> str:
    async def ask() -> str:
        async with databases.connected(databases.owner_url(here)) as connection:
            return str(await sql.schema.value(connection))

    return databases.run(ask())


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    # GNU's format has room for any size in the one block that was kept free
    return info.tobuf(tarfile.GNU_FORMAT)


def _member(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + _padding(len(data))


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    with _open(archive, name) as member:
        return member.read()
