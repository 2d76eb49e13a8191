"""A database of their own: the server that the commands speak to sweeps, and must not sweep the commands of other tests."""

from __future__ import annotations

from databases import own_database

migrated, dsn_owner, dsn_server, owner, server, pool = own_database("cli")
