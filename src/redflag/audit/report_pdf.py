"""The compliance report as PDF, from the same sections as the HTML.

The font is the one that comes with reportlab, so that the result is the same everywhere. It has the letters of western
Europe, and PDF's own Symbol has arrows and Greek; any other character is shown by its number (`\\u6f22`). The HTML has every
character, and longer lists.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape as markup

import reportlab
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import CondPageBreak, Flowable, LongTable, Paragraph, SimpleDocTemplate, Spacer, TableStyle

from redflag.audit import report_pages
from redflag.audit.report import Report
from redflag.audit.report_pages import Section, Table

# Rows of a table: laying them out is slow, and nobody reads more of them on paper
MOST = 250
# A cell is one piece of a page at the most
LONGEST = 1500
_WIDTH = landscape(A4)[0] - 28 * mm
# A column is made as wide as its longest word, if that is no longer than an id; what is longer is broken
_LONGEST_WORD = 165.0
_PADDING = 7.0
_FONTS = {"RedFlagSans": "Vera.ttf", "RedFlagSans-Bold": "VeraBd.ttf"}


@functools.lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    """Registers the fonts, and tells which characters they have."""
    folder = Path(reportlab.__file__).parent / "fonts"
    known = []
    for name, file in _FONTS.items():
        font = TTFont(name, folder / file)
        pdfmetrics.registerFont(font)
        known.append(frozenset(font.face.charToGlyph))
    return known[0] & known[1]


def _style(name: str, size: float, **more: Any) -> ParagraphStyle:
    font = "RedFlagSans-Bold" if more.pop("bold", False) else "RedFlagSans"
    return ParagraphStyle(name, fontName=font, fontSize=size, leading=size * 1.3, **more)


_TITLE = _style("title", 18, bold=True)
_HEADING = _style("heading", 13, bold=True, spaceBefore=14, spaceAfter=4)
_CAPTION = _style("caption", 9, bold=True, spaceBefore=8, spaceAfter=3)
_BODY = _style("body", 9, spaceAfter=4)
_CELL = _style("cell", 7, splitLongWords=1)
_RIGHT = _style("right", 7, alignment=2)
_HEAD = _style("head", 7, bold=True)
_LINES = TableStyle(
    [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#c9c9c9")),
        ("LINEBELOW", (0, 0), (-1, 0), 0.75, colors.HexColor("#555555")),
        ("LEFTPADDING", (0, 0), (-1, -1), 2),
        ("RIGHTPADDING", (0, 0), (-1, -1), 4),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ]
)


def pdf(report: Report) -> bytes:
    """The report as PDF. Takes up to some seconds, all of them computing."""
    _characters()
    made = io.BytesIO()
    name, period = report_pages.title(report), report_pages.period(report)

    def footer(canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont("RedFlagSans", 7)
        canvas.drawString(14 * mm, 8 * mm, _known(f"{name}, {period}")[:200])
        canvas.drawRightString(landscape(A4)[0] - 14 * mm, 8 * mm, f"page {document.page}")
        canvas.restoreState()

    flow: list[Flowable] = [Paragraph(_text(name), _TITLE), Spacer(1, 4), Paragraph(_text(period), _BODY)]
    for section in report_pages.sections(report):
        flow += _section(section)
    SimpleDocTemplate(
        made, pagesize=landscape(A4), leftMargin=14 * mm, rightMargin=14 * mm, topMargin=14 * mm, bottomMargin=16 * mm,
        title=_known(f"{name}, {period}"), author=f"redflag {report.version}", lang="en",
    ).build(flow, onFirstPage=footer, onLaterPages=footer)  # fmt: skip
    return made.getvalue()


def _section(section: Section) -> list[Flowable]:
    flow: list[Flowable] = [CondPageBreak(45 * mm), Paragraph(_text(section.title), _HEADING)]
    flow += [Paragraph(_text(one), _BODY) for one in section.paragraphs]
    if section.facts:
        rows = [[Paragraph(_text(name), _HEAD), Paragraph(_text(value), _CELL)] for name, value in section.facts]
        flow.append(LongTable(rows, colWidths=[50 * mm, _WIDTH - 50 * mm], style=_LINES))
    for table in section.tables:
        flow += _table(table)
    return flow


def _table(table: Table) -> list[Flowable]:
    note = table.note
    if len(table.rows) > MOST:
        note = f"The first {MOST} here. In report.html: {note or f'all {len(table.rows):,}.'}"
    if not table.rows:
        return [Paragraph(f"{_text(table.caption)}: {_text(note)}", _BODY)]
    rows = [[Paragraph(_text(name), _HEAD) for name in table.columns]]
    rows += [
        [Paragraph(_text(cell), _RIGHT if place in table.right else _CELL) for place, cell in enumerate(row)]
        for row in table.rows[:MOST]
    ]
    flow: list[Flowable] = [
        CondPageBreak(30 * mm),
        Paragraph(_text(table.caption), _CAPTION),
        LongTable(rows, colWidths=_widths(table), style=_LINES, repeatRows=1),
    ]
    return [*flow, Paragraph(_text(note), _BODY)] if note else flow


def _widths(table: Table) -> list[float]:
    """The columns' widths in points: each at least as wide as its longest word, within bounds, and the rest by what it holds."""
    least, wanted = [], []
    for place, name in enumerate(table.columns):
        texts = [name, *(row[place][:LONGEST] for row in table.rows[:MOST])]
        words = {word for text in texts for word in text.split()[:50]}
        least.append(min(_LONGEST_WORD, max(map(_wide, words), default=0)) + _PADDING)
        wanted.append(max(least[-1], min(2 * _LONGEST_WORD, max(map(_wide, texts))) + _PADDING))
    if sum(least) >= _WIDTH or sum(wanted) == sum(least):
        return [_WIDTH * one / sum(least) for one in least]
    share = (_WIDTH - sum(least)) / (sum(wanted) - sum(least))
    return [one + (other - one) * share for one, other in zip(least, wanted, strict=True)]


def _wide(text: str) -> float:
    """How wide a text is in a cell: all of its letters as wide as bold ones, as a heading is."""
    return float(pdfmetrics.stringWidth(_known(text), "RedFlagSans-Bold", _CELL.fontSize))


def _text(value: str) -> str:
    """A text as reportlab's markup: what the font lacks by number, one line after the other, and not longer than a page."""
    value = value if len(value) <= LONGEST else f"{value[:LONGEST]} […]"
    if value.isascii():
        return markup(value).replace("\n", "<br/>")
    known = _characters()
    pieces = (
        markup(one) if ord(one) in known or one == "\n" else _symbol(one) or report_pages.escape(one) for one in value
    )
    return "".join(pieces).replace("\n", "<br/>")


def _symbol(character: str) -> str:
    """A character in the font Symbol, if that has it."""
    try:
        character.encode("SymbolEncoding")
    except UnicodeEncodeError:
        return ""
    return f'<font face="Symbol">{character}</font>'


def _known(value: str) -> str:
    """A text outside markup."""
    known = _characters()
    return "".join(one if ord(one) in known else report_pages.escape(one) for one in value)
