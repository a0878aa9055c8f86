"""Videos as an event camera would have seen them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from streams.items import EventPacket, Events, Image, RgbFrame
from streams.simulation.sensor import SENSORS, Sensor
from streams.simulation.video import T_START_US, Video, simulate_video

FPS, WIDTH, HEIGHT = 50, 80, 60


def write_video(path: Path, frames: list[Image], fps: float = FPS) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def bar(frames: int, step: int = 4, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Image]:
    """A bright orange bar that walks to the right over grey."""
    images = []
    for k in range(frames):
        image = np.full((size[1], size[0], 3), 60, np.uint8)
        image[:, 10 + step * k : 22 + step * k] = (230, 150, 60)
        images.append(image)
    return images


def simulated(
    path: Path, sensor: Sensor = SENSORS["ideal"], **options: int
) -> tuple[list[EventPacket], list[RgbFrame]]:
    with Video(path) as video:
        items = list(simulate_video(video, sensor, **{"width": WIDTH, "height": HEIGHT} | options))
    ends = [item.t_end_us for item in items]
    assert ends == sorted(ends)
    packets = [item for item in items if isinstance(item, EventPacket)]
    return packets, [item for item in items if isinstance(item, RgbFrame)]


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return write_video(tmp_path / "bar.avi", bar(10))


def all_events(packets: list[EventPacket]) -> Events:
    return np.concatenate([packet.events for packet in packets])


def test_frames_keep_their_times_and_colours(moving: Path) -> None:
    packets, frames = simulated(moving)
    assert [frame.t_end_us for frame in frames] == [T_START_US + k * 20_000 for k in range(1, 10)]
    assert {frame.t_end_us - frame.t_start_us for frame in frames} == {10_000}
    assert np.abs(frames[0].image[30, 20].astype(int) - (230, 150, 60)).max() < 12
    assert [(p.t_start_us, p.t_end_us) for p in packets] == [
        (T_START_US + k * 20_000, T_START_US + (k + 1) * 20_000) for k in range(9)
    ]


def test_what_gets_brighter_is_on_and_what_gets_darker_off(moving: Path) -> None:
    packets, _ = simulated(moving)
    for k, packet in enumerate(packets):
        left = 10 + 4 * k
        x, on = packet.events["x"], packet.events["p"]
        assert np.median(x[on]) == pytest.approx(left + 13.5, abs=1)  # ahead of the bar
        assert np.median(x[~on]) == pytest.approx(left + 1.5, abs=1)  # where it was
        assert np.all((packet.events["t"] >= packet.t_start_us) & (packet.events["t"] < packet.t_end_us))
    assert len(all_events(packets)) > 9 * 2 * 4 * HEIGHT


def test_a_still_video_has_no_events_but_those_of_the_sensor(tmp_path: Path) -> None:
    path = write_video(tmp_path / "still.avi", bar(1) * 100)
    assert len(all_events(simulated(path)[0])) == 0
    leaks = all_events(simulated(path, SENSORS["davis346"])[0])
    assert leaks["p"].all() and len(leaks) / (WIDTH * HEIGHT * 99 / FPS) == pytest.approx(0.027, rel=0.5)


def test_another_shape_is_cut_to_its_middle(tmp_path: Path) -> None:
    images = [np.zeros((60, 200, 3), np.uint8) for _ in range(3)]
    for image in images:
        image[:, :60], image[:, 60:140], image[:, 140:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    _, frames = simulated(write_video(tmp_path / "wide.avi", images))
    assert frames[0].image.shape == (HEIGHT, WIDTH, 3)
    assert frames[0].image[:, 3:-3, 1].min() > 150


@pytest.mark.parametrize("size", [(40, 30), (640, 480)])
def test_small_and_large_videos_fill_the_sensor(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "any.avi", bar(3, size=size))
    assert {frame.image.shape for frame in simulated(path)[1]} == {(HEIGHT, WIDTH, 3)}


def test_stops_when_asked_and_repeats_with_its_seed(moving: Path) -> None:
    with Video(moving) as video:
        assert video.seconds == pytest.approx(0.2)
        items = list(simulate_video(video, Sensor(), width=WIDTH, height=HEIGHT, seconds=0.1))
    assert items[-1].t_end_us == T_START_US + 100_000
    sensor = SENSORS["davis346"]
    same, again, other = (all_events(simulated(moving, sensor, seed=seed)[0]) for seed in (1, 1, 2))
    assert np.array_equal(same, again) and not np.array_equal(same, other)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone.mp4: no such file; simulate takes `cards` or a video"):
        Video(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match="text.mp4 cannot be read as a video"):
        Video(tmp_path / "text.mp4")
    short = write_video(tmp_path / "short.avi", bar(1))
    with pytest.raises(ValueError, match="short.avi has less than two frames"):
        simulated(short)
