"""The house is as its plan says: a line for each folder, and none for what is not there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^\| `([^`]+/)` \| (.+) \|$", re.MULTILINE)


def _folders() -> set[str]:
    """Every folder under src, tests, docs and verify that holds files which are kept."""
    found = set()
    for top in ("src", "tests", "docs", "verify"):
        for path in (ROOT / top).rglob("*"):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and not any(
                part.startswith((".", "__")) or part.endswith(".egg-info") or part == "built" for part in parts[:-1]
            ):
                found.add("/".join(parts[:-1]) + "/")
    return found - {"src/"}


def _described() -> dict[str, str]:
    return dict(LINE.findall((ROOT / "ARCHITECTURE.md").read_text()))


def test_every_folder_has_its_line_in_the_architecture():
    assert sorted(_folders() - set(_described())) == []


def test_the_architecture_names_no_folder_that_is_not_there():
    assert sorted(set(_described()) - _folders()) == []


def test_no_line_of_the_architecture_is_empty_or_said_twice():
    lines = LINE.findall((ROOT / "ARCHITECTURE.md").read_text())
    assert len({folder for folder, _ in lines}) == len(lines)
    assert all(len(text) > 10 for _, text in lines)


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md")) + sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))  # fmt: skip
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_files_are_named_for_one_subject_and_stay_small():
    large = {
        path.relative_to(ROOT).as_posix(): lines
        for path in (ROOT / "src").rglob("*.py")
        # The verifier is one file on purpose, and only linked to from src
        if not path.is_symlink() and (lines := len(path.read_text().splitlines())) > 520
    }
    assert large == {}


def test_no_page_or_file_names_a_registry_or_carries_a_secret():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    hosts = re.compile(
        r"(?:files\.pythonhosted|pypi\.python|registry\.npmjs|deb\.debian|proxy\.golang|static\.crates)\.?org?",
        re.IGNORECASE,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".svg"} or path == Path(__file__) or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        assert not hosts.search(text), name
        if name.startswith("requirements/"):
            assert "://" not in text, name
