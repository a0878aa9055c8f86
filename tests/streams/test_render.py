"""Event images: "paint" pixel for pixel as the training data were made, the others by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import EVENT_DTYPE, RenderConfig, motion_image, render_events
from streams.items import Events
from streams.render import render_parts

WHITE, ON, OFF = [255, 255, 255], [220, 30, 30], [30, 30, 200]


def events(*rows: tuple[int, int, int, bool]) -> Events:
    return np.array(list(rows), EVENT_DTYPE)


@pytest.mark.parametrize(
    "rows, color",
    [
        ([], WHITE),
        ([(0, 1, 0, True)], ON),
        ([(0, 1, 0, False)], OFF),
        ([(0, 1, 0, True)] * 9, ON),
        ([(0, 1, 0, False), (5, 1, 0, True)], OFF),  # OFF is painted last, whatever the order in time
    ],
)
def test_paint(rows, color) -> None:
    image = render_events(events(*rows), (3, 2), 10, RenderConfig())
    assert image.dtype == np.uint8 and image.shape == (2, 3, 3)
    assert image[0, 1].tolist() == color
    image[0, 1] = WHITE
    assert (image == 255).all()


def test_only_the_last_part_of_a_long_exposure_can_be_kept() -> None:
    image = render_events(events((0, 0, 0, True), (90, 1, 0, True)), (2, 1), 100, RenderConfig(max_window_us=10))
    assert image[0].tolist() == [WHITE, ON]


def test_count_saturates_towards_the_colour_of_the_polarity() -> None:
    rows = [(0, 0, 0, True)] * 2 + [(0, 1, 0, True)] * 9 + [(0, 2, 0, False)] * 4
    image = render_events(events(*rows), (4, 1), 1, RenderConfig(style="count", full_scale=4))
    assert image[0].tolist() == [[237, 142, 142], ON, OFF, WHITE]


def test_accumulate_is_grey_and_cancels() -> None:
    rows = [(0, 0, 0, True), (0, 1, 0, False), (0, 2, 0, True), (1, 2, 0, False)]
    image = render_events(events(*rows), (4, 1), 1, RenderConfig(style="accumulate", full_scale=1))
    assert image[0, :, 0].tolist() == [255, 1, 128, 128]


def test_a_time_surface_fades_with_age_and_shows_the_last_polarity() -> None:
    rows = [(0, 0, 0, False), (100, 0, 0, True), (0, 1, 0, False)]
    image = render_events(events(*rows), (3, 1), 100, RenderConfig(style="time_surface", tau_us=100))
    fade = np.exp(-1)
    assert image[0, 0].tolist() == ON
    assert image[0, 1] == pytest.approx([255 + fade * (c - 255) for c in OFF], abs=1)
    assert image[0, 2].tolist() == WHITE


def test_motion_is_the_sum_of_both_differences() -> None:
    a, b = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 200, np.uint8)
    assert (motion_image((a, b), (b, b)) == 200).all()
    assert (motion_image((a, b), (b, a)) == 255).all()
    assert (motion_image((a, a), (a, a)) == 0).all()


def test_motion_of_unlike_sensors_is_shown_at_the_size_of_the_image() -> None:
    rgb, small = np.zeros((4, 6, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    assert motion_image((rgb, small), (rgb, small + 9)).shape == (4, 6, 3)


@pytest.mark.parametrize("bad", [{"style": "pastel"}, {"period_us": 0}, {"window_us": -1}, {"tau_us": 0}])
def test_impossible_settings_are_refused_by_name(bad) -> None:
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        RenderConfig(**bad)


SIZE = (5, 4)
any_events = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=40
).map(lambda rows: events(*sorted(rows)))
any_config = st.builds(
    RenderConfig,
    style=st.sampled_from(["paint", "count", "time_surface", "accumulate"]),
    max_window_us=st.none() | st.integers(1, 120),
    tau_us=st.sampled_from([1, 10, 1 << 40]),
    full_scale=st.sampled_from([1, 4, 1 << 40]),
)


@given(any_events, any_config, st.lists(st.integers(0, 40), max_size=4))
def test_an_image_is_of_its_events_however_they_come_in_parts(found: Events, config: RenderConfig, cuts) -> None:
    image = render_events(found, SIZE, 100, config)
    assert image.dtype == np.uint8 and image.shape == (4, 5, 3)
    edges = [0, *sorted(cuts), 40]
    parts = [found[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert np.array_equal(render_parts(parts, SIZE, 100, config), image)
    ground = render_events(found[:0], SIZE, 100, config)
    assert (ground == ground[0, 0]).all()
    untouched = np.ones((4, 5), bool)
    untouched[found["y"], found["x"]] = False
    assert (image[untouched] == ground[0, 0]).all()


@given(any_events, st.none() | st.integers(1, 120))
def test_paint_equals_a_slow_painter(found: Events, window_us: int | None) -> None:
    slow = np.full((4, 5, 3), 255, np.uint8)
    for polarity, color in ((True, ON), (False, OFF)):
        for t, x, y, p in found.tolist():
            if p == polarity and (window_us is None or t >= 100 - window_us):
                slow[y, x] = color
    assert np.array_equal(render_events(found, SIZE, 100, RenderConfig(max_window_us=window_us)), slow)
