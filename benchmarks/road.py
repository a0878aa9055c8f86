"""The road without the model: events decoded, synchronised and rendered a second, against bare decoding by `aedat`.

    python benchmarks/road.py RECORDING.aedat4 [--pairs 7]

The two alternate, each over the whole recording. One JSON object on stdout; rates in million events a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import aedat

from streams import open_source, synchronize


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    events = sum(len(packet["events"]) for packet in aedat.Decoder(arguments.recording) if "events" in packet)
    road_s, aedat_s = [], []
    for _ in range(arguments.pairs):
        began = time.perf_counter()
        with open_source(arguments.recording) as source:
            samples = sum(1 for _ in synchronize(source))
        road_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in aedat.Decoder(arguments.recording):
            pass
        aedat_s.append(time.perf_counter() - began)
    road, bare = (events / statistics.median(seconds) / 1e6 for seconds in (road_s, aedat_s))
    figures = {"road_mevs": round(road, 1), "aedat_mevs": round(bare, 1), "road_vs_decode": round(road / bare, 2)}
    print(json.dumps({"recording": arguments.recording.name, "events": events, "samples": samples} | figures))


if __name__ == "__main__":
    main()
