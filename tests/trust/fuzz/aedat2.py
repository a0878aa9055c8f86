"""AEDAT 2.0 and 1.0 as the fuzzer has them: lines of text, then words with times, each harmed by itself."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from tests.conftest import random_events
from tests.streams.test_aedat2 import SIZES, WRAP, header, pairs_of
from tests.trust.fuzz.aedat3 import knowing
from tests.trust.fuzz.harness import Case, Format
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, lie, of_files
from tests.trust.fuzz.routes import decoder, info, label, replay, upload

_NAME = "case.aedat"
_LAST = b"#End Of ASCII Header\r\n"


def seeds(folder: Path) -> Sequence[Case]:
    """Of each chip, with and without a wrap of the times, without the last line, and of version 1.0."""
    files = []
    for chip, size in SIZES.items():
        for start in (1_000, WRAP - 150_000):
            pairs = pairs_of(chip, random_events(600, start, start + 300_000, size))
            files.append(header(chip) + b"".join(struct.pack(">II", *pair) for pair in pairs))
    files.append(files[0].replace(_LAST, b""))
    pairs = pairs_of("DVS128", random_events(600, 1_000, 300_000, SIZES["DVS128"]))
    files.append(header("DVS128", version="1.0") + b"".join(struct.pack(">HI", *pair) for pair in pairs))
    return [Case({_NAME: file}, _NAME) for file in files]


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The text, and the words."""
    at = data.find(_LAST)
    at = at + len(_LAST) if at >= 0 else max(0, data.rfind(b"\r\n", 0, 400) + 2)
    return data[:at], data[at:]


def times(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Back and forth, wrapping again and again, or far apart."""
    head, body = _split(data)
    count = max(1, len(body) // 8)
    match int(rng.integers(3)):
        case 0:
            new = rng.integers(0, WRAP, count)
        case 1:
            new = np.where(np.arange(count) % int(rng.choice([2, 50, 300])) == 0, WRAP - 1, 1_000)
        case 2:
            new = (np.arange(count) * int(rng.choice([1, 11_000_000, WRAP // 3]))) % WRAP
    records = np.frombuffer(body, ">u4", 2 * (len(body) // 8)).copy()
    records[1::2] = new[: len(records) // 2]
    return head + records.tobytes()


def words(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Coordinates outside, samples of images and of motion among events."""
    head, body = _split(data)
    records = np.frombuffer(body, ">u4", 2 * (len(body) // 8)).copy()
    for k in rng.integers(0, max(1, len(records) // 2), int(rng.choice([1, 20, 600]))).tolist():
        records[2 * k : 2 * k + 1] = int.from_bytes(lie(rng, 4), "little")
    return head + records.tobytes()


def header_text(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Lines that are missing, endless, of another version, another chip, or that are events."""
    head, body = _split(data)
    old, new = _HEADERS[int(rng.integers(len(_HEADERS)))]
    if old:
        return head.replace(old, new) + body
    return ANY_BYTES[str(rng.choice(sorted(ANY_BYTES)))](rng, head, head) + body


_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"", b""),
    (b"", b""),
    (b"2.0", b"1.0"),
    (b"2.0", b"2.1"),
    (b"davis.D", b"davis.Unknown\x1b[31m"),
    (b"DVS128", b"DAVIS240C"),
    (b"#End", b"#" + b"a" * (1 << 22)),
    (b"#End", b"# a\r\n" * 300_000 + b"#End"),
    (b"\r\n", b"\n"),
    (b"\r\n", b"\r"),
    (_LAST, b"#" * 4000),
    (b"#", b"#\x00"),
)


def long_and_empty(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Megabytes of one word, or of one byte."""
    head, body = _split(data)
    word = body[:8] if rng.random() < 0.5 else lie(rng, 8)
    return head + word * int(rng.choice([70_000, 500_000]))


_KNOWING: Mapping[str, Harm] = {
    "times back and forth": times,
    "words out of range": words,
    "the text is odd": header_text,
    "long and empty": long_and_empty,
}

AEDAT2 = Format("AEDAT 2.0", seeds, of_files(ANY_BYTES) | knowing(_KNOWING), (decoder, replay, info, label, upload))
