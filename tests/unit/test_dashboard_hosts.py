"""What is said to people of a host's own words, and of the address that hosts are given."""

from __future__ import annotations

import pytest

from redflag.web.dashboard.enrol import reach
from redflag.web.dashboard.hosts import describe


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:8080", "here"),
        ("https://localhost:8080", "here"),
        ("http://[::1]:8080", "here"),
        ("http://10.0.0.5:8080", "plain"),
        ("http://redflag.example.org", "plain"),
        ("https://redflag.example.org", ""),
    ],
)
def test_an_address_is_judged_by_who_reaches_it_and_how(url, said):
    assert reach(url) == said


def test_bars_come_from_the_last_check_in_else_from_the_facts_else_from_the_share_alone():
    facts = {"disk_total": 100 * 1024**3, "disk_used": 50 * 1024**3, "memory_total": 16 * 1024**3}
    memory, disk = describe(facts, {"memory_percent": 25.0, "disk_used_gb": 80, "disk_total_gb": 100}).bars
    assert (memory.words, memory.urgency) == ("25 % used", "low")
    assert (disk.words, disk.urgency) == ("80 % used (80.0 GiB of 100 GiB)", "medium")
    memory, disk = describe(facts, {}).bars
    assert memory.words == "16.0 GiB in all, use unknown"
    assert disk.share == 50


def test_a_host_that_says_nothing_has_no_facts_and_no_bars():
    told = describe({}, {})
    assert (told.facts, told.bars, told.others) == ([], [], [])


def test_what_has_no_word_is_shown_by_its_own_name_and_what_is_no_text_is_left_out():
    assert describe({"boot_id": "x", "rack_unit": 4, "nested": {"a": 1}, "empty": "", "flag": True}, {}).others == [
        ("Boot", "x"), ("Rack unit", "4"),
    ]  # fmt: skip
