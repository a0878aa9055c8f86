"""The run loop: EVERY recognises each sample; LATEST never waits for the model, and keeps its windows evenly spaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from streams import EVERY, LATEST, Policy, RunSummary, Sample, Sink, run
from streams.items import no_events
from streams.run import Mailbox, Pace

BLANK = np.zeros((2, 2, 3), np.uint8)


def sample(index: int, discontinuity: bool = False) -> Sample:
    return Sample(index, index * 10, index * 10 + 5, BLANK, BLANK, no_events(), True, True, discontinuity)


class Recorder(Sink):
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.predictions: list[str] = []

    def on_sample(self, sample: Sample) -> None:
        self.samples.append(sample.index)

    def on_prediction(self, prediction: str) -> None:
        self.predictions.append(prediction)


class Model:
    """A recogniser and its session in one; waits on `gate` before each sample where there is one."""

    def __init__(self, gate: threading.Semaphore | None = None, fail_at: int | None = None) -> None:
        self.stride = self.hop = 0
        self.gate, self.fail_at = gate, fail_at
        self.taken: list[Sample] = []
        self.took = threading.Semaphore(0)

    def open(self, *, stride: int = 1, hop: int = 1) -> Model:
        self.stride, self.hop = stride, hop
        return self

    def push(self, sample: Sample) -> str | None:
        if self.gate is not None:
            assert self.gate.acquire(timeout=10)
        self.taken.append(sample)
        self.took.release()
        if sample.index == self.fail_at:
            raise RuntimeError("the model broke")
        return f"label {sample.index}" if sample.index % 2 else None


def test_every_sample_is_shown_then_recognised() -> None:
    model, sink, summary = Model(), Recorder(), RunSummary()
    run((sample(i) for i in range(6)), model, sinks=[sink], policy=EVERY, stride=3, hop=2, summary=summary)
    assert (model.stride, model.hop) == (3, 2)
    assert sink.samples == [s.index for s in model.taken] == list(range(6))
    assert sink.predictions == ["label 1", "label 3", "label 5"]
    assert (summary.samples, summary.predictions, summary.dropped) == (6, 3, 0)


def test_latest_shows_every_sample_while_the_model_is_busy_and_counts_what_it_misses() -> None:
    gate, sink, summary = threading.Semaphore(0), Recorder(), RunSummary()
    model = Model(gate)

    def feed() -> Iterator[Sample]:
        yield sample(0, discontinuity=True)
        gate.release()
        assert model.took.acquire(timeout=10)
        for i in range(1, 5):  # the model is not let on: these meet in the mailbox
            yield sample(i)
        gate.release(2)
        assert model.took.acquire(timeout=10)

    run(feed(), model, sinks=[sink], policy=LATEST, summary=summary)
    assert sink.samples == [0, 1, 2, 3, 4]
    taken = [s.index for s in model.taken]
    assert taken[0] == 0 and taken[-1] in (1, 4)
    assert summary.samples == 5


def test_a_discontinuity_that_was_overwritten_reaches_the_model() -> None:
    box = Mailbox()
    box.put(sample(0, discontinuity=True))
    box.put(sample(1))
    box.skip(sample(2))
    taken = box.take()
    assert taken is not None and taken.index == 1 and taken.discontinuity
    box.skip(sample(3, discontinuity=True))
    box.put(sample(4))
    taken = box.take()
    assert taken is not None and taken.index == 4 and taken.discontinuity
    assert box.dropped == 1


def test_a_closed_mailbox_gives_nothing() -> None:
    box = Mailbox()
    box.put(sample(0))
    box.close()
    assert box.take() is None


@pytest.mark.parametrize("policy", [EVERY, LATEST])
def test_what_the_model_raises_is_raised_by_run(policy) -> None:
    model = Model(fail_at=1)

    def feed() -> Iterator[Sample]:
        for i in range(3):
            yield sample(i)
            assert model.took.acquire(timeout=10)
        raise AssertionError("went on after the failure")

    with pytest.raises(RuntimeError, match="the model broke"):
        run(feed(), model, policy=policy)
    assert not [t for t in threading.enumerate() if t.name == "recognizer"]


def test_what_the_samples_raise_ends_the_recogniser_too() -> None:
    def feed() -> Iterator[Sample]:
        yield sample(0)
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        run(feed(), Model(), policy=LATEST)
    assert not [t for t in threading.enumerate() if t.name == "recognizer"]


def test_a_model_too_slow_gets_one_sample_in_so_many_and_the_stride_grows_in_whole_steps() -> None:
    pace, seen = Pace(4), []
    for _ in range(60):
        if pace.update(drops=1, busy_s=1.0, elapsed_s=1.0):
            seen.append((pace.every, pace.stride))
    assert seen[:3] == [(8, 8), (12, 12), (16, 16)]
    assert all(stride % every == 0 for every, stride in seen)


def test_the_stride_grows_no_further_than_what_is_played_again_has_windows_for() -> None:
    pace = Pace(4)
    pace.most = 8
    for _ in range(200):
        pace.update(drops=1, busy_s=1.0, elapsed_s=1.0)
    assert (pace.every, pace.stride) == (8, 8)
    pace.rebase(10)  # somebody wants more
    for _ in range(200):
        pace.update(drops=1, busy_s=1.0, elapsed_s=1.0)
    assert pace.stride == 10


def test_a_model_that_has_room_again_comes_back() -> None:
    pace = Pace(4)
    while pace.every < 8:
        pace.update(drops=1, busy_s=1.0, elapsed_s=1.0)
    for _ in range(1_000):
        pace.update(drops=0, busy_s=0.1, elapsed_s=1.0)
    assert (pace.every, pace.stride) == (1, 4)


@pytest.mark.parametrize(("cost", "every"), [(0.7, 1), (0.9, 2), (1.5, 2), (1.7, 4)])
def test_a_model_takes_as_many_samples_as_leave_a_fifth_of_the_time_to_others(cost: float, every: int) -> None:
    pace = Pace(4)
    paces = []
    for _ in range(1_000):
        pace.update(drops=0, busy_s=cost, elapsed_s=pace.every)
        paces.append(pace.every)
    assert paces[0] == 4 and set(paces[100:]) == {every}


@pytest.mark.parametrize("gift", [False, True])
def test_a_gap_stands_behind_what_waits_not_before_it(gift: bool) -> None:
    box = Mailbox()
    box.put(sample(20))
    if gift:
        box.put(sample(21, discontinuity=True), gift=True)
    else:
        box.pass_by(sample(21, discontinuity=True))
    assert box.dropped == 1  # of a window that nothing follows
    box.put(sample(24))
    taken = box.take()
    assert (taken.index, taken.discontinuity) == (24, True)


def test_what_is_due_goes_before_gifts() -> None:
    box = Mailbox()
    box.put(sample(0, discontinuity=True))
    box.put(sample(2), gift=True)
    assert (box.missed, box.dropped) == (1, 0) and box.take().index == 0
    box.put(sample(2), gift=True)
    box.put(sample(4))
    assert (box.missed, box.dropped) == (2, 0)
    box.put(sample(8))
    assert (box.missed, box.dropped) == (2, 1) and box.take().index == 8


def test_labels_more_often_than_asked_end_with_the_first_drop_and_are_tried_ever_more_seldom() -> None:
    pace, trials = Pace(4), []
    for k in range(4_000):
        dropped = pace.every == 1
        if pace.update(drops=int(dropped), busy_s=0.1, elapsed_s=pace.every) and pace.every == 1:
            trials.append(k)
        assert pace.every <= 2 or k < 100
    waits = np.diff(trials)
    assert len(trials) < 20 and (waits[:4] > 1.5 * np.roll(waits, 1)[:4])[1:].all()


def test_after_a_gap_there_are_no_gifts_at_first() -> None:
    pace = Pace(4)
    for _ in range(1_000):
        pace.update(drops=0, busy_s=0.01, elapsed_s=pace.every)
    assert pace.every == 1
    pace.settle()
    assert pace.every == 4
    while pace.every < 8:
        pace.update(drops=1, busy_s=1.0, elapsed_s=1.0)
    pace.settle()
    assert pace.every == 8  # a model that cannot keep up still cannot


def test_one_slow_sample_in_many_forbids_a_pace_that_it_would_not_keep() -> None:
    pace = Pace(4)
    for k in range(1_000):
        pace.update(drops=0, busy_s=1.5 if k % 20 == 0 else 0.1, elapsed_s=pace.every)
    assert pace.every == 2


@pytest.mark.parametrize("cost", [0.5, 1.7, 2.5, 3.9, 6.0, 13.0])
def test_samples_that_a_slow_model_takes_are_evenly_spaced_and_none_is_dropped(cost: float) -> None:
    """Mailbox and pace in simulated time: one sample a tick, `cost` ticks of computing for each that is taken."""
    box, pace, taken, free_at, last_done, dropped = Mailbox(), Pace(4), [], 0.0, 0.0, 0
    for tick in range(2_000):
        if tick % pace.every == 0:
            box.put(sample(tick))
            if tick >= free_at and (got := box.take()):
                taken.append((got.index, box.dropped))
                free_at = tick + cost
                pace.update(box.dropped - dropped, cost, free_at - last_done)
                last_done, dropped = free_at, box.dropped
    indices, drops = (np.array(column) for column in zip(*taken[-20:], strict=True))
    assert set(np.diff(indices).tolist()) == {pace.every}
    assert pace.every >= cost and pace.stride % pace.every == 0
    assert drops[0] == drops[-1]


def test_a_model_that_breaks_while_a_window_is_filled_ends_the_run() -> None:
    leading = (replace(sample(i), lead=i < 14) for i in range(15))
    with pytest.raises(RuntimeError, match="the model broke"):
        run(leading, Model(fail_at=0), policy=LATEST, stride=7)


def test_after_a_place_that_was_sought_samples_go_on_at_the_windows_spacing() -> None:
    model = Model()

    def feed() -> Iterator[Sample]:
        for i in range(3, 39):
            yield replace(sample(i), lead=i < 18)
            if i >= 18 and (i - 18) % 5 == 0:
                for _ in range(4 if i == 18 else 1):
                    assert model.took.acquire(timeout=10)

    run(feed(), model, policy=LATEST, stride=5)
    assert [s.index for s in model.taken] == [3, 8, 13, 18, 23, 28, 33, 38]


def test_a_stride_that_has_grown_is_the_one_asked_for_again_where_a_place_is_sought() -> None:
    model, pace, summary = Model(), Pace(5), RunSummary()
    pace.every = 15  # the model was slow until then

    def feed() -> Iterator[Sample]:
        for i in range(3, 19):
            yield replace(sample(i), lead=i < 18)
        for _ in range(4):
            assert model.took.acquire(timeout=10)

    run(feed(), model, policy=LATEST, stride=5, pace=pace, summary=summary)
    assert [s.index for s in model.taken] == [3, 8, 13, 18] and summary.every == 5


def test_another_stride_is_told_with_the_next_sample_taken() -> None:
    pace = Pace(4)
    pace.rebase(6)
    assert (pace.base, pace.stride) == (6, 6)
    assert pace.update(0, 0.01, 0.2) and not pace.update(0, 0.01, 0.2)


@pytest.mark.parametrize("policy", [EVERY, LATEST])
def test_what_leads_to_a_place_that_is_sought_fills_the_window_and_is_not_shown(policy: Policy) -> None:
    model, sink, summary = Model(), Recorder(), RunSummary()

    def feed() -> Iterator[Sample]:
        for i in range(101, 115):
            yield replace(sample(i, discontinuity=i == 101), lead=True)
        yield sample(115)
        for _ in range(3 if policy is LATEST else 0):
            assert model.took.acquire(timeout=10)

    run(feed(), model, sinks=[sink], policy=policy, stride=7, summary=summary)
    assert sink.samples == [115] and summary.samples == 1 and summary.dropped == 0
    assert sink.predictions == ["label 115"]
    wanted = [101, 108, 115] if policy is LATEST else list(range(101, 116))
    assert [s.index for s in model.taken] == wanted and model.taken[0].discontinuity


def test_windows_are_spread_so_far_and_no_further() -> None:
    pace = Pace(600)
    for _ in range(100):
        pace.update(drops=1, busy_s=1.0, elapsed_s=1.0)
    assert pace.stride == 600
