"""The simulated DAVIS346 beside a real one: the same frames, its events and ours. Writes docs/sensor.md and sensor.png.

    pip install -e '.[train]'                       # for matplotlib
    python benchmarks/sensor.py FOLDER              # with cuke_davis346.aedat4 and static_davis346.aedat4

What the real camera saw is rebuilt from its own frames, between which brightness is interpolated; so motion that is
faster than the frames (the moving recording has 25 a second) is smoother than it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np

from streams import EventPacket, RgbFrame, open_source
from streams.simulation import EventModel
from streams.simulation.camera import luminance
from streams.simulation.event_model import Floats
from streams.simulation.sensor import SENSORS, Sensor
from streams.simulation.statistics import EventStatistics, event_statistics

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

WIDTH, HEIGHT = 346, 260
SENSOR = "davis346"
RENDER_US = 5_000
DOCS = Path(__file__).parents[1] / "docs"
RECORDINGS = {"moving": "cuke_davis346", "still": "static_davis346"}

Pair = tuple[EventStatistics, EventStatistics]


def main() -> None:
    """Compare, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pairs = {what: compare(folder / f"{name}.aedat4", held=what == "still") for what, name in RECORDINGS.items()}
    (DOCS / "sensor.md").write_text(report(pairs), encoding="utf-8")
    draw(pairs["moving"], DOCS / "sensor.png")
    print((DOCS / "sensor.md").read_text(encoding="utf-8"))


def compare(path: Path, *, held: bool) -> Pair:
    """The figures of a real recording, and of the sensor before its frames, or before the mean of them all the time."""
    with open_source(path) as source:
        items = [item for item in source if isinstance(item, EventPacket | RgbFrame)]
    frames = [item for item in items if isinstance(item, RgbFrame)]
    if held:
        mean = np.mean([frame.image for frame in frames], axis=0).round().astype(np.uint8)
        frames = [dataclasses.replace(frame, image=mean) for frame in frames]
    simulated = [*events_between(frames, SENSORS[SENSOR]), *frames]
    return event_statistics(items, WIDTH, HEIGHT), event_statistics(simulated, WIDTH, HEIGHT)


def events_between(frames: list[RgbFrame], sensor: Sensor) -> Iterator[EventPacket]:
    """Events of a sensor that sees the frames, each at the middle of its exposure, and what lies between them."""
    model, last_us = EventModel(HEIGHT, WIDTH, sensor, seed=1), middle_us(frames[0])
    model.push(last_us, light_of(frames[0]))
    for first, second in itertools.pairwise(frames):
        start_us, end_us = middle_us(first), middle_us(second)
        for share in np.linspace(0, 1, max(2, (end_us - start_us) // RENDER_US))[1:]:
            t_us = round(start_us + share * (end_us - start_us))
            yield EventPacket(last_us, t_us, model.push(t_us, blend(first, second, np.float32(share))))
            last_us = t_us


def blend(first: RgbFrame, second: RgbFrame, share: np.float32) -> Floats:
    """Light between two frames, linear in time."""
    return light_of(first) * (1 - share) + light_of(second) * share


def light_of(frame: RgbFrame) -> Floats:
    """Linear light [H, W] of a frame: these sensors have no transfer curve."""
    light = frame.image.astype(np.float32) / 255
    return light if light.ndim == 2 else luminance(light)


def middle_us(frame: RgbFrame) -> int:
    """The middle of a frame's exposure."""
    return (frame.t_start_us + frame.t_end_us) // 2


def report(pairs: dict[str, Pair]) -> str:
    """The page, in Markdown."""
    lines = [
        "# The simulated DAVIS346 beside a real one",
        "",
        "`benchmarks/sensor.py` writes this page: two recordings of a DAVIS346, and the events that the simulated",
        f"sensor `{SENSOR}` gives for their own frames (25 a second where something moves; their mean where nothing",
        "does, as the noise of single frames would be taken for light).",
        "",
        f"Parameters: `{SENSORS[SENSOR]}`.",
        "",
        "| | moving, real | simulated | still, real | simulated |",
        "| --- | --- | --- | --- | --- |",
    ]
    figures = [figures_of(statistics) for pair in pairs.values() for statistics in pair]
    lines += [f"| {name} | {' | '.join(column[name] for column in figures)} |" for name in figures[0]]
    return "\n".join([*lines, "", *REMARKS, "", "![Intervals and events per exposure](sensor.png)", ""])


REMARKS = [
    "Thresholds, refractory period and bandwidth are set so that events per exposure, their rate and the shortest",
    "intervals agree; the leak so that the still scene's ON events do. What differs: in the real camera more pixels",
    "are silent and polarity changes sooner, as motion between two frames is sharper than its interpolation; and its",
    "leak events come at random, where ours come evenly.",
]


def figures_of(s: EventStatistics) -> dict[str, str]:
    """What the table shows of one recording."""
    return {
        "events": f"{s.events:,} in {s.seconds:.2f} s",
        "rate of the mean pixel": f"{s.rate_hz:.3f} Hz",
        "silent pixels": f"{s.silent:.1%}",
        "ON among all": f"{s.on_share:.1%}",
        "shortest interval of a pixel (0.1 %)": f"{s.shortest_us() / 1e3:.2f} ms",
        "median interval, same polarity": milliseconds(s.same_us),
        "median interval, polarity changed": milliseconds(s.other_us),
        "events per exposure": f"{s.per_exposure.mean():,.0f}",
    }


def milliseconds(intervals: np.ndarray) -> str:
    """The median of intervals."""
    return f"{np.median(intervals) / 1e3:.2f} ms" if len(intervals) else "-"


def draw(pair: Pair, path: Path) -> None:
    """Histograms of intervals, and events per exposure."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    bins = np.geomspace(300, 500_000, 60)
    for axis, name, title in ((axes[0], "same_us", "same polarity"), (axes[1], "other_us", "polarity changed")):
        for statistics, label in zip(pair, ("real", "simulated"), strict=True):
            axis.hist(getattr(statistics, name) / 1e3, bins / 1e3, histtype="step", density=True, label=label)
        axis.set(xscale="log", title=f"between events of a pixel, {title}", xlabel="ms", yticks=[])
    for statistics, label in zip(pair, ("real", "simulated"), strict=True):
        axes[2].plot(statistics.per_exposure / 1e3, "o-", label=label)
    axes[2].set(title="thousand events per exposure", xlabel="frame", ylim=(0, None))
    axes[2].legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
