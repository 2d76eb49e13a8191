"""The report as people see it: hostile text stays text, every character is shown or named, and nothing comes from outside."""

from __future__ import annotations

import dataclasses
import datetime
import html.parser
import io
import uuid
from typing import Any

import pypdf
import pytest

from redflag.audit import controls, report_pages, report_pdf
from redflag.audit.report import Checkpoint, Completeness, Listed, Report

NOW = datetime.datetime(2030, 1, 31, 12, 0, 0, 250_000, datetime.UTC)
HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> \"'& {{ 7*7 }} {% raw %}"
NONE = Listed([], 0)


def _timeout(agent: str = "host", **changes: Any) -> dict[str, Any]:
    return {
        "timed_out_at": NOW, "command_id": uuid.UUID(int=1), "command_type": "scan_updates", "agent_id": uuid.UUID(int=2), "agent": agent,
        "sent_at": NOW, "stuck_seconds": 7203.4, "reason": "no_response", "allowed": "2 h", "detected_by": "timeout@r",
        "reported_at": NOW + datetime.timedelta(minutes=47), "reported": "success", "reports": 2,
        "retried_as": uuid.UUID(int=3), "retried_at": NOW, "retry_status": "completed", "retries": 3, "retried_by": "user:bob",
    } | changes  # fmt: skip


def _happened(message: str, actor: str = "user:ada") -> dict[str, Any]:
    return {"executed_at": NOW, "actor": actor, "action": "x", "result": "success", "message": message, "address": None}


def _report(**changes: Any) -> Report:
    made = Report(
        origin="log.example/log", key="log.example/log+00000000+AQ==", version="1", made_at=NOW, since=NOW - datetime.timedelta(days=30),
        until=NOW, filters={}, completeness=Completeness(0, 0, 0, None, None, 0, 0, 0, None, None, []), commands=NONE,
        timeouts_by_reason=NONE, timeouts=NONE, activity=NONE, agents_seen=0, refused_names=NONE, refused_addresses=NONE,
        decisions=NONE, changes=NONE, custody=NONE, service=NONE,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def _everywhere(text: str) -> Report:
    """A report with this text wherever somebody else's text can stand."""
    activity = {"actor": text, "action": text, "result": "success", "times": 1, "first_at": NOW, "last_at": NOW}
    decision = {
        "executed_at": NOW, "actor": text, "agent": text, "agent_id": None, "package_name": text, "update_id": None,
        "old_status": text, "new_status": text, "approved_version": text, "reason": text,
    }  # fmt: skip
    address = {"address": text, "without_name": 1, "with_name": 1, "first_at": NOW, "last_at": NOW, "last_asked": text}
    name = {
        "actor": text,
        "action": text,
        "minutes": 1,
        "addresses": 1,
        "first_at": NOW,
        "last_at": NOW,
        "last_message": text,
    }
    command = dict.fromkeys(
        ("enqueued", "success", "partial", "failed", "error", "timed_out", "cancelled", "late_results", "forced"), 1
    )
    fsck = {"executed_at": NOW, "actor": text, "result": "failed", "message": text, "metadata": None}
    cosigned = [{"witness": text, "cosigned_at": NOW}]
    return _report(
        origin=text, key=text, filters={"actor": text},
        completeness=Completeness(1, 1, 0, 0, 0, 1, 0, 1, Checkpoint(1, "00", NOW, cosigned), fsck, []),
        commands=Listed([command | {"command_type": text}], 1),
        timeouts_by_reason=Listed(
            [{"command_type": text, "reason": text, "timeouts": 1, "median_stuck_seconds": None, "longest_stuck_seconds": 1.0,
              "reported_later": 0, "retried": 0}], 1),
        timeouts=Listed([_timeout(text, command_type=text, reason=text, retried_by=text)], 1),
        activity=Listed([activity], 1), refused_names=Listed([name], 1), refused_addresses=Listed([address], 1),
        decisions=Listed([decision], 1), changes=Listed([_happened(text, text)], 1), custody=Listed([_happened(text, text)], 1),
        service=Listed([_happened(text, text)], 1),
    )  # fmt: skip


class _Page(html.parser.HTMLParser):
    """What is in a page: its elements, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _words(report: Report) -> str:
    """The text of the PDF, without spaces: lines are broken anywhere."""
    pages = pypdf.PdfReader(io.BytesIO(report_pdf.pdf(report))).pages
    return "".join("".join(page.extract_text().split()) for page in pages)


def test_hostile_text_is_text_and_no_markup() -> None:
    page = _Page(report_pages.html(_everywhere(HOSTILE)))
    assert page.open == []
    assert page.text.count(HOSTILE) > 20
    elements = {tag for tag, _ in page.elements}
    assert not elements & {"script", "img", "iframe", "link", "object", "svg", "form", "base"}
    assert elements == {tag for tag, _ in _Page(report_pages.html(_everywhere("plain"))).elements}


def test_nothing_comes_from_outside_and_nothing_runs() -> None:
    page = _Page(report_pages.html(_everywhere(HOSTILE)))
    for tag, attributes in page.elements:
        assert not attributes.keys() & {"src", "srcset", "style", "background", "action"}, tag
        assert not any(name.startswith("on") for name in attributes)
        assert all(value and value.startswith("#") for name, value in attributes.items() if name == "href")
    policies = [
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    style = report_pages.html(_report()).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_can_be_read_by_those_who_do_not_see_it() -> None:
    page = _Page(report_pages.html(_everywhere("x")))
    by_tag = [tag for tag, _ in page.elements]
    assert page.elements[0] == ("html", {"lang": "en"})
    assert by_tag.count("h1") == by_tag.count("main") == by_tag.count("title") == 1
    assert by_tag.count("caption") == by_tag.count("table") == 11
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.elements if tag == "th")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {attributes["href"] for tag, attributes in page.elements if tag == "a"} == {f"#{one}" for one in ids}
    assert {attributes["aria-labelledby"] for tag, attributes in page.elements if tag == "section"} == set(ids)


def test_characters_that_cannot_be_seen_or_turn_the_text_around_are_named() -> None:
    assert report_pages.visible("a\u202eb\x1b[31m\x07c\ufeff") == "a\\u202eb\\u001b[31m\\u0007c\\ufeff"
    assert report_pages.visible("two\nlines, \u6f22\u5b57 and \U0001f6a9") == "two\nlines, \u6f22\u5b57 and \U0001f6a9"
    assert report_pages.visible(None) == ""
    assert "\u202e" not in report_pages.html(_everywhere("a\u202eb"))


SHOWN = {
    "caf\u00e9 \u20ac": "caf\u00e9\u20ac",
    "viewer \u2192 admin": "viewer\u2192admin",
    "\u6f22\u5b57": "\\u6f22\\u5b57",
    "\U0001f6a9": "\\U0001f6a9",
    "a\u202eb\x1bc": "a\\u202eb\\u001bc",
    HOSTILE: "".join(HOSTILE.split()),
    "one\n<b>two</b>\n": "one<b>two</b>",
    "<font face='none'>&unknown;</para>": "<fontface='none'>&unknown;</para>",
}


def test_the_pdf_shows_every_character_or_its_number() -> None:
    words = _words(_report(service=Listed([_happened(text) for text in SHOWN], len(SHOWN))))
    for shown in SHOWN.values():
        assert shown in words
    assert _words(_everywhere(HOSTILE)).count("".join(HOSTILE.split())) > 15


def test_the_pdf_takes_whatever_a_host_can_send() -> None:
    every = "".join(chr(one) for one in range(1, 0x3000) if not 0xD800 <= one < 0xE000)
    reader = pypdf.PdfReader(
        io.BytesIO(report_pdf.pdf(_report(service=Listed([_happened(every), _happened("x" * 100_000)], 2))))
    )
    assert len(reader.pages) >= 3


def test_a_long_list_is_shorter_on_paper_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_pdf, "MOST", 20)
    rows = [_timeout(f"host-{i}") for i in range(report_pdf.MOST + 1)]
    words = _words(_report(timeouts=Listed(rows, 12_345)))
    assert f"host-{report_pdf.MOST - 1}" in words
    assert f"host-{report_pdf.MOST}" not in words
    assert f"Thefirst{report_pdf.MOST}here.Inreport.html:Thefirst{report_pdf.MOST + 1}of12,345;" in words
    page = report_pages.html(_report(timeouts=Listed(rows, 12_345)))
    assert f"The first {len(rows)} of 12,345; the evidence bundle of the period has all." in page


def test_what_became_of_a_timeout_is_said_in_a_sentence() -> None:
    page = _Page(report_pages.html(_report(timeouts=Listed([_timeout()], 1)))).text
    assert "2 h 0 min" in page
    assert (
        "the agent reported success 47 min 0 s later (2 reports); retried 2030-01-31 12:00:00 UTC by user:bob as "
        "00000000-0000-0000-0000-000000000003, the first of 3 retries: completed now"
    ) in page


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, ""),
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3600, "1 h 0 min"),
        (7203, "2 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_lengths_of_time_are_said_in_two_units(seconds: float | None, told: str) -> None:
    assert report_pages.length(seconds) == told


def test_every_section_that_a_control_points_to_is_in_the_report() -> None:
    titles = {section.title for section in report_pages.sections(_report())}
    named = {controls.COMPLETENESS, controls.COMMANDS, controls.TIMEOUTS, controls.ACTIVITY, controls.REFUSED, controls.DECISIONS,
             controls.CHANGES, controls.CUSTODY, controls.SERVICE}  # fmt: skip
    assert named <= titles
    for name in named:
        assert any(name in one.evidence for one in controls.CONTROLS), name


def test_every_control_says_what_is_not_covered() -> None:
    for one in controls.CONTROLS:
        assert one.asks
        assert one.evidence
        assert one.not_covered.endswith(".")
    ids = {one.id for one in controls.CONTROLS}
    assert {"10.2.1", "10.2.2", "10.3.2", "10.3.4", "A.8.15", "AU-3", "CC7.2"} <= ids
    assert len(ids) == len(controls.CONTROLS)


def test_a_finding_stands_where_it_is_seen() -> None:
    found = Completeness(3, 2, 0, 0, 2, 2, 512, 1, None, None, ["positions are missing, the first of them 1"])
    page = report_pages.html(_report(completeness=found))
    assert "<dt>Gaps</dt><dd>positions are missing, the first of them 1</dd>" in page
    assert "positions 0 to 511, whenever they were recorded" in page
    assert "<dt>Gaps</dt><dd>none</dd>" in report_pages.html(_report())
