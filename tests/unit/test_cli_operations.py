"""The parts of `redflag up` and its kin that need no database: connections in words, the unit, numbers of workers."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from redflag.cli import databases, main, server, service
from redflag.cli.place import Place, lock_now
from redflag.errors import InvalidInput, ProcessError, SettingsError
from redflag.settings import Settings, settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("REDFLAG_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REDFLAG_VAR", str(tmp_path / "var"))
    settings.cache_clear()


def own(**more: str) -> Settings:
    """Settings with a PostgreSQL of one's own."""
    return Settings.model_validate({"database_url": "postgresql://app:s%40fe@db.example:6432/fleet"} | more)


def test_libpq_gets_what_a_url_says_in_its_variables() -> None:
    env = databases.libpq_environment(
        "postgresql://app:s%40fe%2F@db.example:6432/fleet?sslmode=verify-full&sslrootcert=/ca.pem&search_path=site_a"
    )
    assert {key: value for key, value in env.items() if key.startswith("PG")} == {
        "PGHOST": "db.example", "PGPORT": "6432", "PGUSER": "app", "PGPASSWORD": "s@fe/", "PGDATABASE": "fleet",
        "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca.pem", "PGOPTIONS": "-c search_path=site_a",
    }  # fmt: skip


def test_libpq_gets_a_socket_of_a_url() -> None:
    env = databases.libpq_environment("postgresql://redflag_owner:x@/redflag?host=%2Frun%2Fdb&port=5432")
    assert (env["PGHOST"], env["PGPORT"], env["PGDATABASE"]) == ("/run/db", "5432", "redflag")


def test_libpq_gets_no_variables_of_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    assert "PGHOSTADDR" not in databases.libpq_environment("postgresql://a:b@c/d")


def test_the_servers_role_is_the_one_of_its_address() -> None:
    assert databases.server_role(own()) == "app"
    assert databases.server_role(own(database_url="postgresql:///fleet?user=other")) == "other"
    with pytest.raises(SettingsError, match="no role"):
        databases.server_role(own(database_url="postgresql://db.example/fleet"))


def test_migrations_go_past_the_pooler_as_the_owner() -> None:
    here = own(
        database_owner_url="postgresql://boss:top@pooler:6432/fleet",
        database_direct_url="postgresql://app:x@db.example:5432/fleet?sslmode=require",
    )
    assert databases.owner_url(here) == "postgresql://boss:top@db.example:5432/fleet?sslmode=require"


def test_without_the_owners_address_it_is_asked_for() -> None:
    with pytest.raises(SettingsError, match="REDFLAG_DATABASE_OWNER_URL"):
        databases.owner_url(own())


def test_each_worker_has_a_number_and_a_successor_takes_over_that_of_the_dead(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    holder = """
import sys, pathlib
from redflag.cli.place import Place
from redflag.cli import server
print(server._take_number(Place(pathlib.Path(sys.argv[1])), 2), flush=True)
sys.stdin.read()
"""

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        return process, process.stdout.readline().strip()

    first, one = start()
    second, two = start()
    assert (one, two) == ("1", "2")
    first.kill()
    first.communicate()
    third, again = start()
    assert again == "1"
    for process in (second, third):
        process.communicate("")


def test_no_more_numbers_are_given_than_two_for_each_worker(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with (
        lock_now(run / "worker-1.lock"),
        lock_now(run / "worker-2.lock"),
        pytest.raises(ProcessError, match="taken"),
    ):
        server._take_number(Place(tmp_path), 1)


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with lock_now(tmp_path / "lock") as first, lock_now(tmp_path / "lock") as second:
        assert first
        assert not second
    with lock_now(tmp_path / "lock") as again:
        assert again


def test_the_unit_has_no_blank_left_and_is_accepted_by_systemd(tmp_path: Path) -> None:
    text = service.unit("redflag", Path("/var/lib/redflag"))
    assert "@" not in text.replace("@system-service", "").replace(
        "~@privileged @resources @mount @debug @cpu-emulation @obsolete", ""
    )
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine")
    file = tmp_path / "redflag.service"
    file.write_text(text)
    done = subprocess.run([analyze, "verify", "--man=no", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "redflag.service" not in done.stderr


def test_a_long_data_folder_keeps_the_real_tmp_where_its_socket_lies() -> None:
    assert "PrivateTmp=yes" in service.unit("redflag", Path("/var/lib/redflag"))
    long = service.unit("redflag", Path("/srv/" + "x" * 100))
    assert "PrivateTmp=no" in long
    assert "ReadWritePaths=/tmp" in long


@pytest.mark.parametrize(
    ("user", "folder"), [("root", "/var/lib/redflag"), ("a b", "/var/lib/redflag"), ("redflag", "/var/a b")]
)
def test_what_cannot_stand_in_a_unit_is_refused(user: str, folder: str) -> None:
    with pytest.raises(InvalidInput):
        service.unit(user, Path(folder))


def test_the_unit_is_installed_and_removed_and_a_strangers_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["service", "install", "--unit-dir", str(tmp_path)]) == 0
    file = tmp_path / "redflag.service"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert "systemctl enable --now redflag" in capsys.readouterr().out
    assert main.main(["service", "uninstall", "--unit-dir", str(tmp_path)]) == 0
    assert not file.exists()
    file.write_text("[Unit]\n")
    assert main.main(["service", "install", "--unit-dir", str(tmp_path)]) == 5
    assert main.main(["service", "uninstall", "--unit-dir", str(tmp_path)]) == 5
    assert file.read_text() == "[Unit]\n"
