"""Events from rendered brightness: every pixel reports each step of its log intensity.

The model of ESIM (Rebecq et al., "ESIM: an Open Event Camera Simulator", CoRL 2018) with what v2e adds (Hu et al.,
"v2e: From Video Frames to Realistic DVS Events", CVPRW 2021): a linear response in the dark, a photoreceptor of finite
bandwidth, leaking references and noise. Between two renders the log intensity of a pixel is a straight line, and an
event stands wherever that line crosses the next threshold above or below its reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.items import EVENT_DTYPE, Events, no_events
from streams.simulation.sensor import SMALLEST_THRESHOLD, Sensor

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

#: Below this intensity (of 1.0) a pixel responds linearly: dark current hides what is darker still.
DARK_INTENSITY = 0.02
#: The photoreceptor's bandwidth in the dark, of that in light of 1.0.
_SLOWEST = 0.05
#: How much of the noise is left in light of 1.0.
_BRIGHT_NOISE = 0.25
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
    """The pixels of an event camera, fed with renders of what it sees; `seed` draws how they differ, and the noise."""

    def __init__(self, height: int, width: int, sensor: Sensor = Sensor(), *, seed: int = 0) -> None:  # noqa: B008
        if height < 1 or width < 1:
            raise ValueError(f"a sensor has at least one pixel, got {width} x {height}")
        self._shape, self._sensor = (height, width), sensor
        self._rng = rng = np.random.default_rng(seed)
        pixels = height * width
        self._on = _thresholds(rng, pixels, sensor.threshold_on, sensor.threshold_sigma)
        self._minus_off = -_thresholds(rng, pixels, sensor.threshold_off, sensor.threshold_sigma)
        unlike = 10 ** rng.normal(0, sensor.noise_decades, pixels) if sensor.noise_decades else np.ones(pixels)
        self._leak = (sensor.leak_hz * 1e-6 * unlike * self._on).astype(np.float32)  # log intensity a microsecond
        self._noise = np.cumsum(sensor.noise_hz * 1e-6 * unlike)  # events a microsecond, of all pixels up to each
        self._t_us: int | None = None
        self._level: Floats = np.empty(0, np.float32)  # [H * W] what the photoreceptors say at the last render
        self._reference: Floats = np.empty(0, np.float32)  # [H * W] where each pixel last fired
        self._last_event_us = np.full(pixels, _NEVER_US, np.int64)

    def reset(self) -> None:
        """Forget what has been seen; the next render sets the references again."""
        self._t_us = None
        self._last_event_us[:] = _NEVER_US

    def push(self, t_us: int, intensity: Floats) -> Events:
        """Events between the previous render, at ``t_prev``, and this one, in order of time.

        ``intensity`` is float32 [H, W], linear light from 0 to 1. All times t satisfy ``t_prev <= t < t_us``, so that
        packets cut at renders are exact. The first render only sets the references: it has no events.
        """
        if intensity.shape != self._shape:
            raise ValueError(f"intensity is {intensity.shape}, the sensor is {self._shape}")
        light = intensity.ravel()
        level = log_intensity(light)
        if self._t_us is None:
            # A pixel has fired at any moment before: its reference is somewhere between its thresholds.
            leaked = self._rng.random(len(level), np.float32) * self._on if self._sensor.leak_hz else np.float32(0)
            self._t_us, self._level, self._reference = t_us, level, level - leaked
            return no_events()
        if t_us <= self._t_us:
            raise ValueError(f"renders must advance in time: {t_us} us came after {self._t_us} us")
        return self._advance(t_us, light, level)

    def _advance(self, t_us: int, light: Floats, level: Floats) -> Events:
        assert self._t_us is not None
        interval_us = t_us - self._t_us
        if self._sensor.cutoff_hz:
            level -= self._level
            level *= _settled(light, interval_us, self._sensor.cutoff_hz)
            level += self._level
        leak = self._leak * np.float32(interval_us) if self._sensor.leak_hz else np.float32(0)
        ramps = self._ramps(level, leak, interval_us)
        before_us = self._last_event_us.copy() if self._sensor.noise_hz else self._last_event_us
        events = self._events(ramps, self._t_us, interval_us)
        if self._sensor.noise_hz:
            events = self._with_noise(events, self._noise_events(light, self._t_us, interval_us, before_us))
        self._reference[ramps.pixels] += ramps.steps * ramps.counts
        self._reference -= leak
        self._t_us, self._level = t_us, level
        return events

    def _ramps(self, level: Floats, leak: Floats | np.float32, interval_us: int) -> _Ramps:
        """Where the distance to the reference, which falls by `leak`, crosses thresholds."""
        change = level - self._reference
        change += leak
        pixels = np.flatnonzero((change >= self._on) | (change <= self._minus_off))
        motion = level[pixels] - self._level[pixels] + np.broadcast_to(leak, level.shape)[pixels]
        rising = change[pixels] > 0
        # Where it goes the other way, rounding left a still pixel exactly on its threshold.
        moved = (motion > 0) == rising
        moved &= motion != 0
        pixels, motion, rising = pixels[moved], motion[moved], rising[moved]
        steps = np.where(rising, self._on[pixels], self._minus_off[pixels])
        counts = (change[pixels] / steps).astype(np.int64)
        per_step_us = interval_us / motion.astype(np.float64)
        first_us = (self._reference[pixels] + steps - self._level[pixels]) * per_step_us
        return _Ramps(pixels, counts, rising, steps, np.clip(first_us, 0, interval_us), steps * per_step_us)

    def _noise_events(self, light: Floats, t_prev_us: int, interval_us: int, before_us: Indices) -> Events:
        """Events without cause: Poisson, each pixel at its own rate, fewer of them in the light.

        `before_us` is when each pixel last had an event before the interval.
        """
        count = self._rng.poisson(self._noise[-1] * interval_us)
        pixels = np.searchsorted(self._noise, self._rng.random(count) * self._noise[-1], side="right")
        kept = self._rng.random(count) < 1 - (1 - _BRIGHT_NOISE) * np.clip(light[pixels], 0, 1)
        t_us = self._rng.integers(t_prev_us, t_prev_us + interval_us, count)
        kept &= t_us - before_us[pixels] >= self._sensor.refractory_us
        return _pack(t_us[kept], pixels[kept], self._rng.random(np.count_nonzero(kept)) < 0.5, self._shape[1])

    def _with_noise(self, events: Events, noise: Events) -> Events:
        """The events of an interval and its noise, which gives way to them and to itself in the refractory period."""
        noise = noise[self._undisturbed(events, noise)]
        pixels = self._pixels(noise)
        self._last_event_us[pixels] = np.maximum(self._last_event_us[pixels], noise["t"])
        merged: Events = np.insert(events, np.searchsorted(events["t"], noise["t"], side="right"), noise)
        return merged

    def _undisturbed(self, events: Events, noise: Events) -> NDArray[np.bool_]:
        """Which noise has no event of its pixel less than a refractory period before it, nor a real one after it."""
        noisy = np.zeros(self._shape[0] * self._shape[1], np.bool_)
        noisy[self._pixels(noise)] = True
        both = np.concatenate([noise, events[noisy[self._pixels(events)]]])
        pixels, real = self._pixels(both), np.arange(len(both)) >= len(noise)
        order = np.lexsort((both["t"], pixels))
        times, pixels, real = both["t"][order], pixels[order], real[order]
        close = (np.diff(pixels) == 0) & (np.diff(times) < self._sensor.refractory_us)
        following = np.where(real, np.arange(len(both)), len(both) - 1)  # the next real event, of whatever pixel
        following = np.minimum.accumulate(following[::-1])[::-1]
        before_real = real[following] & (pixels[following] == pixels)
        before_real &= times[following] - times < self._sensor.refractory_us
        disturbed = np.empty(len(both), np.bool_)
        disturbed[order] = np.append(False, close) | before_real
        return ~disturbed[: len(noise)]

    def _pixels(self, events: Events) -> Indices:
        """Positions of events in the flattened image."""
        pixels: Indices = events["y"].astype(np.intp) * self._shape[1] + events["x"]
        return pixels

    def _events(self, ramps: _Ramps, t_prev_us: int, interval_us: int) -> Events:
        owner = np.repeat(np.arange(len(ramps.pixels)), ramps.counts)  # [n] which ramp an event belongs to
        rank = np.arange(len(owner)) - (np.cumsum(ramps.counts) - ramps.counts)[owner]  # [n] 0, 1, … within its ramp
        if self._sensor.refractory_us:
            keep = self._outside_refractory(ramps, owner, rank, t_prev_us)
            owner, rank = owner[keep], rank[keep]
        after_us = ramps.first_us[owner] + rank * ramps.spacing_us[owner]
        # The microsecond that a crossing completes: (0, interval] becomes 0 … interval - 1, also where it is rounded.
        t_us = t_prev_us + np.clip(np.ceil(after_us - 1e-6).astype(np.int64) - 1, 0, interval_us - 1)
        pixels = ramps.pixels[owner]
        self._last_event_us[pixels] = t_us  # the last of a pixel's events wins
        return _pack(t_us, pixels, ramps.rising[owner], self._shape[1])

    def _outside_refractory(
        self, ramps: _Ramps, owner: Indices, rank: NDArray[np.int64], t_prev_us: int
    ) -> NDArray[np.bool_]:
        """Crossings of a ramp are evenly spaced: what survives is every n-th of them after the first that may fire."""
        wait_us = self._last_event_us[ramps.pixels] + self._sensor.refractory_us + 1 - t_prev_us - ramps.first_us
        skip = np.ceil(np.maximum(wait_us, 0) / ramps.spacing_us).astype(np.int64)
        every = np.ceil(self._sensor.refractory_us / ramps.spacing_us).astype(np.int64)
        since = rank - skip[owner]
        keep: NDArray[np.bool_] = (since >= 0) & (since % every[owner] == 0)
        return keep


def log_intensity(intensity: Floats) -> Floats:
    """Log of linear light, continued below DARK_INTENSITY by its tangent (value and slope are continuous)."""
    ratio = intensity * np.float32(1 / DARK_INTENSITY)
    level: Floats = np.log(np.maximum(ratio, 1))
    level += np.minimum(ratio, 1) - 1  # one of the two is 0: faster than a choice for each pixel
    return level


def _settled(light: Floats, interval_us: int, cutoff_hz: float) -> Floats:
    """How much of a step the photoreceptors have followed after an interval: a first-order low-pass filter whose
    bandwidth grows with the light."""
    settled: Floats = np.clip(light, _SLOWEST, 1)
    settled *= np.float32(-2 * math.pi * cutoff_hz * interval_us * 1e-6)
    np.expm1(settled, out=settled)
    return np.negative(settled, out=settled)


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
