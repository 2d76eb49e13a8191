"""A scan's items are judged one by one."""

from __future__ import annotations

from typing import Any

import pytest

from redflag.updates.inventory import examine
from redflag.updates.outcomes import because

GOOD: dict[str, Any] = {"package_type": "apt", "package_name": "curl", "current_version": "1", "available_version": "2"}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "curl",
        [1, 2],
        7,
        {},
        {"package_type": "apt"},
        GOOD | {"package_name": ""},
        GOOD | {"package_name": 5},
        GOOD | {"package_name": "cu\x00rl"},
        GOOD | {"package_name": "c" * 501},
        GOOD | {"package_type": None},
        GOOD | {"package_type": "t" * 51},
        GOOD | {"available_version": ["2"]},
        GOOD | {"available_version": "2" * 501},
        GOOD | {"current_version": "1\x00"},
        GOOD | {"severity": 3},
        GOOD | {"cve_list": "CVE-2026-1"},
        GOOD | {"cve_list": [None]},
        GOOD | {"cve_list": ["CVE\x002026"]},
        GOOD | {"size_bytes": -1},
        GOOD | {"size_bytes": "12"},
        GOOD | {"size_bytes": 2**63},
        GOOD | {"size_bytes": 1.5},
        GOOD | {"size_bytes": True},
        GOOD | {"metadata": [1]},
        GOOD | {"metadata": {"note": "x" * 20_000}},
    ],
)
def test_a_bad_item_is_told_and_never_loses_the_others(bad: Any) -> None:
    scan = examine([GOOD, bad, GOOD | {"package_name": "vim"}], [])
    assert [one["index"] for one in scan.rejected] == [1]
    assert scan.rejected[0]["error"]
    assert set(scan.packages) == {("apt", "curl"), ("apt", "vim")}
    assert scan.count == 2


@pytest.mark.parametrize(
    "odd",
    [
        GOOD
        | {
            "cve_list": None,
            "metadata": None,
            "size_bytes": None,
            "kb_id": None,
            "severity": None,
            "repository_source": None,
        },
        GOOD | {"available_version": ""},
        GOOD | {"severity": "sehr dringend"},
        GOOD | {"package_description": "d\x00" + "x" * 10_000},
        GOOD | {"some_new_field": {"of": "a newer agent"}},
        GOOD | {"metadata": {"a\x00b": "c\x00", "deep": [{"x": "\x00"}]}},
    ],
)
def test_an_odd_item_is_kept(odd: Any) -> None:
    scan = examine([odd], [])
    assert scan.rejected == []
    package = scan.packages["apt", "curl"]
    assert "\x00" not in f"{package.description}{package.metadata}"


def test_an_unknown_severity_is_kept_verbatim() -> None:
    package = examine([GOOD | {"severity": "sehr dringend"}], []).packages["apt", "curl"]
    assert (package.severity, package.metadata) == ("unknown", {"reported_severity": "sehr dringend"})


def test_credentials_of_a_repository_are_not_kept() -> None:
    told = GOOD | {
        "repository_source": "https://ada:hunter2@repo.example/",
        "metadata": {"api_key": "hunter2", "n": 1, "s": "token=hunter2"},
    }
    package = examine([told], []).packages["apt", "curl"]
    assert "hunter2" not in f"{package.repository_source}{package.metadata}"


def test_of_two_items_with_one_name_the_last_holds() -> None:
    scan = examine([GOOD, GOOD | {"available_version": "3"}], [])
    assert scan.count == 2
    assert scan.packages["apt", "curl"].available_version == "3"


def test_a_type_is_complete_if_it_is_said_to_be_or_nothing_is_said_and_it_is_listed() -> None:
    assert examine([GOOD], []).complete == {"apt"}
    assert examine([GOOD], ["docker_image"]).complete == {"docker_image"}
    assert examine([], ["apt", "dnf"]).complete == {"apt", "dnf"}


def test_a_rejected_item_is_listed_all_the_same() -> None:
    scan = examine([GOOD, GOOD | {"package_name": "vim", "size_bytes": -1}], ["apt"])
    assert scan.spared == [("apt", "vim")]
    assert scan.complete == {"apt"}


def test_an_item_without_a_name_leaves_its_type_incomplete() -> None:
    assert examine([GOOD, {"package_type": "apt"}], ["apt", "dnf"]).complete == {"dnf"}
    assert examine([GOOD, 7], ["apt", "dnf"]).complete == set()


@pytest.mark.parametrize(
    ("message", "stderr", "reason"),
    [
        ("no space left", "E: more", "it failed: no space left"),
        ("", "\n  \nE: broken packages\nmore", "it failed: E: broken packages"),
        ("", "", "it failed"),
        ("password=hunter2", "", "it failed: password=[redacted]"),
    ],
)
def test_a_reason_is_one_line_without_secrets(message: str, stderr: str, reason: str) -> None:
    assert because("it failed", message, stderr) == reason
