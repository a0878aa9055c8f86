"""A frame-and-event camera that looks at a scene: frames with motion blur, events in packets, on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.items import EventPacket, Events, Image, RgbFrame, join_events
from streams.simulation.event_model import EventModel

Light = NDArray[np.float32]  # [H, W, 3] linear light, RGB order, 0 to 1
Times = NDArray[np.int64]  # microseconds, ascending

PACKET_US = 10_000
FULL_US = 15_000  # light of 1.0 fills the pixels' wells in this time

_LUMINANCE = np.array([[0.2126, 0.7152, 0.0722]], np.float32)  # Rec. 709
_CODES = 4096  # steps of linear light that the transfer curve is tabulated for
_AIM = 0.2  # the mean, of full wells, that auto-exposure goes for
_MOST_CHANGE = 2.0  # of the exposure from one frame to the next


@dataclass(frozen=True, slots=True)
class Camera:
    """How frames are taken. Raises ValueError that names a value which no camera has."""

    frame_period_us: int = 33_333
    exposure_us: int = 15_000  # of every frame, or of the first one with auto-exposure
    auto_exposure: bool = False  # exposures follow the light, from `shortest_us` to `longest_us`
    shortest_us: int = 200
    longest_us: int = 30_000
    colour: bool = True  # or grey frames
    well: float = 0.0  # electrons of a full pixel, from which shot noise follows; 0: no noise
    read_noise: float = 0.0  # standard deviation, electrons

    def __post_init__(self) -> None:
        if not 0 < self.shortest_us <= self.exposure_us <= self.longest_us < self.frame_period_us:
            spans = f"{self.shortest_us}, {self.exposure_us}, {self.longest_us}, {self.frame_period_us}"
            raise ValueError(f"shortest, first and longest exposure and frame period must rise, got {spans} us")
        if self.well < 0 or self.read_noise < 0:
            raise ValueError(f"must not be negative: well={self.well}, read_noise={self.read_noise}")


class Scene(Protocol):
    """What a camera can look at."""

    def render(self, t_us: int) -> Light:
        """The light at one moment, float32 [H, W, 3]."""

    def render_times(self, t_start_us: int, t_end_us: int) -> Times:
        """Moments so close together that nothing moves by more than about a pixel from one to the next."""


def record(
    scene: Scene,
    model: EventModel,
    t_start_us: int,
    t_end_us: int,
    camera: Camera = Camera(),  # noqa: B008
    *,
    seed: int = 0,
) -> Iterator[EventPacket | RgbFrame]:
    """What the camera delivers from ``t_start_us`` to ``t_end_us``, in order of end; packets before frames.

    Packets follow on each other without a hole. A frame whose exposure would end after ``t_end_us`` is not taken.
    ``seed`` draws the noise of the frames.
    """
    packet_ends = np.append(np.arange(t_start_us + PACKET_US, t_end_us, PACKET_US), t_end_us)
    shutter = Shutter(t_start_us, camera, seed)
    packet_start_us, collected, next_packet = t_start_us, list[Events](), 0
    for t_us in _timetable(scene, packet_ends, shutter, t_start_us, t_end_us):
        light = scene.render(t_us)
        collected.append(model.push(t_us, luminance(light)))
        if t_us == packet_ends[next_packet]:
            yield EventPacket(packet_start_us, t_us, join_events(collected))
            packet_start_us, collected, next_packet = t_us, [], next_packet + 1
        frame = shutter.push(t_us, light)
        if frame is not None:
            yield frame


class Shutter:
    """Opens every frame period, lets light into the wells until it closes, and chooses the next exposure."""

    def __init__(self, t_first_us: int, camera: Camera, seed: int) -> None:
        self._t_first_us, self._camera = t_first_us, camera
        self._rng = np.random.default_rng(seed)
        self._exposure_us = camera.exposure_us
        self._last: tuple[int, Light] = (t_first_us, np.empty(0, np.float32))
        self._wells: Light | None = None  # light times microseconds, while open
        self.closes_us: int | None = None  # while open

    @property
    def period_us(self) -> int:
        """From one opening to the next."""
        return self._camera.frame_period_us

    def push(self, t_us: int, light: Light) -> RgbFrame | None:
        """The frame whose exposure ends now, if one does. Renders must include starts and ends of exposures."""
        last_us, last_light = self._last
        self._last = (t_us, light)
        if self._wells is not None:
            self._wells += (last_light + light) * np.float32(0.5 * (t_us - last_us))
            if t_us == self.closes_us:
                return self._close(t_us, self._wells * np.float32(1 / FULL_US))
        elif (t_us - self._t_first_us) % self._camera.frame_period_us == 0:
            self._wells, self.closes_us = np.zeros_like(light), t_us + self._exposure_us
        return None

    def _close(self, t_us: int, filled: Light) -> RgbFrame:
        frame = RgbFrame(t_us - self._exposure_us, t_us, self._read(filled))
        self._wells = self.closes_us = None
        if self._camera.auto_exposure:
            wanted = _AIM / max(float(filled.mean()), 1e-6)
            factor = min(max(wanted, 1 / _MOST_CHANGE), _MOST_CHANGE)
            next_us = round(self._exposure_us * factor)
            self._exposure_us = min(max(next_us, self._camera.shortest_us), self._camera.longest_us)
        return frame

    def _read(self, filled: Light) -> Image:
        """What the wells [H, W, 3], 1.0 being full, are read out as."""
        if not self._camera.colour:
            filled = luminance(filled)
        if well := self._camera.well:
            variance = np.maximum(filled, 0) / np.float32(well) + np.float32((self._camera.read_noise / well) ** 2)
            filled = filled + self._rng.standard_normal(filled.shape, np.float32) * np.sqrt(variance)
        return encode_srgb(filled)


def luminance(light: Light) -> NDArray[np.float32]:
    """What the pixels without a colour filter see of it: float32 [H, W]."""
    return np.asarray(cv2.transform(light, _LUMINANCE), np.float32)


def encode_srgb(light: Light) -> Image:
    """Linear light 0 to 1 as uint8 on the sRGB transfer curve (IEC 61966-2-1)."""
    codes = (np.clip(light, 0, 1) * np.float32(_CODES - 1) + np.float32(0.5)).astype(np.uint16)
    return _SRGB[codes]


def decode_srgb(image: Image) -> Light:
    """The inverse of encode_srgb, for colours given as a screen shows them."""
    value = np.arange(256) / 255
    curve = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light: Light = curve.astype(np.float32)[image]
    return light


def _srgb_table() -> Image:
    light = np.linspace(0, 1, _CODES)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: Image = np.round(255 * curve).astype(np.uint8)
    return table


_SRGB = _srgb_table()


def _timetable(scene: Scene, packet_ends: Times, shutter: Shutter, t_start_us: int, t_end_us: int) -> Iterator[int]:
    """Moments to render, in order; the end of an exposure is known when it has begun."""
    opens = np.arange(t_start_us, t_end_us, shutter.period_us)
    known = [opens, packet_ends, scene.render_times(t_start_us, t_end_us)]
    for t_us in np.unique(np.concatenate(known)).tolist():
        if shutter.closes_us is not None and shutter.closes_us < t_us:
            yield shutter.closes_us
        yield t_us
