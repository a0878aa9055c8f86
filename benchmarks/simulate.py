"""How fast the event model turns renders into events, at the size of a DAVIS346: an ideal sensor, and one with flaws.

    python benchmarks/simulate.py [--seconds 1]

A grating drifts by a pixel a render. Compared with a loop in Python over fifty of the pixels, in the same run. One JSON
object on stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np

from streams.simulation import EventModel, Sensor
from streams.simulation.event_model import Floats

HEIGHT, WIDTH, STEP_US = 260, 346, 1000
FLAWED = Sensor(threshold_sigma=0.03, refractory_us=500, cutoff_hz=300.0, leak_hz=0.1, noise_hz=1.0, noise_decades=0.3)


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of simulated time")
    renders = list(grating(round(parser.parse_args().seconds * 1e6 / STEP_US)))
    figures = {name: rates(renders, sensor) for name, sensor in (("ideal", Sensor()), ("flawed", FLAWED))}
    figures["loop"] = loop_rates(renders)
    ideal, loop = (figures[name]["mega_pixels_per_s"] for name in ("ideal", "loop"))
    print(json.dumps(figures | {"ideal_vs_loop": round(ideal / loop)}))


def grating(count: int) -> Iterator[Floats]:
    """Linear light [H, W] of a sine grating that drifts by a pixel a render."""
    x = np.arange(WIDTH + count)
    wave = (0.35 + 0.25 * np.sin(2 * np.pi * x / 40)).astype(np.float32)
    for shift in range(count):
        yield np.ascontiguousarray(np.broadcast_to(wave[shift : shift + WIDTH], (HEIGHT, WIDTH)))


def rates(renders: list[Floats], sensor: Sensor) -> dict[str, float]:
    """Events, and pixels rendered, a second of computing."""
    model, count = EventModel(HEIGHT, WIDTH, sensor), 0
    began = time.perf_counter()
    for k, render in enumerate(renders):
        count += len(model.push(k * STEP_US, render))
    took = time.perf_counter() - began
    pixels = len(renders) * HEIGHT * WIDTH
    return {"mega_events_per_s": round(count / took / 1e6, 2), "mega_pixels_per_s": round(pixels / took / 1e6, 1)}


def loop_rates(renders: list[Floats]) -> dict[str, float]:
    """The ideal sensor of one row of pixels, a pixel at a time."""
    row, count = [render[0, :50].astype(float) for render in renders], 0
    began = time.perf_counter()
    for pixel in range(50):
        reference = np.log(row[0][pixel])
        for render in row[1:]:
            change = np.log(render[pixel]) - reference
            while abs(change) >= 0.3:
                step = 0.3 if change > 0 else -0.3
                reference, change, count = reference + step, change - step, count + 1
    took = time.perf_counter() - began
    return {
        "mega_events_per_s": round(count / took / 1e6, 4),
        "mega_pixels_per_s": round(50 * len(row) / took / 1e6, 3),
    }


if __name__ == "__main__":
    main()
