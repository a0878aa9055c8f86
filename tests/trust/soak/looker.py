"""Looks at a live feed for long, as the page does, in a process of its own; a row a while of how it goes.

python -m tests.trust.soak.looker tcp://127.0.0.1:7777 3600 60 out.csv
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import psutil

from app.channel import Channel, Settings
from app.channels import Channels
from app.meters import memory_mb
from app.shared_step import SharedStep
from app.strip import View
from app.viewer import Viewer
from streams import EventPacket, RgbFrame, Sample, Source, open_source
from streams.items import Item
from streams.source import Through
from velora import Prediction, Recognizer, load_recognizer

MAX_LAG_MS = 100.0  # as `velora live` has it


@dataclass(frozen=True, slots=True)
class Row:
    """How it went in a stretch of time; counts are of all that was before, too."""

    seconds: float  # since the first label
    memory_mb: float
    label_p50_ms: float  # from sample to label
    label_p99_ms: float
    drift_ms: float  # the watermark of events minus the end of frames when they come, the median
    samples: int
    due: int  # labels that the stride promises
    labels: int  # of those
    dropped: int
    gaps: int
    stride: int
    changes: int  # of the stride, each of which begins a new window
    stolen: float  # share of the machine's time that its neighbours took, where it is a virtual one

    @classmethod
    def read(cls, path: Path) -> list[Row]:
        """All of a file."""
        with path.open(newline="", encoding="utf-8") as file:
            kinds = {field.name: float if field.type == "float" else int for field in fields(cls)}
            return [cls(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


class Drift(Through):
    """Notes how far the events are ahead of the frames, or behind them."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.ms: list[float] = []

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        watermark: int | None = None
        for item in items:
            if isinstance(item, EventPacket):
                watermark = item.t_end_us
            elif isinstance(item, RgbFrame) and watermark is not None:
                self.ms.append((watermark - item.t_end_us) / 1e3)
            yield item


class Counted(Channel):
    """A channel that counts the labels that are due, those that come, and how long they take."""

    frames = 0  # of a window
    samples = due = labels = gaps = 0
    began = paced = changes = 0

    def __init__(
        self, address: Path | str, recognizer: Recognizer, shared: SharedStep, settings: Settings | None = None
    ) -> None:
        self.came: dict[int, float] = {}  # when samples came whose labels are due
        self.took_ms: list[float] = []
        super().__init__(address, recognizer, shared, settings)

    def on_sample(self, sample: Sample) -> None:
        """A label is due at each multiple of the stride, once a window fits behind the last gap."""
        self.samples, self.gaps = self.samples + 1, self.gaps + sample.discontinuity
        if sample.discontinuity or self.stride != self.paced:
            self.changes += self.stride != self.paced
            self.began, self.paced = sample.index, self.stride
        if sample.index % self.stride == 0 and sample.index - (self.frames - 1) * self.stride >= self.began:
            self.came[sample.index] = time.monotonic()
            self.due += 1
        super().on_sample(sample)

    def on_prediction(self, prediction: Prediction) -> None:
        """Only those that are due count."""
        came = self.came.pop(prediction.index, None)
        if came is not None:
            self.labels += 1
            self.took_ms.append((time.monotonic() - came) * 1e3)
        super().on_prediction(prediction)


class OfCounted(Channels):
    """Channels that count."""

    def join(
        self, address: Path | str, recognizer: Recognizer, wake: Callable[[], None], *, operator: bool = True
    ) -> Channel:
        channel = Counted(address, recognizer, SharedStep(), self.settings)
        channel.watch(wake, operator=operator)
        return channel


def look(address: str, seconds: float, every_s: float, out: Path) -> None:
    """Watch a feed, and write a row each `every_s`."""
    recognizer, drifts = load_recognizer("demo", device="cpu"), []
    Counted.frames = recognizer.config.frames

    def opened(uri: Path | str) -> Source:
        drifts.append(Drift(open_source(uri)))
        return drifts[-1]

    viewer = Viewer(OfCounted(Settings(opened=opened, max_lag_ms=MAX_LAG_MS)), address, recognizer)
    channel = viewer.channel
    assert isinstance(channel, Counted)
    try:
        while channel.prediction is None:
            assert not channel.failure, channel.failure
            time.sleep(0.05)
        _watch(viewer, channel, drifts[0], seconds, every_s, out)
    finally:
        viewer.close()


def _watch(viewer: Viewer, channel: Counted, drift: Drift, seconds: float, every_s: float, out: Path) -> None:
    began, stolen = time.monotonic(), Stolen()
    with out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Row)])
        rows.writeheader()
        for k in range(1, int(seconds / every_s) + 1):
            while time.monotonic() < began + k * every_s:
                assert not channel.failure, channel.failure
                if channel.moment is not None:
                    channel.moment.picture(View())
                viewer.state()
                time.sleep(0.1)
            took, channel.took_ms = channel.took_ms, []
            drifted, drift.ms = drift.ms, []
            rows.writerow(asdict(_row(time.monotonic() - began, channel, took, drifted, stolen.since_last())))
            file.flush()
            os.fsync(file.fileno())


class Stolen:
    """What the neighbours of a virtual machine take of its time."""

    def __init__(self) -> None:
        self._last = psutil.cpu_times()

    def since_last(self) -> float:
        """A share, since it was asked last."""
        last, self._last = self._last, psutil.cpu_times()
        spent = sum(self._last[:8]) - sum(last[:8])  # without that of guests, which is in that of users
        return (getattr(self._last, "steal", 0.0) - getattr(last, "steal", 0.0)) / max(spent, 1e-9)


def _row(seconds: float, channel: Counted, took: list[float], drifted: list[float], stolen: float) -> Row:
    return Row(
        seconds=round(seconds, 1),
        memory_mb=round(memory_mb(), 2),
        label_p50_ms=round(float(np.percentile(took or [0.0], 50)), 2),
        label_p99_ms=round(float(np.percentile(took or [0.0], 99)), 2),
        drift_ms=round(float(np.median(drifted or [0.0])), 3),
        samples=channel.samples,
        due=channel.due,
        labels=channel.labels,
        dropped=channel.summary.dropped,
        gaps=channel.gaps,
        stride=channel.stride,
        changes=channel.changes,
        stolen=round(stolen, 4),
    )


if __name__ == "__main__":
    look(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
