"""The picture of a sample: the panes that are asked for, of one height, made once."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from app.strip import GAP, Moment, Past, View, encode_strip
from streams import Sample
from streams.items import no_events
from tests.app.fakes import sample


def moment(of: Sample) -> Moment:
    return Moment(1, of, None, 0.0)


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_the_three_panes_stand_side_by_side() -> None:
    picture = moment(sample(0, 9, size=(64, 48))).picture(View())
    assert decoded(picture.jpeg).shape == (48, 3 * 64 + 2 * GAP, 3)
    assert picture.widths == (64, 64, 64) and picture.height == 48


def test_only_the_panes_asked_for_are_made_and_only_once() -> None:
    shown = moment(sample(0, 200, size=(64, 48)))
    picture = shown.picture(View(("events",)))
    assert decoded(picture.jpeg).shape == (48, 64, 3) and shown.picture(View(("events",))) is picture


@pytest.mark.parametrize("width, expected", [(1280, 1280), (700, 1280), (640, 640), (458, 640), (300, 320), (16, 16)])
def test_a_large_pane_is_reduced_by_whole_factors_to_what_the_screen_shows(width: int, expected: int) -> None:
    picture = moment(sample(0, 9, size=(1280, 720))).picture(View(("rgb",), width))
    assert picture.widths == (expected,) and picture.height == 720 * expected // 1280


def test_windows_of_about_one_width_share_a_picture() -> None:
    shown = moment(sample(0, 9, size=(1280, 720)))
    assert shown.picture(View(("rgb",), 500)) is shown.picture(View(("rgb",), 600))


def test_motion_is_against_the_sample_a_stride_before() -> None:
    past, motion = Past(), []
    for i in range(7):
        now = sample(i, 10 * i, discontinuity=i in (0, 4))
        motion.append(int(Moment(i, now, past.before(now, 2), 0.0).panes(View())[2][0, 0, 0]))
    assert motion == [0, 0, 40, 40, 0, 0, 40]  # RGB and event image change by 20 each; nothing across the jump at 4


def test_many_or_large_samples_are_remembered_in_bounded_memory() -> None:
    past = Past()
    for i in range(130):
        before = past.before(sample(i, 10, size=(1280, 720)), 128)
    assert before is not None and before[0].shape == (720 // 4, 1280 // 4, 3)
    assert sum(image.nbytes for pair in past._images for image in pair) < 64 << 20
    now = sample(130, 30, size=(1280, 720))
    motion = Moment(1, now, past.before(now, 128), 0.0).panes(View())[2]
    assert motion.shape == (720, 1280, 3) and (motion == 40).all()
    assert past.before(now, 2) is None, "those that were reduced are not compared with those that are not"


def test_panes_get_the_height_of_the_rgb_image() -> None:
    rgb, events = np.zeros((8, 10, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    panes = moment(Sample(0, 0, 1, rgb, events, no_events(), True, True, True)).panes(View())
    assert [pane.shape for pane in panes] == [(8, 10, 3), (8, 12, 3), (8, 10, 3)]
    assert encode_strip(panes).jpeg.startswith(b"\xff\xd8")


@pytest.mark.parametrize("rgb, events", [((1, 8192), (8192, 1)), ((2048, 8192), (1, 1)), ((1, 1), (260, 346))])
def test_a_strip_of_any_sensor_is_a_picture_of_bounded_size(rgb: tuple[int, int], events: tuple[int, int]) -> None:
    shown = replace(sample(0, 9), rgb=np.zeros((*rgb, 3), np.uint8), event_image=np.zeros((*events, 3), np.uint8))
    picture = decoded(moment(shown).picture(View()).jpeg)
    assert picture is not None
    assert picture.shape[0] <= 1080 and picture.shape[1] <= 3 * 1920 + 2 * GAP
