"""A video as a source, played from wherever it is asked for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from streams import EventPacket, RecordingError, RgbFrame, open_source, synchronize


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a bright square that moves over grey; 30 frames a second, 128 x 96."""
    path = tmp_path_factory.mktemp("video") / "square.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (128, 96))
    assert writer.isOpened()
    for k in range(60):
        image = np.full((96, 128, 3), 60, np.uint8)
        image[30:60, k : k + 30] = (0, 128, 255)  # orange, in OpenCV's order
        writer.write(image)
    writer.release()
    return path


def test_each_frame_after_the_first_is_a_sample_with_the_events_before_it(video: Path) -> None:
    with open_source(video, size=(128, 96)) as source:
        assert source.simulated and not source.live
        assert (source.event_size, source.frame_size, source.sample_period_us) == ((128, 96), (128, 96), 33_333)
        samples = list(synchronize(source))
        assert source.span_us == (0, 2_000_000)
    assert len(samples) == 59 and all(sample.has_rgb and sample.has_events for sample in samples)
    red, green, blue = samples[10].rgb[45, 25]
    assert red > 200 > green > 80 and blue < 60
    moved = samples[10].events
    assert len(moved) > 50 and set(np.unique(moved["y"] // 30)) <= {0, 1, 2}


def test_it_is_scaled_to_the_size_of_a_davis346_unless_told_otherwise(video: Path) -> None:
    with open_source(video) as source:
        frame = next(item for item in source if isinstance(item, RgbFrame))
    assert source.event_size == (346, 260) and frame.image.shape == (260, 346, 3)


def test_a_place_that_is_sought_has_pixels_that_know_what_was_before(video: Path) -> None:
    with open_source(video, size=(128, 96)) as source:
        whole = {sample.t_end_us: sample for sample in synchronize(source)}
        found = list(synchronize(source, from_us=1_400_000))
    assert found[0].t_end_us == min(t for t in whole if t > 1_400_000) and len(found) == 17
    for sample in found:
        same = whole[sample.t_end_us]
        assert np.array_equal(sample.rgb, same.rgb)
        assert len(sample.events) == pytest.approx(len(same.events), rel=0.3, abs=20)


def test_packets_and_frames_meet_without_holes(video: Path) -> None:
    with open_source(video) as source:
        items = list(source)
    packets = [item for item in items if isinstance(item, EventPacket)]
    assert all(a.t_end_us == b.t_start_us for a, b in zip(packets, packets[1:], strict=False))
    assert len(packets) * 2 == len(items)


def test_frames_that_are_not_evenly_apart_are_shown_when_they_were(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    times = [*range(0, 1_000, 40), *range(1_000, 3_000, 80)]  # milliseconds: 25 frames a second, then 12.5
    path = tmp_path / "uneven.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.time_base = 128, 96, Fraction(1, 1_000)
        stream.codec_context.time_base = Fraction(1, 1_000)
        for k, time_ms in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 40 + 3 * k, np.uint8), "rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1_000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with open_source(path, size=(128, 96)) as source:
        whole = {sample.t_end_us: sample.rgb.mean() for sample in synchronize(source)}
        assert list(whole) == pytest.approx([1_000 * t for t in times[1:]], abs=600)
        for sample in synchronize(source, from_us=2_000_000):
            assert sample.rgb.mean() == pytest.approx(whole[sample.t_end_us], abs=1)


def test_a_name_with_a_colon_is_a_file(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cam1:b.avi").write_bytes(video.read_bytes())
    with open_source("cam1:b.avi") as source:
        assert isinstance(next(iter(source)), EventPacket)


def test_a_name_that_is_no_utf_8_is_a_file(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "a\udcff.avi"  # which crashed the process
    try:
        path.write_bytes(video.read_bytes())
    except OSError:
        pytest.skip("this system has no such names")
    with open_source(path) as source:
        assert isinstance(next(iter(source)), EventPacket)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "holiday.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(RecordingError, match="holiday.mp4 cannot be read as a video: convert it"):
        open_source(path)


def test_a_video_that_was_cut_off_says_what_it_lacks(video: Path, tmp_path: Path) -> None:
    """An AVI has its length in its head."""
    with open_source(video) as source:
        list(source)
        assert not source.counts
    path = tmp_path / "cut.avi"
    path.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with open_source(path) as source:
        for _ in range(2):
            assert len(list(source)) > 20
            assert source.counts["seconds missing at the end"] == 1
