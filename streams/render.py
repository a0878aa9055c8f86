"""Event images: how the events of one exposure become a uint8 image, and the motion between two samples.

The default, "paint", is how HARDVS and PokerEvent were made (SSTFormer and HARDVS tools): a white canvas on which every
event paints its pixel, without counting or decay, OFF last. Models trained on those data need exactly this rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.items import Events, Image, count_before, join_events

WHITE, ON, OFF = (255, 255, 255), (220, 30, 30), (30, 30, 200)  # RGB
_PALETTE = np.zeros((256, 1, 3), np.uint8)  # OpenCV's form of a table; only the first four codes are used
_PALETTE[:4, 0] = WHITE, ON, OFF, OFF  # no event, ON, OFF, both
_PART = 1 << 14  # events at a time: what is made of them stays in the processor's cache

_MOST = 1 << 40

Style = Literal["paint", "count", "time_surface", "accumulate"]


@dataclass(frozen=True)
class RenderConfig:
    """How samples are cut from the stream and how their events are drawn. Times in microseconds."""

    style: Style = "paint"
    window_us: int | None = None  # where a frame's exposure is unknown: events of so long before it (None: since the
    # frame before)
    max_window_us: int | None = None  # keep only the last so many of a long exposure
    period_us: int = 33_333  # events without frames: one sample in so long
    tau_us: int = 10_000  # decay of "time_surface"
    full_scale: int = 4  # events a pixel that saturate "count" and "accumulate"

    def __post_init__(self) -> None:
        if not isinstance(self.style, str) or self.style not in _STYLES:
            raise ValueError(f"unknown rendering {self.style!r}: choose one of {', '.join(_STYLES)}")
        for name in ("window_us", "max_window_us", "period_us", "tau_us", "full_scale"):
            value = getattr(self, name)
            optional = name in ("window_us", "max_window_us")
            if not (value is None and optional) and not (type(value) is int and 0 < value <= _MOST):
                raise ValueError(f"{name} must be a whole number from 1 to {_MOST}, not {value!r}")


def render_events(events: Events, size: tuple[int, int], t_end_us: int, config: RenderConfig) -> Image:
    """Draw events as uint8 [H, W, 3], RGB order.

    `events` is [n] EVENT_DTYPE in order of time, inside `size` (width, height); `t_end_us` is the end of their span.
    """
    return render_parts([events], size, t_end_us, config)


def render_parts(parts: Sequence[Events], size: tuple[int, int], t_end_us: int, config: RenderConfig) -> Image:
    """As `render_events`, of events in any number of arrays, one after the other; they are not joined to be painted."""
    if config.max_window_us is not None:
        since = t_end_us - config.max_window_us
        parts = [part[count_before(part, since) :] for part in parts]
    return _STYLES[config.style](parts, size, t_end_us, config)


def motion_image(before: tuple[Image, Image], now: tuple[Image, Image]) -> Image:
    """|RGB change| + |event image change|, saturated, for display: uint8 [H, W, 3] at the RGB image's size."""
    rgb, events = (_difference(a, b) for a, b in zip(before, now, strict=True))
    if events.shape != rgb.shape:
        events = cv2.resize(events, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return np.asarray(cv2.add(rgb, events), np.uint8)


def _difference(a: Image, b: Image) -> Image:
    return np.asarray(cv2.absdiff(a, b), np.uint8) if a.shape == b.shape else np.zeros_like(b)


def _pixels(events: Events, width: int) -> NDArray[np.intp]:
    """The place of each event in a [H, W] image, flat."""
    places: NDArray[np.intp] = np.multiply(events["y"], width, dtype=np.intp)
    places += events["x"]
    return places


def _places(events: Events, size: tuple[int, int]) -> NDArray[np.intp]:
    """The place of each event in two [H, W] images one after the other, of OFF and of ON, flat."""
    places = _pixels(events, size[0])
    places += np.multiply(events["p"], size[0] * size[1], dtype=np.intp)
    return places


def _paint(parts: Sequence[Events], size: tuple[int, int], _end: int, _config: RenderConfig) -> Image:
    width, height = size
    hit = np.zeros((2, height, width), np.uint8)
    flat = hit.reshape(-1)
    for events in parts:
        for start in range(0, len(events), _PART):
            flat[_places(events[start : start + _PART], size)] = 1  # no mask: polarities cannot be foreseen
    codes, on = hit
    codes += codes
    codes |= on
    return np.asarray(cv2.applyColorMap(codes, _PALETTE), np.uint8)


def _counts(parts: Sequence[Events], size: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number of ON and of OFF events at each pixel, both [H, W]."""
    width, height = size
    off, on = np.bincount(_places(join_events(parts), size), minlength=2 * width * height).reshape(2, height, width)
    return on, off


def _count(parts: Sequence[Events], size: tuple[int, int], _end: int, config: RenderConfig) -> Image:
    image = np.full((size[1], size[0], 3), WHITE, np.float32)
    for counts, color in zip(_counts(parts, size), (ON, OFF), strict=True):
        share = np.minimum(counts / config.full_scale, 1).astype(np.float32)[..., None]
        image += share * (np.array(color, np.float32) - np.array(WHITE, np.float32))
    return image.clip(0, 255).astype(np.uint8)


def _accumulate(parts: Sequence[Events], size: tuple[int, int], _end: int, config: RenderConfig) -> Image:
    on, off = _counts(parts, size)
    grey = (128 + (on - off) * (127 / config.full_scale)).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _time_surface(parts: Sequence[Events], size: tuple[int, int], end: int, config: RenderConfig) -> Image:
    """exp(-age / tau) of the last event at each pixel, in the colour of its polarity (Lagorce et al., HOTS, 2017)."""
    events, (width, height) = join_events(parts), size
    last = np.full(width * height, -1, np.intp)
    last[_pixels(events, width)] = np.arange(len(events))  # a repeated index keeps the last value
    image = np.full((height * width, 3), WHITE, np.float32)
    hit = last >= 0
    latest = events[last[hit]]
    strength = np.exp((latest["t"] - end) / config.tau_us).astype(np.float32)[:, None]
    image[hit] += strength * (np.where(latest["p"][:, None], ON, OFF) - np.array(WHITE)).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8).reshape(height, width, 3)


_STYLES: dict[str, Callable[[Sequence[Events], tuple[int, int], int, RenderConfig], Image]] = {
    "paint": _paint,
    "count": _count,
    "time_surface": _time_surface,
    "accumulate": _accumulate,
}
