"""Prophesee RAW and DAT, and .es, as the fuzzer has them: a header, and words of some bytes, each harmed by itself."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from streams.items import Events
from tests.conftest import random_events
from tests.streams.test_prophesee import SIZE, dat, es, evt2, evt3
from tests.trust.fuzz.harness import Case, Format
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, lie, of_files, put
from tests.trust.fuzz.routes import decoder, info, label, replay

_EVENTS = random_events(600, 1_000, 300_000, SIZE)
_RATE = 50_000  # microseconds that a hole lasts
_ES_HEAD = 20
_MOST_WORDS = 2_000  # that are changed one by one


def _seeds(name: str, write: Callable[[Events], bytes], heads: Sequence[bytes], folder: Path) -> Sequence[Case]:
    """With each of the headers; events spread evenly, at one moment, and with holes between them."""
    burst, holes = _EVENTS.copy(), _EVENTS.copy()
    burst["t"] = 1_000 + np.arange(len(burst)) // 300
    holes["t"] += np.arange(len(holes)) // 100 * _RATE
    first, *others = heads
    files = [first + write(events) for events in (_EVENTS, burst, holes)]
    files += [head + write(_EVENTS) for head in others]
    return [Case({name: file}, name) for file in files]


def _head_of(data: bytes) -> int:
    """Where the words begin, as far as can be told."""
    if data.startswith(b"Event Stream"):
        return _ES_HEAD
    at = 0
    while data.startswith(b"% ", at) and (end := data.find(b"\n", at)) >= 0:
        at = end + 1
    return at


def header_text(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Lines that are missing, endless, of another version or size, or none."""
    at = _head_of(data)
    head, body = data[:at], data[at:]
    if data.startswith(b"Event Stream") or rng.random() < 0.3:
        return ANY_BYTES[str(rng.choice(sorted(ANY_BYTES)))](rng, head, other[:_ES_HEAD]) + body
    old, new = _LINES[int(rng.integers(len(_LINES)))]
    return head.replace(old, new) + body


_LINES: tuple[tuple[bytes, bytes], ...] = (
    (b"64", b"0"),
    (b"64", b"1"),
    (b"64", b"99999"),
    (b"64", b"8192"),
    (b"64", b"9" * 5_000),
    (b"48", b"-48"),
    (b"48", b"2147483648"),
    (b"2.0", b"3.0"),
    (b"3.0", b"2.0"),
    (b"2.0", b"2.1"),
    (b"EVT3", b"EVT2"),
    (b"EVT3", b"\x1b[31mEVT9"),
    (b"Version 2", b"Version 1"),
    (b"% ", b"% a\n% "),
    (b"\n", b"\r\n"),
    (b"\n", b""),
    (b"% ", b"%"),
    (b"% ", b"% " + b"k" * (1 << 17)),
    (b"% ", b"% a b\n" * 20_000),
)


def words(size: int, kinds: int, rng: Generator, data: bytes, other: bytes) -> bytes:
    """Words of any kind with any content; `kinds` is by how many bits the kind stands in the word, 0 for none."""
    at, changed = _head_of(data), bytearray(data)
    count = min(_MOST_WORDS, (len(data) - at) // size)
    for k in rng.integers(0, count, int(rng.choice([1, 20, count]))).tolist() if count else ():
        word = int.from_bytes(rng.bytes(size), "little")
        if kinds and rng.random() < 0.7:
            word = word & ((1 << kinds) - 1) | int(rng.integers(16)) << kinds
        changed[at + k * size : at + (k + 1) * size] = word.to_bytes(size, "little")
    return bytes(changed)


def one_word(size: int, rng: Generator, data: bytes, other: bytes) -> bytes:
    """Megabytes of one word."""
    at = _head_of(data) + size * int(rng.integers(50))
    word = data[at : at + size] if rng.random() < 0.5 else rng.bytes(size)
    return data + word * (int(rng.choice([1 << 16, 1 << 21])) // size)


def shifted(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Words that begin at odd places."""
    at = _head_of(data) + int(rng.integers(200))
    return data[:at] + rng.bytes(int(rng.integers(1, 8))) + data[at:]


def es_head(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Version, kind of events, width and height."""
    at, size = ((12, 1), (13, 1), (14, 1), (15, 1), (16, 2), (18, 2))[int(rng.integers(6))]
    return put(data, at, bytes([int(rng.integers(6))]) if size == 1 else lie(rng, size))


def es_steps(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Resets, and holes that last for long, where an event should be."""
    at = _ES_HEAD + int(rng.integers(len(data) - _ES_HEAD)) if len(data) > _ES_HEAD else 0
    return data[:at] + bytes([int(rng.choice([0xFE, 0xFF]))]) * int(rng.choice([1, 100, 1 << 20])) + data[at:]


def dat_kind(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The kind of events and their size."""
    return put(data, _head_of(data), bytes(rng.choice([0x00, 0x01, 0x08, 0x0C, 0x0E, 0x28, 0xFF], 2).astype(np.uint8)))


def dat_times(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Back and forth, wrapping, or far apart."""
    at, changed = _head_of(data) + 2, bytearray(data)
    for k in range(min(_MOST_WORDS, (len(data) - at) // 8)):
        if rng.random() < 0.3:
            time = int(rng.choice([0, 1, k * 7_000_000, (1 << 32) - 1 - k])) % (1 << 32)
            changed[at + 8 * k : at + 8 * k + 4] = struct.pack("<I", time)
    return bytes(changed)


def _format(name: str, file: str, write: Callable[[Events], bytes], heads: Sequence[bytes], **harms: Harm) -> Format:
    named: Mapping[str, Harm] = {key.replace("_", " "): harm for key, harm in harms.items()}
    mutators = of_files({**ANY_BYTES, "the header is odd": header_text, "words at odd places": shifted, **named})
    return Format(name, partial(_seeds, file, write, heads), mutators, (decoder, replay, info, label))


EVT2 = _format(
    "EVT 2",
    "case.raw",
    evt2,
    (
        b"% evt 2.0\n% geometry 64x48\n",
        b"% evt 2.0\n% format EVT2;height=48;width=64\n% end\n",
        b"% date 2026-11-21\n% plugin_name hal_plugin_gen3_fx3\n",
    ),
    words_of_any_kind=partial(words, 4, 28),
    long_and_empty=partial(one_word, 4),
)
EVT3 = _format(
    "EVT 3",
    "case.raw",
    evt3,
    (b"% evt 3.0\n% format EVT3;height=48;width=64\n% end\n", b"% evt 3.0\n% geometry 64x48\n"),
    words_of_any_kind=partial(words, 2, 12),
    long_and_empty=partial(one_word, 2),
)
DAT = _format(
    "DAT",
    "case.dat",
    dat,
    (b"% Data file containing CD events\n% Version 2\n% Width 64\n% Height 48\n",),
    words_of_any_kind=partial(words, 8, 0),
    long_and_empty=partial(one_word, 8),
    kinds_of_events=dat_kind,
    times_back_and_forth=dat_times,
)
ES = _format(
    ".es",
    "case.es",
    es,
    (b"",),
    words_of_any_kind=partial(words, 5, 0),
    long_and_empty=partial(one_word, 5),
    facts_of_the_header_lie=es_head,
    holes_and_resets=es_steps,
)
