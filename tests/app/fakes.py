"""Stand-ins for a recogniser and a camera, for tests of what is around them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np

from streams import Sample, Source
from streams.items import Item, no_events
from tests.conftest import moving_square
from velora import VELoRAConfig

LABELS = ("<b>A</b>", "7 ♥", "K", "JOKER", "no card", "2")


def prediction(index: int, label: str = LABELS[0], confidence: float = 0.5, *, unsure: bool = False) -> SimpleNamespace:
    """Of the window that ends with a sample of this index."""
    others = [(name, (1 - confidence) / 5) for name in LABELS if name != label][:4]
    return SimpleNamespace(
        index=index,
        t_start_us=1_000 * index,
        t_end_us=1_000 * (index + 1),
        topk=((label, confidence), *others),
        label=label,
        confidence=confidence,
        unsure=unsure,
        model="fake",
    )


class FakeSession:
    """A label for each sample from the second of a stretch on; they take turns."""

    def __init__(self, recognizer: FakeRecognizer, stride: int) -> None:
        self.recognizer, self.stride, self.hop = recognizer, stride, 1

    def push(self, sample: Sample) -> SimpleNamespace | None:
        if sample.discontinuity:
            return None
        found = prediction(sample.index, LABELS[sample.index // 5 % len(LABELS)])
        found.t_start_us, found.t_end_us, found.model = sample.t_start_us, sample.t_end_us, self.recognizer.name
        return found

    def swap(self, recognizer: FakeRecognizer) -> None:
        self.recognizer = recognizer


class FakeRecognizer:
    """What the page needs of a recogniser."""

    name, device, dtype, random_parts = "fake", "cpu", "torch.float32", ("head",)
    config = VELoRAConfig(labels=LABELS, backbone="demo", sample_period_us=133_333)

    def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
        return FakeSession(self, stride)

    def step(self, pairs: list[tuple[FakeSession, Sample]]) -> list[SimpleNamespace | None]:
        return [session.push(sample) for session, sample in pairs]


class FakeCamera(Source):
    """A live source that only one may open at a time."""

    live, opened = True, 0
    period_us = 20_000  # by its own clock, in 20 ms of ours

    def __init__(self) -> None:
        super().__init__()
        assert not FakeCamera.opened
        FakeCamera.opened += 1
        self.name, self.event_size, self.frame_size, self.sample_period_us = "camera", (64, 48), (64, 48), 20_000
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Item]:
        for item in moving_square(100_000, period_us=self.period_us):
            if self._closed.wait(0.01):
                return
            yield item

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            time.sleep(0.2)  # as drivers take
            FakeCamera.opened -= 1


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition that other threads bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def viewer_threads() -> list[str]:
    """Of channels and recognisers."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("viewer", "recognizer"))]


def sample(index: int, value: int = 0, *, discontinuity: bool = False, size: tuple[int, int] = (6, 4)) -> Sample:
    """One colour all over, a millisecond long."""
    image = np.full((size[1], size[0], 3), value, np.uint8)
    end_us = 1_000 * (index + 1)
    return Sample(index, end_us - 1_000, end_us, image, image, no_events(), True, True, discontinuity)


class PoolHere:
    """A pool of processes that are none: work is done in this one, at once."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *_: object) -> None: ...
    def shutdown(self, **_: object) -> None: ...
    def submit(self, work: Callable[..., object], *arguments: object) -> Future[object]:
        done: Future[object] = Future()
        try:
            done.set_result(work(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done
