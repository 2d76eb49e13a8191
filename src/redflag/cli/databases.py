"""Which database a command works on, and as whom: the embedded one of the data folder, or one of the administrator's own.

Three roles: the server's (its app, `up`, `env`), the owner's (migrations, psql, backups), and with the embedded database
the superuser's. Nothing here holds a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from redflag.cli.output import progress
from redflag.cli.place import place
from redflag.database import migrate, pool
from redflag.database.embedded import EmbeddedDatabase
from redflag.database.version import OLDEST_VERSION
from redflag.errors import DatabaseUnreachable, EmbeddedDatabaseError, SettingsError
from redflag.settings import Settings

T = TypeVar("T")

# libpq's variables for what a connection URL may say besides host, user and database
_VARIABLES = {
    "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE", "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "passfile": "PGPASSFILE", "options": "PGOPTIONS",
    "application_name": "PGAPPNAME", "connect_timeout": "PGCONNECT_TIMEOUT", "target_session_attrs": "PGTARGETSESSIONATTRS",
}  # fmt: skip


def hostname() -> str:
    """This machine's name, as records have it."""
    return socket.gethostname() or "localhost"


def embedded(settings: Settings) -> EmbeddedDatabase:
    """The embedded database of the data folder."""
    return EmbeddedDatabase(place(settings).database)


def server_url(settings: Settings) -> str:
    """The database as the server's role."""
    return embedded(settings).url("redflag_server") if settings.embedded else settings.database_url


def owner_url(settings: Settings) -> str:
    """The database as the owner's role, past a pooler where a direct address is known. Raises SettingsError."""
    if settings.embedded:
        return embedded(settings).url("redflag_owner")
    if not settings.database_owner_url:
        raise SettingsError(
            "This needs the owner's role of your PostgreSQL",
            "Set REDFLAG_DATABASE_OWNER_URL; see docs/howto/use-your-own-postgresql.md",
        )
    if not settings.database_direct_url:
        return settings.database_owner_url
    direct, owner = urlsplit(settings.database_direct_url), urlsplit(settings.database_owner_url)
    login, at, _ = owner.netloc.rpartition("@")
    return urlunsplit((direct.scheme, login + at + direct.netloc.rpartition("@")[2], owner.path, direct.query, ""))


def server_role(settings: Settings) -> str:
    """The name of the server's role. Raises SettingsError."""
    if settings.embedded:
        return "redflag_server"
    parts = urlsplit(settings.database_url)
    role = unquote(parts.username or "") or dict(parse_qsl(parts.query)).get("user", "")
    if not role:
        raise SettingsError("REDFLAG_DATABASE_URL names no role", "Give it as postgresql://ROLE:PASSWORD@HOST/DATABASE")
    return role


def libpq_environment(url: str) -> dict[str, str]:
    """The caller's environment with this connection in libpq's variables, so that no argument list holds the password."""
    parts = urlsplit(url)
    known = {
        "host": unquote(parts.hostname or ""),
        "port": str(parts.port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")),
    } | dict(parse_qsl(parts.query))
    # As asyncpg does it: what is no parameter of a connection is a setting of the session
    session = [
        f"-c {key}={value}".replace(" ", "\\ ").replace("-c\\ ", "-c ")
        for key, value in known.items()
        if key not in _VARIABLES
    ]
    if session:
        known["options"] = " ".join([known.get("options", ""), *session]).strip()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return inherited | {_VARIABLES[key]: value for key, value in known.items() if value and key in _VARIABLES}


def tool(settings: Settings, name: str) -> Path:
    """psql or one of its kin. For a PostgreSQL of one's own the machine's, if it is new enough: the wheel's speaks no TLS."""
    if not settings.embedded and (found := shutil.which(name)):
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
        if (matched := re.search(r"(\d+)\.", said)) and int(matched[1]) >= OLDEST_VERSION:
            return Path(found)
    return embedded(settings).tool(name)


@contextlib.contextmanager
def running(settings: Settings, *, make: bool = False) -> Iterator[None]:
    """The embedded database runs inside the block; it is stopped afterwards only if it was started here.

    With `make` it is made when it is missing. A PostgreSQL of one's own is left to its owner.
    """
    if not settings.embedded:
        yield
        return
    database = embedded(settings)
    started = start(settings, make=make)
    try:
        yield
    finally:
        if started:
            database.stop()


def start(settings: Settings, *, make: bool) -> bool:
    """Starts the embedded database; True when it did not run. Raises DatabaseUnreachable when there is none and none is to be made."""
    database = embedded(settings)
    if database.running():
        database.start()  # waits until it is ready
        return False
    if not make and not (database.data / "PG_VERSION").is_file():
        raise DatabaseUnreachable(f"There is no database in {database.folder} yet", "Make it with `redflag up`")
    with progress("Starting the database"):
        if make:
            _make(settings, database)
        database.start()
        if make:
            database.create_roles()
    return True


def _make(settings: Settings, database: EmbeddedDatabase) -> None:
    try:
        database.init()
    except EmbeddedDatabaseError:
        if not place(settings).let_pass():
            raise
        database.init()


def require_running(settings: Settings) -> None:
    """Raises DatabaseUnreachable when the embedded database does not run."""
    if settings.embedded and not embedded(settings).running():
        raise DatabaseUnreachable(f"The database in {embedded(settings).folder} does not run", "Start it with make up")


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """One connection, closed afterwards. Raises DatabaseUnreachable."""
    connection = await pool.connect(url, application="redflag cli")
    try:
        yield connection
    finally:
        await connection.close()


async def migrated(settings: Settings) -> list[migrate.Migration]:
    """Applies what is missing, as the owner; returns what was applied."""
    return await migrate.migrate(owner_url(settings), server_role(settings))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs asynchronous work to its end."""
    return asyncio.run(work)
