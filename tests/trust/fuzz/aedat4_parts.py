"""AEDAT 4 files taken apart and put together again, and the good ones that the fuzzer begins with."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streams import write_aedat4
from streams.aedat4 import INDEX_DTYPE, MAGIC, decode_events, decompress
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_writer import compress, encode_events, encode_header, encode_table
from streams.items import EVENT_DTYPE
from tests.conftest import REAL, REAL_NAMES, moving_square
from tests.trust.fuzz.harness import Case

_NAME = "case.aedat4"
_FRAMES = 10  # of a small recording


@dataclass(frozen=True)
class Parts:
    """A file taken apart. Payloads are unpacked."""

    compression: int
    xml: bytes
    packets: tuple[tuple[int, bytes], ...]  # stream and payload
    table: bool  # whether it has one, and the header says where

    def file(
        self,
        *,
        packed: Callable[[int, int, bytes], bytes] | None = None,
        index: Callable[[NDArray[np.void]], NDArray[np.void]] = lambda index: index,
        table: Callable[[bytes], bytes] = lambda data: data,
        position: Callable[[int], int] = lambda position: position,
        code: int | None = None,
    ) -> bytes:
        """Put it together: `packed` makes a packet of its number, stream and packed payload; others change parts."""
        code = self.compression if code is None else code
        data, rows = bytearray(MAGIC + encode_header(code, -1, self.xml)), []
        for number, (stream, payload) in enumerate(self.packets):
            payload = compress(payload, self.compression)
            rows.append((len(data) + 8, stream, len(payload), *_told(self.packets[number][1])))
            plain = struct.pack("<ii", stream, len(payload)) + payload
            data += plain if packed is None else packed(number, stream, payload)
        if not self.table:
            return bytes(data)
        end = table(encode_table(index(np.array(rows, INDEX_DTYPE))))
        head = MAGIC + encode_header(code, position(len(data)), self.xml)
        return head + bytes(data[len(head) :]) + compress(end, self.compression)


def _told(payload: bytes) -> tuple[int, int, int]:
    """What a table says of a packet: how much is in it, and from when to when."""
    try:
        times = decode_events(payload)["t"]
        return len(times), int(times.min()), int(times.max())
    except ValueError:
        return 1, 1_000_000, 1_010_000


def parts_of(data: bytes, folder: Path) -> Parts:
    """Take a good file apart."""
    path = folder / "whole.aedat4"
    path.write_bytes(data)
    with Aedat4Reader(path) as reader:
        header, index = reader.header, reader.index
    xml = data[data.index(b"<dv") : data.rindex(b"</dv>", 0, header.data_start) + 5]
    packets = tuple(
        (int(e["stream"]), bytes(decompress(data[int(e["offset"]) : int(e["offset"] + e["size"])], header.compression)))
        for e in index
    )
    return Parts(header.compression, xml, packets, header.table_position > 0)


#: What good files are made of.
PARTS: dict[bytes, Parts] = {}


def seeds(folder: Path) -> Sequence[Case]:
    """Events and frames by each compression, other streams, no table; and excerpts of what cameras recorded."""
    folder.mkdir(parents=True)
    made = [parts_of(_written(folder, compression), folder) for compression in ("none", "lz4", "zstd", "lz4-high")]
    made.append(replace(made[0], table=False))
    made.append(_with_other_streams(made[1]))
    made.append(replace(made[2], packets=tuple(p for p in made[2].packets if p[0] == 0)))
    found = [REAL / f"{name}.aedat4" for name in REAL_NAMES if name != "empty"]
    for path in filter(Path.exists, found):
        made.append(_excerpt(parts_of(path.read_bytes(), folder)))
    cases = []
    for parts in made:
        case = Case({_NAME: parts.file()}, _NAME)
        PARTS[case.data] = parts
        cases.append(case)
    return cases


def _written(folder: Path, compression: str) -> bytes:
    path = folder / "written.aedat4"
    with write_aedat4(path, (64, 48), (64, 48), compression=compression) as writer:
        for item in moving_square(_FRAMES):
            writer.write(item)
    return path.read_bytes()


def _with_other_streams(parts: Parts) -> Parts:
    """Inertial samples and triggers between the others."""
    streams = b"".join(
        b'<node name="%d" path="/outInfo/%d/"><attr key="typeIdentifier" type="string">%b</attr></node>' % (n, n, kind)
        for n, kind in ((2, b"IMUS"), (3, b"TRIG"))
    )
    packets: list[tuple[int, bytes]] = []
    for number, packet in enumerate(parts.packets):
        stream, kind = ((2, b"IMUS"), (3, b"TRIG"))[number % 2]
        payload = encode_events(np.zeros(2, EVENT_DTYPE)).replace(b"EVTS", kind)
        packets += [packet, (stream, payload)]
    return replace(parts, xml=parts.xml.replace(b"</node></dv>", streams + b"</node></dv>"), packets=tuple(packets))


def _excerpt(parts: Parts) -> Parts:
    """The first packets, of some hundred thousand bytes, with a few frames among them."""
    size, count = 0, 0
    for _, payload in parts.packets:
        if size > 3_000_000 or count >= 60:
            break
        size, count = size + len(payload), count + 1
    return replace(parts, packets=parts.packets[:count])
