"""A webcam that vanishes, stalls and stutters: what a live feed owes whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from streams import open_source
from tests.streams.test_webcam import FakeCapture
from tests.trust.faults.measures import InUse, Watch, until, watching
from tests.trust.ledger import Ledger

LAG_MS = 300
BACK_S = 3.0  # until samples come again after a fault has ended


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCapture]]:
    class Own(FakeCapture):
        period_s = 1 / 30

    monkeypatch.setattr("cv2.VideoCapture", Own)
    yield Own
    Own.stalled = False


@pytest.fixture
def watch(capture: type[FakeCapture]) -> Iterator[Watch]:
    with open_source("webcam:0", size=(64, 48)) as source, watching(source) as watch:
        watch.wait(5)
        yield watch


def is_well(watch: Watch, seen: int) -> bool:
    """Whether samples come in time again."""
    return len(watch.samples) > seen + 3 and watch.lags_ms()[-1] < LAG_MS and "gone" not in watch.source.warning


@pytest.mark.parametrize("fault", ["there", "raises"])
def test_one_that_vanishes_again_and_again_is_found(
    ledger: Ledger, capture: type[FakeCapture], watch: Watch, nightly: bool, fault: str
) -> None:
    times = 50 if nightly else 3
    how = {"there": "unplugged and plugged in", "raises": "its driver fails, and is well"}[fault]
    row = ledger.row("webcam", f"{how} again {times} times", most_s=BACK_S)
    before = InUse()
    for k in range(times):
        setattr(capture, fault, fault == "raises")
        until(lambda: "the webcam is gone" in watch.source.warning)
        seen = len(watch.samples)
        setattr(capture, fault, fault != "raises")
        row.add(f"{fault} {k}", seconds=until(lambda: is_well(watch, seen)), mb=before.grown_mb())  # noqa: B023
    assert watch.gaps() == times and (np.diff([end for _, end, _ in watch.samples]) > 0).all()
    until(before.is_back)
    row.found = str(before)
    row.check()


def test_one_that_stalls_is_said_and_goes_on(
    ledger: Ledger, capture: type[FakeCapture], watch: Watch, monkeypatch: pytest.MonkeyPatch, nightly: bool
) -> None:
    if not nightly:
        monkeypatch.setattr("streams.webcam.STALL_S", 0.5)
    row = ledger.row("webcam", "a driver that hangs", most_s=BACK_S)
    began, seen = time.monotonic(), len(watch.samples)
    capture.stalled = True
    until(lambda: watch.source.warning.startswith("no frames for"))
    said_s = time.monotonic() - began
    capture.stalled = False
    row.add("stall", seconds=until(lambda: is_well(watch, seen)))
    row.found = f"said after {said_s:.1f} s (at most 5)"
    assert said_s < row.slack * 5 and watch.gaps() == 0
    row.check()
