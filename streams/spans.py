"""From the labels of windows to spans of time: without flicker, and none too short.

said   A A A B A A A B B B B B     after 3: the lone B changes nothing; the three that follow on one another do,
shown  A A A A A A A A A B B B     and offline the span of B begins with the first of them
spans  [      A      )[   B   )
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

AFTER = 3  # windows in a row
MIN_US = 200_000


class Steady:
    """The label to show, of those that windows say one after the other.

    The first label that is sure is shown at once. Another one takes its place when `after` windows in a row have said
    it, and none does when so many were unsure. `after` is 1 or more; with 1 each window is taken at its word.
    """

    def __init__(self, after: int = AFTER) -> None:
        if after < 1:
            raise ValueError(f"after must be at least 1, not {after}")
        self._after = after
        self.clear()

    def clear(self) -> None:
        """Forget what was said, as at a jump in time."""
        self.shown: str | None = None
        self._rival: str | None = None  # what the newest windows say instead
        self._sure: deque[float] = deque(maxlen=self._after)
        self.run = 0  # the windows in a row that last said something else than what was shown before them

    @property
    def confidence(self) -> float:
        """Of the label that is shown: the mean of the last windows that said it; 0 where none is shown."""
        return sum(self._sure) / len(self._sure) if self._sure else 0.0

    def push(self, label: str, confidence: float, unsure: bool = False) -> str | None:
        """Take what the next window says; the label to show, or None while nothing is sure."""
        said = None if unsure else label
        if said == self.shown:
            self.run = 0
        else:
            self.run = self.run + 1 if self.run and said == self._rival else 1
            self._rival = said
            if self.shown is None or self.run >= self._after:
                self.shown = said
                self._sure.clear()
        if said == self.shown and said is not None:
            self._sure.append(confidence)
        return self.shown


@dataclass(frozen=True, slots=True)
class Said:
    """What the recogniser said of a window, microseconds."""

    start_us: int
    end_us: int
    label: str
    confidence: float
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class LabelSpan:
    """A label that holds for [start_us, end_us), and the mean confidence of the windows that said it."""

    start_us: int
    end_us: int
    label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class SpanRules:
    """How windows are merged."""

    after: int = AFTER  # windows in a row that another label takes
    min_us: int = MIN_US  # shorter spans are left out

    def __post_init__(self) -> None:
        if self.after < 1 or self.min_us < 0:
            raise ValueError(f"after must be 1 or more and min_us 0 or more, not {self.after} and {self.min_us}")


@dataclass(slots=True)
class _Piece:
    """The time that a window adds to those before it."""

    said: Said
    start_us: int
    shown: str | None


@dataclass(frozen=True, slots=True)
class _Run:
    """Pieces on end that show one label; `sure` and `weight` make its mean confidence."""

    start_us: int
    end_us: int
    label: str | None
    sure: float = field(compare=False)
    weight: int = field(compare=False)


def spans_of(windows: Iterable[Said], rules: SpanRules) -> list[LabelSpan]:
    """Disjoint spans in order of time, of windows in the order in which they were recognised.

    A label holds from the end of the window before to the end of its own, the first of a stretch for all of its window.
    No span covers what no window saw. What is shorter than `min_us` is part of its neighbours where they say the same,
    and left out otherwise; windows from a time that was passed already, as after a jump back, are left out.
    """
    runs = _without_short(_runs(_pieces(windows, rules.after)), rules.min_us)
    return [
        LabelSpan(run.start_us, run.end_us, run.label, run.sure / run.weight)
        for run in runs
        if run.label is not None and run.end_us - run.start_us >= rules.min_us
    ]


def _pieces(windows: Iterable[Said], after: int) -> list[_Piece]:
    steady = Steady(after)
    pieces: list[_Piece] = []
    for said in windows:
        reached = pieces[-1].said.end_us if pieces else said.start_us
        start_us = max(reached, said.start_us)
        if said.end_us <= start_us:
            continue
        if start_us > reached:
            steady.clear()
        before = steady.shown
        shown = steady.push(said.label, said.confidence, said.unsure)
        pieces.append(_Piece(said, start_us, shown))
        if shown != before:  # it holds since the first window that said so
            for piece in pieces[-steady.run :]:
                piece.shown = shown
    return pieces


def _runs(pieces: Iterable[_Piece]) -> list[_Run]:
    runs: list[_Run] = []
    for piece in pieces:
        said = piece.said
        weight = said.end_us - piece.start_us if said.label == piece.shown and not said.unsure else 0
        run = _Run(piece.start_us, said.end_us, piece.shown, said.confidence * weight, weight)
        if runs and runs[-1].end_us == run.start_us and runs[-1].label == run.label:
            run = _joined(runs.pop(), run)
        runs.append(run)
    return runs


def _without_short(runs: Iterable[_Run], min_us: int) -> list[_Run]:
    """Where the same label goes on behind a short run, that run is part of it."""
    kept: list[_Run] = []
    for run in runs:
        while len(kept) > 1 and _is_between(kept[-2], kept[-1], run, min_us):
            kept.pop()
            run = _joined(kept.pop(), run)
        kept.append(run)
    return kept


def _is_between(before: _Run, short: _Run, after: _Run, min_us: int) -> bool:
    on_end = before.end_us == short.start_us and short.end_us == after.start_us
    return on_end and short.end_us - short.start_us < min_us and before.label == after.label


def _joined(first: _Run, last: _Run) -> _Run:
    return replace(first, end_us=last.end_us, sure=first.sure + last.sure, weight=first.weight + last.weight)
