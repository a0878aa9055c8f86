"""Cameras that leave holes, set their clock anew, vanish, stall and flood: what a live feed owes whoever watches it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from streams.dv_camera import DvCameraSource
from streams.items import Events
from tests.conftest import random_events
from tests.fake_dv import FakeCamera, frame_of
from tests.streams.dv_feed import GREY
from tests.trust.faults.measures import PERIOD_US, InUse, Watch, until, watching
from tests.trust.ledger import Ledger

LAG_MS = 250
BACK_S = 3.0  # until samples come again after a fault has ended
_BATCH_US = 10_000


class Shutter:
    """Plays a camera: 30 frames and 100 batches of events a second, at the host's time plus `offset_us`."""

    def __init__(self, camera: FakeCamera) -> None:
        self.camera, self.offset_us, self.open = camera, 0, True
        self._ended = threading.Event()
        self.thread = threading.Thread(target=self._play, daemon=True)
        self.thread.start()

    def _play(self) -> None:
        origin = time.monotonic_ns() // 1_000
        for k in itertools.count():
            end = origin + (k + 1) * _BATCH_US
            if self._ended.wait(max(0.0, end / 1e6 - time.monotonic())):
                return
            if not (self.open and self.camera.plugged):
                continue
            at = end + self.offset_us
            self.camera.give(random_events(20, at - _BATCH_US, at))
            if end // PERIOD_US != (end - _BATCH_US) // PERIOD_US:
                self.camera.give(frame_of(at - 9_000, 5_000, GREY))

    def stop(self) -> None:
        """No more."""
        self._ended.set()
        self.thread.join(5)


@contextmanager
def filming(camera: FakeCamera) -> Iterator[tuple[Shutter, Watch]]:
    """A camera that works, and who watches it."""
    shutter = Shutter(camera)
    try:
        with DvCameraSource("dv:") as source, watching(source) as watch:
            watch.wait(10)
            yield shutter, watch
    finally:
        shutter.stop()


def in_order(watch: Watch) -> None:
    """Times rise through all that happened."""
    ends = [end for _, end, _ in watch.samples]
    assert (np.diff(ends) > 0).all()


def back_s(watch: Watch, offset_us: Callable[[], int] = lambda: 0) -> float:
    """How long until samples come in time again."""
    seen = len(watch.samples)
    return until(lambda: len(watch.samples) > seen + 3 and watch.lags_ms()[-1] - offset_us() / 1e3 < LAG_MS)


def test_holes_in_the_feed_hold_up_nothing(ledger: Ledger, camera: FakeCamera, nightly: bool) -> None:
    row = ledger.row("camera", "holes of 0.2 to 2 s in events and frames", most_s=BACK_S)
    with filming(camera) as (shutter, watch):
        for hole_s in (0.2, 0.5, 1.0, 2.0) * 10 if nightly else (0.2, 1.0):
            shutter.open = False
            time.sleep(hole_s)
            shutter.open = True
            row.add(f"{hole_s} s", seconds=back_s(watch))
        assert watch.gaps() == 0 and watch.source.warning == ""
        in_order(watch)
        row.found = f"lag p95 {np.percentile(watch.lags_ms(), 95):.0f} ms"
    row.check()


@pytest.mark.parametrize("step_s", [-3600, -1, 3600], ids=["an hour back", "a second back", "an hour ahead"])
def test_a_clock_that_is_set_anew_is_one_gap(ledger: Ledger, camera: FakeCamera, step_s: int) -> None:
    row = ledger.row("camera", f"its clock is set by {step_s} s", most_s=BACK_S)
    with filming(camera) as (shutter, watch):
        shutter.offset_us = step_s * 1_000_000
        seen = len(watch.samples)
        row.add(f"{step_s} s", seconds=until(lambda: len(watch.samples) > seen + 5 and watch.gaps() == 1))
        watch.wait(20)
        assert watch.gaps() == 1
        in_order(watch)
    row.check()


def test_one_that_is_unplugged_and_plugged_in_again_and_again_is_found(
    ledger: Ledger, camera: FakeCamera, nightly: bool
) -> None:
    times = 100 if nightly else 10
    row = ledger.row("camera", f"unplugged and plugged in again {times} times", most_s=BACK_S)
    with filming(camera) as (shutter, watch):
        for k in range(times + 1):
            before = InUse() if k == 1 else None if k == 0 else before  # noqa: F821 (the first one warms up)
            camera.unplug()
            until(lambda: "gone" in watch.source.warning)
            camera.plug_in()
            took = back_s(watch)
            if before is not None:
                row.add(f"plug {k}", seconds=took, mb=before.grown_mb())
        assert watch.gaps() == times + 1 and watch.source.warning == ""
        in_order(watch)
        assert before is not None
        until(before.is_back)
        row.found = f"{before}, at most +20 MB"
        assert before.grown_mb() < 20
    row.check()


def test_a_driver_that_stalls_is_said_and_what_it_kept_is_caught_up_with(
    ledger: Ledger, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch, nightly: bool
) -> None:
    if not nightly:
        monkeypatch.setattr("streams.dv_camera.STALL_S", 0.5)
    row = ledger.row("camera", "a driver that hangs, then hands over what it kept", most_s=BACK_S)
    with filming(camera) as (_, watch):
        for k in range(5 if nightly else 1):
            began = time.monotonic()
            with camera.held():
                until(lambda: watch.source.warning.startswith("no data for"))
                said_s = time.monotonic() - began
            row.add(f"stall {k}", seconds=back_s(watch))
        in_order(watch)
        row.found = f"said after {said_s:.1f} s"
        assert said_s < row.slack * 5
    row.check()


def test_a_driver_that_floods_a_slow_consumer_costs_bounded_memory(
    ledger: Ledger, camera: FakeCamera, nightly: bool
) -> None:
    """Batches of 400,000 events, 6.4 MB, one behind the other: a large sensor when the light goes on sees as many."""
    row = ledger.row("camera", "6.4 MB batches without end, read by one who is slow", most_mb=400)
    base, count = random_events(400_000, 0, 10_000), itertools.count()

    def batch(_: object) -> Events:
        events = base.copy()
        events["t"] += 10_000 * next(count)
        return events

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.dv_camera._as_events", batch)
        patch.setattr(camera, "next_of", lambda queue: "a batch" if queue is camera.events else None)
        with DvCameraSource("dv:") as source:
            before, most_mb, items = InUse(), 0.0, iter(source)
            for _ in range(50 if nightly else 8):
                next(items)
                time.sleep(0.2)
                most_mb = max(most_mb, before.grown_mb())
            row.add("flood", seconds=0, mb=most_mb)
            lost = source.counts["packets of the camera, left out since too many came"]
            row.found = f"{lost:,} packets left out, and said"
            assert lost > 0
    row.check()
