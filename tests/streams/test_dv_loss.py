"""Cameras that vanish, stall or hang: it is said, they are found again, and nobody is held up."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from tests.conftest import random_events
from tests.fake_dv import NOT_ALLOWED, REAL, FakeCamera, FakeDriver, failure
from tests.streams.dv_feed import Taken, batch, until


@pytest.mark.parametrize("raises", [None, failure("Device was lost."), ValueError("odd")])
def test_one_that_vanishes_is_said_and_found_again(
    camera: FakeCamera, driver: FakeDriver, taken: Callable[..., Taken], raises: Exception | None
) -> None:
    feed = taken("dv:", contrast="high", exposure_us=5_000)
    camera.give(batch(0, 10_000))
    until(lambda: feed.events() == 50)
    camera.raises = raises
    camera.unplug()
    until(lambda: feed.source.warning.startswith("the camera is gone since "))
    driver.cameras.insert(0, FakeCamera(serial="00000001"))  # not this one
    camera.plug_in()
    until(lambda: feed.source.warning == "")
    camera.give(random_events(50, 1_000, 11_000))
    until(lambda: feed.events() == 100)
    assert feed.gaps() == ["reconnected"] and driver.opened == 2
    times = [packet.t_end_us for packet in feed.packets()]
    assert times == sorted(times)
    assert camera.handle is not None and camera.handle().values[REAL.DAVIS.Davis346BiasCF.On] == (5, 200)
    assert feed.source.settings["exposure"] == "5,000 us"


def test_one_that_stops_running_hands_over_what_it_had(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    camera.running = False
    camera.give(*(batch(10_000 * k, 10_000 * k + 10_000) for k in range(100)))
    feed = taken()
    until(lambda: feed.events() == 5_000)
    until(lambda: "gone" in feed.source.warning)


def test_one_that_is_refused_for_a_while_is_tried_on(
    camera: FakeCamera, driver: FakeDriver, taken: Callable[..., Taken]
) -> None:
    feed = taken()
    camera.unplug()
    until(lambda: "gone" in feed.source.warning)
    camera.refuses = failure(NOT_ALLOWED)
    camera.plug_in()
    until(lambda: driver.tried > 3)
    assert "gone" in feed.source.warning
    camera.refuses = None
    until(lambda: feed.source.warning == "")


def test_one_that_comes_back_as_another_sensor_ends_the_feed(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    feed = taken()
    camera.unplug()
    until(lambda: "gone" in feed.source.warning)
    camera.size = (32, 24)
    camera.plug_in()
    feed.thread.join(10)
    assert str(feed.failure) == "dv: the camera came back with another sensor; start again"


def test_a_stall_is_said(camera: FakeCamera, taken: Callable[..., Taken], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.dv_camera.STALL_S", 0.2)
    feed = taken()
    until(lambda: feed.source.warning.startswith("no data for "))
    stop = threading.Event()

    def look() -> None:
        for k in itertools.count(1):
            camera.give(batch(10_000 * k, 10_000 * k + 10_000))
            if stop.wait(0.01):
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        until(lambda: feed.source.warning.startswith("no frames for "))
    finally:
        stop.set()
        looking.join()


def test_a_driver_that_hangs_is_said_and_holds_nobody_up(
    camera: FakeCamera, taken: Callable[..., Taken], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.dv_camera.STALL_S", 0.2)
    feed = taken()
    with camera.held():
        until(lambda: feed.source.warning.startswith("no data for"))
        feed.source.close()
        feed.thread.join(5)
        assert not feed.thread.is_alive()
    feed.source.close()
