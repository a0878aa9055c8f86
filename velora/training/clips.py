"""What a labelled data set is to training and evaluation, wherever its pictures come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Span:
    """What can be seen from one moment to another."""

    start_us: int
    end_us: int
    label: int  # position in the data set's labels


class Clip(Protocol):
    """The samples of one recording, resized for the tower."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def spans(self) -> Sequence[Span]:
        """What can be seen, when; in order of time."""

    @property
    def times(self) -> NDArray[np.int64]:
        """[n, 2]: t_start_us and t_end_us of each sample, rising."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """[n, 2]: whether a sample has RGB, and events."""

    @property
    def breaks(self) -> NDArray[np.bool_]:
        """[n]: whether a discontinuity stands before a sample."""

    def images(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """RGB and event image of these samples, [k, 2, S, S, 3]."""


@dataclass(frozen=True)
class ClipSet:
    """One split of a data set."""

    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    skipped: tuple[str, ...] = ()  # one line for each clip that was left out, naming it and the reason
    mirrors: bool = True  # whether a left-right flip keeps the labels true
