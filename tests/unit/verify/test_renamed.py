"""A log that was closed and goes on under another name: what an older checkpoint of it still shows."""

from __future__ import annotations

import base64

import pytest

from redflag.audit.checkpoint import Signer
from unit.verify.helpers import make, run, verifier

LOG = make.Log.of(make.records(30))
OLD = Signer("old.example/log", make.LOG_KEY)


def _head(size, signer=make.SIGNER, *lines):
    return signer.sign(size, base64.b64decode(LOG.checkpoint(size).split("\n")[2]), lines)


def _previous(size, name=OLD.verifier.name):
    return f"previous {name} {size} {LOG.checkpoint(size).split(chr(10))[2]}"


def _compare(capsys, tmp_path, old, new):
    size = int(old.split("\n")[1])
    files = {"old": old, "new": new, "proof": make.consistency_file(size, LOG.reader().consistency(size))}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return run(
        capsys, "consistency", "--old", tmp_path / "old", "--new", tmp_path / "new", "--proof", tmp_path / "proof"
    )


def test_a_checkpoint_of_the_closed_log_is_continued_if_the_new_one_says_so_and_it_is_true(capsys, tmp_path):
    code, told = _compare(capsys, tmp_path, _head(10, OLD), _head(30, make.SIGNER, _previous(12)))
    assert code == 0, told
    assert (
        f"{make.ORIGIN} says that it goes on from old.example/log, which was closed with 12 entries" in told["checked"]
    )
    assert any("what it says of a log before it: previous old.example/log 12" in line for line in told["not_checked"])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "is of another log"),
        ([_previous(12, "other.example/log")], "is of another log"),
        ([_previous(12).replace("previous", "abandoned")], "is of another log"),
        ([_previous(12).replace(" 12 ", " 012 ")], "is of another log"),
        ([_previous(12) + " more"], "is of another log"),
        ([_previous(9)], "what came after them was given up"),
    ],
)
def test_a_checkpoint_of_another_log_is_not(capsys, tmp_path, lines, problem):
    code, told = _compare(capsys, tmp_path, _head(10, OLD), _head(30, make.SIGNER, *lines))
    assert code == 1
    assert problem in told["problem"]["what"]


def test_a_tree_that_is_another_one_is_found_whatever_the_log_was_called(capsys, tmp_path):
    forged = OLD.sign(10, bytes(32))
    code, told = _compare(capsys, tmp_path, forged, _head(30, make.SIGNER, _previous(12)))
    assert code == 1
    assert "does not begin with the older one" in told["problem"]["what"]


def test_another_key_is_not_the_logs_under_any_name(capsys, tmp_path):
    stranger = Signer(OLD.verifier.name, make.private_key("another log"))
    code, told = _compare(capsys, tmp_path, _head(10, stranger), _head(30, make.SIGNER, _previous(12)))
    assert code == 1
    assert "not signed by old.example/log" in told["problem"]["what"]


def test_lines_that_have_no_meaning_are_counted(capsys, tmp_path):
    (tmp_path / "head").write_text(_head(30, make.SIGNER, _previous(12), "previous x", "something else"))
    code, told = run(capsys, "checkpoint", tmp_path / "head")
    assert code == 0
    assert "checkpoint: its 2 extension lines have no meaning here" in told["not_checked"]


def test_an_extension_is_one_line(capsys):
    for line in ("", "two\nlines"):
        with pytest.raises(ValueError, match="one line"):
            make.SIGNER.sign(0, verifier.EMPTY_ROOT, [line])
