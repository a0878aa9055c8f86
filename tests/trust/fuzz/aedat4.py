"""AEDAT 4 as the fuzzer has it: header, packets, what is in packets, and table, each harmed by itself."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from streams.aedat4 import INDEX_DTYPE, MAGIC, MAX_PACKET_BYTES, MAX_TABLE_BYTES, decode_events
from streams.aedat4_writer import compress, encode_events
from streams.items import EVENT_DTYPE, Events
from tests.trust.fuzz.aedat4_parts import PARTS, Parts, seeds
from tests.trust.fuzz.harness import Case, Format, Mutator
from tests.trust.fuzz.mutations import ANY_BYTES, lie, of_files, put
from tests.trust.fuzz.routes import decoder, info, label, replay, upload

_XML = b'<node name="outInfo" path="/outInfo/">'


def _of_parts(harm: Callable[[Generator, Parts, Parts], bytes]) -> Mutator:
    """Harm that needs to know the parts of a file; where another harm came before it, a good file is taken anew."""

    def mutator(rng: Generator, case: Case, other: Case) -> Case:
        own = PARTS.get(case.data) or PARTS[other.data]
        return case.but(data=harm(rng, own, PARTS[other.data]))

    return mutator


def _some(rng: Generator, parts: Parts, kind: bytes = b"") -> int:
    """The number of a packet, of a kind where there is one."""
    numbers = [n for n, (_, payload) in enumerate(parts.packets) if payload[8:12] == kind]
    numbers = numbers or list(range(len(parts.packets)))
    return int(rng.choice(numbers))


def _with_packet(parts: Parts, number: int, payload: bytes) -> Parts:
    packets = list(parts.packets)
    packets[number] = packets[number][0], payload
    return replace(parts, packets=tuple(packets))


# --- packets ----------------------------------------------------------------------------------------------------------


def packets_repeated_or_missing(rng: Generator, parts: Parts, other: Parts) -> bytes:
    packets = list(parts.packets)
    for _ in range(int(rng.integers(1, 6))):
        number = int(rng.integers(len(packets)))
        packets[number : number + 1] = [packets[number]] * int(rng.choice([0, 2, 20, 1000]))
        packets = packets or list(parts.packets)
    return replace(parts, packets=tuple(packets)).file()


def packets_in_disorder(rng: Generator, parts: Parts, other: Parts) -> bytes:
    order = rng.permutation(len(parts.packets)) if rng.random() < 0.7 else np.arange(len(parts.packets))[::-1]
    return replace(parts, packets=tuple(parts.packets[k] for k in order.tolist())).file()


def packets_of_another_file(rng: Generator, parts: Parts, other: Parts) -> bytes:
    packets = list(parts.packets)
    number = int(rng.integers(len(packets)))
    packets[number:number] = other.packets[int(rng.integers(len(other.packets))) :][:10]
    return replace(parts, packets=tuple(packets)).file()


def packet_headers(rng: Generator, parts: Parts, other: Parts) -> bytes:
    chosen = {_some(rng, parts) for _ in range(int(rng.choice([1, 3, 100])))}

    def packed(number: int, stream: int, payload: bytes) -> bytes:
        head = struct.pack("<ii", stream, len(payload))
        if number in chosen:
            at = int(rng.choice([0, 4]))
            head = put(head, at, lie(rng, 4, len(payload) if at else stream))
        return head + payload

    return replace(parts, table=bool(rng.integers(2))).file(packed=packed)


def compressed_frames(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """What LZ4 and zstd say of a packet: flags, sizes, checksums."""
    chosen = {_some(rng, parts) for _ in range(int(rng.choice([1, 5])))}

    def packed(number: int, stream: int, payload: bytes) -> bytes:
        if number in chosen:
            for _ in range(int(rng.integers(1, 4))):
                size = int(rng.choice([1, 2, 4, 8]))
                payload = put(payload, int(rng.integers(min(24, len(payload)))), lie(rng, size))
        return struct.pack("<ii", stream, len(payload)) + payload

    return parts.file(packed=packed)


def bombs(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """Packets that unpack to what no memory holds, some of them as events that could be."""
    kind, compression = str(rng.choice(sorted(_BOMBS))), int(rng.choice([1, 3]))
    bomb = _packed_bomb(kind, compression)
    chosen = {_some(rng, parts) for _ in range(int(rng.choice([1, 3, 8])))}

    def packed(number: int, stream: int, payload: bytes) -> bytes:
        payload = bomb if number in chosen else payload
        return struct.pack("<ii", stream, len(payload)) + payload

    end = (lambda data: bytes(MAX_TABLE_BYTES + 1)) if rng.random() < 0.05 else (lambda data: data)
    return replace(parts, compression=compression).file(packed=packed, table=end)


@functools.cache
def _packed_bomb(kind: str, compression: int) -> bytes:
    return compress(_BOMBS[kind](), compression)


def _zeros() -> bytes:
    return bytes(MAX_PACKET_BYTES - 64)


def _more_than_allowed() -> bytes:
    return bytes(MAX_PACKET_BYTES + 64)


def _events_of_one_moment() -> bytes:
    events = np.zeros((MAX_PACKET_BYTES >> 4) - 300, EVENT_DTYPE)
    events["t"] = 1_100_000
    return encode_events(events)


def _events_of_an_age() -> bytes:
    events = np.zeros((MAX_PACKET_BYTES >> 4) - 300, EVENT_DTYPE)
    events["t"] = 1_100_000 + 1_000 * (np.arange(len(events)) >> 12)
    return encode_events(events)


_BOMBS: Mapping[str, Callable[[], bytes]] = {
    "zeros": _zeros,
    "more": _more_than_allowed,
    "one moment": _events_of_one_moment,
    "an age": _events_of_an_age,
}


# --- what is in packets -----------------------------------------------------------------------------------------------


def tables_and_offsets(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """The head of a payload: root, virtual table, offsets, lengths of vectors, sizes of images."""
    number = _some(rng, parts, [b"EVTS", b"FRME"][int(rng.integers(2))])
    payload = parts.packets[number][1]
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.choice([1, 2, 4, 8]))
        at = int(rng.integers(min(130, len(payload) // size))) // size * size
        honest = int.from_bytes(payload[at : at + size], "little")
        payload = put(payload, at, lie(rng, size, honest))
    return _with_packet(parts, number, payload).file()


def payload_bytes(rng: Generator, parts: Parts, other: Parts) -> bytes:
    number = _some(rng, parts)
    harm = ANY_BYTES[str(rng.choice(sorted(ANY_BYTES)))]
    payload = harm(rng, parts.packets[number][1], other.packets[0][1])
    return _with_packet(parts, number, payload or b"\0").file()


def _of_events(change: Callable[[Generator, Events], None]) -> Callable[[Generator, Parts, Parts], bytes]:
    def harm(rng: Generator, parts: Parts, other: Parts) -> bytes:
        chosen = {_some(rng, parts, b"EVTS") for _ in range(int(rng.choice([1, 3, 50])))}
        for number in chosen:
            try:
                events = decode_events(parts.packets[number][1]).copy()
            except ValueError:
                continue
            if len(events):
                change(rng, events)
                parts = _with_packet(parts, number, encode_events(events))
        return parts.file()

    return harm


def _times(rng: Generator, events: Events) -> None:
    times, n = events["t"], len(events)
    some = rng.integers(0, n, int(rng.choice([1, n])))
    match int(rng.integers(6)):
        case 0:
            times[some] += rng.integers(-(1 << 22), 1 << 22, len(some))
        case 1:
            times[some] = int(rng.choice([0, -1, (1 << 61) - 1, 1 << 61, (1 << 62) - 1, 1 << 62, -(1 << 63)]))
        case 2:
            times[:] = times[::-1].copy()
        case 3:
            times += int(rng.choice([-1_000_000, 20_000_000, 1 << 40, (1 << 61) - 2_000_000]))
        case 4:
            times[:] = times[0]
        case 5:
            times[:] = times[0] + np.arange(n) * int(rng.choice([10_000, 11_000_000, 1 << 44]))


def _coordinates(rng: Generator, events: Events) -> None:
    some = rng.integers(0, len(events), int(rng.choice([1, len(events)])))
    events[str(rng.choice(["x", "y"]))][some] = int(rng.choice([48, 64, 65, 346, 32_767, 65_535]))


def frame_facts(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """Width, height, format, exposure of images, as `encode_frame` lays them out, and their number of bytes."""
    chosen = {_some(rng, parts, b"FRME") for _ in range(int(rng.choice([1, 20])))}
    for number in chosen:
        payload = parts.packets[number][1]
        at, size = ((100, 2), (102, 2), (108, 1), (112, 4), (52, 8), (60, 8), (68, 8), (76, 8))[int(rng.integers(8))]
        parts = _with_packet(parts, number, put(payload, at, lie(rng, size)))
    return parts.file()


# --- header and table -------------------------------------------------------------------------------------------------


def header_numbers(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """Size, compression, and where the table is."""
    match int(rng.integers(3)):
        case 0:
            return put(parts.file(), len(MAGIC), lie(rng, 4, len(parts.xml)))
        case 1:
            return parts.file(code=int(rng.choice([0, 1, 2, 3, 4, 5, -1, (1 << 31) - 1])))
    lies = (0, 1, -1, -2, 1 << 31, (1 << 63) - 1, -(1 << 63))
    wrong = int(rng.choice(lies)) if rng.random() < 0.5 else None
    shift = int(rng.integers(-40, 40))
    return parts.file(position=lambda position: position + shift if wrong is None else wrong)


def packet_table(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """What it says of packets, or the lengths and offsets of its own."""

    def index(index: NDArray[np.void]) -> NDArray[np.void]:
        for _ in range(int(rng.integers(1, 5))):
            name = str(rng.choice(list(INDEX_DTYPE.names or ())))
            row = int(rng.integers(len(index)))
            value = int.from_bytes(lie(rng, 8, int(index[name][row])), "little", signed=True)
            index[name][row] = value if abs(value) < 1 << 31 or name not in ("stream", "size") else -1
        return index

    def table(data: bytes) -> bytes:
        size = int(rng.choice([2, 4]))
        at = int(rng.integers(min(len(data) - size, 80))) // size * size
        return put(data, at, lie(rng, size, int.from_bytes(data[at : at + size], "little")))

    parts = replace(parts, table=True)
    return parts.file(index=index) if rng.random() < 0.6 else parts.file(table=table)


def description(rng: Generator, parts: Parts, other: Parts) -> bytes:
    """The XML: cut, of other sizes and kinds, with entities, nested without end."""
    harm = _XML_HARMS[int(rng.integers(len(_XML_HARMS)))]
    return replace(parts, xml=harm(rng, parts.xml)).file()


def _swap(old: bytes, *new: bytes) -> Callable[[Generator, bytes], bytes]:
    return lambda rng, xml: re.sub(old, lambda found: new[int(rng.integers(len(new)))], xml)


def _cut_xml(rng: Generator, xml: bytes) -> bytes:
    return xml[: int(rng.integers(len(xml)))]


def _flipped_xml(rng: Generator, xml: bytes) -> bytes:
    return ANY_BYTES[str(rng.choice(sorted(ANY_BYTES)))](rng, xml, xml)[: 1 << 19]


_ENTITIES = b"<!DOCTYPE dv [<!ENTITY a0 'a'>%b]>" % b"".join(
    b"<!ENTITY a%d '%b'>" % (k + 1, b"&a%d;" % k * 10) for k in range(12)
)
_XML_HARMS: tuple[Callable[[Generator, bytes], bytes], ...] = (
    _cut_xml,
    _flipped_xml,
    _flipped_xml,
    _swap(rb'(?<=key="sizeX" type="int">)\d+', b"0", b"-1", b"1", b"8193", b"2147483648", b"1e9", b"nan", b"9" * 5000),
    _swap(rb'(?<=key="sizeY" type="int">)\d+', b"0", b"-1", b"1", b"8193", b"2147483648", b"", b" 48 ", b"0x30"),
    _swap(b"EVTS|FRME", b"EVTS", b"FRME", b"IMUS", b"", b"\xff\xfe", b"EVTS\x00"),
    _swap(rb'(?<=node name=")\d+', b"0", b"1", b"-1", b"2147483647", b"2147483648", b"9" * 5000, b"x"),
    lambda rng, xml: _ENTITIES + xml.replace(b">velora<", b">&a12;<"),
    lambda rng, xml: b'<!DOCTYPE dv [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + xml.replace(b">velora<", b">&a;<"),
    lambda rng, xml: xml.replace(_XML, _XML + b"<node>" * 50_000 + b"</node>" * 50_000),
    lambda rng, xml: xml.replace(_XML, _XML + b'<node name="7"/>' * 20_000),
    lambda rng, xml: xml.replace(b"velora", b"v" * 500_000),
    lambda rng, xml: xml.decode().encode("utf-16"),
)

_KNOWING: Mapping[str, Callable[[Generator, Parts, Parts], bytes]] = {
    "packets repeated or missing": packets_repeated_or_missing,
    "packets in disorder": packets_in_disorder,
    "packets of another file": packets_of_another_file,
    "headers of packets lie": packet_headers,
    "heads of compressed packets lie": compressed_frames,
    "tables and offsets lie": tables_and_offsets,
    "payloads damaged": payload_bytes,
    "times back and forth": _of_events(_times),
    "coordinates outside": _of_events(_coordinates),
    "facts of frames lie": frame_facts,
    "numbers of the header lie": header_numbers,
    "the packet table lies": packet_table,
    "the description is odd": description,
    "bombs": bombs,
}

AEDAT4 = Format(
    "AEDAT 4",
    seeds,
    of_files(ANY_BYTES) | {name: _of_parts(harm) for name, harm in _KNOWING.items()},
    (decoder, replay, info, label, upload),
)
