"""Filters: noise goes and what moves stays; events and frames are cut, flipped and turned alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streams import EventPacket, RgbFrame, Source, open_source, synchronize
from streams.filters import NOISE, REFRACTORY_US, SUPPORT_US, Denoiser, Roi, filtered
from streams.items import EVENT_DTYPE, Events, Item
from tests.conftest import random_events

SIZE = (64, 48)


def events_of(rows: list[tuple[int, int, int]]) -> Events:
    events = np.zeros(len(rows), EVENT_DTYPE)
    for name, column in zip("txy", np.array(rows).T, strict=True):
        events[name] = column
    return events


def kept(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    return [(int(e["t"]), int(e["x"]), int(e["y"])) for e in Denoiser(SIZE).push(events_of(rows))]


def test_an_event_needs_another_one_next_to_it_of_late() -> None:
    lone, pair = (100_000, 5, 5), [(200_000, 20, 20), (204_000, 21, 21)]
    apart, late = (205_000, 40, 21), (204_000 + SUPPORT_US + 3_000, 22, 22)
    assert kept([lone, *pair, apart, late]) == [pair[1]]


def test_an_event_too_soon_after_another_of_its_pixel_goes() -> None:
    near = (99_000, 11, 10)
    rows = [near, (100_000, 10, 10), (100_000 + REFRACTORY_US - 1, 10, 10), (104_000, 10, 10)]
    assert kept(rows) == [rows[1], rows[3]]


def test_it_does_not_matter_how_packets_are_cut_at_slices() -> None:
    events = random_events(4_000, 0, 400_000, SIZE)
    whole = Denoiser(SIZE).push(events)
    denoiser = Denoiser(SIZE)
    cuts = np.searchsorted(events["t"], np.arange(25_000, 400_000, 25_000))
    parts = np.concatenate([denoiser.push(part) for part in np.split(events, cuts)])
    assert (whole == parts).all() and 0 < len(whole) < len(events)


def test_hot_pixels_are_learnt_in_the_first_second() -> None:
    moving = [(1_000 * k, 5 + k // 40 % 50, 20 + k % 2) for k in range(2_400)]
    hot = [(1_000 * k + 500, 30 + k % 2, 5) for k in range(2_400)]  # two that support one another
    denoiser = Denoiser(SIZE)
    out = [denoiser.push(events_of(sorted(moving[s : s + 100] + hot[s : s + 100]))) for s in range(0, 2_400, 100)]
    early, late = np.concatenate(out[:9]), np.concatenate(out[11:])
    assert (early["y"] == 5).sum() > 500
    assert not (late["y"] == 5).any() and (late["y"] != 5).sum() > 1_000
    assert not (denoiser.after_gap().push(events_of(hot[:100]))["y"] == 5).any()


def test_of_a_real_recording_little_goes_where_things_move_and_most_where_nothing_does(
    real_recording: Callable[[str], Path],
) -> None:
    shares = {}
    for name in ("cuke_davis346", "static_davis346"):
        with filtered(open_source(real_recording(name)), denoise=True) as source:
            assert sum(len(item.events) for item in source if isinstance(item, EventPacket)) > 0
            shares[name] = source.counts[NOISE]
    assert shares["cuke_davis346"] < 50 < shares["static_davis346"] < 100


def test_nothing_asked_for_changes_nothing(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        assert filtered(source) is source


def picture(source: Source) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """How many events each pixel had, and the first frame."""
    assert source.event_size is not None
    counts, frames = np.zeros(source.event_size[::-1], np.int64), []
    for item in source:
        if isinstance(item, EventPacket):
            np.add.at(counts, (item.events["y"], item.events["x"]), 1)
        elif isinstance(item, RgbFrame):
            frames.append(item.image)
    return counts, frames[0]


@pytest.mark.parametrize("roi", [None, (8, 4, 30, 20)])
@pytest.mark.parametrize("flip", [None, "horizontal", "vertical"])
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_events_and_frames_are_cut_flipped_and_turned_alike(
    small_recording: Path, roi: Roi | None, flip: str | None, rotate: int
) -> None:
    with open_source(small_recording) as source:
        whole = picture(source)
    with filtered(open_source(small_recording), roi=roi, flip=flip, rotate=rotate) as source:
        found = picture(source)
        assert source.frame_size == source.event_size == found[1].shape[1::-1]
        assert len(list(synchronize(source))) == 60
    x, y, width, height = roi or (0, 0, *SIZE)
    for before, after in zip(whole, found, strict=True):
        expected = before[y : y + height, x : x + width]
        expected = {None: expected, "horizontal": expected[:, ::-1], "vertical": expected[::-1]}[flip]
        assert (np.rot90(expected, -rotate // 90) == after).all()


def test_what_cannot_be_is_refused(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        with pytest.raises(ValueError, match="is not within the sensor of 64 x 48"):
            filtered(source, roi=(40, 0, 30, 20))
        with pytest.raises(ValueError, match="rotate one of 90, 180, 270"):
            filtered(source, rotate=45)


def test_frames_smaller_than_the_sensor_are_cut_within_themselves(make_recording: Callable[..., Path]) -> None:
    path = make_recording(
        [
            EventPacket(500, 1_500, random_events(20, 500, 1_500, SIZE)),
            RgbFrame(1_000, 2_000, np.zeros((12, 16, 3), np.uint8)),
        ],
        frame_size=(16, 12),
    )
    with filtered(open_source(path), roi=(63, 47, 1, 1)) as source:
        frames = [item for item in source if isinstance(item, RgbFrame)]
        assert frames[0].image.shape == (1, 1, 3) and source.frame_size == (1, 1)


def test_a_step_back_in_time_makes_no_noise_of_what_follows() -> None:
    class Twice(Source):
        name, event_size, frame_size, sample_period_us = "twice", SIZE, None, 33_333

        def __iter__(self) -> Iterator[Item]:
            for _ in range(2):
                yield EventPacket(1_000_000, 1_400_000, random_events(4_000, 1_000_000, 1_400_000, SIZE))

        def close(self) -> None:
            pass

    first, second = (item for item in filtered(Twice(), denoise=True) if isinstance(item, EventPacket))
    assert len(first.events) == len(second.events) > 1_000
