"""The events of one source beside the frames of another: both on the clock of the events."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, Gap, RgbFrame, Source, StreamError, open_source, synchronize, write_aedat4
from streams.beside import Beside
from streams.beside_live import Handover, Meeting
from streams.clock import DeviceClock
from streams.homography import load_homography
from streams.items import Events, Item, no_events

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
    live, empty = FakeEvents(), tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 100)
    cases: list[tuple[Callable[[], Source], str, dict[str, float], str]] = [
        (lambda: open_source(recording), "webcam:0", {}, "beside a recording only"),
        (lambda: live, str(video), {}, "beside a live feed only"),
        (lambda: live, "webcam:0", {"fps": 30}, "a rate of its own"),
        (lambda: open_source(recording), str(empty), {}, "no pictures in it"),
        (lambda: open_source(recording), str(recording), {}, "not a video"),
        (lambda: open_source(recording), str(tmp_path / "none.mp4"), {}, "no such file"),
        (lambda: open_source(recording), str(tmp_path / "bad.mp4"), {}, "cannot be read as a video"),
        (lambda: open_source(recording), str(video), {"fps": -1}, "must be more than 0"),
        (lambda: open_source(recording), str(video), {"offset_ms": math.nan}, "within a day"),
    ]
    for opened, frames, options, message in cases:
        with pytest.raises(StreamError, match=message) as raised:
            Beside(opened(), frames, **options)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
    assert live.closed.is_set()


# --- live -------------------------------------------------------------------------------------------------------------

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
        return True, bar_image(self.shown % 50 * 1e6 / FPS)

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
    packet = EventPacket(0, 10, no_events(), 1_000_000_000)
    assert list(meeting.event(packet)) == [packet]
    assert [item.t_end_us for item in meeting.frame(frame) if isinstance(item, RgbFrame)] == [10]
    assert list(meeting.frame(frame)) == []
    assert counts == {
        "frames from before the events' clock was known, left out": 1,
        "frames that stepped back in time, dropped": 1,
    }


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
