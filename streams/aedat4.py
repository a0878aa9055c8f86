"""Reading AEDAT 4.0: header, index and packets, every length checked.

    with Aedat4Reader("cards.aedat4") as reader:
        for entry in reader.index:
            packet = reader.read(entry)

Layout (the AEDAT 4 format document and dv-processing's schemas)::

    "#!AER-DAT4.0\\r\\n" | IOHE: compression, position of the table, XML of the streams | packets | FTAB: the table
    packet = stream id i32, size i32, payload; a payload is a size-prefixed flatbuffer, usually compressed

Recordings come damaged: cut off, without a table, with flipped bits. Every whole packet is still read; what is lost is
counted in `Aedat4Reader.counts`.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from xml.etree import ElementTree

import cv2
import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

from streams.errors import RecordingError
from streams.flatbuffer import Buffer, CorruptBufferError, Table, Tables
from streams.items import EVENT_DTYPE, Events, Image, RgbFrame

MAGIC = b"#!AER-DAT4.0\r\n"
COMPRESSIONS = {"none": 0, "lz4": 1, "lz4-high": 2, "zstd": 3, "zstd-high": 4}
EVENTS, FRAMES = "EVTS", "FRME"
MAX_HEADER_BYTES = 1 << 20
MAX_PACKET_BYTES = 1 << 27  # decompressed; 8 million events
MAX_PIXELS = 1 << 24
MAX_SIDE = 1 << 13
MAX_EXPOSURE_US = 10_000_000
MAX_TIME_US = 1 << 61  # beyond, sums of times would overflow; the year 2000 is at 2^50
_FRAME_CHANNELS = {0: 1, 16: 3, 24: 4}  # OpenCV's CV_8UC1, CV_8UC3 (BGR), CV_8UC4 (BGRA)
_PACKET_HEADER = struct.Struct("<ii")
#: What decoding bytes from strangers may raise (LZ4 raises RuntimeError).
DECODE_ERRORS = (ValueError, RuntimeError, zstandard.ZstdError, MemoryError)
_LZ4_MAGIC, _ZSTD_MAGIC = b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"

#: One packet of a file: where its payload starts, its stream, its size, and what the table says of its content
#: (-1 where there is no table).
INDEX_DTYPE = np.dtype([(name, np.int64) for name in ("offset", "stream", "size", "count", "t_start", "t_end")])

Decoded = TypeVar("Decoded")


class CorruptPacketError(ValueError):
    """A packet whose content cannot be what the format says."""


@dataclass(frozen=True)
class StreamInfo:
    """One stream that the header declares."""

    id: int
    kind: str  # EVTS, FRME, IMUS, TRIG, …
    width: int  # 0 where not said
    height: int
    source: str  # camera


@dataclass(frozen=True)
class Header:
    """What the file says of itself, before any packet."""

    compression: int
    table_position: int  # -1 where the recording was cut off
    streams: tuple[StreamInfo, ...]
    data_start: int


class Aedat4Reader:
    """An open AEDAT 4 file: `header`, `index` and packets by index entry; `counts` says what was damaged.

    Raises RecordingError where the file is missing, unreadable, or not AEDAT 4.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.counts: Counter[str] = Counter()
        self._file = _open(self.path)
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
        """Whether any of a stream's first packets can be decoded; streams that are neither events nor frames cannot."""
        return any(self._decodes(entry, stream.kind) for entry in self.of(stream)[:8])

    def _decodes(self, entry: np.void, kind: str) -> bool:
        try:
            self._decode(entry, decode_events if kind == EVENTS else decode_frame)
        except DECODE_ERRORS:
            return False
        return True

    def frame_time(self, entry: np.void) -> int | None:
        """When a frame's exposure began, without counting a corrupt one."""
        try:
            return self._decode(entry, decode_frame).t_start_us
        except DECODE_ERRORS:
            return None

    def _decode(self, entry: np.void, decode: Callable[[Buffer], Decoded]) -> Decoded:
        return decode(decompress(self._at(int(entry["offset"]), int(entry["size"])), self.header.compression))

    def _decoded(self, entry: np.void, decode: Callable[[Buffer], Decoded]) -> Decoded | None:
        try:
            return self._decode(entry, decode)
        except DECODE_ERRORS:
            self.counts["corrupt packets skipped"] += 1
            return None

    def _at(self, position: int, size: int) -> bytes:
        self._file.seek(position)
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
            data = decompress(self._at(position, min(self.size - position, MAX_PACKET_BYTES)), self.header.compression)
            index = parse_table(data, most=self.size // (_PACKET_HEADER.size + 1))
        except DECODE_ERRORS:
            return None
        starts = index["offset"] - _PACKET_HEADER.size
        ends = index["offset"] + index["size"]
        chain = np.concatenate([[self.header.data_start], ends])
        follows = (index["size"] >= 0).all() and np.array_equal(chain, np.concatenate([starts, [position]]))
        return index if follows else None

    def _index_by_walk(self, end: int) -> NDArray[np.void]:
        """From packet header to packet header; where the chain breaks, on from the next thing that looks like one."""
        rows, position = [], self.header.data_start
        search_from = position
        while position + _PACKET_HEADER.size <= end:
            stream, size = _PACKET_HEADER.unpack(self._at(position, _PACKET_HEADER.size))
            following = position + _PACKET_HEADER.size + size
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
            rows.append((position + _PACKET_HEADER.size, stream, size, -1, -1, -1))
            search_from, position = position, following
        return np.array(rows, INDEX_DTYPE)

    def _plausible(self, stream: int, size: int) -> bool:
        return size > 0 and stream in self._stream_ids

    def _next_header(self, start: int, end: int) -> int:
        """Position of the next packet header from `start` on, `end` where there is none."""
        marks = {0: (b"EVTS", b"FRME"), 1: (_LZ4_MAGIC,), 2: (_LZ4_MAGIC,)}.get(self.header.compression, (_ZSTD_MAGIC,))
        before = _PACKET_HEADER.size + (8 if self.header.compression == 0 else 0)
        for found in self._find(marks, start + before, end):
            stream, size = _PACKET_HEADER.unpack(self._at(found - before, _PACKET_HEADER.size))
            if self._plausible(stream, size) and found - before + _PACKET_HEADER.size + size <= end:
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


def _open(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for its other end
        raise RecordingError(f"{path}: is not a regular file; give a .aedat4 recording")
    try:
        return open(path, "rb", buffering=0)  # noqa: SIM115 (closed by the reader)
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise RecordingError(f"{path}: is a folder; name one recording in it") from None
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _what_it_is(start: bytes) -> str:
    if not start:
        return "the file is empty; record or copy it again"
    if start.startswith(b"#!AER-DAT"):
        version = start[9:].split(b"\r")[0].decode(errors="replace")
        return f"AEDAT {version} is not supported here; convert it to AEDAT 4.0 (DV can export it)"
    return "not an AEDAT 4 recording; give a .aedat4 file"


def parse_header(data: Buffer, data_start: int) -> Header:
    """The size-prefixed IOHE buffer. Raises ValueError or ElementTree.ParseError."""
    table = Table.root(data, b"IOHE")
    compression = table.scalar(0, "i32")
    if compression not in COMPRESSIONS.values():
        raise CorruptBufferError(f"unknown compression {compression}")
    return Header(compression, table.scalar(1, "i64", -1), _parse_streams(table.string(2)), data_start)


def _parse_streams(xml: str) -> tuple[StreamInfo, ...]:
    if "<!" in xml.replace("<!--", ""):
        raise ValueError("declarations in its XML")
    root = ElementTree.fromstring(xml)
    nodes = [node for out in root.iter("node") if out.get("name") == "outInfo" for node in out.findall("node")]
    return tuple(_parse_stream(node) for node in nodes)


def _parse_stream(node: ElementTree.Element) -> StreamInfo:
    attributes = {attr.get("key"): _printable(attr.text or "") for attr in node.iter("attr")}
    width, height = (int(attributes.get(key) or 0) for key in ("sizeX", "sizeY"))
    if min(width, height) < 0 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(f"impossible sensor size {width} x {height}")
    kind, source = attributes.get("typeIdentifier", ""), attributes.get("source", "")
    return StreamInfo(int(node.get("name") or -1), kind, width, height, source)


def _printable(text: str) -> str:
    """What a header says may go to a terminal: no control characters."""
    return "".join(char if char.isprintable() else "?" for char in text)


def parse_table(data: Buffer, most: int) -> NDArray[np.void]:
    """The FTAB buffer as an index in file order. Raises CorruptBufferError for more than `most` entries."""
    tables = Tables(Table.root(data, b"FTAB"), 0, most)
    index = np.empty(len(tables.positions), INDEX_DTYPE)
    index["offset"] = tables.column(0, "<i8")
    index["stream"] = tables.column(1, "<i4")
    index["size"] = tables.column(1, "<i4", at=4)
    index["count"] = tables.column(2, "<i8")
    index["t_start"] = tables.column(3, "<i8")
    index["t_end"] = tables.column(4, "<i8")
    return index[np.argsort(index["offset"], kind="stable")]


def decompress(payload: Buffer, compression: int) -> Buffer:
    """A payload's flatbuffer, at most MAX_PACKET_BYTES. Raises ValueError, RuntimeError (LZ4) or ZstdError."""
    if compression == 0:
        return payload
    return _decompress_lz4(payload) if compression in (1, 2) else _decompress_zstd(payload)


def _decompress_lz4(payload: Buffer) -> bytes:
    decoder = lz4.frame.LZ4FrameDecompressor()
    room = 4 * len(payload) + 65_536
    chunks = [decoder.decompress(payload, max_length=min(room, MAX_PACKET_BYTES))]
    total = len(chunks[0])
    while not decoder.eof and not decoder.needs_input and total < MAX_PACKET_BYTES:
        chunks.append(decoder.decompress(b"", max_length=min(2 * total + 65_536, MAX_PACKET_BYTES - total)))
        total += len(chunks[-1])
    if not decoder.eof:
        raise CorruptPacketError("the LZ4 frame is cut off or unpacks to too much")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decompress_zstd(payload: Buffer) -> bytes:
    size = zstandard.frame_content_size(payload)
    if size > MAX_PACKET_BYTES:
        raise CorruptPacketError(f"the zstd frame claims {size} bytes")
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_PACKET_BYTES)
    if size >= 0:
        return decoder.decompress(payload)
    with decoder.stream_reader(payload) as stream:
        data = stream.read(MAX_PACKET_BYTES)
        if stream.read(1):
            raise CorruptPacketError("the zstd frame unpacks to too much")
    return data


def decode_events(data: Buffer) -> Events:
    """The events of an EVTS buffer, read in place: [n] EVENT_DTYPE in the order of the file."""
    start, count = Table.root(data, b"EVTS").vector(0, EVENT_DTYPE.itemsize)
    events = np.frombuffer(data, EVENT_DTYPE, count, start)
    polarity = events.view(np.uint8).reshape(count, EVENT_DTYPE.itemsize)[:, 12]
    if count and polarity.max() > 1:
        raise CorruptPacketError("a polarity is neither 0 nor 1")
    if count and not 0 <= events["t"].min() <= events["t"].max() <= MAX_TIME_US:
        raise CorruptPacketError("an event's time is impossible")
    return events


def decode_frame(data: Buffer) -> RgbFrame:
    """The frame of a FRME buffer: RGB from BGR and BGRA, grey as it is, with its exposure."""
    table = Table.root(data, b"FRME")
    width, height = table.scalar(6, "i16"), table.scalar(7, "i16")
    channels = _FRAME_CHANNELS.get(table.scalar(5, "i8"))
    if channels is None:
        raise CorruptPacketError(f"unknown frame format {table.scalar(5, 'i8')}")
    start, size = table.vector(10, 1)
    fits = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
    if not fits or size != width * height * channels:
        raise CorruptPacketError(f"{size} bytes are no image of {width} x {height} x {channels}")
    pixels = np.frombuffer(data, np.uint8, size, start).reshape(height, width, channels)
    return RgbFrame(*_exposure(table), _to_rgb(pixels, channels))


def _exposure(table: Table) -> tuple[int, int]:
    """Start and end of the exposure; where it was not stored, both are the frame's timestamp."""
    start, end = table.scalar(3, "i64"), table.scalar(4, "i64")
    if not 0 <= start <= end <= start + MAX_EXPOSURE_US or end == 0:
        start = end = table.scalar(0, "i64")
    if not 0 <= start <= end <= MAX_TIME_US:
        raise CorruptPacketError(f"impossible frame time {start}")
    return start, end


def _to_rgb(pixels: Image, channels: int) -> Image:
    if channels == 1:
        return pixels[:, :, 0]
    code = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
