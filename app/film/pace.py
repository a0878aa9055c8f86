"""Samples, which come when a camera took them, to pictures that follow on one another at a constant rate.

samples    |a    |b   |c               |d    |        each holds until the next one begins
pictures   |  a  |  b |  c |  c  |  c  |  d  |        each shows what holds in its middle

So each sample of an even source has one picture, though its times may tremble.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from streams import Sample

FASTEST = 120  # pictures a second, where nobody asks for more
_LONGEST_GAP_US = 600_000_000  # what follows later is another recording in the same file, or damage
_NEAR = Fraction(1, 100)


def pace_of(period_us: int) -> Fraction:
    """Pictures a second for samples that are so far apart: a whole number where one is near, 1 to FASTEST."""
    exact = min(max(Fraction(1_000_000, max(period_us, 1)), Fraction(1)), Fraction(FASTEST))
    whole = Fraction(round(exact))
    return whole if abs(whole - exact) <= _NEAR * exact else exact.limit_denominator(100)


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture's number, the sample that it shows, and the moment in its middle."""

    number: int
    sample: Sample
    time_us: int


class Pace:
    """Makes pictures of samples; it has an `origin_us`, the begin of the first picture, once there is one."""

    def __init__(self, fps: Fraction, counts: Counter[str]) -> None:
        self._fps, self._counts = fps, counts
        self._number = 0
        self.origin_us: int | None = None

    def pictures(self, samples: Iterable[Sample]) -> Iterator[Shown]:
        """All pictures; what has no place among them is added to `counts`."""
        held: Sample | None = None
        for sample in samples:
            if held is None:
                self.origin_us = sample.t_start_us
            elif sample.t_start_us < held.t_start_us:
                self._counts["samples from a time that has passed, left out"] += 1
                continue
            elif sample.t_start_us - held.t_end_us > _LONGEST_GAP_US:
                self._counts["gaps of more than ten minutes, where the video ends"] += 1
                break
            else:
                yield from self._until(self._place(sample.t_start_us), held)
            held = sample
        if held is not None:
            yield from self._until(max(self._number + 1, self._place(held.t_end_us)), held)

    def _until(self, number: int, sample: Sample) -> Iterator[Shown]:
        while self._number < number:
            yield Shown(self._number, sample, self._middle())
            self._number += 1

    def _place(self, time_us: int) -> int:
        """The first picture in whose middle a moment has come."""
        assert self.origin_us is not None
        return math.ceil((time_us - self.origin_us) * self._fps / 1_000_000 - Fraction(1, 2))

    def _middle(self) -> int:
        assert self.origin_us is not None
        return self.origin_us + round((2 * self._number + 1) * 500_000 / self._fps)
