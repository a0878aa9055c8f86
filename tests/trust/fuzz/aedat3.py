"""AEDAT 3.1 as the fuzzer has it: the text of its header, and packets with headers, each harmed by itself."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from numpy.random import Generator

from tests.conftest import random_events
from tests.streams.test_aedat3 import END, HEADER, SIZE, packet, packets
from tests.trust.fuzz.harness import Case, Format, Mutator
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, lie, of_file, of_files, put
from tests.trust.fuzz.routes import decoder, info, label, replay, upload

_NAME = "case.aedat"
_PACKET = struct.Struct("<hhiiiiii")
_FIELDS = ((0, 2), (2, 2), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4), (24, 4))  # position and size
_LATE_US = (1 << 31) - 150_000


def seeds(folder: Path) -> Sequence[Case]:
    """With and without an overflow of the times, other packets between, and an older header."""
    early, late = (random_events(600, start, start + 300_000, SIZE) for start in (1_000, _LATE_US))
    others = b"".join(packet(early[k : k + 5], kind=kind) for k, kind in ((0, 0), (5, 2), (10, 3)))
    bodies = (packets(early), packets(late, 90), others + packets(early, 200) + others)
    files = [HEADER + END + body for body in bodies]
    files.append(HEADER.replace(b"3.1", b"3.0") + packets(early, height=SIZE[1]))
    return [Case({_NAME: file}, _NAME) for file in files]


def _split(data: bytes) -> tuple[bytes, list[bytes]]:
    """The header, and packets as far as they can be told apart."""
    at = data.find(END)
    at = at + len(END) if at >= 0 else data.rfind(b"\r\n") + 2 if b"\r\n" in data[:300] else 0
    head, found = data[:at], []
    while len(data) - at >= _PACKET.size:
        _, _, size, _, _, capacity, _, _ = _PACKET.unpack_from(data, at)
        end = at + _PACKET.size + max(0, min(size * capacity, len(data)))
        found.append(data[at:end])
        at = end
    return head, found or [data[at:]]


def packets_shuffled(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Repeated, missing, in another order, or of another file."""
    head, own = _split(data)
    match int(rng.integers(4)):
        case 0:
            own = [own[k] for k in rng.integers(0, len(own), len(own)).tolist()]
        case 1:
            own = own[::-1]
        case 2:
            own[int(rng.integers(len(own)))] = b""
        case 3:
            own += _split(other)[1]
    return head + b"".join(own)


def packet_fields(rng: Generator, data: bytes, other: bytes) -> bytes:
    """What packets say of themselves: type, source, sizes, offset, overflow, capacity and number."""
    head, own = _split(data)
    for _ in range(int(rng.choice([1, 3, 20]))):
        k = int(rng.integers(len(own)))
        at, size = _FIELDS[int(rng.integers(len(_FIELDS)))]
        own[k] = put(own[k], at, lie(rng, size, int.from_bytes(own[k][at : at + size], "little")))
    return head + b"".join(own)


def words(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Coordinates outside, times back and forth."""
    head, own = _split(data)
    k = int(rng.integers(len(own)))
    count = max(1, (len(own[k]) - _PACKET.size) // 8)
    for event in rng.integers(0, count, int(rng.choice([1, min(count, 200)]))).tolist():
        own[k] = put(own[k], _PACKET.size + 8 * event + int(rng.choice([0, 4])), lie(rng, 4))
    return head + b"".join(own)


def header_text(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Lines that are missing, endless, of another version, another form, another sensor."""
    head, body = data[: max(0, data.find(END))] or HEADER, data[max(0, data.find(END)) :]
    changes = _HEADERS[int(rng.integers(len(_HEADERS)))]
    return (
        head.replace(*changes) + body
        if changes
        else b"".join(ANY_BYTES[str(rng.choice(sorted(ANY_BYTES)))](rng, part, part) for part in (head,)) + body
    )


_HEADERS: tuple[tuple[bytes, bytes] | None, ...] = (
    None,
    None,
    (b"3.1", b"3.2"),
    (b"3.1", b"3.0"),
    (b"RAW", b"SerializedTS"),
    (b"DVS128", b"DAVIS346"),
    (b"DVS128", b"Unknown\x1b[31m"),
    (b"#Source 1", b"#Source 99999999999999999999"),
    (b"#Format", b"#" + b"a" * (1 << 20) + b"\r\n#Format"),
    (b"#Format", b"#a\r\n" * 200_000 + b"#Format"),
    (b"\r\n", b"\n"),
    (b"#", b""),
)


def great_claims(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Many packets, each of which claims a great number of events that are not there."""
    head, _ = _split(data)
    events = random_events(3, 1_000, 2_000, SIZE)
    claim = int(rng.choice([1 << 20, (1 << 28) - 1, 1 << 28, (1 << 31) - 1]))
    return head + packet(events, number=claim, capacity=int(rng.choice([3, claim]))) * int(
        rng.choice([1, 1000, 20_000])
    )


_KNOWING: Mapping[str, Harm] = {
    "packets shuffled": packets_shuffled,
    "headers of packets lie": packet_fields,
    "words out of range": words,
    "the text is odd": header_text,
    "great claims": great_claims,
}


def knowing(harms: Mapping[str, Callable[[Generator, bytes, bytes], bytes]]) -> dict[str, Mutator]:
    """As often as the harm that fits any file, although there are fewer."""
    return {f"{name}{mark}": of_file(harm) for mark in ("", ", again") for name, harm in harms.items()}


AEDAT3 = Format("AEDAT 3.1", seeds, of_files(ANY_BYTES) | knowing(_KNOWING), (decoder, replay, info, label, upload))
