"""The time of a camera's items: silence passes it on, holes are counted, and a clock may begin anew."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streams import EventPacket, RgbFrame
from streams.dv_order import Order
from tests.conftest import random_events
from tests.fake_dv import FakeCamera, frame_of
from tests.streams.dv_feed import GREY, T0, Taken, batch, until


def feed_of(late_us: Callable[[int], int], seed: int = 0) -> tuple[list[EventPacket], Counter[str]]:
    """Bursts of events with pauses between, each handed over so late, through an Order with a clock of ours."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    order, packets = Order(counts, 10_000), []
    starts = np.cumsum(rng.integers(15_000, 400_000, 40)).tolist()
    ready = itertools.accumulate((start + 10_000 + late_us(k) for k, start in enumerate(starts)), max)
    due = [(at, batch(start, start + 10_000)) for at, start in zip(ready, starts, strict=True)]
    for now_us in range(0, starts[-1] + 1_000_000, 1_000):
        came = [events for at, events in due if now_us - 1_000 < at <= now_us]
        for events in came:
            packets += [arrived.item for arrived in order.push(events, now_us * 1_000)]
        if not came:
            packets += [arrived.item for arrived in order.silence(now_us * 1_000)]
    return [packet for packet in packets if isinstance(packet, EventPacket)], counts


@pytest.mark.parametrize("seed", range(3))
def test_silence_never_overtakes_events_that_are_under_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    packets, _ = feed_of(lambda _: int(rng.integers(0, 85_000)), seed)
    assert sum(len(packet.events) for packet in packets) == 40 * 50
    watermark = 0
    for packet in packets:
        assert packet.t_start_us >= watermark and packet.t_end_us > packet.t_start_us
        watermark = packet.t_end_us
    silent = [packet for packet in packets if not len(packet.events)]
    assert sum(packet.t_end_us - packet.t_start_us for packet in silent) > 2_000_000


def test_silence_waits_longer_where_it_has_overtaken_events() -> None:
    def overtaken(late_us: int) -> int:
        packets, _ = feed_of(lambda k: late_us if k % 2 else 0)
        marks = itertools.accumulate((packet.t_end_us for packet in packets), max, initial=0)
        return sum(packet.t_start_us < mark - 1 for packet, mark in zip(packets, marks, strict=False))

    assert overtaken(50_000) == 0
    assert 1 <= overtaken(180_000) <= 2


HOLES = "gaps in the events, since the driver was not read in time"


def test_a_hole_in_time_counts_where_the_driver_was_not_read(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    feed = taken()
    camera.give(batch(0, 10_000))
    until(lambda: feed.events() > 0)
    with camera.held():
        time.sleep(0.25)
        camera.most = 5
        camera.give(*(batch(10_000 * k, 10_000 * k + 10_000) for k in range(1, 24)))  # 18 of them are lost
        camera.most = 6
        camera.give(batch(240_000, 250_000))
    until(lambda: feed.events() == 350)
    assert feed.source.counts == {HOLES: 1}


def test_a_hole_in_a_still_scene_does_not_count(camera: FakeCamera) -> None:
    counts: Counter[str] = Counter()
    order = Order(counts, 10_000)
    for start in (0, 400_000, 900_000):
        list(order.push(batch(start, start + 10_000), 1_000 * start, away_us=20_000))
    assert not counts


def test_a_clock_that_begins_anew_makes_a_gap_and_time_goes_on(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    feed = taken()
    camera.give(batch(0, 10_000), frame_of(T0 + 2_000, 5_000, GREY))
    until(lambda: feed.events() == 50 and feed.frames())
    with camera.held():
        camera.give(random_events(50, 3_000, 13_000), frame_of(T0 + 42_000, 5_000, GREY), frame_of(4_000, 5_000, GREY))
    until(lambda: feed.events() == 100 and len(feed.frames()) == 2)
    assert feed.gaps() == ["the clock began anew"]
    full = [packet for packet in feed.packets() if len(packet.events)]
    times = [packet.t_end_us for packet in full]
    assert times == sorted(times) and T0 + 10_000 < times[-1] < T0 + 60_000_000
    begins_us = int(full[-1].events["t"][-1]) - 13_000  # of the new time, in ours
    assert feed.frames()[1].t_start_us - begins_us == pytest.approx(4_000, abs=2_000)
    assert feed.source.counts == {"items from before the clock began anew, dropped": 1}


def test_frames_that_begin_anew_first_are_noticed_too() -> None:
    counts: Counter[str] = Counter()
    order = Order(counts, 10_000)
    brought: list[Any] = [batch(0, 10_000), RgbFrame(T0, T0 + 5_000, GREY), RgbFrame(100, 5_000, GREY)]
    brought += [batch(10_000, 20_000), random_events(50, 2_000, 12_000), RgbFrame(40_000, 45_000, GREY)]
    runs = {arrived.item.t_start_us: arrived.run for one in brought for arrived in order.push(one, 0)}
    assert {time_us: run for time_us, run in runs.items() if time_us < T0} == dict.fromkeys(
        (time_us for time_us in runs if time_us < T0), 1
    )
    assert counts == {"items from before the clock began anew, dropped": 1}
