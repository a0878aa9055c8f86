"""Lists of clips as HARDVS and PokerEvent have them, as the fuzzer has them: lines, numbers, paths, class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.random import Generator

from app.datasets import open_dataset
from tests.app.fakes import PoolHere
from tests.trust.fuzz.child import DATA
from tests.trust.fuzz.harness import Case, Format
from tests.trust.fuzz.images import picture
from tests.trust.fuzz.labels import encodings
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, of_files
from tests.trust.fuzz.routes import line

_TRAIN = ("walk/walk_1", "walk/walk_2", "sit down/sit_1", "sit down/sit_2")
_VAL, _TEST = ("walk/walk_3", "sit down/sit_3"), ("walk/walk_4",)
_CLASSES = "classes.txt"
_LONGEST = 800  # characters, at which the program cuts what it says


def seeds(folder: Path) -> Sequence[Case]:
    """With and without the names of classes, and those names themselves."""
    lists = {"train_label.txt": _lines(_TRAIN), "test_label.txt": _lines(_TEST)}
    named = {**lists, _CLASSES: b"walk\nsit down\n"}
    files = _pictures()
    return [
        Case({**files, **lists}, "train_label.txt"),
        Case({**files, **named}, "train_label.txt"),
        Case({**files, **named}, _CLASSES),
        Case({**files, **named, "val_label.txt": _lines(_VAL)}, "val_label.txt"),
    ]


def _lines(clips: Sequence[str]) -> bytes:
    return "".join(f"{clip} 2 {int(clip.startswith('sit'))}\n" for clip in clips).encode()


def _pictures() -> Mapping[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (26, 34, 3), np.uint8)
    names = [(clip, clip.rpartition("/")[2]) for clip in (*_TRAIN, *_VAL, *_TEST)]
    return {
        f"{clip}/{name}_{kind}/{number:08d}.png": picture(pixels, "png")
        for clip, name in names
        for kind in ("aps", "dvs")
        for number in (0, 5)
    }


def data_set(path: Path) -> str:
    """a data set to train on, all its splits."""
    folder, found = path.parent, 0
    for split in ("train", "val", "test"):
        try:
            with patch("app.datasets.pool_of", PoolHere):
                data = open_dataset(str(folder), split, folder / "cache", size=32)
        except ValueError as error:
            line(str(error)[:_LONGEST])
            continue
        assert all(clip.images([0]).shape == (1, 2, 32, 32, 3) for clip in data.clips)
        assert all(0 <= span.label < len(data.labels) for clip in data.clips for span in clip.spans)
        found += 1
    return DATA if found else line("none of its splits can be read: see the lists")


# --- harm -------------------------------------------------------------------------------------------------------------

_WORDS = (
    *("", " ", "0", "-1", "1", "999999", "1000000", "9" * 5000, "1.5", "nan", "٣", "a" * 300, "b" * 140_000),
    *("../../etc", "..", ".", "/etc", "/", "walk", "walk/", "walk//walk_1", "walk/../walk/walk_1", "./walk/walk_1"),
    *("\x00", "a\x00b", "\x1b[31m", "\u2028", "\u202e", "\ufeff", "file:///etc", "C:\\Windows", "walk\\walk_1", "~"),
)


def words(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Odd paths, numbers and names in some lines."""
    lines = data.decode(errors="replace").split("\n")
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        k = int(rng.integers(len(lines)))
        parts = lines[k].split(" ")
        parts[int(rng.integers(len(parts)))] = _WORDS[int(rng.integers(len(_WORDS)))]
        lines[k] = " ".join(parts)
    return "\n".join(lines).encode()


def lines(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Repeated, of another file, many, or none."""
    own = data.splitlines(keepends=True) or [b""]
    match int(rng.integers(5)):
        case 0:
            return b"".join(own[k] for k in rng.integers(0, len(own), 2 * len(own)).tolist())
        case 1:
            return data + b"\n" * 1_000_000 + other
        case 2:
            return b"nothing/there_%d 1 0\n" * 3_000 + data
        case 3:
            return data.replace(b"\n", b" ")
    return b""


def classes(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Other labels for the same clips."""
    changed = []
    for own in data.splitlines():
        head, _, last = own.rpartition(b" ")
        label = rng.choice([int(last), 0, 1, 2, 5_000, 60_000, 999_999]) if last.isdigit() else 0
        changed.append(head + b" %d" % int(label))
    return b"\n".join(changed)


_KNOWING: Mapping[str, Harm] = {
    "odd words": words,
    "odd words, again": words,
    "lines": lines,
    "labels": classes,
    "encodings": encodings,
}

LISTS = Format("lists of HARDVS and PokerEvent", seeds, of_files(ANY_BYTES) | of_files(_KNOWING), (data_set,))
