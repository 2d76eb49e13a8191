"""The ways into the server that a command makes by itself: the first administrator, and API tokens of its own.

They are made in the database as the server's role, so that each leaves a record with the service that made it
(`service:up@HOST`, `service:env@HOST`). Whoever may read the data folder may do that, and nobody else.
"""

from __future__ import annotations

import datetime
import getpass
import secrets
from dataclasses import dataclass
from typing import Any

from redflag.access import tokens, users
from redflag.access.principals import Authenticator
from redflag.access.roles import Permission, Role
from redflag.audit import actor as actors
from redflag.cli import databases
from redflag.cli.place import Place
from redflag.database import migrate
from redflag.errors import NotAuthenticated
from redflag.settings import Settings
from redflag.supervisor import write_private

ENV_TOKEN_HOURS = 12


@dataclass(frozen=True)
class Made:
    """What was made just now and can be shown this once. Empty: it was there already."""

    password: str = ""
    token: str = ""


async def ensure(here: Settings, folder: Place) -> Made:
    """The first administrator and the token of the data folder, where they are missing or work no more."""
    actor = actors.service("up", databases.hostname())
    async with databases.connected(databases.server_url(here)) as connection:
        password = await users.bootstrap_admin(connection, actor) or ""
        token = await _folder_token(connection, actor, folder)
    return Made(password, token)


async def make_env_token(here: Settings) -> str:
    """A new administrator's API token for some hours."""
    host = databases.hostname()
    moment = datetime.datetime.now(datetime.UTC)
    name = f"env-{_user()}@{host}-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"[:255]
    async with databases.connected(databases.server_url(here)) as connection:
        await migrate.require_current(connection)
        token, _ = await tokens.create(
            connection, actors.service("env", host), name, Role.ADMIN, giver=Role.ADMIN, hours=ENV_TOKEN_HOURS
        )
    return token


async def _folder_token(connection: Any, actor: actors.Actor, folder: Place) -> str:
    """Makes the folder's token unless it has one that works; the one that was lost is revoked."""
    # Host and folder are in the name: two servers of one database do not end each other's
    name = f"cli@{databases.hostname()}:{folder.root}"[:255]
    live = [row for row in await tokens.list_tokens(connection) if row["name"] == name and row["revoked_at"] is None]
    kept = folder.read(folder.cli_token)
    if kept and any(row["works"] for row in live) and await _lets_in(connection, kept):
        return ""
    for row in live:
        await tokens.revoke(connection, actor, row["id"])
    token, _ = await tokens.create(connection, actor, name, Role.ADMIN, giver=Role.ADMIN)
    write_private(folder.cli_token, token + "\n")
    return token


async def _lets_in(connection: Any, token: str) -> bool:
    try:
        principal = await Authenticator(connection).authenticate(token)
    except NotAuthenticated:
        return False
    return principal.permissions >= frozenset(Permission)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
