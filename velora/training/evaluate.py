"""A recogniser's answers on a labelled data set, by the road that live use takes: samples pushed to sessions."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streams.items import Sample, no_events
from velora.prediction import Prediction
from velora.recognizer import Recognizer
from velora.session import Session
from velora.training import metrics
from velora.training.clips import Clip, ClipSet
from velora.training.windows import chosen_ends, ends_from, label_at, slots, stride_of

_TOGETHER = 8  # clips
_FEATURES = 5_000  # windows of which they are kept, about
_FOLLOWED_US = 3_000_000  # after a change
_Truth = tuple[int, int, str | int]


@dataclass(frozen=True)
class Answers:
    """One row a window, in order of clips and of time."""

    logits: NDArray[np.float64]  # [n, C] log probabilities, times the recogniser's temperature
    truth: NDArray[np.int64]  # [n]
    clips: NDArray[np.int64]  # [n] position in the data set
    t_end_us: NDArray[np.int64]  # [n]
    indices: tuple[tuple[int, ...], ...]  # [n] of T samples
    features: NDArray[np.float32] | None  # [m, F] what the head reads of some of the windows
    featured: NDArray[np.int64]  # [m] which these are

    def probabilities(self, temperature: float) -> NDArray[np.float64]:
        """[n, C]."""
        raised = np.exp((self.logits - self.logits.max(axis=1, keepdims=True)) / temperature)
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class _Run:
    """Samples to push to a session of their own, and what each window that ends with one shows."""

    clip: int
    samples: Sequence[int]  # of the clip
    numbers: Sequence[int]  # the same as the session counts them
    stride: int
    hop: int


def answer(
    recognizer: Recognizer,
    data: ClipSet,
    protocol: str,
    *,
    modality: str = "both",
    most: int = 5,
    features: bool = False,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """All windows of a data set: by "clip" one a span, by "stream" about `most` a clip.

    `modality` blanks the other one. `features` keeps those of some thousand windows. `told` hears how many runs are
    done. Raises ValueError without a single window.
    """
    runs = [run for number, clip in enumerate(data.clips) for run in _runs(recognizer, number, clip, protocol, most)]
    reach = recognizer.config.frames - 1
    windows = sum((run.numbers[-1] - run.numbers[0] - reach * run.stride) // run.hop + 1 for run in runs)
    watch = _Watch(every=math.ceil(windows / _FEATURES))
    with recognizer.watched(watch) if features else contextlib.nullcontext():
        rows = _rows(recognizer, data, runs, modality, told)
    known = [k for k, row in enumerate(rows) if row.label is not None]  # what nobody labelled is left out
    if not known:
        raise ValueError(f"no clip has a labelled window by the protocol {protocol}: record longer ones, or label them")
    order = sorted(known, key=lambda k: (rows[k].clip, rows[k].indices))
    shown = [k for k in order if k in watch.kept]
    probabilities = np.array([rows[k].prediction.probabilities for k in order], np.float64)
    return Answers(
        logits=np.log(np.maximum(probabilities, 1e-30)) * recognizer.config.temperature,
        truth=np.array([rows[k].label for k in order], np.int64),
        clips=np.array([rows[k].clip for k in order], np.int64),
        t_end_us=np.array([rows[k].prediction.t_end_us for k in order], np.int64),
        indices=tuple(rows[k].indices for k in order),
        features=torch.stack([watch.kept[k] for k in shown]).numpy() if shown else None,
        featured=np.flatnonzero([k in watch.kept for k in order]),
    )


class _Watch:
    """Keeps what the head reads of every so manieth window, by its number."""

    def __init__(self, every: int) -> None:
        self._every, self._seen = max(1, every), 0
        self.kept: dict[int, Tensor] = {}

    def __call__(self, read: Tensor) -> None:
        for k in range(-self._seen % self._every, len(read), self._every):
            self.kept[self._seen + k] = read[k].float().cpu().clone()
        self._seen += len(read)


def follow(
    recognizer: Recognizer,
    data: ClipSet,
    *,
    modality: str = "both",
    most: int = 50,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[int | None]:
    """How long after changes of what can be seen the labels follow, microseconds; None where they do not in time.

    With a label for each sample, as live, for three seconds at most; of `most` changes, spread over all clips. What it
    is to follow, `metrics.delays` says.
    """
    every = [change for number, clip in enumerate(data.clips) for change in _changes(recognizer, number, clip)]
    chosen = [every[k] for k in np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int)]
    rows = _rows(recognizer, data, [run for run, _ in chosen], modality, told)
    found: list[int | None] = []
    for run, spans in chosen:
        said = {r.indices[-1]: int(np.argmax(r.prediction.probabilities)) for r in rows if r.clip == run.clip}
        ends = sorted(said)
        found += metrics.delays(data.clips[run.clip].times[ends, 1], [said[end] for end in ends], spans)
    return found


def _changes(recognizer: Recognizer, number: int, clip: Clip) -> Iterator[tuple[_Run, list[_Truth]]]:
    """For each change the windows after it, and the truth before it and after it."""
    stride = stride_of(clip, recognizer.config)
    reach = stride * (recognizer.config.frames - 1)
    truth = metrics.runs([(span.start_us, span.end_us, span.label) for span in clip.spans])
    for before, (start_us, end_us, label) in itertools.pairwise(truth):
        until_us = min(end_us, start_us + _FOLLOWED_US)
        ends = ends_from(clip, recognizer.config, start_us, until_us)
        if len(ends):
            samples = range(int(ends[0]) - reach, int(ends[-1]) + 1)
            yield _Run(number, samples, samples, stride, 1), [before, (start_us, until_us, label)]


@dataclass(frozen=True, slots=True)
class _Row:
    clip: int
    prediction: Prediction
    label: int | None
    indices: tuple[int, ...]  # of the window's samples


def _runs(recognizer: Recognizer, number: int, clip: Clip, protocol: str, most: int) -> Iterator[_Run]:
    """What is pushed for a clip: by "stream" the samples of its windows and no others."""
    config = recognizer.config
    if protocol == "clip":
        for slot in slots([clip], config, protocol):
            yield _Run(number, slot.window(config.frames, None).indices, range(config.frames), 1, 1)
        return
    stride = stride_of(clip, config)
    for ends in chosen_ends(clip, config, most):
        reach = stride * np.arange(config.frames)
        samples = np.unique(ends[:, None] - reach).tolist()
        yield _Run(number, samples, samples, stride, int(ends[1] - ends[0]) if len(ends) > 1 else 1)


def _rows(
    recognizer: Recognizer, data: ClipSet, runs: Sequence[_Run], modality: str, told: Callable[[int, int], None]
) -> list[_Row]:
    rows: list[_Row] = []
    for start in range(0, len(runs), _TOGETHER):
        rows += _together(recognizer, data, runs[start : start + _TOGETHER], modality)
        told(min(start + _TOGETHER, len(runs)), len(runs))
    return rows


def _together(recognizer: Recognizer, data: ClipSet, runs: Sequence[_Run], modality: str) -> list[_Row]:
    """Runs side by side, a batch of one sample each at a time."""
    rows: list[_Row] = []
    sessions = [(run, recognizer.open(stride=run.stride, hop=run.hop), _samples(data, run, modality)) for run in runs]
    while sessions:
        pairs, going = list[tuple[Session, Sample]](), []
        for run, session, samples in sessions:
            if (sample := next(samples, None)) is not None:
                pairs.append((session, sample))
                going.append((run, session, samples))
        sessions = going
        predictions = recognizer.step(pairs) if pairs else []
        for (run, _, _), prediction in zip(going, predictions, strict=True):
            if prediction is not None:
                rows.append(_row(recognizer, data.clips[run.clip], run, prediction))
    return rows


def _row(recognizer: Recognizer, clip: Clip, run: _Run, prediction: Prediction) -> _Row:
    frames, last = recognizer.config.frames, run.numbers.index(prediction.index)
    back = [prediction.index - run.stride * k for k in reversed(range(frames))]
    places = dict(zip(run.numbers, run.samples, strict=True))
    indices = tuple(places[number] for number in back)
    return _Row(run.clip, prediction, label_at(clip, run.samples[last]), indices)


def _samples(data: ClipSet, run: _Run, modality: str) -> Iterator[Sample]:
    clip = data.clips[run.clip]
    for place, (index, number) in enumerate(zip(run.samples, run.numbers, strict=True)):
        rgb, event = clip.images([index])[0]
        start_us, end_us = (int(t) for t in clip.times[index])
        yield Sample(
            index=number,
            t_start_us=start_us,
            t_end_us=end_us,
            rgb=rgb if modality != "event" else np.zeros_like(rgb),
            event_image=event if modality != "rgb" else np.full_like(event, 255),
            events=no_events(),
            has_rgb=bool(clip.present[index, 0]) and modality != "event",
            has_events=bool(clip.present[index, 1]) and modality != "rgb",
            discontinuity=place == 0,
        )
