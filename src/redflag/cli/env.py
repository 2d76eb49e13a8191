"""`redflag env`: what a script needs to work with this installation, as assignments of the shell."""

from __future__ import annotations

import shlex
import sys

from redflag.cli import access, client, databases
from redflag.cli.output import note
from redflag.cli.place import place
from redflag.settings import settings


def env() -> None:
    """Print shell assignments: address, a new token for 12 h, the database, the log.

    Use it as: set -a; eval "$(redflag env)"; set +a. Needs the data folder and the database, and no token.
    """
    here = settings()
    folder = place(here)
    databases.require_running(here)
    values = {
        "REDFLAG_URL": client.own_url(here, folder),
        "REDFLAG_TOKEN": databases.run(access.make_env_token(here)),
        "REDFLAG_LOG": str(folder.server_log),
    }
    if here.embedded:
        database = databases.embedded(here)
        values["REDFLAG_DSN"] = database.dsn("redflag_owner")
        values["REDFLAG_SUPERUSER_DSN"] = database.dsn("postgres")
    elif here.database_owner_url:
        values["REDFLAG_DSN"] = databases.owner_url(here)
    else:
        note("REDFLAG_DSN is left out: REDFLAG_DATABASE_OWNER_URL is not set.")
    sys.stdout.write("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))
