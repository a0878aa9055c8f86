"""Items on their way from one process to another, as a head and the bytes of their arrays.

    4 bytes   length of the head
    head      an object of JSON; under `items` are [kind, t_start_us, t_end_us, *shape]
    arrays    of these items, one after the other: events [n] EVENT_DTYPE, images uint8 [H, W] or [H, W, 3]

The arrays go through memory that both processes have, where there is such and they fit: it takes a quarter of the time
that the pipe takes. One parcel is in there at a time: who sends waits until it is asked for the next.

Who sends them may be a decoder that a hostile file has made to say anything: nothing in them is run, and no length
is believed.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.items import EVENT_DTYPE, MAX_TIME_US, EventPacket, Events, Item, RgbFrame

_LENGTH = struct.Struct("<I")
_MOST_HEAD_BYTES, _MOST_ARRAY_BYTES = 1 << 20, 1 << 29
_EVENTS, _FRAME = "events", "frame"

Parcel = tuple[dict[str, Any], list[Item]]


def send(descriptor: int, head: Mapping[str, Any], items: Iterable[Item] = (), memory: mmap | None = None) -> None:
    """Write a parcel to a pipe. Raises TypeError for items of other kinds, OSError where nobody reads it any more."""
    packed = [_packed(item) for item in items]
    arrays = [_bytes_of(array) for _, array in packed]
    kept = memory is not None and sum(map(len, arrays)) <= len(memory)
    text = json.dumps({**head, "items": [row for row, _ in packed], "kept": kept}).encode()
    if memory is not None and kept:
        memory.seek(0)
        for array in arrays:
            memory.write(array)
    _write(descriptor, memoryview(_LENGTH.pack(len(text)) + text))
    for array in () if kept else arrays:
        _write(descriptor, array)


def receive(fill: Callable[[memoryview], None], memory: mmap | None = None) -> Parcel:
    """The head and the items of a parcel. `fill` reads as many bytes from the pipe as fit into what it is given.

    Raises ValueError for what is no parcel, and what `fill` raises.
    """
    length = bytearray(_LENGTH.size)
    fill(memoryview(length))
    text = bytearray(_checked(_LENGTH.unpack(length)[0], _MOST_HEAD_BYTES))
    fill(memoryview(text))
    head = json.loads(text)
    if not isinstance(head, dict) or not isinstance(head.get("items"), list):
        raise ValueError("a head that is none")
    if head.pop("kept", False) and memory is not None:
        memory.seek(0)
        fill = partial(_fill_from, memory)
    return head, [_unpacked(row, fill) for row in head.pop("items")]


def _fill_from(memory: mmap, into: memoryview) -> None:
    """Read from memory. Raises ValueError where it holds less."""
    start = memory.tell()
    memory.seek(len(into), os.SEEK_CUR)
    with memoryview(memory) as whole:
        into[:] = whole[start : start + len(into)]


def _packed(item: Item) -> tuple[list[str | int], NDArray[Any]]:
    if isinstance(item, EventPacket):
        return [_EVENTS, item.t_start_us, item.t_end_us, len(item.events)], item.events
    if isinstance(item, RgbFrame):
        return [_FRAME, item.t_start_us, item.t_end_us, *item.image.shape], item.image
    raise TypeError(f"{type(item).__name__} is not sent between processes")


def _unpacked(row: Any, fill: Callable[[memoryview], None]) -> Item:
    if not isinstance(row, list) or not all(type(number) is int for number in row[1:]):
        raise ValueError("an item that is none")
    match row:
        case [kind, start, end, count] if kind == _EVENTS:
            return EventPacket(*_span(start, end), _checked_events(_filled((count,), EVENT_DTYPE, fill)))
        case [kind, start, end, height, width, *colours] if kind == _FRAME and colours in ([], [3]):
            return RgbFrame(*_span(start, end), _filled((height, width, *colours), np.dtype(np.uint8), fill))
    raise ValueError("an item that is none")


def _span(start: int, end: int) -> tuple[int, int]:
    if not -MAX_TIME_US <= start <= end <= MAX_TIME_US:
        raise ValueError("an impossible span")
    return start, end


def _checked_events(events: Events) -> Events:
    if len(events) and np.maximum.reduce(events["p"].view(np.uint8)) > 1:
        raise ValueError("a polarity is neither 0 nor 1")
    if len(events) and max(-int(events["t"].min()), int(events["t"].max())) > MAX_TIME_US:
        raise ValueError("an event's time is impossible")
    return events


def _filled(shape: tuple[int, ...], dtype: np.dtype[Any], fill: Callable[[memoryview], None]) -> NDArray[Any]:
    if min(shape) < 0:
        raise ValueError("a negative length")
    _checked(math.prod(shape) * dtype.itemsize, _MOST_ARRAY_BYTES)
    array: NDArray[Any] = np.empty(shape, dtype)
    fill(_bytes_of(array))
    return array


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The memory of an array, or of a copy of it where it does not lie in one piece."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _checked(length: int, most: int) -> int:
    if length > most:
        raise ValueError(f"a length of {length:,} bytes")
    return length


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
