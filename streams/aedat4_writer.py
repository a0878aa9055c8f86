"""Writing AEDAT 4.0 that dv-processing, DV and `aedat` read.

    with write_aedat4("out.aedat4", (346, 260)) as writer:
        writer.write(packet_or_frame)

Every packet goes to the file in one unbuffered write, so a kill loses at most the packet in flight; the table of
packets and its position in the header follow at the end, and readers manage without them.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from xml.etree import ElementTree

import cv2
import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

from streams.aedat4 import COMPRESSIONS, EVENTS, FRAMES, INDEX_DTYPE, MAGIC
from streams.files import append_whole
from streams.items import EVENT_DTYPE, EventPacket, Events, Gap, Image, Item, RgbFrame

EVENT_STREAM, FRAME_STREAM = 0, 1
_MAX_EVENTS = 1 << 20  # in one packet
# Fixed flatbuffer layouts: size, root offset, identifier, vtable (its size, the table's size, field offsets), table.
_IOHE = struct.Struct("<II4s2x5HiiqII")  # table: vtable, compression, position of the table, string; string length
_EVTS = struct.Struct("<II4s2x3HiII")  # table: vtable, vector; vector length
_FRME = struct.Struct("<II4s2x15Hi6q4hbb2xII")  # table: vtable, times, exposure, sizes, format, source, pixels; length
_FTAB = struct.Struct("<II4s2x3HiII")
_TABLE_POSITION_AT = len(MAGIC) + 32  # where IOHE holds the position of the packet table
_ENTRY_VTABLE = struct.pack("<7H", 14, 48, 16, 4, 24, 32, 40)
_ENTRY = np.dtype(
    [(name, np.int32) for name in ("vtable", "stream", "size", "pad")]
    + [(name, np.int64) for name in ("offset", "count", "t_start", "t_end")]
)


def write_aedat4(
    path: str | os.PathLike[str],
    event_size: tuple[int, int] | None,
    frame_size: tuple[int, int] | None = None,
    *,
    compression: str = "lz4",
    camera: str = "velora",
) -> Aedat4Writer:
    """Open an AEDAT 4 file for writing; sizes are (width, height), None for a feed that the recording does not have.

    `compression` is one of none, lz4, lz4-high, zstd, zstd-high. Raises ValueError for another, OSError from the disk.
    """
    return Aedat4Writer(path, event_size, frame_size, compression, camera)


class Aedat4Writer:
    """An AEDAT 4 file being written: `write` items, close at the end (a context manager does)."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        event_size: tuple[int, int] | None,
        frame_size: tuple[int, int] | None,
        compression: str,
        camera: str,
    ) -> None:
        if compression not in COMPRESSIONS:
            raise ValueError(f"unknown compression {compression!r}: choose one of {', '.join(COMPRESSIONS)}")
        if not camera.isprintable():
            raise ValueError(f"a camera's name must be printable, not {camera!r}")
        self.compression = COMPRESSIONS[compression]
        self._sizes = {EventPacket: event_size, RgbFrame: frame_size}
        xml = _describe(event_size, frame_size, compression, camera)
        self._rows = array("q")  # of INDEX_DTYPE, one after the other
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            append_whole(self._file, MAGIC + encode_header(self.compression, -1, xml))
        except BaseException:
            self._file.close()
            os.unlink(path)
            raise

    @property
    def size(self) -> int:
        """Bytes of whole packets so far."""
        return self._rows[-6] + self._rows[-4] if self._rows else 0

    def __enter__(self) -> Aedat4Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, item: Item) -> None:
        """Append an event packet (an empty one leaves no trace) or a frame; a Gap is told by the times alone.

        Raises ValueError for a feed that was opened without a size.
        """
        if not isinstance(item, Gap) and self._sizes[type(item)] is None:
            raise ValueError(f"the recording was opened without a size for {type(item).__name__}s")
        match item:
            case EventPacket(events=events):
                for start in range(0, len(events), _MAX_EVENTS):
                    self._write_events(events[start : start + _MAX_EVENTS])
            case RgbFrame():
                payload = encode_frame(item)
                self._write_packet(FRAME_STREAM, payload, 1, item.t_start_us, item.t_end_us)
            case Gap():
                pass

    def close(self) -> None:
        """Append the packet table, enter its position in the header, close. Closing twice does nothing."""
        if self._file.closed:
            return
        with self._file:
            position = self._file.tell()
            append_whole(self._file, compress(encode_table(np.frombuffer(self._rows, INDEX_DTYPE)), self.compression))
            self._file.seek(_TABLE_POSITION_AT)
            self._file.write(struct.pack("<q", position))

    def _write_events(self, events: Events) -> None:
        times = events["t"]
        self._write_packet(EVENT_STREAM, encode_events(events), len(events), int(times.min()), int(times.max()))

    def _write_packet(self, stream: int, payload: bytes, count: int, t_start: int, t_end: int) -> None:
        packed = compress(payload, self.compression)
        position = self._file.tell()
        append_whole(self._file, struct.pack("<ii", stream, len(packed)) + packed)
        self._rows.extend((position + 8, stream, len(packed), count, t_start, t_end))


def encode_stream_header(
    kind: type[EventPacket] | type[RgbFrame], size: tuple[int, int], compression: str, camera: str
) -> bytes:
    """What a server of the DV network protocol says first: the IOHE of one stream, number 0."""
    out = _node("outInfo", "/outInfo/")
    name = (EVENTS, "events") if kind is EventPacket else (FRAMES, "frames")
    out.append(_stream_node(0, *name, size, compression, camera))
    return encode_header(COMPRESSIONS[compression], -1, _xml(out))


def encode_packets(item: EventPacket | RgbFrame, compression: str) -> Iterator[bytes]:
    """The packets of stream 0 that hold an item; none for an empty one."""
    if isinstance(item, RgbFrame):
        payloads = [encode_frame(item)]
    else:
        starts = range(0, len(item.events), _MAX_EVENTS)
        payloads = [encode_events(item.events[start : start + _MAX_EVENTS]) for start in starts]
    for payload in payloads:
        packed = compress(payload, COMPRESSIONS[compression])
        yield struct.pack("<ii", 0, len(packed)) + packed


def compress(payload: bytes, compression: int) -> bytes:
    """A payload as it stands in the file."""
    match compression:
        case 1:
            return bytes(lz4.frame.compress(payload))
        case 2:
            return bytes(lz4.frame.compress(payload, compression_level=lz4.frame.COMPRESSIONLEVEL_MINHC + 6))
        case 3:
            return zstandard.compress(payload, level=3)
        case 4:
            return zstandard.compress(payload, level=19)
    return payload


def encode_header(compression: int, table_position: int, xml: bytes) -> bytes:
    """The size-prefixed IOHE buffer."""
    body = _IOHE.pack(0, 20, b"IOHE", 10, 20, 4, 8, 16, 10, compression, table_position, 4, len(xml)) + xml
    return _sized(body + bytes(1 + -(len(body) + 1) % 8))


def encode_events(events: Events) -> bytes:
    """The size-prefixed EVTS buffer of [n] EVENT_DTYPE."""
    if events.dtype != EVENT_DTYPE:
        raise ValueError(f"events must be of EVENT_DTYPE, not {events.dtype}")
    clean = np.zeros(len(events), EVENT_DTYPE)  # the padding bytes too
    for name in EVENT_DTYPE.names or ():
        clean[name] = events[name]
    return _sized(_EVTS.pack(0, 16, b"EVTS", 6, 8, 4, 6, 4, len(events)) + clean.tobytes())


def encode_frame(frame: RgbFrame) -> bytes:
    """The size-prefixed FRME buffer: BGR, or grey for a two-dimensional image."""
    image, kind = _to_bgr(frame.image)
    height, width = image.shape[:2]
    start, end = frame.t_start_us, frame.t_end_us
    slots = (4, 12, 20, 28, 36, 60, 52, 54, 56, 58, 64, 44, 61)
    head = (0, 40, b"FRME", 30, 68, *slots, 30, start, start, end, start, end, end - start)
    return _sized(_FRME.pack(*head, width, height, 0, 0, kind, 1, 4, image.size) + image.tobytes())


def encode_table(index: NDArray[np.void]) -> bytes:
    """The size-prefixed FTAB buffer of an index (INDEX_DTYPE)."""
    count = len(index)
    vtable = _FTAB.size + 4 * count
    first = vtable + len(_ENTRY_VTABLE) + -(vtable + len(_ENTRY_VTABLE)) % 8
    positions = first + _ENTRY.itemsize * np.arange(count)
    entries = np.zeros(count, _ENTRY)
    entries["vtable"] = positions - vtable
    for name in INDEX_DTYPE.names or ():
        entries[name] = index[name]
    offsets = (positions - (_FTAB.size + 4 * np.arange(count))).astype(np.uint32)
    head = _FTAB.pack(0, 16, b"FTAB", 6, 8, 4, 6, 4, count) + offsets.tobytes() + _ENTRY_VTABLE
    return _sized(head + bytes(first - len(head)) + entries.tobytes())


def _sized(body: bytes) -> bytes:
    return struct.pack("<I", len(body) - 4) + body[4:]


def _to_bgr(image: Image) -> tuple[Image, int]:
    if image.ndim == 2:
        return np.ascontiguousarray(image), 0
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8), 16


def _describe(
    event_size: tuple[int, int] | None, frame_size: tuple[int, int] | None, compression: str, camera: str
) -> bytes:
    """The XML of the streams, as DV writes it."""
    streams = [(EVENT_STREAM, EVENTS, "events", event_size), (FRAME_STREAM, FRAMES, "frames", frame_size)]
    out = _node("outInfo", "/outInfo/")
    for number, kind, name, size in streams:
        if size is not None:
            out.append(_stream_node(number, kind, name, size, compression, camera))
    return _xml(out)


def _xml(out: ElementTree.Element) -> bytes:
    root = ElementTree.Element("dv", version="2.0")
    root.append(out)
    return ElementTree.tostring(root)


def _stream_node(
    number: int, kind: str, name: str, size: tuple[int, int], compression: str, camera: str
) -> ElementTree.Element:
    node = _node(str(number), f"/outInfo/{number}/")
    # DV's own names of the compressions
    label = {"none": "NONE", "lz4": "LZ4", "lz4-high": "LZ4_HIGH", "zstd": "ZSTD", "zstd-high": "ZSTD_HIGH"}[
        compression
    ]
    for key, text in (("compression", label), ("originalModuleName", "velora"), ("originalOutputName", name)):
        _attr(node, key, "string", text)
    _attr(node, "typeDescription", "string", "Polarity events." if kind == EVENTS else "Frames.")
    _attr(node, "typeIdentifier", "string", kind)
    info = _node("info", f"/outInfo/{number}/info/")
    _attr(info, "sizeX", "int", str(size[0]))
    _attr(info, "sizeY", "int", str(size[1]))
    _attr(info, "source", "string", camera)
    node.append(info)
    return node


def _node(name: str, path: str) -> ElementTree.Element:
    return ElementTree.Element("node", name=name, path=path)


def _attr(node: ElementTree.Element, key: str, kind: str, text: str) -> None:
    attr = ElementTree.SubElement(node, "attr", key=key, type=kind)
    attr.text = text
