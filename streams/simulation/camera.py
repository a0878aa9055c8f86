"""A frame-and-event camera that looks at a scene: frames with motion blur, events in packets, on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.items import EventPacket, Events, Image, RgbFrame, join_events
from streams.simulation.event_model import EventModel

Light = NDArray[np.float32]  # [H, W, 3] linear light, RGB order, 0 to 1
Times = NDArray[np.int64]  # microseconds, ascending

FRAME_PERIOD_US = 33_333
EXPOSURE_US = 15_000
PACKET_US = 10_000

_LUMINANCE = np.array([[0.2126, 0.7152, 0.0722]], np.float32)  # Rec. 709
_CODES = 4096  # steps of linear light that the transfer curve is tabulated for


class Scene(Protocol):
    """What a camera can look at."""

    def render(self, t_us: int) -> Light:
        """The light at one moment, float32 [H, W, 3]."""

    def render_times(self, t_start_us: int, t_end_us: int) -> Times:
        """Moments so close together that nothing moves by more than about a pixel from one to the next."""


def record(scene: Scene, model: EventModel, t_start_us: int, t_end_us: int) -> Iterator[EventPacket | RgbFrame]:
    """What the camera delivers from ``t_start_us`` to ``t_end_us``, in order of end; packets before frames.

    Packets follow on each other without a hole. A frame whose exposure would end after ``t_end_us`` is not taken.
    """
    packet_ends = np.append(np.arange(t_start_us + PACKET_US, t_end_us, PACKET_US), t_end_us)
    shutter = Shutter(t_start_us)
    packet_start_us, collected, next_packet = t_start_us, list[Events](), 0
    for t_us in _timetable(scene, packet_ends, t_start_us, t_end_us):
        light = scene.render(t_us)
        collected.append(model.push(t_us, luminance(light)))
        if t_us == packet_ends[next_packet]:
            yield EventPacket(packet_start_us, t_us, join_events(collected))
            packet_start_us, collected, next_packet = t_us, [], next_packet + 1
        frame = shutter.push(t_us, light)
        if frame is not None:
            yield frame


class Shutter:
    """Opens every FRAME_PERIOD_US for EXPOSURE_US and averages the light that falls in."""

    def __init__(self, t_first_us: int) -> None:
        self._t_first_us = t_first_us
        self._last: tuple[int, Light] = (t_first_us, np.empty(0, np.float32))
        self._sum: Light | None = None  # light times microseconds, while open

    def push(self, t_us: int, light: Light) -> RgbFrame | None:
        """The frame whose exposure ends now, if one does. Renders must include starts and ends of exposures."""
        into_us = (t_us - self._t_first_us) % FRAME_PERIOD_US
        last_us, last_light = self._last
        self._last = (t_us, light)
        if into_us == 0:
            self._sum = np.zeros_like(light)
        elif self._sum is not None:
            self._sum += (last_light + light) * np.float32(0.5 * (t_us - last_us))
            if into_us == EXPOSURE_US:
                mean, self._sum = self._sum * np.float32(1 / EXPOSURE_US), None
                return RgbFrame(t_us - EXPOSURE_US, t_us, encode_srgb(mean))
        return None


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


def _timetable(scene: Scene, packet_ends: Times, t_start_us: int, t_end_us: int) -> list[int]:
    opens = np.arange(t_start_us, t_end_us, FRAME_PERIOD_US)
    closes = opens + EXPOSURE_US
    moments = [opens, closes[closes <= t_end_us], packet_ends, scene.render_times(t_start_us, t_end_us)]
    times: list[int] = np.unique(np.concatenate(moments)).tolist()
    return times
