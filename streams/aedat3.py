"""AEDAT 3.1 and 3.0 recordings (cAER): text lines, then packets of events of one type each, little-endian.

    with Aedat3Source("user01_natural.aedat") as source: ...

A packet begins with 28 bytes: type and source (16 bits each), event size, offset of the time in an event, overflow,
capacity, number and valid number of events (32 bits each). Of type 1, polarity, an event is a word (bit 0 valid, 1
polarity, 2-16 y, 17-31 x, from the top left corner; in 3.0 from the bottom left) and a time in microseconds of which
the packet's overflow has the bits from 31 on.

Other packets are passed over: frames are not decoded.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.aedat_header import Header, read_at, read_header
from streams.errors import RecordingError
from streams.items import MAX_TIME_US
from streams.words import CHUNK, Layout, Times, WordFile, Words, find_chip

_HEADER = Struct("<hhiiiiii")
_POLARITY = 1
_EVENT_BYTES = 8
_MAX_PACKET_BYTES = 1 << 31
_KINDS = {0: "special events", 1: "events of other sources", 2: "frames", 3: "IMU samples", 4: "IMU samples"}
#: How a packet of polarity events begins, whatever its source, to find the next one where the chain is broken.
_MARK = re.compile(rb"\x01\x00..\x08\x00\x00\x00\x04\x00\x00\x00", re.DOTALL)
_MARK_BYTES = 12


class Packet(NamedTuple):
    """What a packet's header says: where its events begin and end in the file, and how many there are."""

    kind: int
    source: int
    overflow: int
    number: int
    start: int
    end: int


class Aedat3Source(WordFile):
    """The polarity events of the first source in an AEDAT 3.1 or 3.0 file; `others` says what else is in it.

    `size` is the sensor's (width, height), needed where the header does not name a known sensor; given, it is believed.

    Opening walks once over the headers of the packets. Raises RecordingError where the file is not of this format, the
    sensor's size is not known, or it holds no polarity events.
    """

    format = "AEDAT 3"
    hardened = True
    options = frozenset({"size"})

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        return head.startswith(b"#!AER-DAT3.")

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None) -> None:
        if size is not None and not all(0 < side <= 1 << 15 for side in size):
            raise ValueError(f"size must be a width and a height in pixels, not {size}")
        super().__init__(path)
        try:
            header = self._header()
            upward = header.version == "3.0"
            self.layout = Layout((17, 15), (2, 15), 1, on=1, mask=1, value=1, mirrored=False, upward=upward)
            self._bytes = self._file.seek(0, 2)
            self._window = (0, b"")  # position in the file, what is there
            self._runs, source = self._polarity(header.size)
            self.event_size = self._size(header, source) if size is None else size
            self._bounds, self._starts = self._chunks()
            self.span_us = self._span()
        except BaseException:
            self.close()
            raise

    def _header(self) -> Header:
        header = read_header(self._file, self.path, versions=("3.0", "3.1"))
        if header.version == "3.1" and not header.ended:
            raise RecordingError(f"{self.path}: the header has no end; record or copy the file again")
        form = next((line.partition(":")[2].strip() for line in header.lines if line.startswith("Format:")), "RAW")
        if form != "RAW":
            raise RecordingError(f"{self.path}: its events are in the form {form[:80]!r}; only RAW is read here")
        return header

    def _size(self, header: Header, source: int) -> tuple[int, int]:
        """By the name of the source, or else by the one sensor that is named, as in what was recorded once more."""
        named = re.findall(r"^-*Source (\d+): *(.*)$", "\n".join(header.lines), re.MULTILINE)
        mine = [name for number, name in named if number == str(source)]
        for names in (mine, [name for _, name in named]):
            sizes = {chip.size for name in names if (chip := find_chip(name))}
            if len(sizes) == 1:
                return sizes.pop()
        raise RecordingError(f"{self.path}: its header names no known sensor; give it with --size WIDTHxHEIGHT")

    def _polarity(self, position: int) -> tuple[NDArray[np.int64], int]:
        """[runs, 3] of the first source's events: position in the file, number (CHUNK at most), overflow; the source.

        Other packets are counted in `others`.
        """
        runs, source = array("q"), None
        for packet in self._packets(position):
            if packet.kind == _POLARITY and packet.number and source in (None, packet.source):
                source = packet.source
                for first in range(0, packet.number, CHUNK):
                    at = packet.start + first * _EVENT_BYTES
                    runs.extend((at, min(CHUNK, packet.number - first), packet.overflow))
            elif packet.number:
                self.others[_KINDS.get(packet.kind, "other events")] += packet.number
        if source is None:
            missing = self.counts["bytes missing at the end"]
            cut = f" (it is cut off: {missing:,} bytes are missing)" if missing else ""
            raise RecordingError(f"{self.path}: holds no events{cut}; record again, or choose another file")
        return np.frombuffer(runs, np.int64).reshape(-1, 3), source

    def _packets(self, position: int) -> Iterator[Packet]:
        """From packet to packet; where the chain is broken, on from the next header of polarity events."""
        while position < self._bytes:
            packet = self._packet(position)
            if packet is not None and packet.end <= self._bytes:
                yield packet
                position = packet.end
                continue
            cut = self._bytes - position < _HEADER.size or packet is not None
            following = self._next_packet(position + 1)
            if not cut or following < self._bytes:  # a flipped size looks like a cut
                self.counts["broken packet headers"] += 1
            elif packet is None:
                self.counts["bytes missing at the end"] = _HEADER.size - (self._bytes - position)
            else:
                self.counts["bytes missing at the end"] = packet.end - self._bytes
                whole = (self._bytes - packet.start) // _EVENT_BYTES if packet.kind == _POLARITY else 0
                yield packet._replace(number=min(packet.number, whole), end=self._bytes)
            position = following

    def _packet(self, position: int) -> Packet | None:
        """The packet at a position; None where its header cannot be one."""
        fields = self._fields(position)
        if fields is None:
            return None
        kind, source, size, _, overflow, capacity, number, _ = fields
        start = position + _HEADER.size
        end = start + size * capacity
        if capacity != number and not self._begins(end) and self._begins(start + size * number):
            end = start + size * number  # files have both the same: one of them is wrong
        return Packet(kind, source, overflow, min(number, (end - start) // size), start, end)

    def _begins(self, position: int) -> bool:
        fields = self._fields(position)
        return position == self._bytes or fields is not None and (fields[0] == _POLARITY or fields[5] == fields[6])

    def _fields(self, position: int) -> tuple[int, ...] | None:
        """A packet's header; None where it cannot be one."""
        window, data = self._window
        if not window <= position <= window + len(data) - _HEADER.size:
            window, data = self._window = position, read_at(self._file, position, 4096)
        if len(data) - (position - window) < _HEADER.size:
            return None
        fields = _HEADER.unpack_from(data, position - window)
        kind, source, size, offset, overflow, capacity, number, _ = fields
        good = kind >= 0 and source >= 0 and 0 <= offset <= size - 4 and 0 <= overflow <= MAX_TIME_US >> 31
        good = good and min(capacity, number) >= 0 and size * max(capacity, number) <= _MAX_PACKET_BYTES
        return fields if good and (kind != _POLARITY or (size, offset) == (_EVENT_BYTES, 4)) else None

    def _next_packet(self, start: int) -> int:
        """Where the next packet of polarity events begins, the end of the file where there is none.

        It is mostly near, so blocks grow from small.
        """
        block = 1 << 12
        while start < self._bytes:
            for match in _MARK.finditer(read_at(self._file, start, block + _MARK_BYTES - 1)):
                if self._fields(start + match.start()) is not None:
                    return start + match.start()
            start, block = start + block, min(2 * block, 1 << 20)
        return self._bytes

    def _chunks(self) -> tuple[NDArray[np.int64], Times]:
        """[chunks + 1] where chunks begin among the runs, and when."""
        positions, numbers, overflows = self._runs.T
        chunk = (np.cumsum(numbers) - numbers) // CHUNK
        begins = np.flatnonzero(np.diff(chunk, prepend=-1))
        stamps = [int.from_bytes(read_at(self._file, at + 4, 4), "little") for at in positions[begins].tolist()]
        return np.append(begins, len(numbers)), (overflows[begins] << 31) + np.array(stamps, np.int64)

    def _words(self, number: int) -> tuple[Words, Times]:
        runs = self._runs[self._bounds[number] : self._bounds[number + 1]]
        data = b"".join(read_at(self._file, at, count * _EVENT_BYTES) for at, count in runs[:, :2].tolist())
        pairs = np.frombuffer(data, "<u4", 2 * (len(data) // _EVENT_BYTES)).reshape(-1, 2)
        words, stamps = pairs[:, 0].astype(np.uint32), pairs[:, 1].astype(np.int64)
        words[stamps >> 31 != 0] &= ~np.uint32(self.layout.mask)  # no time is negative
        return words, stamps + np.repeat(runs[:, 2] << 31, runs[:, 1])[: len(stamps)]

    def _pass_over(self, words: Words) -> None:
        self.counts["invalid events left out"] += len(words)
