"""A model ten times slower than its source: lag and memory stay bounded, drops are told, labels are of what is new."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from app.channel import Channel, Settings
from app.health import Health
from app.shared_step import SharedStep
from app.viewer import Viewer
from streams import LATEST, Live, RunSummary, Sample, Sink, run
from tests.app.fakes import FakeRecognizer, FakeSession
from tests.trust.faults.measures import PERIOD_US, Clockwork, InUse, until
from tests.trust.ledger import Ledger, Row

TAKES_S = 10 * PERIOD_US / 1e6
MOST_MS = 2 * 1e3 * TAKES_S + 150  # what it is busy with, and then its own time; and a busy machine


class SlowSession(FakeSession):
    """Takes its time."""

    def push(self, sample: Sample) -> SimpleNamespace | None:
        time.sleep(TAKES_S)
        return super().push(sample)


class SlowRecognizer(FakeRecognizer):
    """Ten frames pass while it looks at one."""

    def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
        return SlowSession(self, stride)


class Ages(Sink):
    """How old labels are: from the end of what they are of to when they are there."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.indices: list[int] = []
        self.newest = 0

    def on_sample(self, sample: Sample) -> None:
        self.newest = sample.index

    def on_prediction(self, prediction: SimpleNamespace) -> None:
        self.ms.append(time.monotonic() * 1e3 - prediction.t_end_us / 1e3)
        self.indices.append(prediction.index)


@pytest.mark.parametrize("max_lag_ms", [None, 100.0])
def test_headless_labels_stay_new_and_drops_are_counted(
    ledger: Ledger, nightly: bool, max_lag_ms: float | None
) -> None:
    row = ledger.row("slow model", f"headless, max lag {max_lag_ms} ms", most_mb=50)
    source, ages, summary = Clockwork(), Ages(), RunSummary()
    live = Live(source)
    before = InUse()
    threading.Timer(60 if nightly else 6, live.stop).start()
    run(live, SlowRecognizer(), sinks=[ages], policy=LATEST, summary=summary, max_lag_ms=max_lag_ms)
    told(row, ages, before)
    assert summary.dropped > 0 and summary.every >= (8 if nightly else 2) and summary.samples > 100
    assert summary.samples == pytest.approx((ages.newest + 1), abs=1)  # all are shown, however slow it is
    row.check()


def told(row: Row, ages: Ages, before: InUse) -> None:
    """Lag and memory of a run."""
    most = max(ages.ms)
    failure = "" if most < row.slack * MOST_MS else f"a label came {most:.0f} ms late"
    row.add("labels", seconds=most / 1e3, mb=before.grown_mb(), failure=failure)
    row.found = f"labels {np.median(ages.ms):.0f} ms late, {most:.0f} at most (bound {MOST_MS:.0f})"
    assert len(ages.ms) > 5 and ages.indices == sorted(set(ages.indices))


class AgedChannel(Channel):
    """A channel whose labels are looked at."""

    def __init__(self, *arguments: object, **named: object) -> None:
        self.ages = Ages()
        super().__init__(*arguments, **named)  # type: ignore[arg-type]

    def on_prediction(self, prediction: SimpleNamespace) -> None:  # type: ignore[override]
        self.ages.on_prediction(prediction)
        super().on_prediction(prediction)  # type: ignore[arg-type]


@pytest.fixture
def channel() -> Iterator[AgedChannel]:
    own = AgedChannel("webcam:0", SlowRecognizer(), SharedStep(), Settings(opened=lambda _: Clockwork(), stride=1))
    yield own
    own.close()


def test_the_pages_labels_stay_new_and_it_is_said_why_there_are_so_few(
    ledger: Ledger, channel: AgedChannel, nightly: bool
) -> None:
    row = ledger.row("slow model", "on the page's channel", most_mb=50)
    before, health = InUse(), Health()
    viewer = Viewer(SimpleNamespace(join=lambda *_, **__: channel, leave=lambda *_: None), "webcam:0", None)  # type: ignore[arg-type]
    said: set[str] = set()

    def look() -> bool:
        said.update(line for _, line in health.of(channel, viewer.figures()))
        return len(channel.ages.ms) > (100 if nightly else 12)

    until(look, timeout_s=150)
    told(row, channel.ages, before)
    assert viewer.figures()["source_fps"] > 20  # the picture does not wait
    assert channel.summary.dropped > 0
    assert any("got no label: the model does not keep up" in line for line in said)
    assert any(line.startswith("the stride grew from 1 to ") for line in said)
    row.check()
