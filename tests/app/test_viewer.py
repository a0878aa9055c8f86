"""One viewer: plays a recording into a slot that keeps only the newest picture, and tells in a line what went wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from app.meters import LabelLatency
from app.strip import GAP, Panes, encode_strip
from app.viewer import Frame, Slot, Viewer
from app.viewers import MOST_VIEWERS, Viewers
from streams import RecordingError, Sample, Source
from streams.items import Item, no_events
from tests.conftest import moving_square
from velora import VELoRAConfig

LABELS = ("<b>A</b>", "7 ♥", "K", "JOKER", "no card", "2")


class FakeSession:
    """A label for each sample from the second of a stretch on; they take turns."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def push(self, sample: Sample) -> SimpleNamespace | None:
        if sample.discontinuity:
            return None
        first = sample.index // 5 % len(LABELS)
        top = tuple((LABELS[(first + i) % len(LABELS)], p) for i, p in enumerate((0.5, 0.2, 0.15, 0.1, 0.05)))
        return SimpleNamespace(
            index=sample.index,
            t_end_us=sample.t_end_us,
            topk=top,
            label=top[0][0],
            confidence=top[0][1],
            unsure=False,
        )


class FakeRecognizer:
    """What the page needs of a recogniser."""

    name, device, dtype, random_parts = "fake", "cpu", "torch.float32", ("head",)
    config = VELoRAConfig(labels=LABELS, backbone="demo", sample_period_us=133_333)

    def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
        return FakeSession(stride)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition that other threads bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def viewer_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("viewer", "recognizer"))]


def sample(index: int, value: int, *, discontinuity: bool = False) -> Sample:
    image = np.full((4, 6, 3), value, np.uint8)
    return Sample(index, index, index + 1, image, image, no_events(), True, True, discontinuity)


@pytest.fixture
def viewer(small_recording: Path):
    viewer = Viewer(small_recording, FakeRecognizer())
    yield viewer
    viewer.close()


def newest(viewer: Viewer, after: int = 0) -> Frame | None:
    return asyncio.run(viewer.frame_after(after, 5.0))


def test_shows_the_three_panes_and_the_labels(viewer: Viewer) -> None:
    frame = newest(viewer)
    until(lambda: viewer.state()["labels"])
    image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (48, 3 * 64 + 2 * GAP, 3)
    state = viewer.state()
    assert state["panes"] == (64, 64, 64) and state["playing"] and not state["message"]
    assert len(state["labels"]) == 5 and state["labels"][0][0] in LABELS
    assert state["stride"] == 4  # 133 ms at 30 fps
    until(lambda: (viewer.state()["label_ms"] or 0) > 0 and viewer.state()["source_fps"] > 1)


def test_pauses_resumes_and_restarts(viewer: Viewer) -> None:
    newest(viewer)
    viewer.pause()
    assert not viewer.state()["playing"]
    number = asyncio.run(viewer.frame_after(0, 0.0)).number
    last = asyncio.run(viewer.frame_after(number, 0.2))  # at most one was on its way
    assert asyncio.run(viewer.frame_after(last.number if last else number, 0.2)) is None
    viewer.resume()
    resumed = newest(viewer, after=last.number if last else number)
    assert resumed is not None and viewer.state()["playing"]
    until(lambda: viewer.state()["position_s"] > 0.3)
    viewer.restart()
    until(lambda: viewer.state()["position_s"] < 0.3)


def test_the_slot_keeps_only_the_newest() -> None:
    slot = Slot()
    for number in (1, 2, 3):
        slot.put(Frame(number, b"", (), 0, 0))
    assert asyncio.run(slot.after(0, 0.0)).number == 3
    assert asyncio.run(slot.after(3, 0.0)) is None


def test_the_slot_wakes_who_waits_from_another_thread() -> None:
    slot = Slot()
    threading.Timer(0.05, slot.put, [Frame(1, b"", (), 0, 0)]).start()
    assert asyncio.run(slot.after(0, 5.0)).number == 1


def test_numbers_rise_from_one_viewer_to_the_next(viewer: Viewer, small_recording: Path) -> None:
    number = newest(viewer).number
    other = Viewer(small_recording, FakeRecognizer())
    assert newest(other).number > number
    other.close()


def test_close_joins_the_threads(small_recording: Path) -> None:
    viewer = Viewer(small_recording, FakeRecognizer())
    newest(viewer)
    assert viewer_threads()
    viewer.close()
    viewer.close()
    assert not viewer_threads()


def test_a_bad_recording_becomes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.aedat4"
    path.write_bytes(b"not a recording\n" * 10)
    viewer = Viewer(path, FakeRecognizer())
    until(lambda: viewer.state()["message"])
    message = viewer.state()["message"]
    assert message.startswith("bad.aedat4") and "\n" not in message and not viewer.state()["playing"]
    viewer.close()


def test_a_failing_model_becomes_one_line(small_recording: Path) -> None:
    class Failing(FakeRecognizer):
        def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
            raise RuntimeError("out\nof memory")

    viewer = Viewer(small_recording, Failing())
    until(lambda: viewer.state()["message"] == "out of memory")
    viewer.close()


def test_motion_is_against_the_sample_a_stride_before() -> None:
    panes = Panes()
    motion = [panes.of(sample(i, 10 * i, discontinuity=i in (0, 4)), 2)[2][0, 0, 0] for i in range(7)]
    assert motion == [0, 0, 40, 40, 0, 0, 40]  # RGB and event image change by 20 each; nothing across the jump at 4


def test_panes_get_the_height_of_the_rgb_image() -> None:
    rgb, events = np.zeros((8, 10, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    panes = Panes().of(Sample(0, 0, 1, rgb, events, no_events(), True, True, True), 1)
    assert [pane.shape for pane in panes] == [(8, 10, 3), (8, 12, 3), (8, 10, 3)]
    assert encode_strip(panes).startswith(b"\xff\xd8")


def test_latency_skips_samples_without_label_and_old_passes() -> None:
    latency = LabelLatency()
    assert latency.median_ms() is None
    for index in (8, 9, 0, 1, 2):
        latency.released(index)
    latency.labelled(1)
    latency.labelled(2)
    assert 0 <= latency.median_ms() < 1000


def test_an_upload_belongs_to_its_viewer_and_goes_with_it(small_recording: Path, tmp_path: Path) -> None:
    viewers = Viewers(FakeRecognizer())
    token = viewers.open("tab", small_recording)
    for name in ("one.aedat4", "two.aedat4"):
        (tmp_path / name).write_bytes(small_recording.read_bytes())
        viewers.play_upload(token, tmp_path / name)
    first = viewers.get(token).recording
    assert first.name == "two.aedat4" and first.exists() and not list(tmp_path.iterdir())
    viewers.leave("tab")
    assert not first.parent.exists() and viewers.get(token) is None and not viewer_threads()


def test_a_bad_upload_is_refused_and_removed(small_recording: Path, tmp_path: Path) -> None:
    viewers = Viewers(FakeRecognizer())
    token = viewers.open("tab", small_recording)
    bad = tmp_path / "bad.aedat4"
    bad.write_bytes(b"#!AER-DAT4.0\r\n" + b"\xff" * 100)
    with pytest.raises(RecordingError, match="bad.aedat4"):
        viewers.play_upload(token, bad)
    assert not bad.exists() and viewers.get(token).recording == small_recording
    viewers.close()


def test_uploads_reach_only_readers_that_stand_hostile_files(small_recording: Path, tmp_path: Path) -> None:
    viewers = Viewers(FakeRecognizer())
    token = viewers.open("tab", small_recording)
    video = tmp_path / "holiday.mp4"
    video.write_bytes(b"whatever a decoder chokes on")
    with pytest.raises(RecordingError, match="only AEDAT recordings are taken here"):
        viewers.play_upload(token, video)
    assert not video.exists()
    viewers.close()


class FakeCamera(Source):
    """A live source that only one may open at a time."""

    live, opened = True, 0

    def __init__(self) -> None:
        super().__init__()
        assert not FakeCamera.opened
        FakeCamera.opened += 1
        self.name, self.event_size, self.frame_size, self.sample_period_us = "camera", (64, 48), (64, 48), 20_000
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Item]:
        for item in moving_square(100_000, period_us=20_000):
            if self._closed.wait(0.01):
                return
            yield item

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            time.sleep(0.2)  # as drivers take
            FakeCamera.opened -= 1


def test_tabs_share_a_live_source_and_its_recording(tmp_path: Path) -> None:
    viewers = Viewers(FakeRecognizer(), opened=lambda _: FakeCamera(), record_to=tmp_path)
    viewers.prepare("webcam:0")
    first, second = (viewers.get(viewers.open(name, "webcam:0")) for name in "ab")
    until(lambda: first.state()["labels"] and second.state()["labels"])
    assert FakeCamera.opened == 1
    first.record()
    until(lambda: second.state()["recorded"] and second.state()["recorded"]["seconds"] >= 1)
    second.record()  # ends it
    assert first.state()["recorded"] is None
    second.record()
    until(lambda: first.state()["recorded"] and first.state()["recorded"]["seconds"] >= 1)
    viewers.leave("a")
    assert FakeCamera.opened == 1 and second.state()["recorded"] and not second.state()["message"]
    viewers.leave("b")
    at_once = viewers.get(viewers.open("b again", "webcam:0"))
    until(lambda: at_once.state()["labels"])
    viewers.leave("b again")
    until(lambda: FakeCamera.opened == 0 and not viewer_threads())
    recordings = sorted(tmp_path.glob("*.aedat4"))
    assert len(recordings) == 2
    for path in recordings:
        rows = path.with_name(f"{path.stem}.labels.csv").read_text().splitlines()[1:]
        ends = [int(row.split(",")[2]) for row in rows]
        assert rows and ends == sorted(ends)  # of one viewer, not of both
    again = viewers.get(viewers.open("c", "webcam:0"))
    until(lambda: again.state()["labels"])
    viewers.close()
    assert FakeCamera.opened == 0


def test_viewers_that_nobody_asks_are_freed(small_recording: Path) -> None:
    viewers = Viewers(FakeRecognizer())
    token = viewers.open("tab", small_recording)
    viewers.free_idle(60)
    assert viewers.get(token) is not None
    viewers.free_idle(-1)
    assert len(viewers) == 0 and not viewer_threads()


@pytest.mark.parametrize("rgb, events", [((1, 8192), (8192, 1)), ((2048, 8192), (1, 1)), ((1, 1), (260, 346))])
def test_a_strip_of_any_sensor_is_a_picture_of_bounded_size(rgb: tuple[int, int], events: tuple[int, int]) -> None:
    shown = replace(sample(0, 9), rgb=np.zeros((*rgb, 3), np.uint8), event_image=np.zeros((*events, 3), np.uint8))
    picture = cv2.imdecode(np.frombuffer(encode_strip(Panes().of(shown, 1)), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[0] <= 1080 and picture.shape[1] <= 3 * 1920 + 2 * GAP


def test_labels_of_what_was_played_before_a_restart_are_not_shown(small_recording: Path) -> None:
    viewer = Viewer(small_recording, FakeRecognizer())
    until(lambda: viewer.state()["labels"])
    viewer.close()
    shown = viewer.state()["labels"]
    viewer.on_sample(sample(0, 1, discontinuity=True))
    viewer.on_prediction(SimpleNamespace(index=40, topk=(("old", 1.0),), unsure=False))
    assert viewer.state()["stale"] and viewer.state()["labels"] == shown
    viewer.on_sample(sample(1, 1))
    viewer.on_prediction(SimpleNamespace(index=1, topk=(("new", 1.0),), unsure=True))
    assert not viewer.state()["stale"] and viewer.state()["labels"] == [("new", 1.0)]
    assert viewer.state()["unsure"]


def test_viewers_are_bounded_one_a_session_and_end_together(small_recording: Path) -> None:
    viewers = Viewers(FakeRecognizer())
    for i in range(MOST_VIEWERS):
        viewers.open(f"session {i}", small_recording)
    viewers.open("session 0", small_recording)
    assert len(viewers) == MOST_VIEWERS
    with pytest.raises(ValueError, match="close one of them"):
        viewers.open("one too many", small_recording)
    viewers.close()
    assert len(viewers) == 0 and not viewer_threads()
