"""How much later than they say the frames of one camera belong beside the events of another one.

Where a hand is waved before both, events come as the frames change. Frame k shows what has moved since frame k - 1:

    frames    |--k--|-k+1-|-k+2-|      how much changes from each to the next (energy)
    events       |--n--|--n--|--n--|   how many there are in the same spans, `lag` later

The offset is the lag at which both are correlated best; how sure that is, the second-best lag tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.items import EventPacket, Gap, Image, Item, RgbFrame

BIN_US = 1_000  # in which events are counted
_STEP_US = 4_000  # from lag to lag
_MOST_LAG_US = 3_000_000
_NEAR_US = 100_000  # peaks so near to the best one are the same
_SIDE = 96  # pixels of the longer side at which frames are compared
_NOISE = 6.0  # grey levels that a pixel changes by itself
_LEAST_FRAMES = 30  # compared at each lag
_LEAST_SHARE = 0.5  # of the frames, compared at each lag
_LEAST_CORRELATION = 0.6
_GOOD_CORRELATION = 0.8
_LEAST_RATIO, _LEAST_RATIO_GOOD = 1.6, 1.4  # of what the second-best lag leaves unexplained to what the best one does
_MOST_BINS = 3_600_000  # an hour
_LONGEST_US = 500_000  # from a frame to the next: beyond, the frames between are missing

Curve = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Alignment:
    """What was found. Curves are as they came: spans of n frames, and the events counted in bins of BIN_US."""

    offset_us: float | None  # to add to the frames' times; None: not sure
    best_us: float  # the best lag, sure or not
    correlation: float  # of both curves at the best lag, -1 to 1
    second: float  # the best correlation anywhere else
    reason: str  # why it is not sure, for people; empty where it is
    spans: Curve  # [n, 2] microseconds: when a frame's change began and ended
    energy: Curve  # [n] mean change of a pixel, grey levels
    start_us: int  # of the first bin
    events: Curve  # [bins]
    lags_us: Curve  # [lags]
    correlations: Curve  # [lags]; NaN where too few frames lie beside events


class Activity:
    """How much goes on in both feeds, gathered item by item; a gap begins anew."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.start_us: int | None = None
        self.end_us = 0
        self._bins = np.zeros(1 << 14)
        self._before: Image | None = None
        self._before_us = 0
        self._spans: list[tuple[int, int]] = []
        self._energy: list[float] = []
        self._first_frame_us: int | None = None
        self._last_frame_us = 0

    def push(self, item: Item) -> None:
        """Add an item of a feed with events and frames."""
        if isinstance(item, Gap):
            self._begin()
        elif isinstance(item, EventPacket):
            self._count(item)
        elif isinstance(item, RgbFrame):
            self._compare(item)

    @property
    def seconds(self) -> float:
        """How long both feeds have been heard."""
        if self.start_us is None or self._first_frame_us is None:
            return 0.0
        both = min(self.end_us, self._last_frame_us) - max(self.start_us, self._first_frame_us)
        return max(0.0, both / 1e6)

    def _count(self, packet: EventPacket) -> None:
        if self.start_us is None:
            self.start_us = packet.t_start_us
        places = (packet.events["t"] - self.start_us) // BIN_US
        places = places[(places >= 0) & (places < _MOST_BINS)]
        if len(places) and places.max() >= len(self._bins):
            self._bins = np.pad(self._bins, (0, max(len(self._bins), int(places.max()) + 1 - len(self._bins))))
        if len(places):
            first = int(places.min())
            counts = np.bincount(places - first)
            self._bins[first : first + len(counts)] += counts
        self.end_us = max(self.end_us, packet.t_end_us)

    def _compare(self, frame: RgbFrame) -> None:
        small, time_us = _small(frame.image), frame.t_end_us
        if self._first_frame_us is None:
            self._first_frame_us = time_us
        before, self._before = self._before, small
        if before is not None and 0 < time_us - self._before_us <= _LONGEST_US:
            change = np.abs(small.astype(np.float32) - before)
            self._spans.append((self._before_us, time_us))
            self._energy.append(float(np.maximum(change - _NOISE, 0).mean()))
        self._before_us = self._last_frame_us = time_us

    def align(self) -> Alignment:
        """The offset. Raises ValueError where there are too few frames, or no events, to tell."""
        if len(self._energy) < _LEAST_FRAMES:
            raise ValueError(f"only {len(self._energy)} frames follow on one another: {_LEAST_FRAMES} are needed")
        heard = max(1, min((self.end_us - (self.start_us or 0)) // BIN_US, _MOST_BINS))
        bins = np.pad(self._bins, (0, max(0, heard - len(self._bins))))[:heard]  # also where nothing has come for long
        if self.start_us is None or not bins.any():
            raise ValueError("no events came: is the event camera covered?")
        return align(np.array(self._spans, np.float64), np.array(self._energy), self.start_us, bins)


def align(spans: Curve, energy: Curve, start_us: int, events: Curve) -> Alignment:
    """The offset of frames whose change in the spans [n, 2] is `energy` [n], to events [bins] from `start_us` on."""
    length = min(_MOST_LAG_US, float(spans[-1, 1] - spans[0, 0]) * (1 - _LEAST_SHARE))
    steps = int(length // _STEP_US)
    lags = np.arange(-steps, steps + 1, dtype=np.float64) * _STEP_US
    correlations = _correlations(spans, energy, start_us, events, lags)
    if np.isnan(correlations).all():
        reason = "nothing moves in one of the feeds, or they hardly overlap"
        return Alignment(None, 0.0, 0.0, 0.0, reason, spans, energy, start_us, events, lags, correlations)
    best = int(np.nanargmax(correlations))
    best_us, second = _peak(lags, correlations, best), _second(lags, correlations, best)
    correlation = float(correlations[best])
    reason = _doubt(correlation, second, 0 < best < len(lags) - 1)
    offset = None if reason else best_us
    return Alignment(offset, best_us, correlation, second, reason, spans, energy, start_us, events, lags, correlations)


def events_in(spans: Curve, start_us: int, events: Curve) -> Curve:
    """How many events fall in each of the spans [n, 2]; NaN for those that are not within the bins."""
    total = np.concatenate([[0.0], np.cumsum(events)])
    places = (spans - start_us) / BIN_US
    begun, ended = np.interp(places, np.arange(len(total)), total).T
    counts = ended - begun
    counts[(places[:, 0] < 0) | (places[:, 1] > len(events))] = np.nan
    return np.asarray(counts)


def _correlations(spans: Curve, energy: Curve, start_us: int, events: Curve, lags: Curve) -> Curve:
    """Pearson's, of the rates of change and of events, where both are known; NaN where that is too little."""
    long = spans[:, 1] - spans[:, 0]
    change = energy / long
    found = np.full(len(lags), np.nan)
    for k, lag in enumerate(lags):
        rate = events_in(spans + lag, start_us, events) / long
        known = ~np.isnan(rate)
        if known.sum() >= max(_LEAST_FRAMES, _LEAST_SHARE * len(spans)):
            a, b = change[known] - change[known].mean(), rate[known] - rate[known].mean()
            size = float(np.sqrt((a @ a) * (b @ b)))
            found[k] = float(a @ b) / size if size > 0 else np.nan
    return found


def _peak(lags: Curve, values: Curve, best: int) -> float:
    """Where the parabola through the best value and its neighbours is highest."""
    if not 0 < best < len(lags) - 1:
        return float(lags[best])
    before, here, after = (float(value) for value in values[best - 1 : best + 2])
    bend = before - 2 * here + after
    if not bend < 0:  # flat, or a neighbour is not known
        return float(lags[best])
    return float(lags[best] + 0.5 * (before - after) / bend * _STEP_US)


def _second(lags: Curve, values: Curve, best: int) -> float:
    """The highest other peak; 0 where there is none above."""
    values = np.where(np.isnan(values), -1.0, values)
    padded = np.pad(values, 1, constant_values=-1.0)
    peaks = (values >= padded[:-2]) & (values >= padded[2:]) & (np.abs(lags - lags[best]) > _NEAR_US)
    return float(np.max(values[peaks], initial=0.0))


def _doubt(correlation: float, second: float, inside: bool) -> str:
    if correlation < _LEAST_CORRELATION:
        return f"the feeds do not move together (correlation {correlation:.2f} at best)"
    ratio = (1 - second**2) / max(1 - correlation**2, 1e-9)
    if ratio < (_LEAST_RATIO_GOOD if correlation >= _GOOD_CORRELATION else _LEAST_RATIO):
        return f"another offset fits nearly as well (correlation {second:.2f} beside {correlation:.2f})"
    return "" if inside else "they would fit best further apart than could be looked for"


def _small(image: Image) -> Image:
    """Grey, and so small that noise averages out."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(grey.shape)
    if scale >= 1:
        return np.asarray(grey, np.uint8)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
