"""Clips of images as HARDVS and PokerEvent have them, as sources."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures

from streams import EventImage, RecordingError, open_source, synchronize
from streams.filters import filtered
from streams.image_folder import read_picture

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


def png(width: int, height: int, *, between: bytes = b"", claims: int | None = None) -> bytes:
    """A black picture with `between` in front of its pixels, whose length it may lie about."""
    pixels = zlib.compress(bytes(height * (3 * width + 1)))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), between, chunk(b"IDAT", pixels, claims), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes, claims: int | None = None) -> bytes:
    length = len(data) if claims is None else claims
    return struct.pack(">I", length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg(scans: int) -> bytes:
    """With its last scan, of a few bytes, so many times more."""
    file = io.BytesIO()
    Pictures.new("RGB", (34, 26)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


@pytest.mark.parametrize(
    "content",
    [
        png(34, 26, claims=(1 << 32) - 1),  # OpenCV would take 4 GB
        png(34, 26, claims=(1 << 31) - 1),
        png(34, 26)[:-12] + chunk(b"IEND", b"", (1 << 32) - 1),
        png(34, 26)[:-1],
        png(34, 26, between=chunk(b"acTL", struct.pack(">II", 2, 0))),
        jpeg(1000),
        png(4097, 4097),
    ],
    ids=["claims 4 GB", "claims 2 GB", "claims 4 GB at its end", "cut", "moves", "a thousand scans", "too large"],
)
def test_a_picture_made_to_harm_does_not_reach_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(cv2, "imdecode", Mock(side_effect=AssertionError))
    with pytest.raises(RecordingError, match="a.png is (damaged|4097 x 4097)"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    "content", [png(34, 26), png(34, 26, between=chunk(b"tEXt", b"a\0b")) + b"more", jpeg(0), jpeg(5)]
)
def test_what_looks_like_it_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert read_picture(tmp_path / "a.png").shape == (26, 34, 3)


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
