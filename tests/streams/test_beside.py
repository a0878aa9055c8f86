"""The events of one source beside the frames of another: both on the clock of the events."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, Gap, RgbFrame, StreamError, open_source, synchronize, write_aedat4
from streams.beside import Beside
from streams.homography import load_homography
from streams.items import Events

WIDTH, HEIGHT, FPS, SECONDS = 128, 96, 30, 2
BAR = 8  # pixels wide; it moves by two a frame
START_US = 7_000_000


def bar_at(t_us: float) -> float:
    """Its left edge at a time since the start."""
    return 2 * t_us * FPS / 1e6


def bar_image(t_us: float) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    left = round(bar_at(t_us))
    image[:, left : left + BAR] = 220
    return image


def bar_events(start_us: int, end_us: int) -> Events:
    """Its edges, one column of events a millisecond: ON in front, OFF behind."""
    times = np.arange(start_us, end_us, 1_000)
    events = np.zeros(2 * len(times), EVENT_DTYPE)
    events["t"] = np.repeat(times, 2)
    left = np.array([bar_at(t) for t in times])
    events["x"] = np.stack([left, left + BAR], 1).ravel().clip(0, WIDTH - 1).astype(np.uint16)
    events["y"], events["p"] = np.arange(len(events)) % HEIGHT, np.arange(len(events)) % 2
    return events


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of the bar alone, from START_US on."""
    path = tmp_path_factory.mktemp("beside") / "bar.aedat4"
    with write_aedat4(path, (WIDTH, HEIGHT)) as writer:
        for start in range(0, SECONDS * 1_000_000, 10_000):
            events = bar_events(start, start + 10_000)
            events["t"] += START_US
            writer.write(EventPacket(START_US + start, START_US + start + 10_000, events))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beside") / "bar.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for k in range(SECONDS * FPS):
        writer.write(bar_image(k * 1e6 / FPS))
    writer.release()
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without number 12."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(40):
        if k != 7:
            cv2.imwrite(str(folder / f"frame_{k + 5:05}.png"), bar_image(k * 1e6 / FPS))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def seen_at(image: np.ndarray) -> float:
    """Left edge of the bar in a picture."""
    return float(np.flatnonzero(image[HEIGHT // 2, :, 0] > 130)[0])


def front_of(events: Events) -> float:
    """Where the bar's left edge was when the last of the events came."""
    return float(events["x"][~events["p"]].max())


@pytest.mark.parametrize("offset_ms", [0.0, 100.0, -150.0, 12.5])
def test_each_frame_has_its_events_and_is_shifted_as_told(recording: Path, video: Path, offset_ms: float) -> None:
    with Beside(open_source(recording), str(video), offset_ms=offset_ms) as source:
        assert (source.event_size, source.frame_size) == ((WIDTH, HEIGHT), (WIDTH, HEIGHT))
        assert not source.live and source.sample_period_us == 33_333 and source.warning == ""
        samples = list(synchronize(source))
    assert len(samples) == SECONDS * FPS
    assert samples[0].t_end_us == pytest.approx(START_US + offset_ms * 1e3, abs=1)
    both = [sample for sample in samples[2:] if sample.has_events and len(sample.events) > 40]
    assert len(both) > 40
    apart = [(front_of(sample.events) - seen_at(sample.rgb)) / bar_at(1e6 / FPS) for sample in both]  # frames
    expected = offset_ms * FPS / 1e3
    assert all(abs(found - expected) <= 1 for found in apart)


def test_items_come_in_order_and_without_the_frames_of_the_events_source(small_recording: Path, video: Path) -> None:
    with Beside(open_source(small_recording), str(video)) as source:
        items = [item for item in source if not isinstance(item, Gap)]
        span = source.span_us
    ends = [item.t_end_us for item in items]
    assert ends == sorted(ends)
    frames = [item for item in items if isinstance(item, RgbFrame)]
    assert len(frames) == SECONDS * FPS and all(frame.t_start_us == frame.t_end_us for frame in frames)
    assert {frame.image.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert span is not None and span[0] == frames[0].t_end_us and span[1] >= frames[-1].t_end_us


def test_large_frames_wait_for_no_packet_that_is_longer_than_many_of_them(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as if they were large
    monkeypatch.setattr(sys.modules["streams.synchronize"], "_MAX_HELD_BYTES", 2 * WIDTH * HEIGHT * 3)
    path = tmp_path / "long.aedat4"
    with write_aedat4(path, (WIDTH, HEIGHT)) as writer:
        writer.write(EventPacket(0, 2_000_000, bar_events(0, 2_000_000)))
    with Beside(open_source(path), str(video)) as source:
        samples = list(synchronize(source))
    assert len(samples) == SECONDS * FPS and all(len(sample.events) > 40 for sample in samples[1:])


@pytest.mark.parametrize("since_us", [0, 33_333, 100_000, 1_033_000, 1_900_000])
def test_samples_from_a_place_on_equal_those_of_a_whole_run(recording: Path, video: Path, since_us: int) -> None:
    with Beside(open_source(recording), str(video), offset_ms=5) as source:
        whole = {sample.t_end_us: sample for sample in synchronize(source)}
        found = list(synchronize(source, from_us=START_US + since_us))
    assert [sample.t_end_us for sample in found] == [end for end in whole if end > START_US + since_us]
    for sample in found:
        same = whole[sample.t_end_us]
        assert (sample.t_start_us, sample.has_events) == (same.t_start_us, same.has_events)
        assert np.array_equal(sample.rgb, same.rgb) and np.array_equal(sample.events, same.events)
        assert np.array_equal(sample.event_image, same.event_image)


def test_a_folder_of_pictures_keeps_its_holes_and_seeks(recording: Path, pictures: Path) -> None:
    with Beside(open_source(recording), str(pictures), fps=20) as source:
        frames = [item for item in source if isinstance(item, RgbFrame)]
        whole = {sample.t_end_us: sample for sample in synchronize(source)}
        found = list(synchronize(source, from_us=START_US + 375_000))
    assert [frame.t_end_us - START_US for frame in frames] == [50_000 * k for k in range(40) if k != 7]
    assert found[0].t_end_us == START_US + 400_000 and found[0].t_start_us == START_US + 300_000
    assert all(np.array_equal(sample.events, whole[sample.t_end_us].events) for sample in found)


def test_a_homography_shows_frames_in_the_pixels_of_the_events(recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for k in range(20):
        image = cv2.resize(bar_image(k * 1e6 / FPS), (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{k}.png"), np.roll(image, 40, axis=1))
    (tmp_path / "h.txt").write_text("4, 0, 41.5  # four times as large, and to the right\n0, 4, 1.5\n0, 0, 1\n")
    with Beside(open_source(recording), str(folder), homography=load_homography(tmp_path / "h.txt")) as source:
        assert source.frame_size == (WIDTH, HEIGHT)
        frames = [item for item in source if isinstance(item, RgbFrame)]
    for k, frame in enumerate(frames):
        assert frame.image.shape == (HEIGHT, WIDTH, 3)
        assert abs(seen_at(frame.image) - round(bar_at(k * 1e6 / FPS))) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 1 0 0 0", "is nine numbers"),
        ("1 0 0 0 1 0 0 0 one", "is nine numbers"),
        ("1 0 0 0 1 0 0 0 nan", "cannot be inverted"),
        ("1 2 3 2 4 6 0 0 1", "cannot be inverted"),
        ("1 " * 9 + "\n" + "#" * 20_000, "is nine numbers"),
        ("", "is nine numbers"),
    ],
)
def test_a_homography_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "h.txt").write_text(text)
    with pytest.raises(StreamError, match=rf"h\.txt: .*{message}"):
        load_homography(tmp_path / "h.txt")
    with pytest.raises(StreamError, match="none.txt: cannot be read"):
        load_homography(tmp_path / "none.txt")


def test_partners_that_do_not_fit_are_refused_in_one_line(recording: Path, video: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 100)
    cases: list[tuple[str, dict[str, float], str]] = [
        ("webcam:0", {}, "beside a recording only"),
        (str(empty), {}, "no pictures in it"),
        (str(recording), {}, "not a video"),
        (str(tmp_path / "none.mp4"), {}, "no such file"),
        (str(tmp_path / "bad.mp4"), {}, "cannot be read as a video"),
        (str(video), {"fps": -1}, "must be more than 0"),
        (str(video), {"offset_ms": math.nan}, "within a day"),
    ]
    for frames, options, message in cases:
        with pytest.raises(StreamError, match=message) as raised:
            Beside(open_source(recording), frames, **options)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
