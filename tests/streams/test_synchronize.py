"""Synchronisation: one sample a frame, with exactly the events of its exposure, however the stream arrives."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import aedat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import EVENT_DTYPE, EventPacket, Gap, RenderConfig, RgbFrame, Sample, Source, open_source, synchronize
from streams.aedat4_source import Spans
from streams.items import Events, Item, no_events
from streams.synchronize import Synchronizer
from tests.conftest import random_events

SIZE = (64, 48)
WHITE, ON, OFF = (255, 255, 255), (220, 30, 30), (30, 30, 200)


class Feed(Source):
    """A source of ready-made items."""

    name = "feed"

    def __init__(self, items: Sequence[Item], *, events: bool = True, frames: bool = True, period_us: int = 40) -> None:
        super().__init__()
        self.items = items
        self.event_size, self.frame_size = SIZE if events else None, SIZE if frames else None
        self.sample_period_us = period_us

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def close(self) -> None:
        """Nothing to free."""


def frame(start: int, end: int, value: int = 0) -> RgbFrame:
    return RgbFrame(start, end, np.full((48, 64, 3), value, np.uint8))


def packets(events: Events, cuts: Sequence[int], end: int) -> list[EventPacket]:
    """`events` cut at these times; the spans meet, and some packets may be empty."""
    edges = [0, *sorted(cuts), end]
    return [
        EventPacket(a, b, events[np.searchsorted(events["t"], a) : np.searchsorted(events["t"], b)])
        for a, b in zip(edges, edges[1:], strict=False)
    ]


def same(found: Events, expected: Events) -> bool:
    return found.dtype == EVENT_DTYPE and np.array_equal(found, expected)


def events_of(events: Events, start: int, end: int) -> Events:
    return events[(events["t"] >= start) & (events["t"] < end)]


@settings(max_examples=200, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 1_000), max_size=12),
    seed=st.integers(0, 5),
    early=st.lists(st.integers(0, 3), min_size=10, max_size=10),
    shuffled=st.booleans(),
)
def test_each_sample_has_the_events_of_its_exposure_however_packets_are_cut(cuts, seed, early, shuffled) -> None:
    """Cut, merged and empty packets, themselves in disorder; frames in any order, but before their last event."""
    events = random_events(400, 0, 1_000, SIZE, seed)  # many share a timestamp
    frames = [frame(start, start + 37) for start in range(20, 950, 100)]
    parts = packets(events, cuts, 1_000)
    if shuffled:
        rng = np.random.default_rng(seed)
        parts = [replace(packet, events=rng.permutation(packet.events)) for packet in parts]
    before: list[list[Item]] = [[] for _ in parts]  # frames, which come before the packet that completes them
    for picture, places in zip(frames, early, strict=True):
        before[max(0, sum(part.t_end_us < picture.t_end_us for part in parts) - places)].append(picture)
    feed = Feed([item for own, part in zip(before, parts, strict=True) for item in (*own, part)])
    samples = list(synchronize(feed))
    assert [(s.t_start_us, s.t_end_us) for s in samples] == [(f.t_start_us, f.t_end_us) for f in frames]
    expected = [events_of(events, s.t_start_us, s.t_end_us) for s in samples]
    if shuffled:  # those of one timestamp have no order of their own
        assert all(same(np.sort(s.events), np.sort(own)) for s, own in zip(samples, expected, strict=True))
    else:
        assert all(same(s.events, own) for s, own in zip(samples, expected, strict=True))
    assert [s.index for s in samples] == list(range(len(frames)))
    assert [s.discontinuity for s in samples] == [True] + [False] * (len(frames) - 1)
    assert feed.counts.keys() <= {"unsorted packets, sorted"} and (shuffled or not feed.counts)


@pytest.mark.parametrize("order", ["frames first", "events first", "reversed frames"])
def test_the_order_of_feeds_does_not_matter(order: str) -> None:
    events = random_events(500, 0, 1_000, SIZE)
    frames: list[Item] = [frame(start, start + 50) for start in range(0, 1_000, 100)]
    cut = packets(events, range(100, 1_000, 100), 1_000)
    items = {
        "frames first": [*frames, *cut],
        "events first": [*cut, *frames],
        "reversed frames": [*frames[::-1], *cut],
    }[order]
    samples = list(synchronize(Feed(items)))
    assert [s.t_start_us for s in samples] == list(range(0, 1_000, 100))
    assert all(same(s.events, events_of(events, s.t_start_us, s.t_end_us)) for s in samples)


def test_a_frame_waits_for_the_watermark_not_for_the_next_frame() -> None:
    seen = []

    class Watched(Feed):
        def __iter__(self) -> Iterator[Item]:
            for item in super().__iter__():
                yield item
                seen.append(len(samples))

    samples: list[Sample] = []
    items = [frame(10, 20), EventPacket(0, 19, no_events()), EventPacket(19, 20, no_events()), frame(30, 40)]
    for sample in synchronize(Watched(items)):
        samples.append(sample)
    assert seen == [0, 0, 1, 1]
    assert len(samples) == 2


def test_frames_outside_the_event_feed_are_blank_and_flagged() -> None:
    events = random_events(50, 100, 200, SIZE)
    items: list[Item] = [frame(10, 20, 7), EventPacket(100, 200, events), frame(110, 120), frame(300, 310, 9)]
    before, inside, after = synchronize(Feed(items))
    assert [s.has_events for s in (before, inside, after)] == [False, True, False]
    assert all(s.has_rgb for s in (before, inside, after))
    assert (before.event_image == 255).all() and (after.event_image == 255).all()
    assert (before.rgb == 7).all() and (after.rgb == 9).all()
    assert before.event_image.shape == (48, 64, 3)


def test_events_alone_give_a_sample_a_period_also_where_nothing_happens() -> None:
    events = random_events(100, 1_000, 1_100, SIZE)
    items = [EventPacket(1_000, 1_100, events), EventPacket(1_100, 1_350, no_events())]
    samples = list(synchronize(Feed(items, frames=False), render=RenderConfig(period_us=100)))
    assert [(s.t_start_us, s.t_end_us) for s in samples] == [
        (1_000, 1_100),
        (1_100, 1_200),
        (1_200, 1_300),
        (1_300, 1_400),  # cut short by the end
    ]
    assert same(samples[0].events, events)
    assert all(s.has_events and not s.has_rgb and (s.rgb == 0).all() for s in samples)


def test_frames_alone_are_shown_at_once_on_a_blank_event_image() -> None:
    samples = list(synchronize(Feed([frame(0, 10), frame(40, 50)], events=False)))
    assert [s.t_end_us for s in samples] == [10, 50]
    assert all(s.has_rgb and not s.has_events and (s.event_image == 255).all() for s in samples)


def test_a_gap_separates() -> None:
    events = random_events(100, 0, 100, SIZE)
    items: list[Item] = [
        EventPacket(0, 100, events),
        frame(10, 30),
        Gap("seek"),
        frame(10, 30),
        EventPacket(0, 100, events),
    ]
    feed = Feed(items)
    first, second = synchronize(feed)
    assert (first.discontinuity, second.discontinuity) == (True, True)
    assert (first.index, second.index) == (0, 1)
    assert same(first.events, events_of(events, 10, 30)) and same(second.events, first.events)
    assert feed.counts == {"gaps (seek)": 1}


@pytest.mark.parametrize("jump", [11_000_000, -11_000_000], ids=["forward", "back"])
def test_a_jump_in_time_is_a_gap_and_never_filled_with_blanks(jump: int) -> None:
    start = 20_000_000
    items = [
        EventPacket(at, at + 100, random_events(10, at, at + 100, SIZE))
        for at in (start, start + 100, start + jump, start + jump + 100)
    ]
    feed = Feed(items, frames=False)
    samples = list(synchronize(feed, render=RenderConfig(period_us=100)))
    assert [s.t_start_us for s in samples] == [item.t_start_us for item in items]
    assert [s.discontinuity for s in samples] == [True, False, True, False]
    assert feed.counts == {"gaps (time jumped)": 1}


def test_steps_back_are_sorted_or_dropped_and_counted() -> None:
    events = random_events(100, 0, 100, SIZE)
    shuffled = np.random.default_rng(0).permutation(events)
    feed = Feed([EventPacket(0, 100, shuffled), EventPacket(100, 200, events), frame(0, 100), frame(0, 100)])
    (sample,) = synchronize(feed)
    assert np.array_equal(np.sort(sample.events), np.sort(events))
    assert (np.diff(sample.events["t"]) >= 0).all()
    assert feed.counts == {
        "unsorted packets, sorted": 1,
        "events that stepped back in time, dropped": 100,
        "frames that stepped back in time, dropped": 1,
    }


def test_events_outside_the_sensor_are_dropped_and_counted() -> None:
    events = random_events(100, 0, 100, (200, 48))
    feed = Feed([EventPacket(0, 100, events), frame(0, 100)])
    (sample,) = synchronize(feed)
    assert same(sample.events, events[events["x"] < 64])
    assert feed.counts == {"events outside the sensor, dropped": int((events["x"] >= 64).sum())}


@pytest.mark.parametrize("window, starts", [(None, [60, 100, 150]), (30, [70, 120, 170])])
def test_where_the_exposure_is_unknown_a_window_before_the_frame_stands_in(window, starts) -> None:
    events = random_events(200, 0, 300, SIZE)
    items: list[Item] = [EventPacket(0, 300, events), frame(100, 100), frame(150, 150), frame(200, 200)]
    samples = list(synchronize(Feed(items), render=RenderConfig(window_us=window)))
    assert [s.t_start_us for s in samples] == starts
    assert all(same(s.events, events_of(events, s.t_start_us, s.t_end_us)) for s in samples)
    assert all(sample.windowed for sample in samples)


def test_rendering_may_change_from_one_sample_to_the_next() -> None:
    wanted = [RenderConfig(window_us=100)]
    items: list[Item] = [EventPacket(0, 10_000, no_events()), *(frame(t, t) for t in (1_000, 2_000, 3_000))]
    lengths = []
    for sample in synchronize(Feed(items), render=lambda: wanted[-1]):
        lengths.append(sample.t_end_us - sample.t_start_us)
        wanted.append(RenderConfig(window_us=100 * (len(lengths) + 1)))
    assert lengths == [100, 200, 300]


def test_a_silent_event_feed_does_not_hold_frames_for_ever() -> None:
    pictures: list[Item] = [frame(t, t + 10_000) for t in range(0, 15_000_000, 40_000)]
    waiting = synchronize(Feed([EventPacket(0, 1_000, no_events()), *pictures]))
    assert next(waiting).t_end_us == 10_000


@settings(max_examples=200, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=10), seed=st.integers(0, 3))
def test_spans_are_exact_wherever_a_file_cuts_its_packets(cuts, seed) -> None:
    events = random_events(300, 0, 60, SIZE, seed)  # five to a timestamp: cuts fall between equals
    edges = [0, *sorted(cuts), 300]
    spans = Spans(Feed([]).counts)
    stored = [events[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    found = [packet for part in stored for packet in spans.push(part)] + list(spans.flush())
    assert same(np.concatenate([packet.events for packet in found]), events)
    for packet, following in zip(found, found[1:], strict=False):
        assert packet.t_end_us <= following.t_start_us
    for packet in found:
        inside = (packet.events["t"] >= packet.t_start_us) & (packet.events["t"] < packet.t_end_us)
        assert inside.all()


def test_of_two_frames_of_one_moment_one_is_shown() -> None:
    feed = Feed([frame(10, 20, 1), frame(12, 20, 2), EventPacket(0, 30, no_events())])
    (sample,) = synchronize(feed)
    assert (sample.t_start_us, sample.t_end_us, sample.rgb[0, 0, 0]) == (10, 20, 1)
    assert feed.counts == {"frames that stepped back in time, dropped": 1}


times = st.integers(-5, 400) | st.sampled_from([10_000_100, 25_000_000, 25_000_300, (1 << 61) - 500])
odd_packets = st.builds(
    lambda start, length, places: EventPacket(start, start + length, made_of(start, length, places)),
    times,
    st.sampled_from([1, 40, 200, 30_000_000]),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 70), st.integers(0, 50)), max_size=12),
)
odd_frames = st.builds(lambda start, length: frame(start, start + length), times, st.sampled_from([0, 1, 37, 500]))
odd_items = st.lists(odd_packets | odd_frames | st.just(Gap("lost")), max_size=25)


def made_of(start: int, length: int, places: Sequence[tuple[int, int, int]]) -> Events:
    """Events of a span in any order, inside the sensor or not."""
    events = np.zeros(len(places), EVENT_DTYPE)
    for event, (offset, x, y) in zip(events, places, strict=True):
        event["t"], event["x"], event["y"] = start + offset % length, x, y
    return events


@settings(deadline=None)
@given(odd_items, st.booleans(), st.booleans())
def test_whatever_comes_samples_rise_and_hold_sound_events_of_their_own_time(
    items: list[Item], with_events: bool, with_frames: bool
) -> None:
    feed = Feed(items, events=with_events or not with_frames, frames=with_frames, period_us=33_333)
    own = [item for item in items if not isinstance(item, Gap)]
    pushed = sum(len(item.events) for item in own if isinstance(item, EventPacket))
    pictures = [(item.t_start_us, item.t_end_us) for item in own if isinstance(item, RgbFrame)]
    samples = list(synchronize(feed))
    assert [s.index for s in samples] == list(range(len(samples)))
    assert len(samples) <= len(pictures) if with_frames else not any(s.has_rgb for s in samples)
    for before, sample in zip(samples, samples[1:], strict=False):
        assert sample.discontinuity or sample.t_end_us > before.t_end_us
    for sample in samples:
        events = sample.events
        assert (events["t"] >= sample.t_start_us).all() and (events["t"] < sample.t_end_us).all()
        assert (events["x"] < SIZE[0]).all() and (events["y"] < SIZE[1]).all() and (np.diff(events["t"]) >= 0).all()
        assert sample.rgb.shape == sample.event_image.shape == (48, 64, 3)
        assert not sample.has_rgb or sample.windowed or (sample.t_start_us, sample.t_end_us) in pictures
        assert sample.has_events or not len(events)
    if not with_frames:  # else exposures may overlap
        assert sum(s.event_count for s in samples) <= pushed


def slow_image(events: np.ndarray, start: int, end: int, size: tuple[int, int]) -> np.ndarray:
    """The event image of DATA.md, event by event."""
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    chosen = events[(events["t"] >= start) & (events["t"] < end)]
    for polarity, color in ((True, ON), (False, OFF)):
        for event in chosen[chosen["on"] == polarity]:
            image[event["y"], event["x"]] = color
    return image


@pytest.mark.parametrize("name", ["cuke_davis346", "static_davis346"])
def test_event_images_of_real_recordings_equal_a_slow_independent_rendering(real_recording, name: str) -> None:
    path = real_recording(name)
    theirs = list(aedat.Decoder(path))
    events = np.concatenate([packet["events"] for packet in theirs if "events" in packet])
    exposures = [p["frame"] for p in theirs if "frame" in p]
    with open_source(path) as source:
        samples = list(synchronize(source))
        assert not source.counts
    assert len(samples) == len(exposures)
    for sample, exposure in zip(samples, exposures, strict=True):
        start, end = exposure["exposure_begin_t"], exposure["exposure_end_t"]
        assert (sample.t_start_us, sample.t_end_us) == (start, end)
        assert np.array_equal(sample.event_image, slow_image(events, start, end, (346, 260)))
        pixels = exposure["pixels"]
        assert np.array_equal(sample.rgb, pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2))


def test_a_recording_whose_every_event_has_one_timestamp_gives_one_sample(real_recording) -> None:
    with open_source(real_recording("one_timestamp")) as source:
        (sample,) = synchronize(source)
    assert len(sample.events) == 9_408 and not sample.has_rgb


def test_a_jump_within_a_packet_is_a_gap_too() -> None:
    events = np.zeros(5, EVENT_DTYPE)
    events["t"] = [1_000, 1_050, 1_099, 600_000_000, 600_000_010]
    feed = Feed([EventPacket(1_000, 600_000_011, events)], frames=False)
    first, second = synchronize(feed, render=RenderConfig(period_us=100))
    assert (len(first.events), len(second.events)) == (3, 2)
    assert second.discontinuity and second.t_start_us == 600_000_000
    assert feed.counts == {"gaps (time jumped)": 1}


def test_events_scattered_over_all_time_are_damage_and_dropped() -> None:
    events = np.zeros(100, EVENT_DTYPE)
    events["t"] = np.arange(100) * 20_000_000
    feed = Feed([EventPacket(0, 2_000_000_000, events), EventPacket(2_000_000_000, 2_000_000_050, no_events())])
    assert list(synchronize(feed)) == []
    assert feed.counts["events scattered in time, dropped"] == 100


def test_frames_that_wait_for_lost_events_are_bounded_in_bytes() -> None:
    big = np.zeros((2_000, 2_000, 3), np.uint8)
    items: list[Item] = [
        EventPacket(0, 10, no_events()),
        *(RgbFrame(t, t + 10, big) for t in range(20, 20 + 40 * 40, 40)),
    ]
    waiting = iter(synchronize(Feed(items)))
    assert next(waiting).t_start_us == 20  # long before 10 s have passed


def test_overlapping_exposures_each_have_their_events() -> None:
    events = random_events(400, 0, 1_000, SIZE)
    items: list[Item] = [frame(100, 300), frame(50, 350), EventPacket(0, 1_000, events)]
    samples = list(synchronize(Feed(items)))
    assert [(s.t_start_us, s.t_end_us) for s in samples] == [(100, 300), (50, 350)]
    assert all(same(s.events, events_of(events, s.t_start_us, s.t_end_us)) for s in samples)


def test_frames_that_wait_for_lost_events_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Synchronizer.__module__], "_MAX_HELD_FRAMES", 8)
    feed = Feed([EventPacket(0, 10, no_events()), *(frame(t, t + 10) for t in range(20, 820, 40))])
    waiting = synchronize(feed)
    seen = [next(waiting).t_start_us for _ in range(12)]
    assert seen == list(range(20, 500, 40))


@pytest.mark.parametrize("from_us", [150, 151, 199])
def test_a_window_longer_than_a_period_is_whole_also_where_it_is_read_from(from_us: int) -> None:
    events = random_events(400, 0, 400, SIZE)
    feed = Feed([EventPacket(0, 400, events), *(frame(t, t) for t in range(100, 400, 10))])
    found = list(synchronize(feed, render=RenderConfig(window_us=50), from_us=from_us))
    assert found and all(same(s.events, events_of(events, s.t_end_us - 50, s.t_end_us)) for s in found)


def test_a_hole_at_the_place_that_is_read_from_is_not_filled() -> None:
    """Only in damaged recordings does nothing come before it."""
    late = 10**15
    feed = Feed([EventPacket(late, late + 100, random_events(50, late, late + 100, SIZE))], frames=False)
    feed.span_us = (0, 2 * late)
    found = list(synchronize(feed, render=RenderConfig(period_us=40), from_us=late // 2))
    assert [s.t_start_us for s in found] == [late, late + 40, late + 80] and found[0].discontinuity
