"""`redflag db`: the schema by hand."""

from __future__ import annotations

import json

from .conftest import Installation


def test_status_lists_every_migration_as_applied(installation: Installation) -> None:
    done = installation.redflag("db", "status", "--json")
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert states
    assert {one["state"] for one in states} == {"applied"}


def test_migrate_twice_changes_nothing(installation: Installation) -> None:
    done = installation.redflag("db", "migrate")
    assert done.returncode == 0, done.stderr
    assert "already" in done.stdout


def test_psql_is_the_owner_and_its_password_is_in_no_argument_list(installation: Installation) -> None:
    assert installation.redflag("db", "psql", "--", "-XAtqc", "SELECT session_user").stdout == "redflag_owner\n"
    password = (installation.var / "database" / "passwords" / "redflag_owner").read_text().strip()
    arguments = installation.redflag("db", "psql", "--", "-Xqc", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline").stdout
    assert "psql" in arguments
    assert password not in arguments
