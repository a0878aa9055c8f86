"""Events from rendered brightness: every pixel reports each step of its log intensity.

The model of ESIM (Rebecq et al., "ESIM: an Open Event Camera Simulator", CoRL 2018) with the dark end of v2e (Hu et
al., "v2e: From Video Frames to Realistic DVS Events", CVPRW 2021): between two renders the log intensity of a pixel is
a straight line, and an event stands wherever that line crosses the next threshold above or below its reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.items import EVENT_DTYPE, Events, no_events

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

#: Below this intensity (of 1.0) a pixel responds linearly: dark current hides what is darker still.
DARK_INTENSITY = 0.02
#: No pixel's own threshold is smaller than this, however unlike its neighbours it is.
SMALLEST_THRESHOLD = 0.01
_NEVER_US = np.iinfo(np.int64).min // 2


@dataclass(frozen=True, slots=True)
class _Ramps:
    """The pixels that cross a threshold between two renders, and how: one entry a pixel."""

    pixels: Indices  # position in the flattened image
    counts: NDArray[np.int64]  # thresholds crossed
    rising: NDArray[np.bool_]
    steps: Floats  # signed threshold, in log intensity
    first_us: NDArray[np.float64]  # first crossing, microseconds after the last render, in (0, interval]
    spacing_us: NDArray[np.float64]  # from one crossing to the next


class EventModel:
    """The pixels of an event camera, fed with renders of what it sees.

    ``threshold_on`` and ``threshold_off`` are steps of natural log intensity (0.3 is a change by 35 %);
    ``threshold_sigma`` is how much they differ from pixel to pixel (standard deviation, drawn from ``seed``).
    A pixel is silent for ``refractory_us`` after each of its events; what it would have reported is lost.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        threshold_on: float = 0.3,
        threshold_off: float = 0.3,
        threshold_sigma: float = 0.0,
        refractory_us: int = 0,
        seed: int = 0,
    ) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"a sensor has at least one pixel, got {width} x {height}")
        if min(threshold_on, threshold_off) < SMALLEST_THRESHOLD:
            raise ValueError(f"thresholds must be at least {SMALLEST_THRESHOLD}, got {threshold_on}, {threshold_off}")
        if refractory_us < 0 or threshold_sigma < 0:
            raise ValueError(f"must not be negative: refractory_us={refractory_us}, threshold_sigma={threshold_sigma}")
        self._shape = (height, width)
        self._refractory_us = refractory_us
        rng = np.random.default_rng(seed)
        self._on = _thresholds(rng, height * width, threshold_on, threshold_sigma)
        self._off = _thresholds(rng, height * width, threshold_off, threshold_sigma)
        self._t_us: int | None = None
        self._level: Floats = np.empty(0, np.float32)  # [H * W] log intensity at the last render
        self._reference: Floats = np.empty(0, np.float32)  # [H * W] where each pixel last fired
        self._last_event_us = np.full(height * width, _NEVER_US, np.int64)

    def push(self, t_us: int, intensity: Floats) -> Events:
        """Events between the previous render, at ``t_prev``, and this one, in order of time.

        ``intensity`` is float32 [H, W], linear light from 0 to 1. All times t satisfy ``t_prev <= t < t_us``, so that
        packets cut at renders are exact. The first render only sets the references: it has no events.
        """
        if intensity.shape != self._shape:
            raise ValueError(f"intensity is {intensity.shape}, the sensor is {self._shape}")
        level = log_intensity(intensity).ravel()
        if self._t_us is None:
            self._t_us, self._level, self._reference = t_us, level, level.copy()
            return no_events()
        if t_us <= self._t_us:
            raise ValueError(f"renders must advance in time: {t_us} us came after {self._t_us} us")
        ramps = self._ramps(level, t_us - self._t_us)
        events = self._events(ramps, self._t_us)
        self._reference[ramps.pixels] += ramps.steps * ramps.counts
        self._t_us, self._level = t_us, level
        return events

    def _ramps(self, level: Floats, interval_us: int) -> _Ramps:
        change = level - self._reference
        motion = level - self._level
        # The sign of motion matters only where rounding left a still pixel exactly on its threshold.
        rises = (change >= self._on) & (motion > 0)
        pixels = np.flatnonzero(rises | ((change <= -self._off) & (motion < 0)))
        rising = rises[pixels]
        steps = np.where(rising, self._on[pixels], -self._off[pixels])
        counts = (change[pixels] / steps).astype(np.int64)
        per_step_us = interval_us / motion[pixels].astype(np.float64)
        first_us = (self._reference[pixels] + steps - self._level[pixels]) * per_step_us
        return _Ramps(pixels, counts, rising, steps, np.clip(first_us, 0, interval_us), steps * per_step_us)

    def _events(self, ramps: _Ramps, t_prev_us: int) -> Events:
        owner = np.repeat(np.arange(len(ramps.pixels)), ramps.counts)  # [n] which ramp an event belongs to
        rank = np.arange(len(owner)) - (np.cumsum(ramps.counts) - ramps.counts)[owner]  # [n] 0, 1, … within its ramp
        if self._refractory_us:
            keep = self._outside_refractory(ramps, owner, rank, t_prev_us)
            owner, rank = owner[keep], rank[keep]
        after_us = ramps.first_us[owner] + rank * ramps.spacing_us[owner]
        # The microsecond that a crossing completes: (0, interval] becomes 0 … interval - 1.
        t_us = t_prev_us + np.maximum(np.ceil(after_us - 1e-6).astype(np.int64) - 1, 0)
        pixels = ramps.pixels[owner]
        self._last_event_us[pixels] = t_us  # the last of a pixel's events wins
        return _pack(t_us, pixels, ramps.rising[owner], self._shape[1])

    def _outside_refractory(
        self, ramps: _Ramps, owner: Indices, rank: NDArray[np.int64], t_prev_us: int
    ) -> NDArray[np.bool_]:
        """Crossings of a ramp are evenly spaced: what survives is every n-th of them after the first that may fire."""
        wait_us = self._last_event_us[ramps.pixels] + self._refractory_us + 1 - t_prev_us - ramps.first_us
        skip = np.ceil(np.maximum(wait_us, 0) / ramps.spacing_us).astype(np.int64)
        every = np.ceil(self._refractory_us / ramps.spacing_us).astype(np.int64)
        since = rank - skip[owner]
        keep: NDArray[np.bool_] = (since >= 0) & (since % every[owner] == 0)
        return keep


def log_intensity(intensity: Floats) -> Floats:
    """Log of linear light, continued below DARK_INTENSITY by its tangent (value and slope are continuous)."""
    ratio = intensity * np.float32(1 / DARK_INTENSITY)
    level: Floats = np.where(ratio > 1, np.log(np.maximum(ratio, 1)), ratio - 1)
    return level


def _thresholds(rng: np.random.Generator, pixels: int, mean: float, sigma: float) -> Floats:
    drawn = rng.normal(mean, sigma, pixels)
    return np.maximum(drawn, SMALLEST_THRESHOLD).astype(np.float32)


def _pack(t_us: NDArray[np.int64], pixels: Indices, rising: NDArray[np.bool_], width: int) -> Events:
    order = np.argsort(t_us, kind="stable")
    events = np.zeros(len(order), EVENT_DTYPE)  # zeros: padding too is the same for the same seed
    events["t"] = t_us[order]
    events["y"], events["x"] = np.divmod(pixels[order], width)
    events["p"] = rising[order]
    return events
