"""Webcams, as a fake of OpenCV's capture shows them: they come, slow down, stall, vanish and come back."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from streams import Gap, Live, StreamError, open_source
from streams.items import Item


class FakeCapture:
    """30 frames a second in which a bar moves; its faults are switched from outside."""

    there, period_s, stalled, raises = True, 1 / 60, False, False
    image: np.ndarray | None = None  # shown instead of the bar

    def __init__(self, number: int) -> None:
        self.number, self.count, self.released = number, itertools.count(), False

    def isOpened(self) -> bool:  # noqa: N802 (as OpenCV calls it)
        return type(self).there and not type(self).raises and self.number == 0

    def get(self, _: int) -> float:
        return 60.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        while type(self).stalled:
            time.sleep(0.01)
        if type(self).raises:
            raise cv2.error("the cable is hot")
        if not type(self).there:
            return False, None
        time.sleep(type(self).period_s)
        if type(self).image is not None:
            return True, type(self).image
        image = np.full((96, 128, 3), 60, np.uint8)
        image[:, next(self.count) % 100 :][:, :20] = 200
        return True, image

    def release(self) -> None:
        self.released = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCapture]]:
    class Own(FakeCapture):
        pass

    monkeypatch.setattr("cv2.VideoCapture", Own)
    monkeypatch.setattr("streams.webcam._RETRY_S", 0.05)
    yield Own
    Own.stalled = False


def until(what: str, source: object, timeout_s: float = 5) -> None:
    end = time.monotonic() + timeout_s
    while what not in source.warning:  # type: ignore[attr-defined]
        assert time.monotonic() < end, f"never said {what!r}, but {source.warning!r}"  # type: ignore[attr-defined]
        time.sleep(0.01)


def test_frames_come_with_simulated_events_on_the_hosts_clock(camera: type[FakeCapture]) -> None:
    with open_source("webcam:0", size=(128, 96)) as source:
        assert source.live and source.simulated and source.sample_period_us == 16_667
        samples = list(itertools.islice(Live(source), 10))
    now_us = time.monotonic_ns() // 1_000
    assert all(0 < now_us - sample.t_end_us < 5_000_000 and sample.arrival_ns is not None for sample in samples)
    assert all(sample.has_rgb and sample.has_events for sample in samples)
    assert sum(len(sample.events) for sample in samples) > 500


def test_one_that_vanishes_is_said_and_found_again_with_a_gap(camera: type[FakeCapture]) -> None:
    with open_source("webcam:0", size=(64, 48)) as source:
        items: list[Item] = []
        reader = threading.Thread(target=lambda: items.extend(source), daemon=True)
        reader.start()
        time.sleep(0.3)
        camera.there = False
        until("the webcam is gone", source)
        camera.there = True
        end = time.monotonic() + 5
        while not any(isinstance(item, Gap) for item in items) or isinstance(items[-1], Gap):
            assert time.monotonic() < end
            time.sleep(0.01)
            items = items
        assert source.warning == ""
    reader.join(2)
    assert not reader.is_alive()


def test_one_that_slows_down_in_the_dark_is_said(camera: type[FakeCapture]) -> None:
    with open_source("webcam:0", size=(64, 48)) as source:
        threading.Thread(target=lambda: list(source), daemon=True).start()
        camera.period_s = 1 / 15
        until("in the dark it exposes longer", source)


def test_one_whose_driver_raises_is_lost_and_found_again(camera: type[FakeCapture]) -> None:
    with open_source("webcam:0", size=(64, 48)) as source:
        reader = threading.Thread(target=lambda: list(source), daemon=True)
        reader.start()
        camera.raises = True
        until("the webcam is gone", source)
        camera.raises = False
        end = time.monotonic() + 5
        while source.warning:
            assert time.monotonic() < end
            time.sleep(0.01)
    reader.join(2)
    assert not reader.is_alive()


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 200), (np.uint16, 200 * 256 + 17)])
@pytest.mark.parametrize("shape", [(96, 128, 3), (96, 128)])
def test_grey_images_and_those_of_16_bits_are_shown_as_they_are(
    camera: type[FakeCapture], kind: type, value: int, shape: tuple[int, ...]
) -> None:
    camera.image = np.full(shape, value, kind)
    with open_source("webcam:0", size=(64, 48)) as source:
        sample = next(iter(Live(source)))
    assert sample.rgb.shape == (48, 64, 3) and (sample.rgb == 200).all()


def test_images_of_another_kind_end_it_with_one_line(camera: type[FakeCapture]) -> None:
    camera.image = np.full((96, 128, 3), 0.5)
    with open_source("webcam:0", size=(64, 48)) as source, pytest.raises(StreamError, match="images of float64: set"):
        list(Live(source))


def test_a_driver_that_hangs_is_said_and_holds_nobody_up(
    camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.webcam.STALL_S", 0.2)
    source = open_source("webcam:0", size=(64, 48))
    samples = Live(source)
    reader = threading.Thread(target=lambda: list(samples), daemon=True)
    reader.start()
    camera.stalled = True
    until("no frames for", source)
    began = time.monotonic()
    samples.stop()
    reader.join(5)
    assert not reader.is_alive() and time.monotonic() - began < 1.5


def test_one_that_is_closed_before_its_first_frame_is_free_as_soon_as_the_driver_lets_go(
    camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.webcam._JOIN_S", 0.05)
    captures: list[FakeCapture] = []
    made = camera.__init__

    def noted(self: FakeCapture, number: int) -> None:
        made(self, number)
        captures.append(self)

    monkeypatch.setattr(camera, "__init__", noted)
    camera.stalled = True
    open_source("webcam:0", size=(64, 48)).close()
    assert not captures[0].released
    camera.stalled = False
    end = time.monotonic() + 5
    while not captures[0].released:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_a_driver_makes_up_is_not_believed(
    camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch, fps: float
) -> None:
    monkeypatch.setattr(camera, "get", lambda *_: fps)
    with open_source("webcam:0", size=(64, 48)) as source:
        assert source.sample_period_us == 33_333


@pytest.mark.parametrize(
    ("address", "message"),
    [("webcam:3", "no such webcam, or another program uses it"), ("webcam:front", "write it as webcam:0")],
)
def test_what_cannot_be_opened_is_one_line(camera: type[FakeCapture], address: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        open_source(address)
