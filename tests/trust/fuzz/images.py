"""Folders of images as HARDVS and PokerEvent have them, as the fuzzer has them: pictures, and which there are."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image as Pictures

from tests.trust.fuzz.harness import Case, Format, Mutator
from tests.trust.fuzz.mutations import ANY_BYTES, lie, of_files, put
from tests.trust.fuzz.routes import decoder, info, label, replay

_CLIP = "clip"
_SIZE = (34, 26)
_NUMBERS = range(0, 50, 5)


def seeds(folder: Path) -> Sequence[Case]:
    """PNG, JPEG, grey ones, and both kinds in one clip."""
    return [_clip(*kinds) for kinds in (("png", "png"), ("jpeg", "jpeg"), ("png", "jpeg"), ("grey", "grey"))]


def _clip(aps: str, dvs: str) -> Case:
    rng = np.random.default_rng(0)
    files = {}
    for number in _NUMBERS:
        for place, kind in (("aps", aps), ("dvs", dvs)):
            pixels = rng.integers(0, 256, (_SIZE[1], _SIZE[0], 3), np.uint8)
            files[_name(number, place, "jpg" if kind == "jpeg" else "png")] = picture(pixels, kind)
    return Case(files, _CLIP)


def _name(number: int, place: str, suffix: str) -> str:
    return f"{_CLIP}/{_CLIP}_{place}/{number:08d}.{suffix}"


def picture(pixels: np.ndarray, kind: str) -> bytes:
    """A file of it: "png", "jpeg" or "grey"."""
    file = io.BytesIO()
    picture = Pictures.fromarray(pixels)
    (picture.convert("L") if kind == "grey" else picture).save(file, "JPEG" if kind == "jpeg" else "PNG")
    return file.getvalue()


def _of_picture(change: Callable[[Generator, bytes], bytes]) -> Mutator:
    """One picture of a clip, or all of them."""

    def mutator(rng: Generator, case: Case, other: Case) -> Case:
        names = sorted(case.files)
        chosen = names if rng.random() < 0.2 else [str(rng.choice(names))]
        return case.but(**{name: change(rng, case.files[name]) for name in chosen})

    return mutator


def chunks(rng: Generator, data: bytes) -> bytes:
    """A chunk of PNG, or a segment of JPEG, that lies of its length, with a sum that is right."""
    if not data.startswith(b"\x89PNG"):
        at = int(rng.choice([k for k in range(len(data) - 4) if data[k] == 0xFF] or [0]))
        return put(data, at + 2, lie(rng, 2))
    at = int(rng.choice([8, data.find(b"IDAT") - 4, data.find(b"IEND") - 4]))
    return put(data, max(0, at), lie(rng, 4, order=">"))


def claimed_size(rng: Generator, data: bytes) -> bytes:
    """A PNG of any width and height, of any depth, with a right sum; a JPEG's likewise."""
    if not data.startswith(b"\x89PNG"):
        at = max(data.find(b"\xff\xc0"), 0)
        return put(data, at + 5, lie(rng, 2, order=">") + lie(rng, 2, order=">"))
    side = (0, 1, 8191, 8192, 8193, 30_000, 65_535, (1 << 31) - 1, 1 << 31)
    width, height = (int(rng.choice(side)) for _ in range(2))
    head = struct.pack(
        ">IIBBBBB", width, height, int(rng.choice([1, 8, 16, 77])), int(rng.choice([0, 2, 3, 6])), 0, 0, 0
    )
    return data[:8] + _chunk(b"IHDR", head) + data[33:]


def bomb(rng: Generator, data: bytes) -> bytes:
    """A small PNG of as many pixels as may be, or more; with a text that unpacks to much."""
    side = int(rng.choice([2_000, 8_192, 8_193]))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    text = _chunk(b"zTXt", b"a\0\0" + _packed_zeros(1 << 26)) if rng.random() < 0.3 else b""
    pixels = _chunk(b"IDAT", _packed_zeros(side * (3 * side + 1)))
    return data[:8] + _chunk(b"IHDR", head) + text + pixels + _chunk(b"IEND", b"")


@functools.cache
def _packed_zeros(count: int) -> bytes:
    return zlib.compress(bytes(count))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def other_formats(rng: Generator, data: bytes) -> bytes:
    """A picture of another format, or of another size, under the same name."""
    pixels = np.zeros((20, 20, 3), np.uint8)
    file = io.BytesIO()
    Pictures.fromarray(pixels).save(file, str(rng.choice(["BMP", "GIF", "TIFF", "WEBP", "PPM", "PNG", "JPEG", "ICO"])))
    return file.getvalue()


def names(rng: Generator, case: Case, other: Case) -> Case:
    """Pictures that are missing, have numbers that cannot be, or are in one of both folders only."""
    files = dict(case.files)
    for _ in range(int(rng.integers(1, 12))):
        name = str(rng.choice(sorted(files)))
        data = files.pop(name)
        stem = str(rng.choice(["0", "-1", "999999999999", "9" * 40, "٣", "1e9", "x", " 7", "00000005 (1)"]))
        if rng.random() < 0.7:
            files[f"{name.rpartition('/')[0]}/{stem}.{name.rpartition('.')[2]}"] = data
    files[f"{_CLIP}/{_CLIP}_aps/notes.txt"] = b"nothing"
    files[f"{_CLIP}/{_CLIP}_dvs/notes.txt"] = b"nothing"
    return Case(files, case.address)


_KNOWING: Mapping[str, Mutator] = {
    "chunks lie": _of_picture(chunks),
    "sizes that are claimed": _of_picture(claimed_size),
    "bombs": _of_picture(bomb),
    "other formats and sizes": _of_picture(other_formats),
    "odd names": names,
}

IMAGES = Format("folders of images", seeds, of_files(ANY_BYTES) | _KNOWING, (decoder, replay, info, label))
