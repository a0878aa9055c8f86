"""What was recognised when, and how much happened: a recording's from its beginning to its end, a live feed's of late.

Time is cut into bins; what changed in them goes to pages that say how far they have come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streams import Sample
from velora import Prediction

LIVE_SPAN_US = 60_000_000
_BINS = 1200  # of a recording, and of a live feed's last minute
_LEAST_US = 20_000  # a bin
_CHANGES = 4 * _BINS  # that are remembered; who is further behind gets the bins as they are
_STEP_US = 1_000_000  # a step back of more is a clock that began anew
_PAUSE_US = 200_000  # between two samples that follow on one another
_HOLE_US = 2_000_000  # a label holds from the one before it, if that is not longer ago


@dataclass(slots=True)
class Bin:
    """A stretch of time."""

    label: int | None = None  # among the names; None: nothing recognised
    confidence: float = 0.0
    unsure: bool = False
    rate: float | None = None  # million events a second
    on: float | None = None  # share of ON among them; None where there are none


class Timeline:
    """Filled by one thread, read by any."""

    def __init__(self, span_us: tuple[int, int] | None, origin_us: int = 0) -> None:
        """`span_us` is a recording's; None of a live feed, which began at `origin_us`."""
        self.live = span_us is None
        self.origin_us = origin_us if span_us is None else span_us[0]
        length = LIVE_SPAN_US if span_us is None else max(1, span_us[1] - span_us[0])
        self.bin_us = max(_LEAST_US, -(-length // _BINS))
        self.count = -(-length // self.bin_us)
        self.names: list[str] = []  # of labels, as they came up
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._bins: dict[int, Bin] = {}
        self._changes: deque[tuple[int, int]] = deque(maxlen=_CHANGES)  # the change's number, the bin's
        self._changed = 0
        self._labelled_us: int | None = None
        self._reached_us: int | None = None

    def holds(self, sample: Sample) -> bool:
        """Whether a sample of a live feed goes on where this one has come to, give or take a minute."""
        reached_us = self.origin_us if self._reached_us is None else self._reached_us
        return reached_us - _STEP_US < sample.t_end_us < reached_us + LIVE_SPAN_US

    def add_sample(self, sample: Sample) -> None:
        """How much happened in a sample."""
        length_us = max(1, sample.t_end_us - sample.t_start_us)
        count = len(sample.events)
        on = float(sample.events["p"].mean()) if count else None
        if sample.discontinuity:
            self._labelled_us = None
        before_us, self._reached_us = self._reached_us, sample.t_end_us
        follows = before_us is not None and 0 < sample.t_end_us - before_us <= _PAUSE_US and not sample.discontinuity
        with self._lock:
            last = self._number(sample.t_end_us)
            first = min(last, self._number(before_us) + 1) if follows and before_us is not None else last
            for number in range(first, last + 1):
                bin_ = self._bin(number)
                bin_.rate, bin_.on = count / length_us, on
                self._note(number)

    def add_prediction(self, prediction: Prediction) -> None:
        """A label, which holds from the one before it."""
        end_us, before_us = prediction.t_end_us, self._labelled_us
        self._labelled_us = end_us
        holds = before_us is not None and 0 < end_us - before_us <= _HOLE_US
        with self._lock:
            label = self._numbers.setdefault(prediction.label, len(self._numbers))
            if label == len(self.names):
                self.names.append(prediction.label)
            last = self._number(end_us)
            first = min(last, self._number(before_us) + 1) if holds and before_us is not None else last
            for number in range(first, last + 1):
                bin_ = self._bin(number)
                bin_.label, bin_.confidence, bin_.unsure = label, prediction.confidence, prediction.unsure
                self._note(number)

    def forget_labels(self) -> None:
        """Another model: what the one before said is not shown beside it."""
        with self._lock:
            for number, bin_ in self._bins.items():
                if bin_.label is not None:
                    bin_.label = None
                    self._note(number)

    def since(self, change: int) -> Mapping[str, Any]:
        """What has changed after that change: rows of bin, label (null: none), per cent, unsure, rate, share of ON."""
        with self._lock:
            numbers = self._after(change)
            rows = [[number, *_row(self._bins[number])] for number in numbers if number in self._bins]
            return {"change": self._changed, "names": self.names, "rows": rows}

    def _after(self, change: int) -> list[int]:
        if change <= 0 or (self._changes and change < self._changes[0][0] - 1) or change > self._changed:
            return list(self._bins)
        found: dict[int, None] = {}
        for number, bin_ in reversed(self._changes):
            if number <= change:
                break
            found[bin_] = None
        return list(reversed(found))

    def _number(self, t_us: int) -> int:
        number = max(0, (t_us - self.origin_us - 1) // self.bin_us)
        return number if self.live else min(number, self.count - 1)

    def _bin(self, number: int) -> Bin:
        bin_ = self._bins.get(number)
        if bin_ is None:
            bin_ = self._bins[number] = Bin()
            if self.live and len(self._bins) > self.count:
                del self._bins[next(iter(self._bins))]
        return bin_

    def _note(self, number: int) -> None:
        self._changed += 1
        self._changes.append((self._changed, number))


def _row(bin_: Bin) -> list[Any]:
    rate = None if bin_.rate is None else float(f"{bin_.rate:.3g}")
    on = None if bin_.on is None else round(100 * bin_.on)
    return [bin_.label, round(100 * bin_.confidence), int(bin_.unsure), rate, on]
