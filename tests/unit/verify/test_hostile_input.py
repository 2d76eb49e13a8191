"""Files that were made to do harm: they are refused in little time and memory, and never with a traceback or a pass."""

from __future__ import annotations

import ast
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import pytest

from unit.verify.helpers import (
    KEY,
    TRUST,
    VERIFIER,
    WITNESS_KEYS,
    bundle_refused,
    log_refused,
    make,
    proof_refused,
    run,
    verifier,
    write_log,
)

LOG = make.Log.of(make.records(30))


@pytest.fixture(scope="module")
def clean() -> dict[str, bytes]:
    return make.bundle_files(LOG, list(range(30)))


@pytest.mark.parametrize("name", [
    "../evil", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "C:evil", "x" * 200, "a\x1b[31m", "nul\0byte", "report.html/",
])  # fmt: skip
def test_a_file_in_the_zip_has_a_plain_name(tmp_path, clean, name):
    assert bundle_refused(tmp_path / "b.zip", make.zipped([*clean.items(), (name, b"x")]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip"]


def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path, clean):
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = make.zipped([*clean.items(), ("checkpoint", b"another")])
    assert "two files of one name" in bundle_refused(tmp_path / "b.zip", doubled)
    assert "two files of one name" in bundle_refused(tmp_path / "b.zip", make.zipped([*clean.items(), ("KEY", b"x")]))


def test_a_file_that_the_manifest_does_not_name_is_refused(tmp_path, clean):
    assert "other files" in bundle_refused(tmp_path / "b.zip", clean | {"report.html": b"<p>nothing happened</p>"})


def test_a_zip_bomb_is_refused_unread(tmp_path, clean):
    bomb = make.zipped([*clean.items(), ("report.pdf", bytes(300_000_000))])
    tracemalloc.start()
    assert "would unpack to more than" in bundle_refused(tmp_path / "b.zip", bomb)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path, clean):
    bomb = make.zipped([*clean.items(), ("report.pdf", bytes(50_000_000))])
    place = bomb.rindex(b"PK\x01\x02")
    lying = bytearray(bomb)
    struct.pack_into("<I", lying, place + 24, 1000)
    assert bundle_refused(tmp_path / "b.zip", bytes(lying))


def test_links_encryption_and_other_compressions_are_refused(tmp_path, clean):
    for change in ("link", "encrypted", "bzip2", "lzma"):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in clean.items():
                info = zipfile.ZipInfo(name)
                if name == "proof" and change == "link":
                    info.external_attr = 0o120777 << 16
                info.compress_type = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.get(
                    change, zipfile.ZIP_DEFLATED
                )
                archive.writestr(info, data, info.compress_type)
        data = bytearray(made.getvalue())
        if change == "encrypted":
            data[data.rindex(b"PK\x01\x02") + 8] |= 1
        assert "no plain file" in bundle_refused(tmp_path / "b.zip", bytes(data)), change


def test_a_zip_with_something_before_or_too_much_in_it_is_refused(tmp_path, clean):
    data = make.zipped(clean.items())
    assert bundle_refused(tmp_path / "b.zip", b"#!/bin/sh\n" + data)
    assert bundle_refused(tmp_path / "b.zip", make.zipped([*clean.items(), *((f"f{i}", b"") for i in range(100))]))


def test_any_bytes_of_a_zip_changed_end_in_a_verdict_and_a_pass_only_with_the_same_files(tmp_path, clean):
    source, data = random.Random(9), make.zipped(clean.items())
    file = tmp_path / "b.zip"
    passed = 0
    for _ in range(700):
        changed = bytearray(data)
        for _ in range(source.choice((1, 1, 1, 5))):
            changed[source.randrange(len(data))] = source.randrange(256)
        if not bundle_refused(file, bytes(changed)):
            passed += 1
            with zipfile.ZipFile(file) as archive:
                assert {name: archive.read(name) for name in archive.namelist()} == clean
    assert passed < 350
    assert all(bundle_refused(file, data[:end]) for end in range(0, len(data), 997))


def test_a_line_without_end_is_refused(tmp_path, clean, monkeypatch):
    monkeypatch.setattr(verifier, "LINE_LIMIT", 1000)
    assert "longer than 1000 bytes" in bundle_refused(tmp_path / "b.zip", clean)


def test_huge_numbers_and_depths_take_no_time(tmp_path):
    checkpoint = LOG.checkpoint().encode()
    for extra in (b"9" * 4_000_000, b"[" * 4_000_000, b'{"leaf":' * 500_000, b"\xff" * 100, b'"' + b"\\" * 999_999):
        proof = b"c2sp.org/tlog-proof@v1\nextra " + verifier.base64.b64encode(extra) + b"\nindex 0\n\n" + checkpoint
        assert proof_refused(proof)


def test_random_bytes_are_no_proof_checkpoint_bundle_or_log(tmp_path, capsys):
    source = random.Random(3)
    (tmp_path / "log").mkdir()
    for length in (0, 1, 10, 1000, 100_000):
        for file in (tmp_path / "file", tmp_path / "log" / "checkpoint"):
            file.write_bytes(source.randbytes(length))
        for command in ("checkpoint", "proof", "bundle"):
            assert run(capsys, command, tmp_path / "file")[0] == 1
        assert run(capsys, "log", tmp_path / "log")[0] == 1


def test_a_log_whose_bundles_are_cut_or_overlong_is_refused(tmp_path):
    folder = write_log(tmp_path, LOG.directory())
    for data in (b"", b"\0", b"\xff\xff", b"\0\0" * 31, b"\xff" * 17_000_000):
        (folder / "tile/entries/000.p/30").write_bytes(data)
        assert log_refused(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert run(capsys, "checkpoint", tmp_path / "pipe")[0] == 2
    folder = write_log(tmp_path / "log", LOG.directory())
    (folder / "tile/0/000.p/30").unlink()
    os.mkfifo(folder / "tile/0/000.p/30")
    assert run(capsys, "log", folder)[0] == 2


def test_what_a_file_says_does_not_command_the_terminal(capsys, tmp_path):
    (tmp_path / "file").write_text(
        make.sign_text("x\n\x7f\N{RIGHT-TO-LEFT OVERRIDE}\N{PARAGRAPH SEPARATOR}\nx\n", name=make.ORIGIN)
    )
    assert verifier.main(["checkpoint", str(tmp_path / "file"), "--key", KEY]) == 1
    said = capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in said)
    assert "NOT VERIFIED" in said


def test_a_failure_of_the_verifier_itself_is_no_pass(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text(LOG.checkpoint())
    monkeypatch.setattr(verifier, "parse_note", lambda *_: 1 / 0)
    code, told = run(capsys, "checkpoint", tmp_path / "file")
    assert (code, told["verified"]) == (1, False)
    assert "itself failed" in told["problem"]["what"]


# The command line, as people use it


def command(*arguments: object, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", str(VERIFIER), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_verdict_is_said_in_words_and_by_the_exit_code(tmp_path):
    file = tmp_path / "checkpoint"
    file.write_text(LOG.checkpoint())
    right = command("checkpoint", file, "--key", KEY)
    assert right.returncode == 0
    assert right.stdout.splitlines()[-1].startswith("VERIFIED ")
    assert "not checked  checkpoint: that others were shown the same log" in right.stdout
    wrong = command("checkpoint", file, "--key", make.OTHER.verifier.vkey())
    assert wrong.returncode == 1
    assert "NOT VERIFIED" in wrong.stdout
    assert "\nVERIFIED" not in wrong.stdout
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("arguments", [
    (), ("checkpoint",), ("checkpoint", "nothing-here"), ("checkpoint", "nothing-here", "--key", KEY), ("dance", "--key", KEY),
    ("log", "nothing-here", "--key", KEY), ("bundle", "nothing-here", "--key", KEY), ("bundle", ".", "--key", KEY),
    ("log", ".", "--key", KEY), ("bundle", "x", "--key", KEY, "--proof", "y"), ("log", ".", "--key", KEY, "--pruned", "-1"),
    ("checkpoint", "nothing-here", "--key", KEY, "--witness", KEY), ("checkpoint", "nothing-here", "--key", WITNESS_KEYS[0]),
])  # fmt: skip
def test_a_mistake_on_the_command_line_is_exit_code_2(arguments):
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def python39() -> str | None:
    """A Python 3.9 of this machine, if there is one that runs."""
    found = shutil.which("python3.9")
    if found is None:
        return None
    done = subprocess.run(
        [found, "-V"], capture_output=True, text=True, check=False, env={**os.environ, "PYENV_VERSION": "3.9"}
    )
    return found if done.stdout.startswith("Python 3.9.") else None


def test_it_has_no_syntax_that_python_3_9_lacks_and_imports_the_standard_library_only():
    tree = ast.parse(VERIFIER.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names
    assert not names & {
        "socket",
        "ssl",
        "urllib",
        "http",
        "subprocess",
        "asyncio",
        "ftplib",
        "smtplib",
        "ctypes",
        "pickle",
    }


@pytest.mark.skipif(python39() is None, reason="there is no Python 3.9 here")
def test_every_command_runs_on_python_3_9(tmp_path):
    python = str(python39())
    vectors = make.FOLDER
    files = {
        name: verifier.base64.b64decode(text) for name, text in json.loads((vectors / "log.json").read_text()).items()
    }
    folder = write_log(tmp_path / "log", files)
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(
        make.zipped((n, t.encode()) for n, t in json.loads((vectors / "bundle.json").read_text()).items())
    )
    old, new = vectors / "checkpoint-90.txt", vectors / "checkpoint-300.txt"
    for arguments in (
        ("checkpoint", new, "--witness", WITNESS_KEYS[0], "--witness", WITNESS_KEYS[1]),
        ("proof", vectors / "event-103.tlog-proof"), ("log", folder), ("bundle", bundle, "--since-checkpoint", old),
        ("consistency", "--old", old, "--new", new, "--proof", vectors / "consistency-90-300.txt"),
    ):  # fmt: skip
        done = command(*arguments, "--key", KEY, python=python, PYENV_VERSION="3.9")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        wrong = command(*arguments, "--key", make.OTHER.verifier.vkey(), python=python, PYENV_VERSION="3.9")
        assert wrong.returncode == 1
    (folder / "tile/entries/000").write_bytes(files["tile/entries/000"].replace(b"timed_out", b"completed", 1))
    wrong = command("log", folder, "--key", KEY, python=python, PYENV_VERSION="3.9")
    assert wrong.returncode == 1
    assert "position 3" in wrong.stdout


def test_the_key_of_the_tests_is_the_one_that_is_trusted():
    assert verifier.vkey(TRUST.key) == KEY
