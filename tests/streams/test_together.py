"""Several streams in full batches: each gets what it would have got alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from streams import EVERY, Sample, Sink, run
from streams.items import no_events
from streams.together import Together

IMAGE = np.zeros((2, 2, 3), np.uint8)


def sample(index: int, *, lead: bool = False) -> Sample:
    return Sample(index, index, index + 1, IMAGE, IMAGE, no_events(), True, True, index == 0, lead=lead)


@dataclass(eq=False)
class FakeSession:
    recognizer: FakeRecognizer
    stride: int
    hop: int
    seen: list[int] = field(default_factory=list)

    def push(self, sample: Sample) -> tuple[int, ...] | None:
        return self.recognizer.step([(self, sample)])[0]


class FakeRecognizer:
    """Says which samples a session has seen, from its third on."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
        return FakeSession(self, stride, hop)

    def step(self, pairs: Sequence[tuple[FakeSession, Sample]]) -> list[tuple[int, ...] | None]:
        self.batches.append(len(pairs))
        said: list[tuple[int, ...] | None] = []
        for session, own in pairs:
            session.seen.append(own.index)
            said.append(tuple(session.seen) if len(session.seen) > 2 else None)
        return said


class Noted(Sink):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_sample(self, sample: Sample) -> None:
        self.told.append(sample.index)

    def on_prediction(self, prediction: Any) -> None:
        self.told.append(prediction)


def predictions(sink: Noted) -> list[tuple[int, ...]]:
    return [told for told in sink.told if isinstance(told, tuple)]


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_each_stream_gets_what_run_gives_it(batch: int) -> None:
    alone = [Noted(), Noted()]
    streams = [[sample(k, lead=k < 2) for k in range(5)], [sample(k) for k in range(9)]]
    expected = [run(s, FakeRecognizer(), sinks=[sink], policy=EVERY) for s, sink in zip(streams, alone, strict=True)]

    recognizer, sinks = FakeRecognizer(), [Noted(), Noted()]
    together = Together(recognizer, batch)
    lanes = [together.open([sink], stride=2, hop=3) for sink in sinks]
    assert (lanes[0].session.stride, lanes[0].session.hop) == (2, 3)
    dealt = []
    for k in range(9):
        for lane, own in zip(lanes, streams, strict=True):
            if k < len(own):
                dealt += together.push(lane, own[k])
    dealt += together.flush()
    assert [predictions(sink) for sink in sinks] == [predictions(sink) for sink in alone]
    assert [lane.summary for lane in lanes] == expected
    for lane, own in zip(lanes, streams, strict=True):
        assert [s.index for whose, s in dealt if whose is lane] == [s.index for s in own] and lane.waiting == 0
    assert set(recognizer.batches[:-1]) <= {batch} and sum(recognizer.batches) == 14


def test_a_batch_may_be_of_one_stream() -> None:
    recognizer = FakeRecognizer()
    together = Together(recognizer, 4)
    lane = together.open([])
    assert [len(together.push(lane, sample(k))) for k in range(9)] == [0, 0, 0, 4, 0, 0, 0, 4, 0]
    assert lane.waiting == 1 and len(together.flush()) == 1 and together.flush() == []


def test_a_stream_that_is_dropped_leaves_the_others_alone() -> None:
    recognizer, sink = FakeRecognizer(), Noted()
    together = Together(recognizer, 4)
    bad, good = together.open([]), together.open([sink])
    for k in range(3):
        together.push(good if k else bad, sample(k))
    together.drop(bad)
    assert bad.waiting == 0
    together.push(good, sample(3))
    assert [own.index for _, own in together.flush()] == [1, 2, 3] and predictions(sink) == [(1, 2, 3)]


def test_a_batch_holds_something() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1"):
        Together(FakeRecognizer(), 0)
