"""Cutting a span out of a recording: what is in it, all of it, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import EventPacket, Gap, RecordingError, RgbFrame, Source, open_source, synchronize
from streams.cut import cut, write_cut
from streams.items import EventImage, Events, Item, join_events
from tests.conftest import moving_square, random_events

START_US = 1_000_000
PERIOD_US = 33_333


class Given(Source):
    """Items as they stand."""

    def __init__(self, items: Sequence[Item], *, events: bool = True, frames: bool = True) -> None:
        self.counts = Counter()
        self.name, self.sample_period_us, self._items = "given", PERIOD_US, items
        self.event_size, self.frame_size = (64, 48) if events else None, (64, 48) if frames else None

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def close(self) -> None: ...


def events_of(items: Sequence[Item]) -> Events:
    return join_events([item.events for item in items if isinstance(item, EventPacket)])


def frames_of(items: Sequence[Item]) -> list[RgbFrame]:
    return [item for item in items if isinstance(item, RgbFrame)]


@pytest.mark.parametrize(("start_us", "end_us"), [(1_400_000, 1_900_000), (1_200_123, 1_200_456), (0, 5_000_000)])
def test_it_holds_the_events_of_the_span_and_the_frames_that_end_in_it(
    small_recording: Path, tmp_path: Path, start_us: int, end_us: int
) -> None:
    with open_source(small_recording) as source:
        whole = list(source)
        write_cut(tmp_path / "clip.aedat4", source, start_us, end_us)
    with open_source(tmp_path / "clip.aedat4") as clip:
        found = list(clip)
    frames = [frame for frame in frames_of(whole) if start_us < frame.t_end_us <= end_us]
    events_from = min([start_us, *(frame.t_start_us for frame in frames[:1])])
    events = events_of(whole)
    expected = events[(events["t"] >= events_from) & (events["t"] < end_us)]
    for field in ("t", "x", "y", "p"):
        assert np.array_equal(events_of(found)[field], expected[field])
    assert [(f.t_start_us, f.t_end_us) for f in frames_of(found)] == [(f.t_start_us, f.t_end_us) for f in frames]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames_of(found), frames, strict=True))


def test_its_samples_are_those_of_the_whole_recording(real_recording: Callable[[str], Path], tmp_path: Path) -> None:
    with open_source(real_recording("cuke_davis346")) as source:
        whole = list(synchronize(source))
        start_us, end_us = whole[2].t_end_us, whole[9].t_end_us
        write_cut(tmp_path / "clip.aedat4", source, start_us, end_us)
    with open_source(tmp_path / "clip.aedat4") as clip:
        found = list(synchronize(clip))
    assert [s.t_end_us for s in found] == [s.t_end_us for s in whole[3:10]]
    for mine, theirs in zip(found, whole[3:10], strict=True):
        assert np.array_equal(mine.rgb, theirs.rgb) and np.array_equal(mine.event_image, theirs.event_image)


def test_events_of_a_frame_whose_exposure_is_not_known_come_along() -> None:
    frames = [RgbFrame(t, t, np.zeros((48, 64, 3), np.uint8)) for t in (START_US, START_US + 50_000)]
    packet = EventPacket(START_US - 50_000, START_US + 80_000, random_events(500, START_US - 50_000, START_US + 80_000))
    items = list(cut(Given([frames[0], packet, frames[1]]), START_US + 45_000, START_US + 60_000))
    assert len(frames_of(items)) == 1
    times = events_of(items)["t"]
    assert times.min() < START_US + 3_000 and times.min() >= START_US and times.max() < START_US + 60_000


def test_a_frame_may_stand_before_the_events_of_its_exposure_or_after_them() -> None:
    frame = RgbFrame(START_US, START_US + 20_000, np.zeros((48, 64, 3), np.uint8))
    packets = [
        EventPacket(t, t + 5_000, random_events(50, t, t + 5_000)) for t in range(START_US, START_US + 40_000, 5_000)
    ]
    late, early = ([*packets[:k], frame, *packets[k:]] for k in (6, 0))
    found = [events_of(list(cut(Given(items), START_US + 10_000, START_US + 30_000))) for items in (late, early)]
    assert np.array_equal(found[0]["t"], found[1]["t"]) and len(found[0]) == 300


def test_a_recording_of_one_kind_alone_is_cut_too() -> None:
    items = list(moving_square(10))
    start_us, end_us = START_US + 100_000, START_US + 200_000
    events = list(cut(Given([i for i in items if isinstance(i, EventPacket)], frames=False), start_us, end_us))
    assert not frames_of(events) and start_us <= events_of(events)["t"].min() < events_of(events)["t"].max() < end_us
    frames = list(cut(Given(frames_of(items), events=False), start_us, end_us))
    assert frames and all(start_us < frame.t_end_us <= end_us for frame in frames)


def test_reading_ends_with_the_span() -> None:
    def items() -> Iterator[Item]:
        yield from moving_square(10)
        raise AssertionError("it was read on")

    class Endless(Given):
        def __iter__(self) -> Iterator[Item]:
            return items()

    assert list(cut(Endless([]), START_US + 100_000, START_US + 200_000))


def test_a_span_without_anything_is_refused_and_leaves_no_file(small_recording: Path, tmp_path: Path) -> None:
    with open_source(small_recording) as source, pytest.raises(RecordingError, match="holds nothing from 5 to 9 us"):
        write_cut(tmp_path / "clip.aedat4", source, 5, 9)
    assert not list(tmp_path.iterdir())


def test_images_of_events_cannot_be_cut() -> None:
    image = EventImage(START_US, START_US + 10, np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(RecordingError, match="its events are images"):
        list(cut(Given([image]), START_US, START_US + 10))


@given(
    st.lists(st.integers(0, 300), max_size=8),
    st.lists(st.tuples(st.integers(0, 250), st.integers(1, 60)), unique_by=lambda shot: sum(shot), max_size=6),
    st.integers(0, 290),
    st.integers(1, 200),
)
def test_a_cut_holds_what_the_definition_says_however_packets_lie(
    cuts: list[int], shots: list[tuple[int, int]], start: int, length: int
) -> None:
    """Frames that end in (start, end], and the events from the first one's exposure on, but before the end."""
    events, end = random_events(200, 0, 300), start + length
    edges = [0, *sorted(cuts), 300]
    items: list[Item] = [
        EventPacket(a, b, events[(events["t"] >= a) & (events["t"] < b)])
        for a, b in zip(edges, edges[1:], strict=False)
        if a < b
    ]
    image = np.zeros((48, 64, 3), np.uint8)
    items += [RgbFrame(begin, begin + exposure, image) for begin, exposure in shots]
    items.sort(key=lambda item: item.t_end_us if not isinstance(item, Gap) else 0)
    found = list(cut(Given(items), start, end))
    shown = [frame for frame in frames_of(items) if start < frame.t_end_us <= end]
    assert [f.t_end_us for f in frames_of(found)] == [f.t_end_us for f in shown]
    events_from = min([start, *(frame.t_start_us for frame in shown[:1])])
    expected = events[(events["t"] >= events_from) & (events["t"] < end)]
    assert np.array_equal(events_of(found)["t"], expected["t"])
