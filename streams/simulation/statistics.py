"""What a recording's events are like: the figures by which a simulated sensor is compared with a real one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.items import EventPacket, Events, RgbFrame, join_events

Microseconds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class EventStatistics:
    """Figures of the events of one recording."""

    seconds: float  # from the first event to the last
    events: int
    rate_hz: float  # events a second, of the mean pixel
    silent: float  # share of pixels without any event
    on_share: float  # of ON events among all; NaN without events
    same_us: Microseconds  # intervals between two events of one pixel with the same polarity, in order of size
    other_us: Microseconds  # likewise, with the polarity changed
    per_exposure: NDArray[np.int64]  # events of each frame's exposure

    def shortest_us(self, share: float = 0.001) -> float:
        """The interval that this share of all intervals of a pixel falls below: the refractory period shows here."""
        intervals = np.concatenate([self.same_us, self.other_us])
        return float(np.quantile(intervals, share)) if len(intervals) else float("nan")


def event_statistics(items: Iterable[EventPacket | RgbFrame], width: int, height: int) -> EventStatistics:
    """The figures of a source's items, on a sensor of this size."""
    packets: list[Events] = []
    exposures: list[tuple[int, int]] = []
    for item in items:
        if isinstance(item, EventPacket):
            packets.append(item.events)
        elif isinstance(item, RgbFrame):
            exposures.append((item.t_start_us, item.t_end_us))
    events = join_events(packets)
    t_us, pixels = events["t"], events["y"].astype(np.int64) * width + events["x"]
    seconds = float(t_us[-1] - t_us[0]) / 1e6 if len(events) else 0.0
    same_us, other_us = _intervals(t_us, pixels, events["p"])
    starts, ends = np.array(exposures, np.int64).reshape(-1, 2).T
    return EventStatistics(
        seconds=seconds,
        events=len(events),
        rate_hz=len(events) / (width * height * seconds) if seconds else 0.0,
        silent=1 - len(np.unique(pixels)) / (width * height),
        on_share=float(events["p"].mean()) if len(events) else float("nan"),
        same_us=same_us,
        other_us=other_us,
        per_exposure=np.searchsorted(t_us, ends) - np.searchsorted(t_us, starts),
    )


def _intervals(
    t_us: Microseconds, pixels: NDArray[np.int64], on: NDArray[np.bool_]
) -> tuple[Microseconds, Microseconds]:
    """Times between consecutive events of a pixel, sorted: of equal polarity, and of unequal."""
    order = np.lexsort((t_us, pixels))
    of_one_pixel = np.diff(pixels[order]) == 0
    intervals = np.diff(t_us[order])[of_one_pixel]
    changed = np.diff(on[order].astype(np.int8))[of_one_pixel] != 0
    return np.sort(intervals[~changed]), np.sort(intervals[changed])
