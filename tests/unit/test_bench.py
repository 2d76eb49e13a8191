"""The benchmarks' results, the plots, and that the page about them says what was measured."""

from __future__ import annotations

import datetime
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import harness, pages, plots, results, scale
from bench.results import Curve, Limit, Result, Run

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def a_run(**changes: object) -> Run:
    """A run of two figures."""
    found = [
        Result(name="a.rate", title="as", value=1234.56, unit="per second", goal=1000, limits=[Limit("bare", 2000.0)],
               costs={"server": 10.0, "postgres": 20.0, "load": 5.0, "wal_bytes": 300.0}, facts={"seen": 1, "why": ""}),
        Result(name="b.p99", title="bs", value=30, unit="ms", goal=25, better="less"),
    ]  # fmt: skip
    began = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    run = Run(machine={"cores": 2, "load_at_start": 0.1}, quick=False, began_at=began, seconds=60, results=found)
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def test_a_figure_is_held_against_its_goal_and_its_limit():
    rate, wait = a_run().results
    assert (rate.ok, rate.ratio, rate.value, rate.goal_text) == (True, 0.6175, 1235.0, "≥ 1,000 per second")
    assert (wait.ok, wait.ratio, wait.goal_text) == (False, None, "≤ 25 ms")
    assert Result(name="c", title="c", value=1, unit="").ok is None


def test_results_are_read_as_they_were_written(tmp_path: Path):
    run = a_run(curves={"c": Curve(title="t", x="x", y="y", lines={"l": [(1.0, 2.0)]})})
    results.write(run, tmp_path / "deep" / "results.json")
    assert results.read(tmp_path / "deep" / "results.json") == run


def test_what_is_measured_again_replaces_what_was_and_keeps_the_rest():
    again = a_run(results=[Result(name="b.p99", title="bs", value=20, unit="ms", goal=25, better="less")])
    merged = results.merge(a_run(), again)
    assert [(one.name, one.ok) for one in merged.results] == [("a.rate", True), ("b.p99", True)]


def test_a_line_says_goal_figure_and_ratio():
    said = harness.line(a_run().results[0])
    assert said.startswith("ok")
    assert "goal ≥ 1,000 per second" in said
    assert "0.62 of bare (2,000)" in said
    assert harness.line(a_run().results[1]).startswith("MISS")


def test_a_quantile_is_the_value_that_so_many_are_not_above():
    values = [float(one) for one in range(1, 101)]
    random.Random(1).shuffle(values)
    assert [harness.quantile(values, part) for part in (0.01, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert harness.quantile([], 0.5) == 0.0


@pytest.mark.parametrize("log", [False, True])
def test_a_plot_is_valid_and_keeps_its_lines_inside_the_axes(log: bool):
    lines = {"one <&>": [(1.0, 3.0), (1000.0, 20_000.0)], "other": [(10.0, 0.5)], "none": []}
    curve = Curve(
        title="a & b", x="x, ms", y="y", lines=lines, log_x=log, log_y=log, marks={"x: goal": 250, "y: most": 100}
    )
    root = ElementTree.fromstring(plots.draw(curve))
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a & b", "x, ms", "y", "one <&>", "other", "goal", "most"} <= set(words)
    for line in root.iter(f"{SVG}polyline"):
        for point in line.attrib["points"].split():
            x, y = (float(part) for part in point.split(","))
            assert plots.LEFT - 1 <= x <= plots.WIDTH - plots.RIGHT + 1
            assert plots.TOP - 1 <= y <= plots.HEIGHT - plots.BOTTOM + 1


def test_the_model_of_waiting_knows_what_a_processor_can_do():
    costs = scale.Costs(50e-6, 200e-6, 10e-6, 300e-6, 0.0)
    idle = scale.simulate(costs, 1, postgres=1, rate=50.0, seconds=4.0)
    # Alone in its statement: 550 µs of processors, and hardly a wait
    assert 0.5 < idle["p50"] < 0.7
    full = scale.simulate(costs, 1, postgres=1, closed=512, seconds=1.0)
    assert 1 / 55e-6 < full["rate"] < 1 / 50e-6
    shared = scale.simulate(costs, 2, shared=2, closed=512, seconds=1.0)
    assert 1.3 * full["rate"] < shared["rate"] < 2 * full["rate"]


def test_the_pages_say_what_the_committed_results_say():
    run = results.read(ROOT / pages.DATA)
    for place, text in pages.texts(run).items():
        assert (ROOT / place).read_text() == text, f"{place}: run `python tests/bench/run.py --pages --to {pages.DATA}`"
        if place.suffix == ".svg":
            ElementTree.fromstring(text)
