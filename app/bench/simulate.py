"""How fast events are simulated, at the size of a DAVIS346, and how fast recordings are written.

Events of a grating that drifts by a pixel a render: an ideal sensor and one with all flaws, against a loop in Python
over fifty of the pixels. Events of a webcam's frames: the whole source and rendering, of which a webcam brings 30 a
second. Recordings: AEDAT 4 by compression, against the same bytes written as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from app.bench.asked import Asked
from app.bench.book import Book
from app.bench.fabricated import SIZE, recorded_items
from app.bench.road import one_thread
from app.bench.timing import Work, alternate
from streams import EventPacket, Source, synchronize, write_aedat4
from streams.items import Item, RgbFrame
from streams.simulation import EventModel, Sensor
from streams.simulation.event_model import Floats
from streams.simulation.sensor import SENSORS
from streams.simulation.video import EventsFromFrames, as_sensor_sees

_FLAWED = Sensor(threshold_sigma=0.03, refractory_us=500, cutoff_hz=300.0, leak_hz=0.1, noise_hz=1.0, noise_decades=0.3)
_STEP_US, _FRAME_US = 1000, 33_333
_PIXELS = 50  # of the loop
_RENDERS, _QUICK_RENDERS = 1000, 200
_FRAMES, _QUICK_FRAMES = 150, 30
_EVENTS, _QUICK_EVENTS = 5_000_000, 500_000
_WEBCAM_HZ = 30.0
_COMPRESSIONS = ("none", "lz4", "zstd")


def measure(asked: Asked, book: Book) -> None:
    """Three rows."""
    with one_thread():
        book.doing("an event sensor")
        _sensors(asked, book)
        book.doing("the events of a webcam")
        _webcam(asked, book)
        book.doing("writing recordings")
        _writing(asked, book)


def _sensors(asked: Asked, book: Book) -> None:
    renders = list(grating(_QUICK_RENDERS if asked.quick else _RENDERS))
    counts = {"ideal": simulated(renders, Sensor()), "flawed": simulated(renders, _FLAWED)}
    works: dict[str, Work] = {
        "ideal": lambda: simulated(renders, Sensor()),
        "flawed": lambda: simulated(renders, _FLAWED),
        "loop": lambda: looped(renders),
    }
    seconds = alternate(works, asked.turns(5, 2), book, warm=0)
    row = book.row(what="simulated events", width=SIZE[0], height=SIZE[1], renders=len(renders))
    for name, count in counts.items():
        row.rate(f"{name}_mevs", count / 1e6, seconds[name])
    for name in works:
        pixels = _PIXELS if name == "loop" else SIZE[0] * SIZE[1]
        row.rate(f"{name}_mpixels_per_s", len(renders) * pixels / 1e6, seconds[name])
    row.ratio("ideal_vs_loop", "ideal_mpixels_per_s", "loop_mpixels_per_s")


def grating(count: int) -> Iterator[Floats]:
    """Linear light [H, W] of a sine grating that drifts by a pixel a render."""
    width, height = SIZE
    x = np.arange(width + count)
    wave = (0.35 + 0.25 * np.sin(2 * np.pi * x / 40)).astype(np.float32)
    for shift in range(count):
        yield np.ascontiguousarray(np.broadcast_to(wave[shift : shift + width], (height, width)))


def simulated(renders: list[Floats], sensor: Sensor) -> int:
    """How many events a sensor makes of them."""
    model = EventModel(SIZE[1], SIZE[0], sensor)
    return sum(len(model.push(k * _STEP_US, render)) for k, render in enumerate(renders))


def looped(renders: list[Floats]) -> int:
    """The ideal sensor of one row of pixels, a pixel at a time."""
    row, count = [render[0, :_PIXELS].astype(float) for render in renders], 0
    for pixel in range(_PIXELS):
        reference = np.log(row[0][pixel])
        for render in row[1:]:
            change = np.log(render[pixel]) - reference
            while abs(change) >= 0.3:
                step = 0.3 if change > 0 else -0.3
                reference, change, count = reference + step, change - step, count + 1
    return count


class Scene(Source):
    """Smooth blobs of light that wander, 640 x 480, seen by a webcam, as fast as they are taken."""

    name, event_size, frame_size, sample_period_us = "scene", SIZE, SIZE, _FRAME_US

    def __init__(self, frames: int) -> None:
        super().__init__()
        noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
        smooth = cv2.GaussianBlur(noise, (0, 0), 6)
        self._wide = np.asarray(cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]
        self._frames = frames

    def __iter__(self) -> Iterator[Item]:
        events = EventsFromFrames(*SIZE, SENSORS["davis346"])
        for k in range(self._frames):
            x, y = round(80 + 70 * np.sin(k / 12)), round(60 + 50 * np.cos(k / 9))
            image = np.ascontiguousarray(self._wide[y : y + 480, x : x + 640])
            yield from events.push(1_000_000 + k * _FRAME_US, as_sensor_sees(image, *SIZE))

    def close(self) -> None:
        """Nothing is open."""


def _webcam(asked: Asked, book: Book) -> None:
    frames = _QUICK_FRAMES if asked.quick else _FRAMES
    works: dict[str, Work] = {"webcam": lambda: sum(1 for _ in synchronize(Scene(frames)))}
    seconds = alternate(works, asked.turns(5, 2), book, warm=0)
    row = book.row(what="events of a webcam", width=SIZE[0], height=SIZE[1], frames=frames)
    row.rate("webcam_frames_per_s", frames, seconds["webcam"])
    row.figures["webcam_brings_per_s"] = _WEBCAM_HZ
    row.ratio("webcam_vs_its_pace", "webcam_frames_per_s", "webcam_brings_per_s")


def _writing(asked: Asked, book: Book) -> None:
    events = _QUICK_EVENTS if asked.quick else _EVENTS
    items = list(recorded_items(events))
    path = asked.folder / "written.aedat4"

    def write(compression: str) -> None:
        with write_aedat4(path, SIZE, SIZE, compression=compression) as writer:
            for item in items:
                writer.write(item)

    def write_plain() -> None:
        with path.open("wb", buffering=0) as file:
            for item in items:
                if isinstance(item, EventPacket):
                    file.write(item.events.data)
                elif isinstance(item, RgbFrame):
                    file.write(item.image.data)

    works: dict[str, Work] = {name: lambda name=name: write(name) for name in _COMPRESSIONS}  # type: ignore[misc]
    works["plain"] = write_plain
    seconds = alternate(works, asked.turns(5, 2), book)
    row = book.row(what="a recording written", events=events)
    for name, own in seconds.items():
        row.rate(f"{name}_mevs", events / 1e6, own)
    for name in _COMPRESSIONS:
        row.ratio(f"{name}_vs_plain", f"{name}_mevs", "plain_mevs")
