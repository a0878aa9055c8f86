"""The figures of an evaluation: accuracy, its interval, calibration, and the delay after a change of the truth.

Everything is deterministic: ties among probabilities go to the lowest index, and resampling has a seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

BINS = 15
TOP = 5
HIGHEST_THRESHOLD = 0.9
TEMPERATURES = (0.05, 20.0)
_HELD = 3  # predictions in a row that make a change seen: the first, and the next two


@dataclass(frozen=True, slots=True)
class Scores:
    """What an evaluation found; all but `windows` and `nll` are shares, 0..1."""

    top1: float
    top5: float
    windows: int
    per_class: Mapping[str, Mapping[str, float]]  # label -> windows, recall, precision, f1; NaN where undefined
    ece: float  # expected calibration error, 15 bins of equal width (Guo et al., ICML 2017)
    nll: float  # mean negative log likelihood, nats
    unsure: float  # of windows whose confidence is below the threshold


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Confidence against accuracy in bins (edges[k], edges[k + 1]] of equal width; NaN for bins without windows."""

    edges: NDArray[np.float64]  # [bins + 1], 0..1
    count: NDArray[np.int64]  # [bins]
    accuracy: NDArray[np.float64]  # [bins]
    confidence: NDArray[np.float64]  # [bins], mean

    @property
    def ece(self) -> float:
        """The mean distance of confidence from accuracy, bins weighted by their windows."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(gaps @ self.count[filled] / self.count.sum())


def score(probabilities: Floats, truth: Integers, labels: Sequence[str], *, unsure_below: float = 0.0) -> Scores:
    """The scores of windows with probabilities [n, C] and true classes [n].

    Raises ValueError where there are no windows, or where shapes, classes and labels do not fit.
    """
    _check(probabilities, truth)
    if len(labels) != probabilities.shape[1]:
        raise ValueError(f"{len(labels)} labels for {probabilities.shape[1]} classes")
    ranks = _ranks(probabilities, truth)
    likelihood = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return Scores(
        top1=float(np.mean(ranks < 1)),
        top5=float(np.mean(ranks < TOP)),
        windows=len(truth),
        per_class=_per_class(confusion(probabilities, truth, len(labels)), unique_names(labels)),
        ece=reliability(probabilities, truth).ece,
        nll=float(-np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).mean()),
        unsure=float(np.mean(probabilities.max(axis=1) < unsure_below)),
    )


def _ranks(probabilities: Floats, truth: Integers) -> NDArray[np.int64]:
    """How many classes [n] come before the true one."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & earlier)
    return np.asarray(ahead.sum(axis=1), np.int64)


def unique_names(labels: Sequence[str]) -> list[str]:
    """Labels, with their position behind those that occur more than once (PokerEvent repeats five)."""
    counts = Counter(labels)
    return [label if counts[label] == 1 else f"{label} [{k}]" for k, label in enumerate(labels)]


def _per_class(counts: NDArray[np.int64], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    right, windows, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    columns = {
        "windows": windows.astype(np.float64),
        "recall": _ratio(right, windows),
        "precision": _ratio(right, predicted),
        "f1": _ratio(2 * right, windows + predicted),
    }
    return {label: {name: float(column[i]) for name, column in columns.items()} for i, label in enumerate(labels)}


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Their quotient, NaN where `whole` is 0."""
    quotient = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def confusion(probabilities: Floats, truth: Integers, classes: int) -> NDArray[np.int64]:
    """Windows by true class (rows) and likeliest class (columns), int64 [C, C]. Raises ValueError as `score` does."""
    _check(probabilities, truth)
    if probabilities.shape[1] != classes:
        raise ValueError(f"probabilities of {probabilities.shape[1]} classes, not {classes}")
    cells = truth.astype(np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def reliability(probabilities: Floats, truth: Integers, bins: int = BINS) -> Reliability:
    """The reliability diagram (Guo et al., ICML 2017) of probabilities [n, C]. Raises ValueError as `score` does."""
    _check(probabilities, truth)
    confidence, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(place, minlength=bins).astype(np.int64)
    accuracy, mean = (_ratio(np.bincount(place, values, bins), count) for values in (right, confidence))
    return Reliability(edges, count, accuracy, mean)


def fit_temperature(logits: Floats, truth: Integers) -> float:
    """The T in 0.05..20 at which softmax(logits / T) has the least NLL (Guo et al., ICML 2017); logits [n, C].

    1 where no other does better. Raises ValueError as `score` does.
    """
    _check(logits, truth)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    # One observation in n + 2 counts as any class (after Platt, 1999): where nothing is wrong, T would fall to its end.
    doubt = 1 / (len(truth) + 2)
    own = (1 - doubt) * shifted[np.arange(len(truth)), truth] + doubt * shifted.mean(axis=1)

    def nll(log_t: float) -> float:
        scale = math.exp(-log_t)
        return float((np.log(np.exp(shifted * scale).sum(axis=1)) - own * scale).mean())

    best = _golden_section(nll, *map(math.log, TEMPERATURES))
    return math.exp(best) if nll(best) < nll(0.0) else 1.0


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, to 1e-9."""
    share = (math.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-9:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = function(right)
    return (low + high) / 2


def unsure_threshold(probabilities: Floats, truth: Integers, *, precision: float = 0.98) -> float:
    """The lowest confidence at or above which at least the share `precision` of windows is right.

    Between 1 / C, where all windows are taken, and 0.9, also where none does. Raises ValueError as `score` does.
    """
    _check(probabilities, truth)
    confidence = probabilities.max(axis=1).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == truth)[order].cumsum()
    taken = np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidence[order]) < 0, True)  # of the windows of one confidence
    enough = np.flatnonzero(last & (right / taken >= precision))
    if enough.size == 0:
        return HIGHEST_THRESHOLD
    floor = 1 / len(probabilities[0])
    lowest = floor if enough[-1] == len(order) - 1 else float(confidence[order[enough[-1]]])
    return min(max(lowest, floor), HIGHEST_THRESHOLD)


def bootstrap(
    correct: NDArray[np.bool_], group: Integers, *, rounds: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of the mean of `correct` [n] when whole groups [n], such as scenes, are drawn anew.

    Windows of a scene are alike, so drawing single windows would promise too much (Efron and Tibshirani, 1993). Of one
    group alone there is no interval: NaN. Raises ValueError where there are no windows, or not one group for each.
    """
    if correct.size == 0 or correct.shape != group.shape:
        raise ValueError(f"correct {list(correct.shape)} and group {list(group.shape)} must be alike and not empty")
    groups, place = np.unique(group, return_inverse=True)
    if len(groups) == 1:
        return math.nan, math.nan
    sums, counts = np.bincount(place, correct), np.bincount(place)
    rng, means = np.random.default_rng(seed), np.empty(rounds)
    for k in range(rounds):  # one at a time: all at once would be gigabytes
        draw = rng.integers(len(groups), size=len(groups))
        means[k] = sums[draw].sum() / counts[draw].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def told_interval(low: float, high: float) -> str:
    """An interval of `bootstrap`, for people."""
    return "one clip: no interval" if math.isnan(low) else f"95 %: {low:.1%} to {high:.1%}, clips drawn anew"


def delays(t_us: Integers, predicted: ArrayLike, spans: Sequence[tuple[int, int, str | int]]) -> list[int | None]:
    """How long after each change of the true label the predictions follow, µs; None where they do not in time.

    Predictions [n] at rising times [n] of one recording; spans (start, end, label) of its truth in order of time. They
    follow where a prediction and the next two are the new label, all before the label changes again.
    """
    times, said = np.asarray(t_us), np.asarray(predicted)
    found: list[int | None] = []
    for start_us, end_us, label in runs(spans)[1:]:
        first, behind = np.searchsorted(times, [start_us, end_us])
        same = said[first:behind] == label
        held = np.flatnonzero(np.convolve(same, np.ones(_HELD), "valid") == _HELD) if len(same) >= _HELD else same[:0]
        found.append(int(times[first + held[0]]) - start_us if len(held) else None)
    return found


def runs(spans: Sequence[tuple[int, int, str | int]]) -> list[tuple[int, int, str | int]]:
    """Spans, neighbours of the same label joined."""
    found: list[tuple[int, int, str | int]] = []
    for start_us, end_us, label in spans:
        if found and found[-1][2] == label:
            start_us = found.pop()[0]
        found.append((start_us, end_us, label))
    return found


def to_json(scores: Scores) -> dict[str, Any]:
    """The scores as what JSON can hold: NaN is None, the windows of a class are whole."""
    return {
        "top1": scores.top1,
        "top5": scores.top5,
        "windows": scores.windows,
        "per_class": {label: _row_to_json(row) for label, row in scores.per_class.items()},
        "ece": scores.ece,
        "nll": scores.nll,
        "unsure": scores.unsure,
    }


def _row_to_json(row: Mapping[str, float]) -> dict[str, float | None]:
    shares = {name: None if math.isnan(value) else value for name, value in row.items()}
    return shares | {"windows": int(row["windows"])}


def _check(values: Floats, truth: Integers) -> None:
    """Raise ValueError unless values [n, C] and truth [n] fit each other, are finite and not empty."""
    if values.ndim != 2 or truth.shape != values.shape[:1]:
        raise ValueError(f"values must be [n, C] and truth [n], not {list(values.shape)} and {list(truth.shape)}")
    if values.size == 0:
        raise ValueError("there are no windows (or no classes) to score")
    if truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ValueError(f"classes {truth.min()}..{truth.max()} in the truth, but there are {values.shape[1]}")
    if not np.isfinite(values).all():
        raise ValueError("probabilities and logits must be finite")
