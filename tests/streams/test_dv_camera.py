"""Cameras of iniVation, as a fake of their driver shows them: real packets, and every way in which a camera fails."""

from __future__ import annotations

import itertools
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dv_processing as dv
import numpy as np
import pytest

from streams import EventPacket, Gap, RgbFrame, StreamError, synchronize
from streams.aedat4_source import Aedat4Source
from streams.dv_camera import DvCameraSource, Order, reason
from streams.items import EVENT_DTYPE, Events, Item
from tests.conftest import random_events
from tests.fake_dv import (
    IN_USE,
    NOT_ALLOWED,
    REAL,
    Davis,
    Dvs128,
    Dvxplorer,
    FakeCamera,
    FakeDriver,
    failure,
    frame_of,
)

T0 = 1_700_000_000_000_000  # microseconds: cameras tell the time of day
GREY = np.full((48, 64), 90, np.uint8)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """A DAVIS346 that looks at nothing yet."""
    driver = FakeDriver(FakeCamera())
    monkeypatch.setattr("streams.dv_camera.driver", lambda: driver)
    monkeypatch.setattr("streams.dv_camera._RETRY_S", (0.02, 0.05))
    return driver


@pytest.fixture
def camera(driver: FakeDriver) -> FakeCamera:
    return driver.cameras[0]


def batch(start_us: int, end_us: int, n: int = 50) -> Events:
    return random_events(n, T0 + start_us, T0 + end_us)


def until(what: Callable[[], Any], timeout_s: float = 10) -> Any:
    """Wait for something to be true."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)
    return found


class Taken:
    """The items of a source, taken in a thread as they come."""

    def __init__(self, source: DvCameraSource) -> None:
        self.items: list[Item] = []
        self.failure: Exception | None = None
        self.source = source
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        try:
            self.items.extend(self.source)  # item by item
        except StreamError as error:
            self.failure = error

    def packets(self) -> list[EventPacket]:
        return [item for item in list(self.items) if isinstance(item, EventPacket)]

    def frames(self) -> list[RgbFrame]:
        return [item for item in list(self.items) if isinstance(item, RgbFrame)]

    def gaps(self) -> list[str]:
        return [item.reason for item in list(self.items) if isinstance(item, Gap)]

    def events(self) -> int:
        return sum(len(packet.events) for packet in self.packets())


@pytest.fixture
def taken(driver: FakeDriver) -> Iterator[Callable[..., Taken]]:
    """Opens a camera, and takes what it yields."""
    opened: list[Taken] = []

    def take(address: str = "dv:", **options: Any) -> Taken:
        opened.append(Taken(DvCameraSource(address, **options)))
        return opened[-1]

    yield take
    for one in opened:
        one.source.close()
        one.thread.join(5)
        assert not one.thread.is_alive()


# --- what flows -------------------------------------------------------------------------------------------------------


def test_samples_of_a_camera_equal_those_of_its_recording(
    camera: FakeCamera, real_recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_recording("cuke_davis346")
    camera.size = (346, 260)
    camera.give_recording(path)
    monkeypatch.setattr("streams.dv_camera._WAITING", 1 << 16)
    recorded = list(synchronize(Aedat4Source(path)))
    with DvCameraSource("dv:") as source:
        assert source.live and not source.simulated
        assert source.event_size == source.frame_size == (346, 260) and source.sample_period_us == 40_000
        live = list(itertools.islice(synchronize(source), len(recorded)))
        assert source.counts == Counter()
    assert len(live) > 5
    for ours, theirs in zip(live, recorded, strict=True):
        assert (ours.t_start_us, ours.t_end_us, ours.discontinuity) == (
            theirs.t_start_us,
            theirs.t_end_us,
            theirs.discontinuity,
        )
        assert ours.has_rgb and ours.has_events and theirs.has_events
        assert ours.events.dtype == EVENT_DTYPE and np.array_equal(ours.events, theirs.events)
        assert np.array_equal(ours.rgb, theirs.rgb) and np.array_equal(ours.event_image, theirs.event_image)
        assert ours.arrival_ns is not None


def test_frames_are_rgb_and_span_their_exposure(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0], blue[:, :9, 2] = 200, 70  # BGR
    began = time.monotonic_ns()
    camera.give(frame_of(T0 + 1_000, 5_000, blue), frame_of(T0 + 41_000, 0, GREY))
    feed = taken()
    until(lambda: len(feed.frames()) == 2)
    colour, grey = feed.frames()
    assert (colour.t_start_us, colour.t_end_us) == (T0 + 1_000, T0 + 6_000)
    assert np.array_equal(colour.image, blue[..., ::-1]) and colour.image.flags.c_contiguous
    assert (grey.t_start_us, grey.t_end_us) == (T0 + 41_000, T0 + 41_000) and np.array_equal(grey.image, GREY)
    assert colour.arrival_ns is not None and began < colour.arrival_ns < time.monotonic_ns()


def test_packets_hold_all_events_of_their_spans(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    whole = batch(0, 100_000, 2_000)
    whole["t"] -= whole["t"] % 50  # many at one time, also where batches are cut
    camera.give(*np.split(whole, 20))
    feed = taken()
    until(lambda: feed.events() == 2_000)
    packets = [packet for packet in feed.packets() if len(packet.events)]
    assert np.array_equal(np.concatenate([packet.events for packet in packets]), whole)
    for packet in packets:
        inside = (whole["t"] >= packet.t_start_us) & (whole["t"] < packet.t_end_us)
        assert np.array_equal(whole[inside], packet.events)


def test_a_still_scene_does_not_stall(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    with DvCameraSource("dv:") as source:
        samples = synchronize(source)
        camera.give(batch(0, 10_000), frame_of(T0 + 2_000, 5_000, GREY), frame_of(T0 + 60_000, 5_000, GREY))
        first, second = next(samples), next(samples)  # the second one although no events came after it
        camera.give(frame_of(T0 + 100_000, 5_000, GREY))
        third = next(samples)
    assert [len(sample.events) > 0 for sample in (first, second, third)] == [True, False, False]
    assert first.has_events and second.has_events and third.has_events and not third.discontinuity


def test_a_scene_that_is_still_from_the_beginning_gives_frames_without_events(camera: FakeCamera) -> None:
    camera.give(frame_of(T0, 5_000, GREY))
    with DvCameraSource("dv:") as source:
        sample = next(synchronize(source))
    assert sample.has_rgb and sample.has_events and not len(sample.events)


def feed_of(late_us: Callable[[int], int], seed: int = 0) -> tuple[list[EventPacket], Counter[str]]:
    """Bursts of events with pauses between, each handed over so late, through an Order with a clock of ours."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    order, packets = Order(counts, 10_000), []
    starts = np.cumsum(rng.integers(15_000, 400_000, 40)).tolist()
    ready = itertools.accumulate((start + 10_000 + late_us(k) for k, start in enumerate(starts)), max)
    due = [(at, batch(start, start + 10_000)) for at, start in zip(ready, starts, strict=True)]
    for now_us in range(0, starts[-1] + 1_000_000, 1_000):
        came = [events for at, events in due if now_us - 1_000 < at <= now_us]
        for events in came:
            packets += [arrived.item for arrived in order.push(events, now_us * 1_000)]
        if not came:
            packets += [arrived.item for arrived in order.silence(now_us * 1_000)]
    return [packet for packet in packets if isinstance(packet, EventPacket)], counts


@pytest.mark.parametrize("seed", range(3))
def test_silence_never_overtakes_events_that_are_under_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    packets, _ = feed_of(lambda _: int(rng.integers(0, 85_000)), seed)
    assert sum(len(packet.events) for packet in packets) == 40 * 50
    watermark = 0
    for packet in packets:
        assert packet.t_start_us >= watermark and packet.t_end_us > packet.t_start_us
        watermark = packet.t_end_us
    silent = [packet for packet in packets if not len(packet.events)]
    assert sum(packet.t_end_us - packet.t_start_us for packet in silent) > 2_000_000


def test_silence_waits_longer_where_it_has_overtaken_events() -> None:
    def overtaken(late_us: int) -> int:
        packets, _ = feed_of(lambda k: late_us if k % 2 else 0)
        marks = itertools.accumulate((packet.t_end_us for packet in packets), max, initial=0)
        return sum(packet.t_start_us < mark - 1 for packet, mark in zip(packets, marks, strict=False))

    assert overtaken(50_000) == 0
    assert 1 <= overtaken(180_000) <= 2


def test_where_the_consumer_is_slow_the_oldest_packets_go_whole(
    camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.dv_camera._WAITING", 4)
    lost = "packets of the camera, left out since too many came"
    with DvCameraSource("dv:") as source:
        camera.give(*(batch(10_000 * k, 10_000 * k + 10_000) for k in range(30)))
        until(lambda: source.counts[lost] >= 26)
        items = list(itertools.islice(source, 3))
    assert [item.t_end_us for item in items if isinstance(item, EventPacket)][-1] > T0 + 270_000


# --- holes, resets ----------------------------------------------------------------------------------------------------

HOLES = "gaps in the events, since the driver was not read in time"


def test_a_hole_in_time_counts_where_the_driver_was_not_read(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    feed = taken()
    camera.give(batch(0, 10_000))
    until(lambda: feed.events() > 0)
    with camera.held():
        time.sleep(0.25)
        camera.most = 5
        camera.give(*(batch(10_000 * k, 10_000 * k + 10_000) for k in range(1, 24)))  # 18 of them are lost
        camera.most = 6
        camera.give(batch(240_000, 250_000))
    until(lambda: feed.events() == 350)
    assert feed.source.counts == {HOLES: 1}


def test_a_hole_in_a_still_scene_does_not_count(camera: FakeCamera) -> None:
    counts: Counter[str] = Counter()
    order = Order(counts, 10_000)
    for start in (0, 400_000, 900_000):
        list(order.push(batch(start, start + 10_000), 1_000 * start, away_us=20_000))
    assert not counts


def test_a_clock_that_begins_anew_makes_a_gap_and_time_goes_on(camera: FakeCamera, taken: Callable[..., Taken]) -> None:
    feed = taken()
    camera.give(batch(0, 10_000), frame_of(T0 + 2_000, 5_000, GREY))
    until(lambda: feed.events() == 50 and feed.frames())
    with camera.held():
        camera.give(random_events(50, 3_000, 13_000), frame_of(T0 + 42_000, 5_000, GREY), frame_of(4_000, 5_000, GREY))
    until(lambda: feed.events() == 100 and len(feed.frames()) == 2)
    assert feed.gaps() == ["the clock began anew"]
    full = [packet for packet in feed.packets() if len(packet.events)]
    times = [packet.t_end_us for packet in full]
    assert times == sorted(times) and T0 + 10_000 < times[-1] < T0 + 60_000_000
    begins_us = int(full[-1].events["t"][-1]) - 13_000  # of the new time, in ours
    assert feed.frames()[1].t_start_us - begins_us == pytest.approx(4_000, abs=2_000)
    assert feed.source.counts == {"items from before the clock began anew, dropped": 1}


def test_frames_that_begin_anew_first_are_noticed_too() -> None:
    counts: Counter[str] = Counter()
    order = Order(counts, 10_000)
    brought: list[Any] = [batch(0, 10_000), RgbFrame(T0, T0 + 5_000, GREY), RgbFrame(100, 5_000, GREY)]
    brought += [batch(10_000, 20_000), random_events(50, 2_000, 12_000), RgbFrame(40_000, 45_000, GREY)]
    runs = {arrived.item.t_start_us: arrived.run for one in brought for arrived in order.push(one, 0)}
    assert {time_us: run for time_us, run in runs.items() if time_us < T0} == dict.fromkeys(
        (time_us for time_us in runs if time_us < T0), 1
    )
    assert counts == {"items from before the clock began anew, dropped": 1}


# --- cameras that go --------------------------------------------------------------------------------------------------


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


def test_closing_frees_the_camera_for_the_next(camera: FakeCamera, driver: FakeDriver) -> None:
    for _ in range(3):
        DvCameraSource("dv:").close()
    assert driver.opened == 3


# --- opening ----------------------------------------------------------------------------------------------------------


def test_of_several_cameras_the_first_is_opened_and_named(driver: FakeDriver) -> None:
    driver.cameras.append(FakeCamera(Dvxplorer, "DXA00093", (640, 480)))
    with DvCameraSource("dv:") as source:
        assert source.name == "dv:00000499" and source.frame_size == (64, 48)
    with DvCameraSource("dv:DXA00093") as source:
        assert source.name == "dv:DXA00093"
        assert source.event_size == (640, 480) and source.frame_size is None and source.sample_period_us == 33_333


def two_alike(driver: FakeDriver) -> None:
    driver.cameras.append(FakeCamera())


def none_there(driver: FakeDriver) -> None:
    driver.cameras[0].unplug()


def refusing(text: str) -> Callable[[FakeDriver], None]:
    def make(driver: FakeDriver) -> None:
        driver.cameras[0].refuses = failure(text)

    return make


def undiscoverable(driver: FakeDriver) -> None:
    driver.discover = lambda: [][0]  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize(
    ("address", "make", "message"),
    [
        ("dv:", none_there, "dv: no camera found; plug it in, then see `velora doctor`"),
        ("dv:00000001", lambda _: None, "dv:00000001: no such camera; there is dv:00000499"),
        ("dv:", two_alike, "dv: several cameras have the number 00000499; unplug all but one"),
        ("dv:00000499", two_alike, "dv:00000499: several cameras have the number 00000499; unplug all but one"),
        (
            "dv:",
            refusing(NOT_ALLOWED),
            "dv: cannot be opened: another program uses it, or this user may not (on Linux",
        ),
        ("dv:", refusing(IN_USE), "dv: cannot be opened: another program uses it"),
        ("dv:", refusing("Device firmware version incorrect."), "dv: Device firmware version incorrect."),
        ("dv:", undiscoverable, "dv: list index out of range"),
        ("dv: x", lambda _: None, "dv: x: write it as dv: or dv:SERIAL"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    driver: FakeDriver, address: str, make: Callable[[FakeDriver], None], message: str
) -> None:
    make(driver)
    with pytest.raises(StreamError, match="^" + re.escape(message)) as caught:
        DvCameraSource(address)
    assert "\n" not in str(caught.value)


def test_without_dv_processing_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    with pytest.raises(StreamError, match=r"^dv: dv-processing cannot be loaded .* pip install dv-processing$"):
        DvCameraSource("dv:")


def test_what_the_real_driver_raises_is_told_on_one_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        REAL.open("no such camera")
    assert reason(caught.value) == "Could not find device with given serial number"
    assert reason(ValueError("")) == "ValueError"


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "settings"),
    [
        (Davis, {}, {"contrast": "default", "exposure": "automatic", "frame interval": "40,000 us"}),
        (Davis, {"exposure_us": 2_500}, {"contrast": "default", "exposure": "2,500 us", "frame interval": "40,000 us"}),
        (Davis, {"frame_rate": 30}, {"contrast": "default", "exposure": "automatic", "frame interval": "33,333 us"}),
        (Davis, {"contrast": "low"}, {"contrast": "low (ON (7, 200), OFF (3, 10))"}),
        (Davis, {"contrast": "high"}, {"contrast": "high (ON (5, 200), OFF (5, 10))"}),
        (Dvxplorer, {"contrast": "low"}, {"contrast": "low (ON 12, OFF 12)"}),
        (Dvxplorer, {"contrast": "high"}, {"contrast": "high (ON 5, OFF 5)"}),
        (Dvs128, {"contrast": "low"}, {"contrast": "low (ON 420000, OFF 66)"}),
        (Dvs128, {"contrast": "high"}, {"contrast": "high (ON 105000, OFF 264)"}),
        (Dvs128, {}, {"contrast": "default"}),
    ],
)
def test_settings_are_set_and_read_back(
    driver: FakeDriver, kind: type, options: dict[str, Any], settings: dict[str, str]
) -> None:
    driver.cameras = [FakeCamera(kind)]
    with DvCameraSource("dv:", **options) as source:
        assert settings.items() <= source.settings.items()
        assert source.settings.keys() == {"contrast"} | ({"exposure", "frame interval"} if kind is Davis else set())
        assert source.sample_period_us == (33_333 if kind is not Davis or "frame_rate" in options else 40_000)


def test_a_difference_is_said(camera: FakeCamera) -> None:
    camera.stubborn["exposure"] = timedelta(microseconds=2_496)
    with DvCameraSource("dv:", exposure_us=2_500) as source:
        assert source.settings["exposure"] == "2,496 us (asked for 2,500)"


@pytest.mark.parametrize(
    ("kind", "options", "stubborn", "message"),
    [
        (Davis, {"exposure_us": 10_000_000}, {}, "dv: The exposure duration is invalid."),
        (
            Davis,
            {"frame_rate": 200.0},
            {"interval": 1},
            "the camera refused a frame interval of 5,000 us, it has 20",
        ),
        (Davis, {"frame_rate": 0.0}, {}, "the frame rate must be more than 0, not 0.0"),
        (Davis, {"exposure_us": 2_000}, {"auto": True}, "the camera refused to change its automatic exposure"),
        (Davis, {"contrast": "vivid"}, {}, "contrast is low, default, high, not vivid"),
        (Dvxplorer, {"exposure_us": 2_000}, {}, "this camera takes no frames: neither exposure nor frame rate can be"),
        (Dvxplorer, {"frame_rate": 30.0}, {}, "this camera takes no frames"),
        (Dvxplorer, {"contrast": "high"}, {"Off": 9}, "the camera refused contrast high: 5 was set, it has 9"),
    ],
)
def test_a_setting_that_is_refused_is_one_line(
    driver: FakeDriver, kind: type, options: dict[str, Any], stubborn: dict[str, Any], message: str
) -> None:
    driver.cameras = [FakeCamera(kind)]
    if "interval" in stubborn:
        stubborn = {"interval": timedelta(milliseconds=20)}
    driver.cameras[0].stubborn = stubborn
    with pytest.raises(StreamError, match=re.escape(message)) as caught:
        DvCameraSource("dv:", **options)
    assert str(caught.value).startswith("dv: ")


# --- the real driver --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "real"), [(Davis, "DAVIS"), (Dvxplorer, "DVXplorer"), (Dvs128, "DVS128")])
def test_the_fake_can_nothing_that_the_real_driver_cannot(ours: type, real: str) -> None:
    wanted = {name for name in dir(ours) if name.startswith(("get", "set", "is"))}
    assert wanted - set(dir(getattr(REAL, real))) == set()


@pytest.mark.parametrize("real", ["DAVIS", "DVXplorer", "DVXplorerM", "DVS128"])
def test_only_the_abilities_of_a_camera_tell_its_kind(real: str) -> None:
    abilities = {"setExposureDuration": "DAVIS", "getSensorModel": "DAVIS", "setBias": "DVS128"}
    thresholds = real.startswith("DVXplorer")
    assert hasattr(getattr(REAL, real), "setContrastThresholdOn") == thresholds
    for ability, kind in abilities.items():
        assert hasattr(getattr(REAL, real), ability) == (kind == real)


COARSE_FINE = ("Davis346", "Davis240", "CDavis")


@pytest.mark.parametrize(
    ("of", "function", "signature"),
    [
        ("", "discover", r"discover\(\) -> list\[.*DeviceDescriptor\]"),
        ("", "open", r"open\(descriptor: .*DeviceDescriptor, deviceLogLevel: .*LogLevel"),
        ("DAVIS", "setAutoExposure", r"enabled: bool\) -> None"),
        ("DAVIS", "setExposureDuration", r": datetime\.timedelta\) -> None"),
        ("DAVIS", "getExposureDuration", r"-> datetime\.timedelta"),
        ("DAVIS", "setFrameInterval", r": datetime\.timedelta\) -> None"),
        ("DAVIS", "getFrameInterval", r"-> datetime\.timedelta"),
        *(("DAVIS", f"get{kind}BiasCoarseFine", r"-> tuple\[int, int\]") for kind in COARSE_FINE),
        *(("DAVIS", f"set{kind}BiasCoarseFine", r"bias: .*, coarse: .*, fine: .*\) -> None") for kind in COARSE_FINE),
        *(
            (kind, f"setContrastThreshold{side}", r"contrastThreshold\w+: [^,]*\) -> None")
            for kind in ("DVXplorer", "DVXplorerM")
            for side in ("On", "Off")
        ),
        ("DVS128", "setBias", r"bias: .*, value: .*\) -> None"),
        ("CameraInputBase", "getTimeInterval", r"-> datetime\.timedelta"),
        ("CameraInputBase", "getNextEventBatch", r"-> dv_processing\.EventStore \| None"),
        ("CameraInputBase", "getNextFrame", r"-> dv_processing\.Frame \| None"),
        ("CameraInputBase", "isRunning", r"isRunning\(self: [^,]*\) -> bool"),
    ],
)
def test_the_real_driver_has_what_we_call(of: str, function: str, signature: str) -> None:
    found = getattr(getattr(REAL, of) if of else REAL, function)
    assert re.search(signature, found.__doc__), found.__doc__


def test_the_real_driver_has_the_names_that_we_use() -> None:
    assert REAL.USBDevice.LogLevel.LVL_NONE is not None
    for model in ("DAVIS240A", "DAVIS240B", "DAVIS240C", "DAVIS346", "CDAVIS"):
        assert hasattr(REAL.DAVIS.SensorModel, model)
    for biases in (REAL.DAVIS.Davis346BiasCF, REAL.DAVIS.Davis240BiasCF, REAL.DAVIS.CDavisBiasCF):
        assert hasattr(biases, "On") and hasattr(biases, "Off")
    assert {"serialNumber", "cameraModel", "deviceType", "firmwareVersion"} <= set(dir(REAL.USBDevice.DeviceDescriptor))
    assert {"timestamp", "x", "y", "polarity"} == set(dv.EventStore().numpy().dtype.names)
