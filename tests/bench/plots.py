"""Plots as SVG, readable on light and on dark pages: axes with units, lines with their names beside them."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from bench.results import Curve

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 52
# Distinguishable with any eyes, and on white and on black (Okabe and Ito's, a little darkened)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a65a89", "#b07d00")
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #444 } .title { font-size: 14px; font-weight: 600; fill: #222 }
  .grid { stroke: #8884; stroke-width: 1 } .axis { stroke: #888; stroke-width: 1 }
  .mark { stroke: #c00; stroke-width: 1; stroke-dasharray: 5 4 }
  .marked { fill: #c00 } .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) { text { fill: #bbb } .title { fill: #eee } .mark { stroke: #f66 } .marked { fill: #f66 } }
"""


def draw(curve: Curve) -> str:
    """The plot of a curve, as an SVG document."""
    points = [point for line in curve.lines.values() for point in line]
    marks = [_mark(text, value) for text, value in curve.marks.items()]
    x = _Axis(
        [one for one, _ in points] + [value for axis, _, value in marks if axis == "x"],
        curve.log_x,
        LEFT,
        WIDTH - RIGHT,
    )
    y = _Axis(
        [one for _, one in points] + [value for axis, _, value in marks if axis == "y"],
        curve.log_y,
        HEIGHT - BOTTOM,
        TOP,
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve.title)}">',
        f"<title>{escape(curve.title)}</title><style>{STYLE}</style>",
        _text(LEFT, 22, curve.title, css="title"),
    ]
    for tick in x.ticks():
        at = x.place(tick)
        parts += [_stroke(at, TOP, at, HEIGHT - BOTTOM, "grid"), _text(at, HEIGHT - BOTTOM + 18, _said(tick), "middle")]
    for tick in y.ticks():
        at = y.place(tick)
        parts += [_stroke(LEFT, at, WIDTH - RIGHT, at, "grid"), _text(LEFT - 8, at + 4, _said(tick), "end")]
    parts += [
        _stroke(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"),
        _stroke(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "axis"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, curve.x, "middle"),
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(curve.y)}</text>',
    ]
    for axis, text, value in marks:
        if axis == "x":
            at = x.place(value)
            parts += [_stroke(at, TOP, at, HEIGHT - BOTTOM, "mark"), _text(at - 4, TOP + 14, text, "end", "marked")]
        else:
            at = y.place(value)
            parts += [_stroke(LEFT, at, WIDTH - RIGHT, at, "mark"), _text(LEFT + 6, at - 5, text, "start", "marked")]
    parts += _lines(curve, x, y)
    return "\n".join([*parts, "</svg>", ""])


def _lines(curve: Curve, x: _Axis, y: _Axis) -> list[str]:
    """The lines, each with its name at its end; names that would cover each other are moved apart."""
    parts, ends = [], []
    for number, (name, line) in enumerate(curve.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x.place(one), y.place(other)) for one, other in line]
        if not places:
            continue
        path = " ".join(f"{one:.1f},{other:.1f}" for one, other in places)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        if len(places) <= 20:
            parts += [f'<circle cx="{one:.1f}" cy="{other:.1f}" r="3" fill="{colour}"/>' for one, other in places]
        ends.append([places[-1][1] + 4, places[-1][0] + 8, name, colour])
    last, beside = -math.inf, -math.inf
    for at, left, name, colour in sorted(ends, key=lambda one: one[0]):
        rows = _wrapped(str(name), 20)
        top = float(at) - 7 * (len(rows) - 1)
        if abs(float(left) - beside) < RIGHT:
            top = max(top, last + 16)
        for row, words in enumerate(rows):
            parts.append(
                f'<text x="{float(left):.1f}" y="{top + 14 * row:.1f}" style="fill:{colour}">{escape(words)}</text>'
            )
        last, beside = top + 14 * (len(rows) - 1), float(left)
    return parts


class _Axis:
    """Values along one axis, from the place `low` to the place `high` of the picture."""

    def __init__(self, values: list[float], log: bool, low: float, high: float) -> None:
        self.log = log and all(value > 0 for value in values)
        self.low, self.high = low, high
        values = values or [0.0, 1.0]
        if self.log:
            self.begin, self.end = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
            self.end = max(self.end, self.begin + 1)
        else:
            self.begin, self.end = min(0.0, *values), max(values) * 1.02 or 1.0

    def place(self, value: float) -> float:
        """Where a value is."""
        at = math.log10(value) if self.log else value
        return self.low + (self.high - self.low) * (at - self.begin) / (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round values to be written at the axis."""
        if self.log:
            return [10.0**power for power in range(int(self.begin), int(self.end) + 1)]
        step = 10.0 ** math.floor(math.log10((self.end - self.begin) / 4))
        step *= next(one for one in (1, 2, 5, 10) if (self.end - self.begin) / (step * one) <= 6)
        count = math.floor(self.end / step + 1e-9)
        return [round(step * number, 10) for number in range(count + 1)]


def _mark(text: str, value: float) -> tuple[str, str, float]:
    axis, _, words = text.partition(": ")
    return axis, words, value


def _said(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:g}M"
    if value >= 10_000:
        return f"{value / 1e3:g}k"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _wrapped(text: str, width: int) -> list[str]:
    rows: list[str] = []
    for word in text.split():
        if rows and len(rows[-1]) + 1 + len(word) <= width:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    return rows or [""]


def _text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    css = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{escape(words)}</text>'


def _stroke(x: float, y: float, to_x: float, to_y: float, css: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" class="{css}"/>'
