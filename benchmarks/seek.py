"""How long it takes from a seek to the picture there, and to its label: a minute of DAVIS346 data at 0.6 Mev/s.

    python benchmarks/seek.py [--seeks 30] [--model demo] [--json]

The recording is made for it: events at random, frames of noise at 25 a second. Beside it, reading on from the start to
the same place, as a player without an index would have to.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from streams import (
    EVENT_DTYPE,
    LATEST,
    EventPacket,
    Player,
    RgbFrame,
    Sample,
    Sink,
    open_source,
    run,
    synchronize,
    write_aedat4,
)
from velora import Prediction, load_recognizer

SIZE, RATE, PACKET_US, FRAME_US, EXPOSURE_US = (346, 260), 600_000, 10_000, 40_000, 20_000


def make(path: Path, seconds: float) -> None:
    """Write the recording."""
    rng = np.random.default_rng(0)
    count = RATE * PACKET_US // 1_000_000
    images = rng.integers(0, 256, (8, SIZE[1], SIZE[0], 3), dtype=np.uint8)
    with write_aedat4(path, SIZE, SIZE) as writer:
        for k in range(round(seconds * 1e6 / PACKET_US)):
            start = k * PACKET_US
            events = np.zeros(count, EVENT_DTYPE)
            events["t"] = np.sort(rng.integers(start, start + PACKET_US, count))
            events["x"], events["y"] = rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count)
            events["p"] = rng.random(count) < 0.5
            writer.write(EventPacket(start, start + PACKET_US, events))
            if start % FRAME_US == 0:
                writer.write(RgbFrame(start, start + EXPOSURE_US, images[k % 8]))


class Watch(Sink):
    """Notes when the first picture and the first label after a seek come."""

    def __init__(self) -> None:
        self.picture, self.label = threading.Event(), threading.Event()
        self.sought_us = 0

    def on_sample(self, sample: Sample) -> None:
        if abs(sample.t_end_us - self.sought_us) < 2 * FRAME_US:
            self.picture.set()

    def on_prediction(self, prediction: Prediction) -> None:
        if abs(prediction.t_end_us - self.sought_us) < 2 * FRAME_US:
            self.label.set()


def main() -> None:
    """Print one line, or a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeks", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minute.aedat4"
        make(path, arguments.seconds)
        found = measure(path, arguments)
    if arguments.json:
        print(json.dumps(found))
        return
    print(
        f"seek to picture: median {found['picture_ms']:.0f} ms, longest {found['picture_max_ms']:.0f} ms; to label: "
        f"median {found['label_ms']:.0f} ms; reading on to the same places: {found['read_ms']:.0f} ms"
    )


def measure(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Seek to places at random while it plays on the page's road."""
    recognizer = load_recognizer(arguments.model)
    stride = recognizer.config.stride_for(FRAME_US)
    player = Player(path, loop=True, lead=(recognizer.config.frames - 1) * stride)
    watch = Watch()
    thread = threading.Thread(
        target=run, args=(player, recognizer), kwargs={"sinks": [watch], "policy": LATEST, "stride": stride}
    )
    thread.start()
    time.sleep(2)
    rng = np.random.default_rng(1)
    places = rng.uniform(2e6, arguments.seconds * 1e6 - 1e6, arguments.seeks).astype(int)
    pictures, labels = [], []
    for place in places:
        watch.picture.clear()
        watch.label.clear()
        watch.sought_us = int(place)
        began = time.perf_counter()
        player.seek(int(place))
        assert watch.picture.wait(30)
        pictures.append(time.perf_counter() - began)
        assert watch.label.wait(30)
        labels.append(time.perf_counter() - began)
        time.sleep(0.2)
    player.stop()
    thread.join()
    with open_source(path) as source:
        began = time.perf_counter()
        middle = int(np.median(places))
        next(sample for sample in synchronize(source) if sample.t_end_us > middle)
        read = time.perf_counter() - began
    return {
        "picture_ms": 1e3 * float(np.median(pictures)),
        "picture_max_ms": 1e3 * max(pictures),
        "label_ms": 1e3 * float(np.median(labels)),
        "label_max_ms": 1e3 * max(labels),
        "read_ms": 1e3 * read,
    }


if __name__ == "__main__":
    main()
