"""What flows along the road: the items that a source yields, and the samples made of them.

All times are integer microseconds on one clock; spans are half-open, ``[t_start_us, t_end_us)``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.errors import StreamError

#: One event. ``t`` int64 microseconds, ``x`` and ``y`` uint16 pixels from the top left corner, ``p`` bool polarity
#: (True is ON). Aligned to 16 bytes, which is also how AEDAT 4 stores an event, so packets are read in place.
EVENT_DTYPE = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)], align=True)

#: Of what samples of a recording are, which are cached: to be raised where the same recording comes to give others.
SAMPLES_VERSION = 2
#: Beyond, sums of times would overflow; the year 2000 is at 2^50.
MAX_TIME_US = 1 << 61

_PART = 1 << 14  # events at a time, 256 kB: they are read several times, the first time alone from far away

Events = NDArray[np.void]
Image = NDArray[np.uint8]


def no_events() -> Events:
    """An empty array of EVENT_DTYPE."""
    return np.empty(0, EVENT_DTYPE)


def join_events(parts: Sequence[Events]) -> Events:
    """Arrays of events one after the other; without a copy where only one of them holds any.

    Joined as raw bytes: field by field it takes longer, and leaves noise in the padding, which compresses badly.
    """
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    raw = (part.data if part.flags.c_contiguous else part.tobytes() for part in parts)
    return np.frombuffer(bytearray().join(raw), EVENT_DTYPE) if parts else no_events()


def count_before(events: Events, time_us: int) -> int:
    """How many of events in order of time come before a moment.

    numpy's search would first copy all their times, which do not lie next to each other in memory.
    """
    return bisect_left(events["t"].data, time_us)


def is_sound(events: Events, size: tuple[int, int]) -> bool:
    """Whether events are in order of time and inside a sensor of this size (width, height)."""
    for start in range(0, len(events), _PART):
        part = events[start : start + _PART + 1]
        times, greatest = part["t"], np.maximum.reduce
        if greatest(part["x"]) >= size[0] or greatest(part["y"]) >= size[1] or (times[1:] < times[:-1]).any():
            return False
    return True


def in_order(events: Events, counts: Counter[str]) -> Events:
    """Events in order of time; where they were not, they are sorted and the packet is counted."""
    times = events["t"]
    if not (times[1:] < times[:-1]).any():
        return events
    counts["unsorted packets, sorted"] += 1
    return events[np.argsort(times, kind="stable")]


@dataclass(frozen=True, slots=True)
class EventPacket:
    """All events of ``[t_start_us, t_end_us)``, in order of time.

    May be empty: ``t_end_us`` is the watermark (no earlier event follows), so a still scene does not stall the road.
    """

    t_start_us: int
    t_end_us: int
    events: Events  # [n] EVENT_DTYPE
    arrival_ns: int | None = None  # host monotonic clock; None for recordings
    sound_for: tuple[int, int] | None = None  # size of a sensor that the events are known to be inside of, and in order


def split(packet: EventPacket, t_us: int) -> tuple[EventPacket, EventPacket]:
    """What a packet holds before a time, which lies in it, and the rest."""
    cut = int(np.searchsorted(packet.events["t"], t_us))
    before = replace(packet, t_end_us=t_us, events=packet.events[:cut])
    return before, replace(packet, t_start_us=t_us, events=packet.events[cut:])


@dataclass(frozen=True, slots=True)
class RgbFrame:
    """One camera frame and its exposure. Where the exposure is unknown, start equals end."""

    t_start_us: int
    t_end_us: int
    image: Image  # uint8 [H, W, 3] in RGB order, or [H, W] from a grey sensor
    arrival_ns: int | None = None  # host monotonic clock; None for recordings


def eight_bit(image: NDArray[Any]) -> Image:
    """An image of 8 bits a channel; of one with 16 the upper eight. Raises StreamError for any other."""
    if image.dtype == np.uint16:
        image = image >> 8
    elif image.dtype != np.uint8:
        raise StreamError(f"the camera gives images of {image.dtype}: set it to 8 or 16 bits")
    return np.asarray(image, np.uint8)


def size_of(item: EventPacket | RgbFrame) -> int:
    """Bytes of its array."""
    return item.image.nbytes if isinstance(item, RgbFrame) else item.events.nbytes


@dataclass(frozen=True, slots=True)
class EventImage:
    """The events of an exposure as somebody else has rendered them; they themselves are not to be had."""

    t_start_us: int
    t_end_us: int
    image: Image  # uint8 [H, W, 3], RGB order
    arrival_ns: int | None = None  # host monotonic clock; None for recordings


@dataclass(frozen=True, slots=True)
class Gap:
    """The stream does not continue where it stopped: seek, loop, drop, reconnect, a jump of more than 10 s."""

    reason: str


Timed = EventPacket | RgbFrame | EventImage
Item = Timed | Gap


class _Joined:
    """An attribute of events that may be set to the parts of an array; they are joined when somebody reads it."""

    def __get__(self, owner: Sample | None, kind: type) -> _Joined | Events:
        if owner is None:
            return self
        found: Events | Sequence[Events] = owner.__dict__["events"]
        if not isinstance(found, np.ndarray):
            found = owner.__dict__["events"] = join_events(found)
        return found

    def __set__(self, owner: Sample, events: Events | Sequence[Events]) -> None:
        owner.__dict__["events"] = events


@dataclass(frozen=True)
class Sample:
    """One RGB frame with the events of its exposure: the unit that is shown and recognised.

    A missing half is blank in its modality's own background (black RGB, white events) and flagged.
    """

    index: int  # position in the stream, from 0, without holes: spacings between samples are differences of it
    t_start_us: int
    t_end_us: int
    rgb: Image  # uint8 [H, W, 3], RGB order
    event_image: Image  # uint8 [H, W, 3], RGB order
    events: Events  # [n] EVENT_DTYPE, in order of time; may be given in parts, which few ever need in one
    has_rgb: bool
    has_events: bool
    discontinuity: bool  # first sample, or the first after a Gap
    arrival_ns: int | None = None  # host monotonic clock when its last item came in; None for recordings
    decode_ms: float = 0.0
    render_ms: float = 0.0
    windowed: bool = False  # its events are of a window before the frame, whose exposure is not known
    lead: bool = False  # only fills the window of a place that was sought: not shown, no label of its own

    @property
    def event_count(self) -> int:
        """How many events it has, without joining them."""
        found = self.__dict__["events"]
        return len(found) if isinstance(found, np.ndarray) else sum(map(len, found))


Sample.events = _Joined()  # type: ignore[assignment]  # here, lest it be taken for a default
