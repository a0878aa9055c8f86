"""One stream's window: which samples it holds, which of them need encoding, and when a label is due.

    stride 2, T = 3, hop 1:      index   0   1   2   3   4   5   6
                                 label                   ^ of 0 2 4, then 5 of 1 3 5, then 6 of 2 4 6

A session keeps the last samples as resized images and as encodings, so a new sample is encoded once. It plans; the
recogniser computes, for all sessions of a step together.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from velora.config import MAX_STRIDE, STREAMS
from velora.errors import ModelError

if TYPE_CHECKING:
    from streams.items import Sample
    from velora.prediction import Prediction
    from velora.recognizer import Recognizer

RGB, EVENT, DIFF = range(len(STREAMS))


@dataclass(eq=False, slots=True)
class Frame:
    """A sample in a window."""

    index: int
    t_start_us: int
    t_end_us: int
    images: Tensor  # uint8 [2, 3, S, S]: RGB and event image
    chain: int  # how many samples the window holds that end with this one and are `stride` apart
    blank: bool  # nothing to be seen: RGB and event image of one colour each
    codes: dict[int, Tensor] = field(default_factory=dict)  # stream to its encoding [N, d]


@dataclass(frozen=True, slots=True)
class Job:
    """An image to encode: of `frame`, or for the motion stream between `before` and `frame`."""

    frame: Frame
    stream: int
    before: Frame | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new sample asks for: images to encode, and perhaps a window to label."""

    jobs: Sequence[Job]
    window: Sequence[Frame] | None  # T frames in order of time


class Session:
    """The window of one stream; open one with `Recognizer.open`. Use it from one thread at a time.

    Setting `stride` is safe from any thread; it takes effect with the next sample, which then starts a new window.
    `swap` is safe from any thread, beside `push` and `Recognizer.step`.
    """

    def __init__(self, recognizer: Recognizer, stride: int, hop: int) -> None:
        if hop < 1:
            raise ValueError(f"hop must be at least 1, not {hop}")
        self._recognizer = recognizer
        self._hop = hop
        self.lock = threading.RLock()  # held by a push, by a step that the session is part of, and by a swap
        self.stride = stride
        self.clear()

    @property
    def stride(self) -> int:
        """Samples from one sample of a window to the next."""
        return self._wanted_stride

    @stride.setter
    def stride(self, value: int) -> None:
        if not 1 <= value <= MAX_STRIDE:
            raise ValueError(f"stride must be from 1 to {MAX_STRIDE}, not {value}")
        self._wanted_stride = value

    @property
    def hop(self) -> int:
        """Samples from one label to the next."""
        return self._hop

    @property
    def recognizer(self) -> Recognizer:
        """The recogniser whose labels this session gives."""
        return self._recognizer

    def push(self, sample: Sample) -> Prediction | None:
        """Take a sample; the prediction of the window that ends with it, where one is due."""
        with self.lock:
            return self._recognizer.step([(self, sample)])[0]

    def swap(self, recognizer: Recognizer) -> None:
        """Go on with another recogniser of the same backbone, such as other adapters on the tower in use.

        The window's images stay and are encoded anew, once, with the next sample, so that its prediction is what that
        recogniser would have said had it seen the same images; where it was trained on windows of another length, or on
        event images rendered otherwise, a new window starts. The stride stays. Raises ModelError for another backbone.
        """
        with self.lock:
            ours, theirs = self._recognizer.config, recognizer.config
            if theirs.backbone != ours.backbone:
                raise ModelError(
                    f"{recognizer.name} is for the backbone {theirs.backbone}, but this stream runs on {ours.backbone} "
                    f"({self._recognizer.name}): load a checkpoint for {ours.backbone}, or open a new stream"
                )
            self._recognizer = recognizer
            for frame in self._frames.values():
                frame.codes.clear()
                frame.images = frame.images.to(recognizer.device)
            if (theirs.frames, theirs.rendering) != (ours.frames, ours.rendering):
                self.clear()

    def clear(self) -> None:
        """Forget the window, as at a discontinuity."""
        self._stride = self._wanted_stride
        self._frames: dict[int, Frame] = {}  # by index, rising
        self._earliest: int | None = None  # no label before this index; None: at the first full window

    def window_now(self) -> tuple[object, ...]:
        """What `restore` takes."""
        return self._stride, dict(self._frames), self._earliest

    def restore(self, window: tuple[object, ...]) -> None:
        """Be as when `window_now` was asked: a step has failed."""
        self._stride, self._frames, self._earliest = window  # type: ignore[assignment]

    @property
    def _length(self) -> int:
        """T."""
        return self._recognizer.config.frames

    def admit(self, sample: Sample, images: Tensor) -> Plan:
        """Add a sample, whose resized images are uint8 [2, 3, S, S], and say what it asks for."""
        broken = sample.discontinuity or self._stride != self._wanted_stride
        if broken or (self._frames and sample.index <= next(reversed(self._frames))):
            self.clear()
        before = self._frames.get(sample.index - self._stride)
        chain = before.chain + 1 if before else 1
        blank = _is_blank(sample.rgb) and _is_blank(sample.event_image)
        frame = Frame(sample.index, sample.t_start_us, sample.t_end_us, images, chain, blank)
        self._frames[frame.index] = frame
        self._forget(frame.index - (self._length - 1) * self._stride)
        window = self._window(frame)
        return Plan(self._jobs(window) if window else self._ahead(frame, before), window)

    def _forget(self, oldest: int) -> None:
        for index in [index for index in self._frames if index < oldest]:
            del self._frames[index]

    def _window(self, frame: Frame) -> list[Frame] | None:
        """The window that ends with `frame`, if it is complete and its label due."""
        if frame.chain < self._length or (self._earliest is not None and frame.index < self._earliest):
            return None
        self._earliest = frame.index + self._hop
        return [self._frames[frame.index - j * self._stride] for j in reversed(range(self._length))]

    def _ahead(self, frame: Frame, before: Frame | None) -> list[Job]:
        """Encode now what coming windows will need, so that no label waits for a whole window of encodings."""
        due = self._next_label(frame.index)
        if not self._awaits(frame.index, due, self._length):
            return []
        in_motion = self._awaits(frame.index, due, self._length - 1)  # not only as a window's first
        return self._jobs_of(frame, before if in_motion else None)

    def _next_label(self, now: int) -> int:
        """The index of the next label if no sample is missing from now on."""
        earliest = now if self._earliest is None else max(now, self._earliest)
        latest = (self._frames.get(i) for i in range(now - self._stride + 1, now + 1))
        full = (f.index + max(0, self._length - f.chain) * self._stride for f in latest if f)
        return min(index + max(0, -((index - earliest) // self._stride)) * self._stride for index in full)

    def _awaits(self, index: int, due: int, length: int) -> bool:
        """Whether a label at `due`, or a whole number of hops later, has this index among its last `length` samples."""
        ends = (index + j * self._stride for j in range(length))
        return any(end >= due and (end - due) % self._hop == 0 for end in ends)

    def _jobs(self, window: Sequence[Frame]) -> list[Job]:
        befores = (None, *window[:-1])
        return [job for frame, before in zip(window, befores, strict=True) for job in self._jobs_of(frame, before)]

    def _jobs_of(self, frame: Frame, before: Frame | None) -> list[Job]:
        reads = range(len(self._recognizer.config.streams))
        streams = [stream for stream in reads if stream != DIFF or before]
        return [Job(frame, stream, before) for stream in streams if stream not in frame.codes]


def _is_blank(image: NDArray[np.uint8]) -> bool:
    """Whether an image [H, W, 3] is of one colour; a few pixels tell that most are not."""
    return bool((image[::16, ::16] == image[0, 0]).all() and (image == image[0, 0]).all())
