"""Reading AEDAT 4.0 files: header, index and packets by index entry.

    with Aedat4Reader("cards.aedat4") as reader:
        for entry in reader.of(reader.header.streams[0]):
            events = reader.events(entry)

Recordings come damaged: cut off, without a table, with flipped bits. Every whole packet is still read; what is lost is
counted in `Aedat4Reader.counts`.
"""

from __future__ import annotations

import functools
import os
import re
from array import array
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
from streams.aedat_header import read_at
from streams.errors import RecordingError
from streams.files import open_recording, unread
from streams.flatbuffer import Buffer
from streams.items import Events, RgbFrame
from streams.packet_cache import Decoded, Packet, PacketCache

MAX_HEADER_BYTES = 1 << 20
_MAX_CORRUPT = 1 << 16  # packets that are remembered as such
_MAX_ROWS = 1 << 21  # of an index without a table, which may have as many
_MAX_LOOKS = 1 << 18  # at what looks like a packet's header, where the chain of packets is broken
_BLOCK = 1 << 12
_LZ4_MAGIC, _ZSTD_MAGIC = b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"


class Aedat4Reader:
    """An open AEDAT 4 file: `header`, `index` and packets by index entry; `counts` says what was damaged.

    Raises RecordingError where the file is missing, unreadable, or not AEDAT 4.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.counts: Counter[str] = Counter()
        self.cache: PacketCache | None = None  # of whole packets; corrupt ones are met, and counted, in each pass
        self._corrupt: dict[int, tuple[int, ...]] = {}  # where they start, and which state of the file it was
        self._looks = _MAX_LOOKS
        self._file = open_recording(self.path)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.header = self._read_header()
            self._decode_frame = {s.id: _frame_decoder((s.width, s.height)) for s in self.header.streams}
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
        return self._decoded(entry, self._decode_frame[int(entry["stream"])])

    def is_readable(self, stream: StreamInfo) -> bool:
        """Whether any of the first packets of a stream of events or frames can be decoded; nothing is counted."""
        decode: Callable[[Buffer], Packet] = decode_events if stream.kind == EVENTS else self._decode_frame[stream.id]
        return any(self._peek(entry, decode) is not None for entry in self.of(stream)[:8])

    def times(self, entry: np.void, stream: StreamInfo) -> tuple[int, int] | None:
        """First and last moment of what a packet of a stream holds; None for a corrupt one, which is not counted."""
        if stream.kind != EVENTS:
            frame = self._peek(entry, self._decode_frame[stream.id])
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
            if len(self._corrupt) < _MAX_CORRUPT:  # it may have unpacked to much, in vain, and is asked for again
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
        if not hasattr(os, "pread"):  # Windows
            return read_at(self._file, position, size)
        try:
            return os.pread(self._file.fileno(), size, position)
        except OSError as error:
            raise unread(self.path, error) from None

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
        rows, position, search_from = array("q"), self.header.data_start, self.header.data_start
        block, block_at, head, ids = b"", position, PACKET_HEADER.size, self._stream_ids
        while position + head <= end:
            if not 0 <= position - block_at <= len(block) - head:
                block, block_at = self._at(position, _BLOCK), position
            if len(block) < head:  # the file has been cut meanwhile
                break
            stream, size = PACKET_HEADER.unpack_from(block, position - block_at)
            following = position + head + size
            if size <= 0 or stream not in ids:
                self.counts["broken packet headers"] += 1
                resumed = self._next_header(search_from + 1, end)
                if search_from < resumed < position:  # the packet before claims more than it has
                    del rows[-3:]
                position = search_from = resumed
            elif following > end:
                resumed = self._next_header(position + 1, end)  # a flipped size looks like a cut
                if resumed < end:
                    self.counts["broken packet headers"] += 1
                elif self.header.table_position <= self.size:
                    self.counts["bytes missing at the end"] = following - end
                position = search_from = resumed
            elif len(rows) == 3 * _MAX_ROWS:
                self.counts["bytes beyond the first two million packets, left out"] = end - position
                break
            else:
                rows.extend((position + head, stream, size))
                search_from, position = position, following
        return _index_of(rows)

    def _next_header(self, start: int, end: int) -> int:
        """Position of the next packet header from `start` on, `end` where there is none."""
        marks = {0: (b"EVTS", b"FRME"), 1: (_LZ4_MAGIC,), 2: (_LZ4_MAGIC,)}.get(self.header.compression, (_ZSTD_MAGIC,))
        before = PACKET_HEADER.size + (8 if self.header.compression == 0 else 0)
        for found in self._find(marks, start + before, end):
            self._looks -= 1
            if self._looks < 0:
                break
            stream, size = PACKET_HEADER.unpack(self._at(found - before, PACKET_HEADER.size))
            if size > 0 and stream in self._stream_ids and found - before + PACKET_HEADER.size + size <= end:
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


@functools.cache
def _frame_decoder(sensor: tuple[int, int]) -> Callable[[Buffer], RgbFrame]:
    """The same for all readers, which share a cache."""
    return lambda data: decode_frame(data, sensor if min(sensor) > 0 else None)


def _index_of(rows: array[int]) -> NDArray[np.void]:
    """An index of offsets, streams and sizes, one after the other."""
    table = np.frombuffer(rows, np.int64).reshape(-1, 3)
    index = np.full(len(table), -1, INDEX_DTYPE)
    for column, name in enumerate(("offset", "stream", "size")):
        index[name] = table[:, column]
    return index


def _what_it_is(start: bytes) -> str:
    if not start:
        return "the file is empty; record or copy it again"
    if start.startswith(b"#!AER-DAT"):
        version = start[9:].split(b"\r")[0].decode(errors="replace")
        return f"AEDAT {version} is not read here; `velora record` makes AEDAT 4.0 of it"
    return "not an AEDAT 4 recording; give a .aedat4 file"
