"""Rates, latencies and growths of the status line."""

from __future__ import annotations

import pytest

from app.meters import LabelLatency, Latency, Rate, Recent, memory_mb


def test_latency_skips_samples_without_label_and_old_passes() -> None:
    latency = LabelLatency()
    assert latency.percentiles() is None
    for index in (8, 9, 0, 1, 2):
        latency.released(index)
    latency.labelled(1)
    latency.labelled(2)
    p50, p95 = latency.percentiles()
    assert 0 <= p50 <= p95 < 1000


def test_percentiles_are_of_the_last_ones() -> None:
    latency = Latency()
    for ms in [*[1e6] * 200, *range(300, 0, -1)]:
        latency.add(ms)
    assert latency.percentiles() == (151, 286)


def test_a_rate_needs_two() -> None:
    rate = Rate()
    rate.count()
    assert rate.per_second() == 0
    rate.count()
    assert rate.per_second() > 0


def test_growth_is_of_late() -> None:
    recent = Recent(span_s=1000)
    assert [recent.growth(count) for count in (3, 3, 5, 9)] == [0, 0, 2, 6]
    assert [Recent(span_s=-1).growth(7)] == [0]
    assert [recent.growth(count) for count in (2, 4)] == [0, 2]  # it began anew


def test_memory_is_that_of_this_process() -> None:
    before = memory_mb()
    much = b"x" * 300_000_000
    assert memory_mb() - before == pytest.approx(len(much) / 1e6, abs=30)
