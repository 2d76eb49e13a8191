"""Quantiles are never too small, and at most 0.8 % or a microsecond too large; histograms add up."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from redflag.simulation.histogram import LONGEST_SECONDS, Histogram

SECONDS = st.floats(min_value=0, max_value=LONGEST_SECONDS, allow_nan=False)
LISTS = st.lists(SECONDS, min_size=1, max_size=300)
PARTS = st.floats(min_value=0, max_value=1, allow_nan=False)


def _of(seconds: list[float]) -> Histogram:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram


def _true(seconds: list[float], part: float) -> float:
    return sorted(seconds)[max(1, math.ceil(part * len(seconds))) - 1]


@given(LISTS, PARTS)
def test_a_quantile_is_that_of_the_values_to_two_significant_digits(seconds: list[float], part: float) -> None:
    found, true = _of(seconds).quantile(part), _true(seconds, part)
    # The values themselves are cut to microseconds
    assert true - 1e-6 <= found <= true * (1 + 1 / 128) + 1e-6


@given(LISTS, LISTS)
def test_what_is_put_together_is_as_if_one_had_counted_all(first: list[float], second: list[float]) -> None:
    whole, merged = _of(first + second), _of(first)
    merged.merge(_of(second).pack())
    for part in (0.0, 0.5, 0.99, 1.0):
        assert merged.quantile(part) == whole.quantile(part)
    assert (merged.total, merged.largest) == (whole.total, whole.largest)
    assert math.isclose(merged.mean, whole.mean)
    other = _of(first)
    other.merge(_of(second))
    assert other.summary() == merged.summary()


@given(LISTS)
def test_the_largest_is_exact_and_the_last_quantile(seconds: list[float]) -> None:
    histogram = _of(seconds)
    assert histogram.largest == max(seconds)
    assert histogram.quantile(1.0) <= max(seconds)


def test_an_empty_one_says_nothing_took_any_time() -> None:
    assert Histogram().quantile(0.99) == 0
    assert Histogram().mean == 0
    assert Histogram().summary()["count"] == 0


def test_what_is_below_zero_or_over_an_hour_is_counted_at_the_end() -> None:
    histogram = _of([-1.0, 5 * LONGEST_SECONDS])
    assert histogram.total == 2
    assert histogram.quantile(0.5) == 0
    assert LONGEST_SECONDS <= histogram.quantile(1.0) <= LONGEST_SECONDS * (1 + 1 / 128)
