"""The AEDAT 4.0 format: header, packet table, event packets and frames from bytes, every length checked.

Layout (the AEDAT 4 format document and dv-processing's schemas)::

    "#!AER-DAT4.0\\r\\n" | IOHE: compression, position of the table, XML of the streams | packets | FTAB: the table
    packet = stream id i32, size i32, payload; a payload is a size-prefixed flatbuffer, usually compressed

`aedat4_reader` reads files of it, `aedat4_writer` writes them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from xml.etree import ElementTree

import cv2
import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

from streams.flatbuffer import Buffer, CorruptBufferError, Table, Tables
from streams.items import EVENT_DTYPE, MAX_TIME_US, Events, Image, RgbFrame
from streams.text import printable

MAGIC = b"#!AER-DAT4.0\r\n"
COMPRESSIONS = {"none": 0, "lz4": 1, "lz4-high": 2, "zstd": 3, "zstd-high": 4}
EVENTS, FRAMES = "EVTS", "FRME"
MAX_PACKET_BYTES = (1 << 26) + (1 << 12)  # decompressed; 4 million events, or the largest image with what goes before
MAX_TABLE_BYTES = 1 << 27  # decompressed; 2 million packets
MAX_PIXELS = 1 << 24
MAX_SIDE = 1 << 13
MAX_STREAMS = 64
MAX_EXPOSURE_US = 10_000_000
_FRAME_CHANNELS = {0: 1, 16: 3, 24: 4}  # OpenCV's CV_8UC1, CV_8UC3 (BGR), CV_8UC4 (BGRA)
#: How a packet of events begins as DV and `aedat4_writer` make it, behind the size: root, identifier, vtable, table.
_USUAL_HEAD = struct.pack("<I4s2x3HiI", 16, b"EVTS", 6, 8, 4, 6, 4)
_COUNT_AT = 4 + len(_USUAL_HEAD)
_COUNT = struct.Struct("<I")
#: EVENT_DTYPE before it is known that a time is not negative and a polarity 0 or 1.
_STORED_DTYPE = np.dtype([("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8)], align=True)
PACKET_HEADER = struct.Struct("<ii")  # stream, size of the payload
#: What decoding bytes from strangers may raise (LZ4 raises RuntimeError).
DECODE_ERRORS = (ValueError, RuntimeError, zstandard.ZstdError)

#: One packet of a file: where its payload starts, its stream, its size, and what the table says of its content
#: (-1 where there is no table).
INDEX_DTYPE = np.dtype([(name, np.int64) for name in ("offset", "stream", "size", "count", "t_start", "t_end")])


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
    if len(nodes) > MAX_STREAMS:
        raise ValueError(f"{len(nodes)} streams")
    by_id: dict[int, StreamInfo] = {}
    for stream in map(_parse_stream, nodes):
        by_id.setdefault(stream.id, stream)
    return tuple(by_id.values())


def _parse_stream(node: ElementTree.Element) -> StreamInfo:
    attributes = {
        attr.get("key"): printable(attr.text or "") for place in (".", "node") for attr in node.findall(f"{place}/attr")
    }
    width, height = (int(attributes.get(key) or 0) for key in ("sizeX", "sizeY"))
    if min(width, height) < 0 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(f"impossible sensor size {width} x {height}")
    kind, source = attributes.get("typeIdentifier", ""), attributes.get("source", "")
    return StreamInfo(int(node.get("name") or -1), kind, width, height, source)


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


def decompress(payload: Buffer, compression: int, most: int = MAX_PACKET_BYTES) -> Buffer:
    """A payload's flatbuffer, of `most` bytes at most. Raises ValueError, RuntimeError (LZ4) or ZstdError."""
    if compression == 0:
        return payload
    return _decompress_lz4(payload, most) if compression in (1, 2) else _decompress_zstd(payload, most)


def _decompress_lz4(payload: Buffer, most: int) -> bytes:
    decoder = lz4.frame.LZ4FrameDecompressor()
    room = 4 * len(payload) + 65_536
    chunks = [decoder.decompress(payload, max_length=min(room, most))]
    total = len(chunks[0])
    while not decoder.eof and not decoder.needs_input and total < most:
        chunks.append(decoder.decompress(b"", max_length=min(2 * total + 65_536, most - total)))
        total += len(chunks[-1])
    if not decoder.eof:
        raise CorruptPacketError("the LZ4 frame is cut off or unpacks to too much")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decompress_zstd(payload: Buffer, most: int) -> bytes:
    size = zstandard.frame_content_size(payload)
    if size > most:
        raise CorruptPacketError(f"the zstd frame claims {size} bytes")
    decoder = zstandard.ZstdDecompressor(max_window_size=most)
    if size >= 0:
        return decoder.decompress(payload)
    with decoder.stream_reader(payload) as stream:
        data = stream.read(most)
        if stream.read(1):
            raise CorruptPacketError("the zstd frame unpacks to too much")
    return data


def decode_events(data: Buffer) -> Events:
    """The events of an EVTS buffer, read in place where they lie well: [n] EVENT_DTYPE in the order of the file."""
    start, count = _place_of_events(data)
    stored = np.frombuffer(data, _STORED_DTYPE, count, start)
    if count and np.maximum.reduce(stored["p"]) > 1:
        raise CorruptPacketError("a polarity is neither 0 nor 1")
    if count and np.maximum.reduce(stored["t"]) > MAX_TIME_US:
        raise CorruptPacketError("an event's time is impossible")
    events = np.frombuffer(data, EVENT_DTYPE, count, start)
    return events if events.flags.aligned else np.frombuffer(bytearray(events.tobytes()), EVENT_DTYPE)


def _place_of_events(data: Buffer) -> tuple[int, int]:
    """Where the events of an EVTS buffer start, and how many there are."""
    if data[4:_COUNT_AT] == _USUAL_HEAD and len(data) >= _COUNT_AT + 4:
        count: int = _COUNT.unpack_from(data, _COUNT_AT)[0]
        if _COUNT_AT + 4 + count * EVENT_DTYPE.itemsize <= len(data):
            return _COUNT_AT + 4, count
    return Table.root(data, b"EVTS").vector(0, EVENT_DTYPE.itemsize)


def decode_frame(data: Buffer, sensor: tuple[int, int] | None = None) -> RgbFrame:
    """The frame of a FRME buffer: RGB from BGR and BGRA, grey as it is, with its exposure.

    Of a `sensor` (width, height) all of the picture: black where a frame of a region of it shows nothing.
    """
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
    place = table.scalar(8, "i16"), table.scalar(9, "i16")
    image = _to_rgb(pixels, channels)
    return RgbFrame(*_exposure(table), image if sensor is None else _placed(image, place, sensor))


def _placed(image: Image, place: tuple[int, int], sensor: tuple[int, int]) -> Image:
    """A region of a picture in the whole of it."""
    (x, y), (height, width) = place, image.shape[:2]
    if (width, height) == sensor:
        return image
    if not (0 <= x <= sensor[0] - width and 0 <= y <= sensor[1] - height):
        raise CorruptPacketError(f"a frame of {width} x {height} at {x}, {y} is not within {sensor[0]} x {sensor[1]}")
    whole = np.zeros((sensor[1], sensor[0], *image.shape[2:]), np.uint8)
    whole[y : y + height, x : x + width] = image
    return whole


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
