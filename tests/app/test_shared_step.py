"""Steps of several streams at once, and a recogniser that is exchanged while it runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from app.shared_step import SharedStep, Switch, _Push, _step
from streams import Sample
from tests.app.fakes import FakeRecognizer, FakeSession, sample
from velora import load_recognizer
from velora.errors import NotFiniteError
from velora.recognizer import Recognizer
from velora.session import Plan


class Slow(FakeRecognizer):
    """Its first push waits until others have come."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
        recognizer = self

        class Session(FakeSession):
            def push(self, sample: Sample) -> object:
                recognizer.steps.append(1)
                recognizer.begun.set()
                assert recognizer.go_on.wait(10)
                if sample.index == 13:
                    raise ValueError("an unlucky sample")
                return super().push(sample)

        return Session(self, stride)

    def step(self, pairs: list) -> list:
        self.steps.append(len(pairs))
        if any(sample.index == 13 for _, sample in pairs):
            raise ValueError("an unlucky sample")
        return [FakeSession.push(session, sample) for session, sample in pairs]


def pushed(shared: SharedStep, slow: Slow, indices: list[int]) -> list[object]:
    """What comes of pushing samples in threads of their own, while a first one is under way."""
    found: list[object] = [None] * (len(indices) + 1)

    def push(k: int, index: int) -> None:
        try:
            found[k] = shared.push(slow.open(), sample(index))
        except (ValueError, NotFiniteError) as error:
            found[k] = error

    threads = [threading.Thread(target=push, args=(0, 1))]
    threads[0].start()
    assert slow.begun.wait(10)
    for k, index in enumerate(indices, 1):
        threads.append(threading.Thread(target=push, args=(k, index)))
        threads[-1].start()
    while len(shared._waiting) < len(indices):
        pass
    slow.go_on.set()
    for thread in threads:
        thread.join(10)
    return found


def test_what_waits_while_a_step_is_computed_is_one_step() -> None:
    slow = Slow()
    found = pushed(SharedStep(), slow, [2, 3, 4, 5])
    assert slow.steps == [1, 4] and [one.index for one in found] == [1, 2, 3, 4, 5]


def test_one_that_fails_fails_alone() -> None:
    found = pushed(SharedStep(), Slow(), [2, 13, 4])
    assert [getattr(one, "index", str(one)) for one in found] == [1, 2, "an unlucky sample", 4]


def test_all_are_told_of_a_model_whose_output_is_not_finite_also_where_their_labels_are_due_together() -> None:
    class Broken(Slow):
        def step(self, pairs: list) -> list:
            super().step(pairs)
            raise NotFiniteError("not finite", [None, "a label", None], [0, 2])

    found = pushed(SharedStep(), Broken(), [2, 3, 4])
    assert [str(one) for one in found[1:]] == ["not finite", "a label", "not finite"]


def test_it_equals_pushing_alone() -> None:
    recognizer = load_recognizer("demo", device="cpu", dtype="fp32")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 2, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    samples = [Sample(k, k, k + 1, a, b, sample(0).events, True, True, k == 0) for k, (a, b) in enumerate(images)]
    alone = _labels(recognizer.open(), samples)
    shared, found = SharedStep(), {}

    def run(name: int) -> None:
        switch = Switch(recognizer, shared).open(stride=1)
        found[name] = _labels(switch, samples)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for own in found.values():
        assert own == pytest.approx(alone, abs=1e-5)
    assert len(found) == 3 and len(alone) == 17


def _labels(session: object, samples: list[Sample]) -> list[float]:
    return [found.confidence for one in samples if (found := session.push(one)) is not None]


def test_another_model_of_the_same_backbone_takes_the_window_over() -> None:
    switch = Switch(FakeRecognizer(), SharedStep()).open(stride=3)
    session, other = switch._opened(), FakeRecognizer()
    switch.use(other)
    assert switch._opened() is session and session.recognizer is other and switch.recognizer is other


def test_one_of_another_backbone_starts_anew_at_the_same_stride() -> None:
    class Other(FakeRecognizer):
        config = FakeRecognizer.config.__class__(labels=("a", "b"), backbone="ViT-B-16-quickgelu")

    switch = Switch(FakeRecognizer(), SharedStep()).open(stride=3)
    session = switch._opened()
    switch.use(Other())
    assert switch._opened() is not session and switch.stride == 3


def test_it_can_be_exchanged_before_it_is_opened() -> None:
    other = FakeRecognizer()
    switch = Switch(FakeRecognizer(), SharedStep())
    switch.use(other)
    assert switch.open(stride=2)._opened().recognizer is other


def test_a_batch_that_fails_costs_no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a device has memory for one stream's images, and not for those of two."""
    recognizer = load_recognizer("demo", device="cpu", dtype="fp32")
    encode = Recognizer._encode

    def short_of_memory(own: Recognizer, plans: Sequence[Plan]) -> None:
        if len(plans) > 1:
            raise torch.OutOfMemoryError("no memory")
        encode(own, plans)

    monkeypatch.setattr(Recognizer, "_encode", short_of_memory)
    images = np.random.default_rng(0).integers(0, 256, (12, 2, 8, 8, 3), np.uint8)
    sessions, labels = [recognizer.open(), recognizer.open()], 0
    for k, (a, b) in enumerate(images):
        one = Sample(k, k, k + 1, a, b, sample(0).events, True, True, k == 0)
        pushes = [_Push(session, one) for session in sessions]
        _step(recognizer, pushes)
        assert all(push.error is None for push in pushes)
        labels += sum(push.prediction is not None for push in pushes)
    assert labels == 2 * (12 - 7)
