"""Reading AEDAT 4.0 files: header, index and packets by index entry.

    with Aedat4Reader("cards.aedat4") as reader:
        for entry in reader.of(reader.header.streams[0]):
            events = reader.events(entry)

Recordings come damaged: cut off, without a table, with flipped bits. Every whole packet is still read; what is lost is
counted in `Aedat4Reader.counts`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from streams.aedat4 import (
    DECODE_ERRORS,
    EVENTS,
    INDEX_DTYPE,
    MAGIC,
    MAX_PACKET_BYTES,
    MAX_TABLE_BYTES,
    PACKET_HEADER,
    CorruptPacketError,
    Header,
    StreamInfo,
    decode_events,
    decode_frame,
    decompress,
    parse_header,
    parse_table,
)
from streams.errors import RecordingError
from streams.files import open_recording
from streams.flatbuffer import Buffer
from streams.items import Events, RgbFrame
from streams.packet_cache import Decoded, Packet, PacketCache

MAX_HEADER_BYTES = 1 << 20
_LARGE = 1 << 16  # a packet, in bytes
_LZ4_MAGIC, _ZSTD_MAGIC = b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"


class Aedat4Reader:
    """An open AEDAT 4 file: `header`, `index` and packets by index entry; `counts` says what was damaged.

    Raises RecordingError where the file is missing, unreadable, or not AEDAT 4.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.counts: Counter[str] = Counter()
        self.cache: PacketCache | None = None  # of whole packets; corrupt ones are met, and counted, in each pass
        self._corrupt: dict[int, tuple[int, ...]] = {}  # where large ones start, and which state of the file it was
        self._file = open_recording(self.path)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.header = self._read_header()
            self._stream_ids = frozenset(stream.id for stream in self.header.streams)
            self.index = self._read_index()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Aedat4Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def of(self, stream: StreamInfo) -> NDArray[np.void]:
        """The index entries of one stream, in file order."""
        return np.asarray(self.index[self.index["stream"] == stream.id])

    def events(self, entry: np.void) -> Events | None:
        """The events of a packet, as they are stored; None for a corrupt one, which is counted."""
        return self._decoded(entry, decode_events)

    def frame(self, entry: np.void) -> RgbFrame | None:
        """The frame of a packet; None for a corrupt one, which is counted."""
        return self._decoded(entry, decode_frame)

    def is_readable(self, stream: StreamInfo) -> bool:
        """Whether any of the first packets of a stream of events or frames can be decoded; nothing is counted."""
        decode: Callable[[Buffer], Packet] = decode_events if stream.kind == EVENTS else decode_frame
        return any(self._peek(entry, decode) is not None for entry in self.of(stream)[:8])

    def times(self, entry: np.void, stream: StreamInfo) -> tuple[int, int] | None:
        """First and last moment of what a packet of a stream holds; None for a corrupt one, which is not counted."""
        if stream.kind != EVENTS:
            frame = self._peek(entry, decode_frame)
            return None if frame is None else (frame.t_start_us, frame.t_end_us)
        events = self._peek(entry, decode_events)
        return None if events is None or not len(events) else (int(events["t"].min()), int(events["t"].max()))

    def _decoded(self, entry: np.void, decode: Callable[[Buffer], Decoded]) -> Decoded | None:
        decoded = self._peek(entry, decode)
        if decoded is None:
            self.counts["corrupt packets skipped"] += 1
        return decoded

    def _peek(self, entry: np.void, decode: Callable[[Buffer], Decoded]) -> Decoded | None:
        offset = int(entry["offset"])
        if offset in self._corrupt and self._corrupt[offset] == self._state():
            return None
        try:
            if self.cache is None:
                return self._read(entry, decode)[0]
            return self.cache.get((*self._state(), offset, decode), lambda: self._read(entry, decode))
        except DECODE_ERRORS:
            if entry["size"] >= _LARGE:  # it may have unpacked to much, in vain, and is asked for again and again
                self._corrupt[offset] = self._state()
            return None

    def _read(self, entry: np.void, decode: Callable[[Buffer], Decoded]) -> tuple[Decoded, int]:
        """What a packet holds, and the bytes that it was unpacked to, which an array may keep in memory."""
        if entry["size"] > MAX_PACKET_BYTES:
            raise CorruptPacketError(f"it is of {entry['size']} bytes")
        data = decompress(self._at(int(entry["offset"]), int(entry["size"])), self.header.compression)
        return decode(data), len(data)

    def _state(self) -> tuple[int, ...]:
        """Which file it is, as it is now: it may be written to while it is open."""
        state = os.fstat(self._file.fileno())
        return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns

    def _at(self, position: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, position)
        self._file.seek(position)  # Windows
        return self._file.read(size)

    def _read_header(self) -> Header:
        version = self._at(0, len(MAGIC))
        if version != MAGIC:
            raise RecordingError(f"{self.path}: {_what_it_is(version)}")
        prefix = self._at(len(MAGIC), 4)
        size = int.from_bytes(prefix, "little")
        data_start = len(MAGIC) + 4 + size
        if len(prefix) < 4 or not 0 < size <= MAX_HEADER_BYTES or data_start > self.size:
            raise RecordingError(f"{self.path}: the header is cut off or corrupt; record or copy the file again")
        try:
            return parse_header(self._at(len(MAGIC), 4 + size), data_start)
        except (ValueError, ElementTree.ParseError) as error:
            raise RecordingError(f"{self.path}: corrupt header ({error}); record or copy the file again") from None

    def _read_index(self) -> NDArray[np.void]:
        table = self.header.table_position
        if table > self.size:
            self.counts["bytes missing at the end"] = table - self.size
        whole = self.header.data_start <= table <= self.size
        if whole:
            index = self._index_from_table(table)
            if index is not None:
                return index
        self.counts["packet tables rebuilt"] += 1
        return self._index_by_walk(table if whole else self.size)

    def _index_from_table(self, position: int) -> NDArray[np.void] | None:
        """The table's index, None where it is damaged or does not cover the packets without a hole."""
        try:
            stored = self._at(position, min(self.size - position, MAX_TABLE_BYTES))
            data = decompress(stored, self.header.compression, MAX_TABLE_BYTES)
            index = parse_table(data, most=self.size // (PACKET_HEADER.size + 1))
        except DECODE_ERRORS:
            return None
        starts = index["offset"] - PACKET_HEADER.size
        ends = index["offset"] + index["size"]
        chain = np.concatenate([[self.header.data_start], ends])
        follows = (index["size"] >= 0).all() and np.array_equal(chain, np.concatenate([starts, [position]]))
        return index if follows else None

    def _index_by_walk(self, end: int) -> NDArray[np.void]:
        """From packet header to packet header; where the chain breaks, on from the next thing that looks like one."""
        rows, position = [], self.header.data_start
        search_from = position
        while position + PACKET_HEADER.size <= end:
            stream, size = PACKET_HEADER.unpack(self._at(position, PACKET_HEADER.size))
            following = position + PACKET_HEADER.size + size
            if not self._plausible(stream, size):
                self.counts["broken packet headers"] += 1
                position = search_from = self._next_header(search_from + 1, end)
                continue
            if following > end:
                if self.header.table_position <= self.size:
                    self.counts["bytes missing at the end"] = following - end
                resumed = self._next_header(position + 1, end)  # a flipped size looks like a cut
                if resumed >= end:
                    break
                position = search_from = resumed
                continue
            rows.append((position + PACKET_HEADER.size, stream, size, -1, -1, -1))
            search_from, position = position, following
        return np.array(rows, INDEX_DTYPE)

    def _plausible(self, stream: int, size: int) -> bool:
        return size > 0 and stream in self._stream_ids

    def _next_header(self, start: int, end: int) -> int:
        """Position of the next packet header from `start` on, `end` where there is none."""
        marks = {0: (b"EVTS", b"FRME"), 1: (_LZ4_MAGIC,), 2: (_LZ4_MAGIC,)}.get(self.header.compression, (_ZSTD_MAGIC,))
        before = PACKET_HEADER.size + (8 if self.header.compression == 0 else 0)
        for found in self._find(marks, start + before, end):
            stream, size = PACKET_HEADER.unpack(self._at(found - before, PACKET_HEADER.size))
            if self._plausible(stream, size) and found - before + PACKET_HEADER.size + size <= end:
                return found - before
        return end

    def _find(self, marks: tuple[bytes, ...], start: int, end: int) -> Iterator[int]:
        """Positions of any of the four-byte marks, in order; the next one is mostly near, so blocks grow from small."""
        pattern = re.compile(b"|".join(map(re.escape, marks)))
        block = 1 << 12
        while start < end:
            chunk = self._at(start, min(block + 3, end - start))
            yield from (start + match.start() for match in pattern.finditer(chunk))
            start, block = start + block, min(2 * block, 1 << 20)


def _what_it_is(start: bytes) -> str:
    if not start:
        return "the file is empty; record or copy it again"
    if start.startswith(b"#!AER-DAT"):
        version = start[9:].split(b"\r")[0].decode(errors="replace")
        return f"AEDAT {version} is not read here; `velora record` makes AEDAT 4.0 of it"
    return "not an AEDAT 4 recording; give a .aedat4 file"
