"""The road without the model: events decoded, synchronised and rendered a second, on one core.

    python benchmarks/road.py [RECORDING.aedat4] [--pairs 7]

Beside it, in turns over the same recording, bare decoding by this project's codec and by `aedat`, and `np.add.at` over
events in memory. Without a recording, one is made: DAVIS346, 5 million events and 30 frames a second, LZ4.
One JSON object on stdout: medians, in million events a second of the thread's CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aedat
import cv2
import numpy as np

from streams import EVENT_DTYPE, EventPacket, RgbFrame, open_source, synchronize, write_aedat4
from streams.aedat4 import EVENTS, FRAMES
from streams.aedat4_reader import Aedat4Reader
from streams.items import Events, join_events

SIZE, RATE, PACKET_US, FRAME_US, EXPOSURE_US = (346, 260), 5_000_000, 10_000, 33_333, 20_000


def make(path: Path, seconds: float = 2.0) -> None:
    """Write a recording: a cloud of events that moves, frames of noise."""
    rng = np.random.default_rng(0)
    count = RATE * PACKET_US // 1_000_000
    images = rng.integers(0, 256, (8, SIZE[1], SIZE[0], 3), dtype=np.uint8)
    frames = 0
    with write_aedat4(path, SIZE, SIZE) as writer:
        for k in range(round(seconds * 1e6 / PACKET_US)):
            start = k * PACKET_US
            events = np.zeros(count, EVENT_DTYPE)
            events["t"] = np.sort(rng.integers(start, start + PACKET_US, count))
            for name, side, turn in (("x", SIZE[0], np.sin(k / 20)), ("y", SIZE[1], np.cos(k / 17))):
                events[name] = rng.normal(side / 2 + turn * side / 3, side / 6, count).clip(0, side - 1)
            events["p"] = rng.random(count) < 0.5
            writer.write(EventPacket(start, start + PACKET_US, events))
            while frames * FRAME_US < start + PACKET_US:
                writer.write(RgbFrame(frames * FRAME_US, frames * FRAME_US + EXPOSURE_US, images[frames % 8]))
                frames += 1


def road(path: Path) -> None:
    """All of it."""
    with open_source(path) as source:
        for _ in synchronize(source):
            pass


def own(path: Path) -> None:
    """The packets of the first events and frames, by this project's codec."""
    with Aedat4Reader(path) as reader:
        kinds = {stream.id: stream.kind for stream in reader.header.streams}
        for entry in reader.index:
            kind = kinds[int(entry["stream"])]
            if kind == EVENTS:
                reader.events(entry)
            elif kind == FRAMES:
                reader.frame(entry)


def bare(path: Path) -> None:
    """All packets, by `aedat`."""
    for _ in aedat.Decoder(path):
        pass


def accumulate(events: Events, size: tuple[int, int]) -> None:
    """A count for each pixel and polarity."""
    counts = np.zeros((2, size[1], size[0]), np.int32)
    np.add.at(counts, (events["p"].astype(np.intp), events["y"], events["x"]), 1)


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recording", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.recording
        if path is None:
            path = Path(folder) / "davis346.aedat4"
            make(path)
        print(json.dumps(measure(path, arguments.pairs)))


def measure(path: Path, pairs: int) -> dict[str, object]:
    """The figures of one recording; ratios are of rates."""
    with open_source(path) as source:
        size = source.event_size
        events = join_events([item.events for item in source if isinstance(item, EventPacket)])
        samples = sum(1 for _ in synchronize(source))
    if size is None:
        raise SystemExit(f"{path}: holds no events; give a recording that does")
    ways: dict[str, Callable[[], None]] = {
        "road": lambda: road(path),
        "own": lambda: own(path),
        "aedat": lambda: bare(path),
        "add_at": lambda: accumulate(events, size),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(pairs):
        for name, way in ways.items():
            began = time.thread_time()
            way()
            taken[name].append(time.thread_time() - began)
    rates = {name: [len(events) / seconds / 1e6 for seconds in all_s] for name, all_s in taken.items()}
    against = {
        name: statistics.median(ours / theirs for ours, theirs in zip(rates["road"], rates[name], strict=True))
        for name in ("own", "aedat", "add_at")
    }
    return {
        "recording": path.name,
        "events": len(events),
        "samples": samples,
        **{f"{name}_mevs": round(statistics.median(all_of), 1) for name, all_of in rates.items()},
        "road_mevs_spread": [round(min(rates["road"]), 1), round(max(rates["road"]), 1)],
        "road_vs_decode": round(against["aedat"], 2),
        "road_vs_own_decode": round(against["own"], 2),
        "road_vs_add_at": round(against["add_at"], 2),
    }


if __name__ == "__main__":
    main()
