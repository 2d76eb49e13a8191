"""Durations counted in buckets, so that millions of them take no room and those of several processes can be put together.

As in HdrHistogram: buckets of equal width within each power of two, 128 of them, so that a quantile is never too small and at most
one part in 128 (0.8 %: two significant digits) or a microsecond too large, whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

_BITS = 7
_HALF = 1 << _BITS
LONGEST_SECONDS = 3600.0
_LONGEST = int(LONGEST_SECONDS * 1e6)


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A histogram on its way between processes: counts by bucket."""

    counts: dict[int, int]
    sum: float
    largest: float


class Histogram:
    """How often which duration was seen. Durations are in seconds; a negative one counts as none, one over an hour as an hour."""

    __slots__ = ("_counts", "largest", "sum", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0
        self.sum = 0.0
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        micros = int(seconds * 1e6)
        if micros < 2 * _HALF:
            bucket = max(micros, 0)
        else:
            shift = min(micros, _LONGEST).bit_length() - _BITS - 1
            bucket = (shift << _BITS) + (min(micros, _LONGEST) >> shift)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.total += 1
        self.sum += seconds
        if seconds > self.largest:  # noqa: PLR1730 - a call costs as much as all of the rest
            self.largest = seconds

    def merge(self, other: Histogram | Packed) -> None:
        """Adds all that the other has counted."""
        counts = other.counts if isinstance(other, Packed) else other._counts
        for bucket, count in counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
            self.total += count
        self.sum += other.sum
        self.largest = max(self.largest, other.largest)

    def quantile(self, part: float) -> float:
        """The duration that so large a part of all was not above (nearest rank), in seconds; 0 if there is none. `part` is 0 to 1."""
        if not self.total:
            return 0.0
        rank, seen = max(1, math.ceil(part * self.total)), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(_highest(bucket) / 1e6, self.largest)
        return self.largest

    @property
    def mean(self) -> float:
        """The mean, in seconds; 0 if there is none."""
        return self.sum / self.total if self.total else 0.0

    def pack(self) -> Packed:
        """What is sent to another process."""
        return Packed(dict(self._counts), self.sum, self.largest)

    def summary(self) -> Mapping[str, float]:
        """What a report says of it, in milliseconds."""
        quantiles = {f"p{text}_ms": self.quantile(part) for text, part in
                     (("50", 0.5), ("90", 0.9), ("99", 0.99), ("99_9", 0.999))}  # fmt: skip
        told = {"mean_ms": self.mean, **quantiles, "most_ms": self.largest}
        return {"count": self.total, **{name: round(value * 1000, 3) for name, value in told.items()}}


def _highest(bucket: int) -> int:
    """The largest number of microseconds that falls into a bucket."""
    if bucket < 2 * _HALF:
        return bucket
    shift = (bucket >> _BITS) - 1
    return ((bucket - (shift << _BITS) + 1) << shift) - 1
