"""Which samples a window takes from a labelled clip, by one of two protocols.

    stream   T samples one sample period apart; the label is what can be seen at the end of the last one (live use)
    clip     T samples spread over a labelled span, one from each of T equal segments (as the papers do)

In training the end of a window and the places inside segments are random; else they are always the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velora.config import MAX_STRIDE, VELoRAConfig
from velora.training.clips import Clip

PROTOCOLS = ("stream", "clip")

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """T samples of a clip, in order of time, and their label."""

    clip: int  # position in the data set
    indices: tuple[int, ...]
    label: int


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place that a window can be drawn from: one window of it is seen in an epoch."""

    clip: int
    label: int
    choices: Indices  # stream: samples that may be the last one; clip: the samples of a span
    stride: int  # samples from one to the next; 0: spread over the choices

    def window(self, frames: int, rng: np.random.Generator | None) -> Window:
        """A random window, or without `rng` the one that stands for all."""
        if self.stride:
            last = self.choices[rng.integers(len(self.choices)) if rng else len(self.choices) // 2]
            indices = last - self.stride * np.arange(frames - 1, -1, -1)
        else:
            within = rng.random(frames) if rng else np.full(frames, 0.5)
            places = (np.arange(frames) + within) * len(self.choices) / frames
            indices = self.choices[places.astype(np.int64)]
        return Window(self.clip, tuple(indices.tolist()), self.label)


def slots(clips: Sequence[Clip], config: VELoRAConfig, protocol: str) -> list[Slot]:
    """All slots of a split; a clip that is too short for a single window by "stream" has none."""
    of = _stream_slots if protocol == "stream" else _clip_slots
    return [slot for number, clip in enumerate(clips) for slot in of(number, clip, config)]


def fixed_windows(clips: Sequence[Clip], config: VELoRAConfig, protocol: str, most: int) -> list[Window]:
    """Windows for evaluation: by "clip" one a span, by "stream" at most `most` a clip, evenly spread."""
    if protocol == "clip":
        return [slot.window(config.frames, None) for slot in slots(clips, config, protocol)]
    return [
        Slot(number, label, np.array([end]), stride).window(config.frames, None)
        for number, clip in enumerate(clips)
        for stride in [stride_of(clip, config)]
        for ends in chosen_ends(clip, config, most)
        for end in ends.tolist()
        if (label := label_at(clip, end)) is not None
    ]


def chosen_ends(clip: Clip, config: VELoRAConfig, most: int) -> list[Indices]:
    """The last samples of windows that stand for what is labelled of a clip, for each part without a hole.

    They are a whole number of strides apart, so that windows share samples: about `most` a clip, or in a longer one
    windows side by side.
    """
    stride = stride_of(clip, config)
    ends = ends_of(clip, stride * (config.frames - 1))
    ends = ends[np.array([label_at(clip, end) is not None for end in ends.tolist()], bool)]
    wanted = math.ceil(len(ends) / (most * stride))
    hop = stride * min(max(1, wanted), config.frames)
    parts = np.split(ends, np.flatnonzero(np.diff(ends) != 1) + 1)
    return [part[(len(part) - 1) % hop // 2 :: hop] for part in parts if len(part)]  # as far from both its ends


def ends_from(clip: Clip, config: VELoRAConfig, start_us: int, end_us: int) -> Indices:
    """The samples that end in [start_us, end_us) and each end a window, from the first one there on.

    None where that one ends no window; no more from a discontinuity on.
    """
    first, behind = np.searchsorted(clip.times[:, 1], [start_us, end_us])
    usable = np.isin(np.arange(first, behind), ends_of(clip, stride_of(clip, config) * (config.frames - 1)))
    unbroken = np.logical_and.accumulate(usable)
    return np.arange(first, first + unbroken.sum())


def stride_of(clip: Clip, config: VELoRAConfig) -> int:
    """Samples of this clip in one sample period of the model."""
    if len(clip.times) < 2:
        return 1
    period_us = float(np.median(np.diff(clip.times[:, 1])))
    return int(np.clip(round(config.sample_period_us / max(period_us, 1.0)), 1, MAX_STRIDE))


def _stream_slots(number: int, clip: Clip, config: VELoRAConfig) -> Iterator[Slot]:
    """Ends that share a label and a window's length of time make a slot."""
    stride = stride_of(clip, config)
    labelled = [(end, label_at(clip, end)) for end in ends_of(clip, stride * (config.frames - 1)).tolist()]
    group: list[int] = []
    for (end, label), following in zip(labelled, [*labelled[1:], (-1, None)], strict=False):
        group.append(end)
        if following[1] != label or following[0] != end + 1 or len(group) == stride * config.frames:
            if label is not None:
                yield Slot(number, label, np.array(group), stride)
            group = []


def _clip_slots(number: int, clip: Clip, config: VELoRAConfig) -> Iterator[Slot]:
    for span in clip.spans:
        inside = (clip.times[:, 0] >= span.start_us) & (clip.times[:, 1] <= span.end_us)
        if inside.any():
            yield Slot(number, span.label, np.flatnonzero(inside), 0)


def ends_of(clip: Clip, reach: int) -> Indices:
    """Samples that can end a window which reaches so many samples back and crosses no discontinuity."""
    breaks = clip.breaks.copy()
    breaks[:1] = False
    last_break = np.maximum.accumulate(np.where(breaks, np.arange(len(breaks)), 0)) if len(breaks) else breaks
    return np.flatnonzero(np.arange(len(breaks)) - last_break >= reach)


def label_at(clip: Clip, index: int) -> int | None:
    """What can be seen when a sample ends; None where nobody says."""
    end_us = int(clip.times[index, 1])
    return next((span.label for span in clip.spans if span.start_us < end_us <= span.end_us), None)
