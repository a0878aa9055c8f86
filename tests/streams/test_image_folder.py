"""Clips of images as HARDVS and PokerEvent have them, as sources."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures

from streams import EventImage, RecordingError, open_source, synchronize
from streams.filters import filtered

NUMBERS = (5, 10, 15, 20, 30)


def value(number: int) -> int:
    return 3 * number


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "dvSave-2021_09_30_11_40_43"
    for kind, offset in (("aps", 0), ("dvs", 100)):
        own = folder / f"{folder.name}_{kind}"
        own.mkdir(parents=True)
        for number in NUMBERS:
            image = np.full((26, 34, 3), value(number) + offset, np.uint8)
            image[:, 0] = (9, 0, 0)  # blue, in OpenCV's order
            cv2.imwrite(str(own / f"{number:08d}.png"), image)
    return folder


@pytest.mark.parametrize("scheme", ["", "hardvs:"])
def test_pictures_of_one_number_are_a_sample_at_its_time(clip: Path, scheme: str) -> None:
    with open_source(f"{scheme}{clip}") as source:
        assert (source.event_size, source.frame_size, source.sample_period_us) == ((34, 26), (34, 26), 5 * 33_333)
        assert source.span_us == (5 * 33_333, 31 * 33_333)
        samples = list(synchronize(source))
        assert not source.counts
    assert [sample.t_start_us for sample in samples] == [number * 33_333 for number in NUMBERS]
    for number, sample in zip(NUMBERS, samples, strict=True):
        assert sample.rgb[3, 3, 0] == value(number) and sample.event_image[3, 3, 0] == value(number) + 100
        assert tuple(sample.rgb[0, 0]) == (0, 0, 9)
        assert sample.has_rgb and sample.has_events and not len(sample.events)
    assert [sample.discontinuity for sample in samples] == [True, False, False, False, False]


def test_what_is_sought_equals_what_the_whole_clip_shows(clip: Path) -> None:
    with open_source(clip) as source:
        whole, found = list(synchronize(source)), list(synchronize(source, from_us=15 * 33_333))
    assert [sample.t_end_us for sample in found] == [sample.t_end_us for sample in whole[2:]]
    assert all(np.array_equal(a.event_image, b.event_image) for a, b in zip(found, whole[2:], strict=True))


def test_pictures_of_events_are_turned_like_frames(clip: Path) -> None:
    with filtered(open_source(clip), rotate=90, flip="horizontal") as source:
        sample = next(iter(synchronize(source)))
    assert sample.event_image.shape == sample.rgb.shape == (34, 26, 3)
    assert (sample.event_image[-1, :, 2] == 9).all() and (sample.rgb[-1, :, 2] == 9).all()


def test_a_picture_that_has_no_partner_is_left_out(clip: Path) -> None:
    (clip / f"{clip.name}_dvs" / "00000010.png").unlink()
    with open_source(clip) as source:
        assert [item.t_start_us // 33_333 for item in source if isinstance(item, EventImage)] == [5, 15, 20, 30]


def test_a_damaged_picture_and_one_of_another_size_are_named(clip: Path) -> None:
    picture = clip / f"{clip.name}_aps" / "00000010.png"
    cv2.imwrite(str(picture), np.zeros((5, 5, 3), np.uint8))
    with open_source(clip) as source, pytest.raises(RecordingError, match="00000010.png is 5 x 5, the first"):
        list(source)
    picture.write_bytes(picture.read_bytes()[:30])
    with open_source(clip) as source, pytest.raises(RecordingError, match="00000010.png is no picture"):
        list(source)


def test_how_a_camera_was_held_turns_no_picture(clip: Path) -> None:
    for path in clip.rglob("*.png"):
        with Pictures.open(path) as picture:
            turned = Pictures.Exif()
            turned[0x0112] = 6  # a quarter
            picture.convert("RGB").save(path.with_suffix(".jpg"), exif=turned)
        path.unlink()
    with open_source(clip) as source:
        assert next(iter(synchronize(source))).rgb.shape == (26, 34, 3)


def test_a_folder_that_is_no_clip_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="is a folder; name one recording in it"):
        open_source(tmp_path)
    with pytest.raises(RecordingError, match="no images in .*_aps and .*_dvs; name a clip's folder"):
        open_source(f"hardvs:{tmp_path}")
