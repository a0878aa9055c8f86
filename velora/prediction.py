"""What the recogniser says about one window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP = 5


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Label probabilities of one window, its span on the recording's clock, and how long each stage took."""

    t_start_us: int  # of the window's first sample
    t_end_us: int  # of its last
    index: int  # of its last sample
    label: str
    confidence: float  # probability of `label`
    topk: tuple[tuple[str, float], ...]  # the TOP likeliest labels and their probabilities, falling
    probabilities: NDArray[np.float32]  # [C], sum 1
    latency_ms: Mapping[str, float]  # decode, render (of the last sample), encode, fuse (of the step it was part of)
    model: str
    unsure: bool = False  # `confidence` is below what the checkpoint asks of a label, or there was nothing to be seen


def top_labels(
    probabilities: NDArray[np.float32], labels: tuple[str, ...], count: int = TOP
) -> tuple[tuple[str, float], ...]:
    """The `count` likeliest labels with their probabilities; all of them where there are fewer."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return tuple((labels[i], float(probabilities[i])) for i in order)
