"""`redflag backup` and `restore`: every row comes back as it was recorded, or nothing is touched."""

from __future__ import annotations

import contextlib
import io
import json
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from redflag.cli import backup
from redflag.database.embedded import EmbeddedDatabase

from .conftest import Installation

TABLES = "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"
# Parentheses are left out of constraints: PostgreSQL writes BETWEEN with others once it was restored.
# Every trigger with its state, every function, constraint, index, partition and right
SHAPES = """SELECT * FROM (
  SELECT 'trigger', tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger WHERE tgname !~ '^RI_'
  UNION ALL SELECT 'function', p.oid::regprocedure::text, md5(pg_get_functiondef(p.oid)), prosecdef::text FROM pg_proc p
    WHERE pronamespace = 'public'::regnamespace
  UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, translate(pg_get_constraintdef(oid), '()', '') FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
  UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
  UNION ALL SELECT 'partition', inhparent::regclass::text, inhrelid::regclass::text, pg_get_expr(relpartbound, c.oid)
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE relkind = 'r'
  UNION ALL SELECT 'right', c.oid::regclass::text, a.privilege_type, a.grantee::regrole::text FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner
) everything ORDER BY 1, 2, 3, 4"""


@pytest.fixture(scope="module")
def saved(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of an installation that has commands in every state, made while it runs."""
    installation.sql("""
      WITH agent AS (SELECT id FROM agents LIMIT 1)
      INSERT INTO agent_commands (agent_id, command_type, status, sent_at) SELECT id, 'scan_updates', 'sent', now() - interval '3 hours'
      FROM agent, generate_series(1, 50);
      INSERT INTO agent_commands (agent_id, command_type, params) SELECT id, 'collect_specs', '{"text": "äöü \\\\ \\" tab"}' FROM agents;
      INSERT INTO update_logs (result, message) VALUES ('success', E'a line\\nand another\\ttab')""")
    file = tmp_path_factory.mktemp("backup") / "redflag.backup"
    done = installation.redflag("backup", str(file))
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture(scope="module")
def restored(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The backup in a data folder that was empty."""
    made = Installation(tmp_path_factory.mktemp("restored") / "var")
    done = made.redflag("restore", str(saved))
    assert done.returncode == 0, done.stderr
    assert made.redflag("db", "migrate").returncode == 0
    EmbeddedDatabase(made.var / "database").start()
    yield made
    made.redflag("down")


def rows_of(installation: Installation) -> dict[str, str]:
    """How many rows each table has, partitions one by one, and a digest of all of them."""
    each = [
        f"SELECT '{table}', count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '')) FROM ONLY {table} t"
        for table in installation.sql(TABLES).splitlines()
    ]
    return dict(line.split("|", 1) for line in installation.sql(" UNION ALL ".join(each)).splitlines())


def test_a_backup_says_what_it_is_and_is_closed_to_others(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    with tarfile.open(saved) as archive:
        assert archive.getnames() == ["manifest.json", "database.dump", "sha256"]
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
    assert manifest["format"] == 1
    assert [one["version"] for one in manifest["migrations"]] == list(range(1, len(manifest["migrations"]) + 1))
    assert [path.name for path in saved.parent.iterdir()] == [saved.name], "no draft is left"


def test_every_row_comes_back_byte_for_byte(restored: Installation, saved: Path, tmp_path: Path) -> None:
    # What the installation holds has moved on since; a second backup of the restored one must be of the same rows
    first = rows_of(restored)
    again = Installation(tmp_path / "var")
    file = tmp_path / "again"
    assert restored.redflag("backup", str(file)).returncode == 0
    assert again.redflag("restore", str(file)).returncode == 0
    EmbeddedDatabase(again.var / "database").start()
    try:
        assert rows_of(again) == first
        assert again.sql(SHAPES) == restored.sql(SHAPES)
    finally:
        again.redflag("down")


def test_records_versions_and_salts_are_those_of_the_running_installation(
    installation: Installation, restored: Installation
) -> None:
    # Records are never changed, so all that the backup holds is still in the installation as it was
    columns = "SELECT id, u::text FROM update_logs u ORDER BY id"
    there = set(installation.sql(columns).splitlines())
    here = set(restored.sql(columns).splitlines())
    assert here
    assert here <= there
    assert installation.sql(SHAPES) == restored.sql(SHAPES)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE update_logs SET message = 'x'",
        "DELETE FROM update_logs",
        "TRUNCATE update_logs_default",
        "DELETE FROM agent_commands",
    ],
)
def test_what_was_guarded_is_guarded_again(restored: Installation, statement: str) -> None:
    assert restored.redflag("db", "psql", "--", "-Xqc", statement).returncode == 1


def test_it_refuses_while_the_server_runs(installation: Installation, saved: Path) -> None:
    done = installation.redflag("restore", "--replace", str(saved))
    assert done.returncode == 5
    assert "The server runs" in done.stderr


def test_it_refuses_a_database_that_is_not_empty_unless_told_to_replace_it(restored: Installation, saved: Path) -> None:
    before = rows_of(restored)
    assert restored.redflag("restore", str(saved)).returncode == 5
    assert rows_of(restored) == before
    restored.sql("INSERT INTO update_logs (result, message) VALUES ('success', 'after the backup')")
    done = restored.redflag("restore", "--replace", str(saved))
    assert done.returncode == 0, done.stderr
    assert rows_of(restored) == before


def test_a_restore_that_breaks_off_leaves_the_database_as_it_was(
    restored: Installation, saved: Path, tmp_path: Path
) -> None:
    before = rows_of(restored)
    with tarfile.open(saved) as archive:
        manifest = backup.Manifest(**json.load(archive.extractfile("manifest.json") or io.BytesIO()))
        dump = (archive.extractfile("database.dump") or io.BytesIO()).read()
    cut = tmp_path / "cut"
    backup.write(cut, manifest, _yields(io.BytesIO(dump[: len(dump) * 2 // 3])), lambda _: None)
    done = restored.redflag("restore", "--replace", str(cut))
    assert done.returncode == 1
    assert "pg_restore failed" in done.stderr
    assert rows_of(restored) == before


def test_a_damaged_file_is_refused(restored: Installation, saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    flipped, half, none = tmp_path / "flipped", tmp_path / "half", tmp_path / "none"
    flipped.write_bytes(data)
    half.write_bytes(saved.read_bytes()[: len(data) // 2])
    none.write_text("no backup")
    for file in (flipped, half, none):
        done = restored.redflag("restore", "--replace", str(file))
        assert done.returncode == 2, done.stderr
        assert str(file) in done.stderr


def test_a_backup_that_is_newer_than_this_release_is_refused(restored: Installation, tmp_path: Path) -> None:
    newer = backup.Manifest(
        1, "99.0", "2033-01-01T00:00:00+00:00", 180006, [{"version": 9999, "name": "later", "checksum": ""}]
    )
    file = tmp_path / "newer"
    backup.write(file, newer, _yields(io.BytesIO(b"")), lambda _: None)
    done = restored.redflag("restore", "--replace", str(file))
    assert done.returncode == 1
    assert "99.0" in done.stderr


def test_a_file_that_exists_is_not_overwritten(installation: Installation, saved: Path) -> None:
    before = saved.read_bytes()
    assert installation.redflag("backup", str(saved)).returncode == 5
    assert saved.read_bytes() == before


@contextlib.contextmanager
def _yields(source: IO[bytes]) -> Iterator[IO[bytes]]:
    yield source
