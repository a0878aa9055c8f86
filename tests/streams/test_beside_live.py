"""The events of a live camera beside the frames of a webcam: both on the clock of the events."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from streams import EventPacket, Gap, RgbFrame, Source, StreamError, synchronize
from streams.beside import Beside
from streams.beside_live import Handover, Meeting
from streams.clock import DeviceClock
from streams.items import Item, no_events

WIDTH, HEIGHT = 128, 96
DRIFT = 1e-4
DEVICE_AT_0_US = 5_000_000_000


class FakeEvents(Source):
    """A camera whose clock begins elsewhere and runs fast; its packets of 10 ms come 0 to 20 ms late."""

    live = True
    event_size, frame_size = (WIDTH, HEIGHT), None
    sample_period_us = 33_333
    name = "fake events"

    def __init__(self, gap_after: int | None = None, fails_after: int | None = None, silent: bool = False) -> None:
        super().__init__()
        self.closed = threading.Event()
        self.origin_us = time.monotonic_ns() // 1_000
        self._gap_after, self._fails_after, self._silent = gap_after, fails_after, silent
        self.warnings = ""

    @property
    def warning(self) -> str:
        return self.warnings

    def device_us(self, host_us: float) -> float:
        return DEVICE_AT_0_US + (host_us - self.origin_us) * (1 + DRIFT)

    def __iter__(self) -> Iterator[Item]:
        rng, number = np.random.default_rng(0), 0
        while not self.closed.is_set():
            host_us = self.origin_us + 10_000 * (number + 1)
            self.closed.wait(max(0.0, host_us / 1e6 - time.monotonic()))
            start, end = (round(self.device_us(host_us - before)) for before in (10_000, 0))
            if number == self._gap_after:
                yield Gap("fell off the table")
            if number == self._fails_after:
                raise StreamError("the cable burnt")
            if not self._silent or number < 5:
                arrival_ns = 1_000 * (host_us + int(rng.integers(0, 20_000)))
                yield EventPacket(start, end, no_events(), arrival_ns)
            number += 1

    def close(self) -> None:
        self.closed.set()


class FakeCapture:
    """60 frames a second; it can be unplugged."""

    there = True

    def __init__(self, number: int) -> None:
        self.number, self.shown = number, 0

    def isOpened(self) -> bool:  # noqa: N802 (as OpenCV calls it)
        return type(self).there and self.number == 0

    def get(self, _: int) -> float:
        return 60.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not type(self).there:
            return False, None
        time.sleep(1 / 60)
        self.shown += 1
        return True, np.full((HEIGHT, WIDTH, 3), self.shown % 256, np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    class Own(FakeCapture):
        pass

    monkeypatch.setattr("cv2.VideoCapture", Own)
    monkeypatch.setattr("streams.webcam._RETRY_S", 0.05)
    return Own


def until(source: Source, enough: Callable[[list[Item]], bool], timeout_s: float = 10) -> list[Item]:
    """What comes until there is enough of it."""
    items: list[Item] = []
    end = time.monotonic() + timeout_s
    for item in source:
        items.append(item)
        if enough(items):
            return items
        assert time.monotonic() < end, "never enough"
    raise AssertionError("it ended")


def frames_in(items: list[Item]) -> list[RgbFrame]:
    return [item for item in items if isinstance(item, RgbFrame)]


@pytest.mark.parametrize("offset_ms", [0.0, -40.0])
def test_live_frames_are_put_on_the_clock_of_the_events(camera: type[FakeCapture], offset_ms: float) -> None:
    events = FakeEvents()
    with Beside(events, "webcam:0", offset_ms=offset_ms) as source:
        assert source.live and source.frame_size == (WIDTH, HEIGHT) and source.sample_period_us == 16_667
        items = until(source, lambda items: len(frames_in(items)) >= 60)
    frames = frames_in(items)
    wrong = [
        frame.t_end_us - offset_ms * 1e3 - events.device_us((frame.arrival_ns or 0) / 1e3) for frame in frames[-20:]
    ]
    assert max(map(abs, wrong)) < 3_000
    times = [frame.t_end_us for frame in frames]
    assert times == sorted(set(times)) and all(frame.t_start_us == frame.t_end_us for frame in frames)


def test_the_devices_clock_is_followed_for_minutes() -> None:
    clock, rng = DeviceClock(), np.random.default_rng(1)
    assert clock.at(0) is None
    wrong = []
    for k in range(18_000):
        host_us = 10_000 * k
        device_us = 77_000_000 + host_us * (1 - DRIFT)
        arrival_us = host_us + int(rng.integers(0, 20_000))
        clock.heard(int(device_us), arrival_us * 1_000)
        wrong.append((clock.at(host_us) or 0) - device_us)
    assert max(map(abs, wrong[100:])) < 4_000


def test_samples_of_live_feeds_are_complete(camera: type[FakeCapture]) -> None:
    with Beside(FakeEvents(), "webcam:0") as source:
        samples = [sample for sample, _ in zip(synchronize(source), range(20), strict=False)]
    assert all(sample.has_rgb for sample in samples) and all(sample.has_events for sample in samples[3:])
    assert all(sample.arrival_ns is not None for sample in samples)


def test_frames_do_not_wait_for_a_camera_that_sees_nothing(camera: type[FakeCapture]) -> None:
    with Beside(FakeEvents(silent=True), "webcam:0") as source:
        samples = [sample for sample, _ in zip(synchronize(source), range(30), strict=False)]
    assert len(samples) == 30


def test_a_webcam_that_vanishes_is_said_and_comes_back_with_a_gap(camera: type[FakeCapture]) -> None:
    events = FakeEvents()
    with Beside(events, "webcam:0") as source:
        until(source, lambda items: len(frames_in(items)) >= 3)
        camera.there = False
        until(source, lambda _: "the webcam is gone" in source.warning)
        events.warnings = "no data for 4 s"
        assert source.warning.startswith("no data for 4 s; the webcam is gone")
        camera.there, events.warnings = True, ""
        items = until(source, lambda items: any(isinstance(item, Gap) for item in items))
        items += until(source, lambda items: len(frames_in(items)) >= 3)
        assert source.warning == ""


def test_a_gap_of_the_events_begins_their_clock_anew(camera: type[FakeCapture]) -> None:
    with Beside(FakeEvents(gap_after=30), "webcam:0") as source:
        items = until(source, lambda items: any(isinstance(item, Gap) for item in items))
        assert [item.reason for item in items if isinstance(item, Gap)] == ["fell off the table"]
        until(source, lambda items: len(frames_in(items)) >= 3)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [("bars.mp4", {}, "beside a live feed only"), ("webcam:0", {"fps": 30}, "a rate of its own")],
)
def test_partners_that_do_not_fit_are_refused_and_the_camera_closed(
    frames: str, options: dict[str, float], message: str
) -> None:
    live = FakeEvents()
    with pytest.raises(StreamError, match=message):
        Beside(live, frames, **options)  # type: ignore[arg-type]
    assert live.closed.is_set()


def test_what_the_events_raise_is_raised_at_the_consumer(camera: type[FakeCapture]) -> None:
    with Beside(FakeEvents(fails_after=5), "webcam:0") as source, pytest.raises(StreamError, match="the cable burnt"):
        until(source, lambda _: False)


def test_closing_ends_it_at_once_from_another_thread(camera: type[FakeCapture]) -> None:
    source = Beside(FakeEvents(), "webcam:0")
    items: list[Item] = []
    reader = threading.Thread(target=lambda: items.extend(source), daemon=True)
    reader.start()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    source.close()


def test_frames_from_before_the_clock_is_known_are_counted() -> None:
    counts: Counter[str] = Counter()
    meeting = Meeting(counts, 0)
    frame = RgbFrame(1_000_000, 1_000_000, np.zeros((2, 2, 3), np.uint8), 1_000_000_000)
    assert list(meeting.frame(frame)) == []
    packet = EventPacket(0, 10, no_events(), 600_000_000)
    assert list(meeting.event(packet)) == [packet]
    assert [item.t_end_us for item in meeting.frame(frame) if isinstance(item, RgbFrame)] == [400_010]
    assert list(meeting.frame(frame)) == []
    assert counts == {
        "frames from before the events' clock was known, left out": 1,
        "frames that stepped back in time, dropped": 1,
    }


def test_frames_are_left_out_while_a_backlog_of_events_is_read() -> None:
    counts: Counter[str] = Counter()
    meeting, placed = Meeting(counts, 0), []
    for host_ms in range(2_000, 3_000, 10):  # for two seconds nobody read; then 50 ms of events come every ms
        for device_ms in range(50 * (host_ms - 2_000), min(50 * (host_ms - 1_990), host_ms), 50):
            list(
                meeting.event(EventPacket(device_ms * 1_000, device_ms * 1_000 + 50, no_events(), host_ms * 1_000_000))
            )
        frame = RgbFrame(host_ms * 1_000, host_ms * 1_000, np.zeros((2, 2, 3), np.uint8), host_ms * 1_000_000)
        placed += [(host_ms, item.t_end_us) for item in meeting.frame(frame) if isinstance(item, RgbFrame)]
    assert 0 < counts["frames from before the events' clock was known, left out"] < 50
    assert placed and all(abs(device_us - 1_000 * host_ms) < 50_000 for host_ms, device_us in placed)


def test_a_handover_that_nobody_empties_stays_small_and_keeps_gaps() -> None:
    counts: Counter[str] = Counter()
    handover, done = Handover(counts), threading.Event()

    def events() -> Iterator[Item]:
        yield Gap("early")
        for k in range(1_000):
            yield EventPacket(k, k + 1, no_events())
        done.set()

    handover.start(events(), _never(done))
    assert done.wait(10)
    taken = [item for item in handover.taken() if item is not None]
    assert isinstance(taken[0][1], Gap) and 0 < len(taken) <= 201
    assert counts["packets of events, left out since too many came"] == 1_001 - len(taken)


def _never(done: threading.Event) -> Iterator[Item]:
    done.wait(10)
    yield from ()


def test_frames_from_before_the_device_began_are_left_out() -> None:
    """No recording could hold them."""
    counts: Counter[str] = Counter()
    meeting = Meeting(counts, -500_000)
    list(meeting.event(EventPacket(0, 10, no_events(), 600_000_000)))
    early, later = (RgbFrame(us, us, np.zeros((2, 2, 3), np.uint8), 1_000 * us) for us in (1_000_000, 1_200_000))
    assert [item.t_end_us for item in (*meeting.frame(early), *meeting.frame(later))] == [100_010]
    assert counts == {"frames from before time began, left out": 1}
