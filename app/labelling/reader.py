"""A worker process: it decodes recordings, makes samples of them, and leaves their images, resized, in shared memory.

It gets recordings and the numbers of slots that are free again, and tells what is in which slot. It imports torch,
which takes two seconds, once: no other way of resizing gives the same images to the last bit.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.feed import open_feed, options_of
from app.labelling.storage import fetched
from streams import RenderConfig, Sample, Source, StreamError, synchronize
from streams.endings import end_with_parent
from streams.errors import CutShortError

_ALONE = (EOFError, BrokenPipeError, ConnectionResetError)  # of a pipe whose other end, the owner, has ended


@dataclass(frozen=True)
class Look:
    """How samples are made, and the memory that they are left in."""

    feed: Mapping[str, Any]  # options of `open_feed`
    render: RenderConfig
    size: int  # pixels of a side, as the model wants images
    slots: int  # samples that may wait
    timeout_s: float  # after so long without a sample the owner gives up, and ends the worker

    def images(self, memory: Any) -> NDArray[np.uint8]:
        """The shared memory as [slots, 2, 3, S, S]: RGB and event image."""
        flat: NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
        return flat[: self.nbytes].reshape(self.slots, 2, 3, self.size, self.size)

    @property
    def nbytes(self) -> int:
        """Of shared memory."""
        return self.slots * 2 * 3 * self.size**2


@dataclass(frozen=True, slots=True)
class Task:
    """A recording to read."""

    path: Path
    scratch: Path | None  # where it is fetched to, if it is far


@dataclass(frozen=True, slots=True)
class Opened:
    """A recording was opened; what its source says of it."""

    frame_size: tuple[int, int] | None
    sample_period_us: int
    span_us: tuple[int, int] | None
    simulated: bool
    reconstructed: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A sample is in a slot."""

    slot: int
    index: int
    t_start_us: int
    t_end_us: int
    has_rgb: bool
    has_events: bool
    discontinuity: bool
    decode_ms: float
    render_ms: float
    events: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes of a recording."""

    counts: Counter[str]  # what was lost of it, by reason
    busy_s: float  # spent on decoding, rendering and resizing
    failure: str = ""  # why it could not be read to its end
    damaged: bool = False  # whether that is the recording's fault, and what was read of it is sound


Message = Opened | Seen | Ended


def serve(link: Connection, memory: Any, look: Look) -> None:
    """The worker's work: recordings one after the other, until it is told to end or is alone."""
    _prepare()
    desk = _Desk(link, look.slots, look.timeout_s)
    images = look.images(memory)
    with contextlib.suppress(*_ALONE):
        link.send(None)  # it has started
        while (task := desk.task()) is not None:
            _read(task, desk, images, look)


def _prepare() -> None:
    """One thread for each library, and an end to it all when the owner ends, even by a kill."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    end_with_parent()


class _Desk:
    """What comes from the owner: recordings, slots that are free again, None at the end."""

    def __init__(self, link: Connection, slots: int, timeout_s: float) -> None:
        self._link, self._last_s = link, 2 * timeout_s
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115 (it is needed until the process ends)
        self._free = deque(range(slots))
        self._tasks: deque[Task | None] = deque()

    def tell(self, message: Message | None) -> None:
        """Send what has been found, nothing where it only takes its time, and go on."""
        self._link.send(message)
        self._work_on()

    def task(self) -> Task | None:
        """Wait for the next recording; None: there is none."""
        while not self._tasks:
            self._take()
        return self._tasks.popleft()

    def slot(self) -> int:
        """Wait for a slot."""
        while not self._free:
            self._take()
        return self._free.popleft()

    def _take(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        got = self._link.recv()
        self._work_on()
        if isinstance(got, list):
            self._free.extend(got)
        else:
            self._tasks.append(got)

    def _work_on(self) -> None:
        """End the process if it does not come back here: a library that holds the interpreter's lock, while the owner
        was killed, leaves no other way."""
        faulthandler.dump_traceback_later(self._last_s, exit=True, file=self._nowhere)


def _read(task: Task, desk: _Desk, images: NDArray[np.uint8], look: Look) -> None:
    counts, busy_s, failure, damaged = Counter[str](), [0.0], "", False
    here = task.path
    try:
        with contextlib.ExitStack() as stack:
            here = stack.enter_context(fetched(task.path, lambda: desk.tell(None), task.scratch))
            source = stack.enter_context(open_feed(options_of(look.feed, here), here))
            counts = source.counts
            _samples(source, desk, images, look, busy_s)
    except _ALONE:
        raise
    except StreamError as error:
        failure, damaged = str(error), not isinstance(error, CutShortError)
    except Exception as error:
        failure = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    failure = failure.replace(str(here), str(task.path))
    desk.tell(Ended(Counter(counts), busy_s[0], failure, damaged))


def _samples(source: Source, desk: _Desk, images: NDArray[np.uint8], look: Look, busy_s: list[float]) -> None:
    facts = source.frame_size, source.sample_period_us, source.span_us, source.simulated, source.reconstructed
    desk.tell(Opened(*facts))
    began = time.perf_counter()
    for sample in synchronize(source, render=look.render):
        both = _resized(sample, look.size)
        busy_s[0] += time.perf_counter() - began
        slot = desk.slot()
        began = time.perf_counter()
        images[slot] = both
        desk.tell(_seen(slot, sample))
    busy_s[0] += time.perf_counter() - began


def _resized(sample: Sample, size: int) -> NDArray[np.uint8]:
    """RGB and event image [2, 3, S, S], as the recogniser itself would make them."""
    from velora.preprocess import resize

    return resize([sample.rgb, sample.event_image], size).numpy()


def _seen(slot: int, sample: Sample) -> Seen:
    return Seen(
        slot=slot,
        index=sample.index,
        t_start_us=sample.t_start_us,
        t_end_us=sample.t_end_us,
        has_rgb=sample.has_rgb,
        has_events=sample.has_events,
        discontinuity=sample.discontinuity,
        decode_ms=sample.decode_ms,
        render_ms=sample.render_ms,
        events=sample.event_count,
    )
