"""How many frames of a webcam or a video get their events in a second, on one core: the whole source, and rendering.

    python benchmarks/webcam.py [--seconds 5] [--json]

A scene of 640 x 480 that moves by some pixels a frame is cut and scaled to 346 x 260, its events are simulated as those
of a DAVIS346, and samples are made of both. A webcam brings 30 frames a second.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import cv2
import numpy as np

from streams import Source, synchronize
from streams.items import Item
from streams.simulation.sensor import SENSORS
from streams.simulation.video import EventsFromFrames, as_sensor_sees

SIZE, PERIOD_US = (346, 260), 33_333


class Scene(Source):
    """Smooth blobs of light that wander, seen by a webcam, as fast as they are taken."""

    name, event_size, frame_size, sample_period_us = "scene", SIZE, SIZE, PERIOD_US

    def __init__(self, count: int) -> None:
        super().__init__()
        noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
        smooth = cv2.GaussianBlur(noise, (0, 0), 6)
        self._wide = np.asarray(cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]
        self._count = count

    def __iter__(self) -> Iterator[Item]:
        events = EventsFromFrames(*SIZE, SENSORS["davis346"])
        for k in range(self._count):
            x, y = round(80 + 70 * np.sin(k / 12)), round(60 + 50 * np.cos(k / 9))
            image = np.ascontiguousarray(self._wide[y : y + 480, x : x + 640])
            yield from events.push(1_000_000 + k * PERIOD_US, as_sensor_sees(image, *SIZE))

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of the scene")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    began, events, count = time.process_time(), 0, 0
    for sample in synchronize(Scene(round(arguments.seconds * 1e6 / PERIOD_US))):
        events, count = events + len(sample.events), count + 1
    spent = time.process_time() - began
    figures = {"frames_per_s": round(count / spent, 1), "mega_events_per_s_of_scene": events / arguments.seconds / 1e6}
    if arguments.json:
        print(json.dumps(figures))
    else:
        rate = figures["mega_events_per_s_of_scene"]
        print(f"{figures['frames_per_s']} frames a second of one core, {rate:.2f} million events a second of the scene")


if __name__ == "__main__":
    main()
