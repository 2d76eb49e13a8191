"""`redflag server` in the foreground, with several workers."""

from __future__ import annotations

import signal

import httpx
import pytest

from redflag.database.embedded import EmbeddedDatabase
from redflag.supervisor import Process, started_at

from .conftest import Installation


@pytest.fixture
def migrated(another: Installation) -> Installation:
    """A data folder with a database that is whole, and nothing running."""
    assert another.redflag("db", "migrate").returncode == 0
    return another


def wait_until_it_serves(installation: Installation, process: Process) -> None:
    with httpx.Client(base_url=installation.url) as api:
        while True:
            try:
                if api.get("/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                assert not process.wait(0.05), "the server ended"


def test_it_starts_the_database_serves_with_each_worker_under_its_own_name_and_stops_what_it_started(
    migrated: Installation,
) -> None:
    running = migrated.start("server", "--workers", "2", REDFLAG_REPLICA="here")
    process = Process(running.pid, started_at(running.pid) or "")
    wait_until_it_serves(migrated, process)
    while (
        migrated.sql(
            "SELECT string_agg(replica, ' ' ORDER BY replica) FROM timeout_service WHERE started_at IS NOT NULL"
        )
        != "here/1 here/2"
    ):
        assert not process.wait(0.1), "the server ended"
    assert list((migrated.var / "run" / "metrics").glob("histogram_*.db")), "the workers share their metrics"
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0, output
    assert "Traceback" not in output
    assert not (migrated.var / "database" / "data" / "postmaster.pid").exists()


def test_it_does_not_start_on_a_schema_that_is_not_whole(another: Installation) -> None:
    # An empty database: made, never migrated
    database = EmbeddedDatabase(another.var / "database")
    database.init()
    database.start()
    database.create_roles()
    done = another.redflag("server")
    assert done.returncode == 1
    assert "Run `redflag db migrate`" in done.stderr
    assert "Traceback" not in done.stderr
    assert database.running(), "what it did not start it does not stop"


def test_it_does_not_start_without_a_database(another: Installation) -> None:
    done = another.redflag("server")
    assert done.returncode == 6
    assert "redflag up" in done.stderr


def test_a_certificate_that_is_none_is_named(migrated: Installation) -> None:
    bad = migrated.var / "bad.pem"
    bad.write_text("no certificate")
    done = migrated.redflag("server", REDFLAG_TLS_CERT=str(bad), REDFLAG_TLS_KEY=str(bad))
    assert done.returncode == 2
    assert str(bad) in done.stderr
