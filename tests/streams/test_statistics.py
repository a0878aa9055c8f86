"""The figures of a recording's events."""

from __future__ import annotations

import numpy as np
import pytest

from streams.items import EVENT_DTYPE, EventPacket, Events, RgbFrame, no_events
from streams.simulation.statistics import event_statistics


def events_at(*rows: tuple[int, int, int, bool]) -> Events:
    return np.array([*rows], EVENT_DTYPE)


def test_counts_rates_polarities_and_intervals() -> None:
    first = events_at((0, 0, 0, True), (100, 1, 0, False), (400, 0, 0, True))
    second = events_at((1000, 0, 0, False), (500_000, 1, 0, False), (1_000_000, 2, 1, True))
    image = np.zeros((2, 4, 3), np.uint8)
    items = [EventPacket(0, 500, first), RgbFrame(100, 401, image), EventPacket(500, 1_000_001, second)]
    found = event_statistics([*items, RgbFrame(2_000_000, 2_000_010, image)], 4, 2)
    assert (found.events, found.seconds, found.rate_hz) == (6, 1.0, 6 / 8)
    assert (found.silent, found.on_share) == (5 / 8, 0.5)
    assert found.same_us.tolist() == [400, 499_900] and found.other_us.tolist() == [600]
    assert found.per_exposure.tolist() == [2, 0]
    assert found.shortest_us(0.0) == 400 and found.shortest_us(0.5) == 600


def test_a_recording_without_events() -> None:
    found = event_statistics([EventPacket(0, 10, no_events())], 4, 2)
    assert (found.events, found.seconds, found.rate_hz, found.silent) == (0, 0.0, 0.0, 1.0)
    assert np.isnan(found.on_share) and np.isnan(found.shortest_us()) and len(found.per_exposure) == 0


def test_the_still_camera_leaks_and_nothing_else(real_recording) -> None:
    from streams import open_source

    with open_source(real_recording("static_davis346")) as source:
        found = event_statistics((i for i in source if isinstance(i, EventPacket | RgbFrame)), 346, 260)
    assert found.events == 9193 and found.on_share == 1.0
    assert found.rate_hz == pytest.approx(0.027, abs=0.001)
