"""Harm that fits any file: bytes that are flipped, cut, joined, overwritten, repeated, or made to claim too much."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence

from numpy.random import Generator

from tests.trust.fuzz.harness import Case, Mutator

#: Changes bytes; the second ones are of another good file.
Harm = Callable[[Generator, bytes, bytes], bytes]

#: What a length, an offset or a count may claim.
LIES = (0, 1, -1, 7, 255, 256, 65_535, 65_536, (1 << 24) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
LONG_LIES = (*LIES, 1 << 40, (1 << 61) - 1, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)


def place(rng: Generator, data: bytes, size: int = 1) -> int:
    """Where `size` bytes may be changed; the beginning, where headers are, as often as all the rest."""
    most = max(1, len(data) - size + 1)
    return int(rng.integers(min(most, 1024) if rng.random() < 0.5 else most))


def put(data: bytes, at: int, new: bytes) -> bytes:
    """The same length with other bytes in one place."""
    return data[:at] + new[: max(0, len(data) - at)] + data[at + len(new) :]


def lie(rng: Generator, size: int, honest: int | None = None, order: str = "<") -> bytes:
    """A number of 1, 2, 4 or 8 bytes that claims something else; off by one of an honest one, sometimes."""
    values = list(LONG_LIES if size == 8 else LIES)
    if honest is not None:
        values += [honest + 1, honest - 1, 2 * honest, -honest] * 3
    value = values[int(rng.integers(len(values)))] & ((1 << (8 * size)) - 1)
    return struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value)


def few_flips(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A few bits."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        if changed:
            changed[place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def many_flips(rng: Generator, data: bytes, other: bytes) -> bytes:
    """About one byte in a hundred."""
    changed = bytearray(data)
    for at in rng.integers(0, max(1, len(data)), len(data) // 100).tolist():
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The end is missing."""
    return data[: place(rng, data)]


def beheaded(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The beginning is missing."""
    return data[place(rng, data) :]


def spliced(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of another."""
    return data[: place(rng, data)] + other[place(rng, other) :]


def run_of_one_byte(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Zeros, or bytes of ones, as a disk leaves them."""
    size = int(rng.choice([1, 4, 16, 512, 4096]))
    return put(data, place(rng, data, size), bytes([int(rng.choice([0, 255]))]) * size)


def noise(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A stretch of chance."""
    size = int(rng.choice([4, 64, 4096]))
    return put(data, place(rng, data, size), rng.bytes(size))


def repeated(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A stretch stands there twice."""
    at = place(rng, data)
    size = int(rng.choice([1, 8, 64, 4096]))
    return data[: at + size] + data[at:]


def missing(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A stretch is left out."""
    at = place(rng, data)
    return data[:at] + data[at + int(rng.choice([1, 8, 64, 4096])) :]


def lying_number(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A number somewhere claims something else."""
    size = int(rng.choice([1, 2, 4, 8]))
    return put(data, place(rng, data, size), lie(rng, size))


def tagged(tags: Sequence[bytes], reach: int) -> Harm:
    """Numbers claim something else within `reach` bytes behind one of the names that blocks of a format begin with."""

    def harm(rng: Generator, data: bytes, other: bytes) -> bytes:
        found = [match.end() for match in re.finditer(b"|".join(map(re.escape, tags)), data)] or [0]
        start = found[int(rng.integers(len(found)))]
        for _ in range(int(rng.integers(1, 4))):
            size = int(rng.choice([1, 2, 4, 8]))
            data = put(data, start + int(rng.integers(reach)), lie(rng, size, order=str(rng.choice(["<", ">"]))))
        return data

    return harm


def odd_whole(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Nothing, one byte, chance alone, or much too much behind it."""
    return [b"", data[:1], rng.bytes(5000), data + bytes(1 << 20), data + data][int(rng.integers(5))]


ANY_BYTES: Mapping[str, Harm] = {
    "a few bits flipped": few_flips,
    "many bits flipped": many_flips,
    "cut": cut,
    "beheaded": beheaded,
    "spliced": spliced,
    "a run of one byte": run_of_one_byte,
    "noise": noise,
    "a stretch repeated": repeated,
    "a stretch missing": missing,
    "a lying number": lying_number,
    "odd as a whole": odd_whole,
}


def of_file(harm: Harm) -> Mutator:
    """Harm to the addressed file; where a folder is addressed, to any file in it."""

    def mutator(rng: Generator, case: Case, other: Case) -> Case:
        name = case.address if case.address in case.files else str(rng.choice(sorted(case.files)))
        own = case.files[name]
        theirs = list(other.files.values())
        changed = harm(rng, own, other.files.get(name, theirs[int(rng.integers(len(theirs)))]))
        return case.but(**{name: changed})

    return mutator


def of_files(harms: Mapping[str, Harm]) -> dict[str, Mutator]:
    """A mutator of each harm."""
    return {name: of_file(harm) for name, harm in harms.items()}
