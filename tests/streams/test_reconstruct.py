"""Grey frames for events alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, RgbFrame, open_source, synchronize, write_aedat4
from streams.items import Item, no_events
from streams.reconstruct import PERIOD_US, Reconstructed
from tests.conftest import moving_square, random_events
from tests.streams.test_synchronize import Feed

SIZE = (64, 48)


def frames(items: Sequence[Item]) -> list[RgbFrame]:
    return [item for item in Reconstructed(Feed(items, frames=False)) if isinstance(item, RgbFrame)]


def at_pixel(times: Sequence[int], on: bool) -> EventPacket:
    events = np.zeros(len(times), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = times, 10, 20, on
    return EventPacket(0, 10 * PERIOD_US, events)


def test_on_makes_a_pixel_brighter_off_darker_and_all_come_back_to_grey() -> None:
    for on, sign in ((True, 1), (False, -1)):
        levels = [int(frame.image[20, 10]) - 127 for frame in frames([at_pixel([5, 6, 7], on)])]
        assert len(levels) == 10 and 60 < sign * levels[0] < 80
        assert all(abs(b) < abs(a) for a, b in zip(levels, levels[1:], strict=False)) and abs(levels[-1]) < 30
    assert (frames([at_pixel([5], True)])[0].image[:, 11:] == 127).all()


def test_however_packets_are_cut_the_frames_are_the_same() -> None:
    events = random_events(3_000, 0, 8 * PERIOD_US, SIZE)
    whole = frames([EventPacket(0, 8 * PERIOD_US, events)])
    edges = [0, 10, 900, 901, 2_500, 3_000]
    times = [0, *(int(events["t"][k]) for k in edges[1:-1]), 8 * PERIOD_US]
    parts = [
        EventPacket(start, end, events[(events["t"] >= start) & (events["t"] < end)])
        for start, end in zip(times, times[1:], strict=False)
    ]
    cut = frames(parts)
    assert [frame.t_end_us for frame in cut] == [k * PERIOD_US for k in range(1, 9)]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(whole, cut, strict=True))


def test_a_recording_is_read_from_any_place_with_next_to_equal_frames(tmp_path: Path) -> None:
    path = tmp_path / "events.aedat4"
    with write_aedat4(path, SIZE, None) as writer:
        for item in moving_square(120):
            if isinstance(item, EventPacket):
                writer.write(item)
    with Reconstructed(open_source(path)) as source:
        assert source.frame_size == SIZE and source.reconstructed
        whole = {sample.t_end_us: sample for sample in synchronize(source)}
        found = list(synchronize(source, from_us=3_500_000))
    assert len(found) > 30 and [s.t_end_us for s in found] == sorted(t for t in whole if t > 3_500_000)
    for sample in found:
        same = whole[sample.t_end_us]
        assert np.array_equal(sample.events, same.events) and sample.has_rgb and sample.has_events
        assert np.abs(sample.rgb.astype(int) - same.rgb.astype(int)).max() <= 2


def test_after_a_jump_in_time_it_begins_anew() -> None:
    later = at_pixel([5], False)
    events = later.events.copy()
    events["t"] += 60_000_000
    after = EventPacket(60_000_000, 60_000_000 + 2 * PERIOD_US, events)
    found = frames([at_pixel([5, 6], True), after])
    assert len(found) == 12 and found[10].t_start_us == 60_000_000 and found[10].image[20, 10] < 127


def test_a_jump_within_a_packet_is_not_filled_with_frames() -> None:
    events = at_pixel([5, 6, 3_600_000_000, 3_600_000_001], True)
    packet = EventPacket(0, 3_600_000_000 + PERIOD_US, events.events)
    assert len(frames([packet, EventPacket(packet.t_end_us, packet.t_end_us + 3 * PERIOD_US, no_events())])) < 8


def test_a_quiet_recording_keeps_its_events_however_long_its_packets_are() -> None:
    events = random_events(900, 0, 30_000_000, SIZE)
    feed = Feed([EventPacket(0, 30_000_000, events)], frames=False)
    source = Reconstructed(feed)
    samples = list(synchronize(source))
    assert len(samples) == 30_000_000 // PERIOD_US and all(sample.has_events for sample in samples)
    assert sum(len(sample.events) for sample in samples) > 890 and not source.counts


def test_it_is_for_events_without_frames() -> None:
    for events, pictures in ((True, True), (False, True)):
        with pytest.raises(ValueError, match="grey frames are made for events without frames"):
            Reconstructed(Feed([], events=events, frames=pictures))
