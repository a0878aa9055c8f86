"""Cameras of iniVation, as a fake of their driver shows them: what flows is as recorded, a still scene too."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from streams import EventPacket, synchronize
from streams.aedat4_source import Aedat4Source
from streams.dv_camera import DvCameraSource
from streams.items import EVENT_DTYPE
from tests.fake_dv import FakeCamera, frame_of
from tests.streams.dv_feed import GREY, T0, Taken, batch, until


def test_samples_of_a_camera_equal_those_of_its_recording(
    camera: FakeCamera, real_recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_recording("cuke_davis346")
    camera.size = (346, 260)
    camera.give_recording(path)
    monkeypatch.setattr("streams.dv_camera._WAITING", 1 << 16)
    recorded = list(synchronize(Aedat4Source(path)))
    with DvCameraSource("dv:") as source:
        assert source.live and not source.simulated
        assert source.event_size == source.frame_size == (346, 260) and source.sample_period_us == 40_000
        live = list(itertools.islice(synchronize(source), len(recorded)))
        assert source.counts == Counter()
    assert len(live) > 5
    for ours, theirs in zip(live, recorded, strict=True):
        assert (ours.t_start_us, ours.t_end_us, ours.discontinuity) == (
            theirs.t_start_us,
            theirs.t_end_us,
            theirs.discontinuity,
        )
        assert ours.has_rgb and ours.has_events and theirs.has_events
        assert ours.events.dtype == EVENT_DTYPE and np.array_equal(ours.events, theirs.events)
        assert np.array_equal(ours.rgb, theirs.rgb) and np.array_equal(ours.event_image, theirs.event_image)
        assert ours.arrival_ns is not None


def test_frames_are_rgb_and_span_their_exposure(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0], blue[:, :9, 2] = 200, 70  # BGR
    began = time.monotonic_ns()
    camera.give(frame_of(T0 + 1_000, 5_000, blue), frame_of(T0 + 41_000, 0, GREY))
    feed = taken()
    until(lambda: len(feed.frames()) == 2)
    colour, grey = feed.frames()
    assert (colour.t_start_us, colour.t_end_us) == (T0 + 1_000, T0 + 6_000)
    assert np.array_equal(colour.image, blue[..., ::-1]) and colour.image.flags.c_contiguous
    assert (grey.t_start_us, grey.t_end_us) == (T0 + 41_000, T0 + 41_000) and np.array_equal(grey.image, GREY)
    assert colour.arrival_ns is not None and began < colour.arrival_ns < time.monotonic_ns()


def test_packets_hold_all_events_of_their_spans(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    whole = batch(0, 100_000, 2_000)
    whole["t"] -= whole["t"] % 50  # many at one time, also where batches are cut
    camera.give(*np.split(whole, 20))
    feed = taken()
    until(lambda: feed.events() == 2_000)
    packets = [packet for packet in feed.packets() if len(packet.events)]
    assert np.array_equal(np.concatenate([packet.events for packet in packets]), whole)
    for packet in packets:
        inside = (whole["t"] >= packet.t_start_us) & (whole["t"] < packet.t_end_us)
        assert np.array_equal(whole[inside], packet.events)


def test_a_still_scene_does_not_stall(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    with DvCameraSource("dv:") as source:
        samples = synchronize(source)
        camera.give(batch(0, 10_000), frame_of(T0 + 2_000, 5_000, GREY), frame_of(T0 + 60_000, 5_000, GREY))
        first, second = next(samples), next(samples)  # the second one although no events came after it
        camera.give(frame_of(T0 + 100_000, 5_000, GREY))
        third = next(samples)
    assert [len(sample.events) > 0 for sample in (first, second, third)] == [True, False, False]
    assert first.has_events and second.has_events and third.has_events and not third.discontinuity


def test_a_scene_that_is_still_from_the_beginning_gives_frames_without_events(camera: FakeCamera) -> None:
    camera.give(frame_of(T0, 5_000, GREY))
    with DvCameraSource("dv:") as source:
        sample = next(synchronize(source))
    assert sample.has_rgb and sample.has_events and not len(sample.events)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_frames_of_16_bits_are_shown_and_others_end_it(
    camera: FakeCamera, taken: Callable[..., Taken], kind: type
) -> None:
    frame = Mock(image=np.full((48, 64), 200 * 256, kind), timestamp=T0, exposure=timedelta(microseconds=5_000))
    camera.frames.append(frame)
    feed = taken()
    if kind is np.uint16:
        until(lambda: feed.frames())
        assert (feed.frames()[0].image == 200).all()
    else:
        until(lambda: feed.failure)
        assert str(feed.failure) == "the camera gives images of float32: set it to 8 or 16 bits"


def test_where_the_consumer_is_slow_packets_are_bounded_in_bytes_too(
    camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.pump.MOST_BYTES", 4 * 50 * EVENT_DTYPE.itemsize)
    with DvCameraSource("dv:") as source:
        camera.give(*(batch(10_000 * k, 10_000 * k + 10_000) for k in range(30)))
        until(lambda: source.counts["packets of the camera, left out since too many came"] >= 25)
        assert sum(len(item.events) for item in itertools.islice(source, 3) if isinstance(item, EventPacket)) <= 200


def test_where_the_consumer_is_slow_the_oldest_packets_go_whole(
    camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.dv_camera._WAITING", 4)
    lost = "packets of the camera, left out since too many came"
    with DvCameraSource("dv:") as source:
        camera.give(*(batch(10_000 * k, 10_000 * k + 10_000) for k in range(30)))
        until(lambda: source.counts[lost] >= 26)
        items = list(itertools.islice(source, 3))
    assert [item.t_end_us for item in items if isinstance(item, EventPacket)][-1] > T0 + 270_000
