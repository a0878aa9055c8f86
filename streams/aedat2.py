"""AEDAT 2.0 and 1.0 recordings (jAER): text lines, then a word and a time for each event, big-endian.

    with Aedat2Source("DVS128-2013.aedat", chip="DVS128") as source: ...

2.0 has words of 32 bits, 1.0 of 16 bits; times are unsigned 32-bit microseconds that wrap after 71 minutes. What a word
means depends on the chip, which newer headers name (`# AEChip: ...`); for others it has to be given.

Coordinates and polarity are as jAER shows them, but from the top left corner. The extractors of its chip classes
(DVS128.java, DavisBaseCamera.java) mirror x and have y grow upward, so both are turned here; libcaer (dvs128.c) does
the same with what a DVS128 sends. A polarity bit of 0 is ON from a DVS128 and OFF from a DAVIS. Where the description
of the format by iniVation differs, for x and the DVS128's polarity, jAER is believed: it wrote the files.

APS and IMU samples are passed over: the frames of a DAVIS are not decoded.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from streams.aedat_header import Header, read_at, read_header
from streams.errors import RecordingError
from streams.words import CHUNK, DVS128, Chip, Times, WordFile, Words, find_chip


class Aedat2Source(WordFile):
    """The events of an AEDAT 2.0 or 1.0 file; APS and IMU samples are passed over, see `others`.

    `chip` is "DVS128", "DAVIS240", "DAVIS346", ... and is needed where the header names none; given, it is believed.

    Opening looks at one time in 65,536 to know where the chunks begin, and reads a chunk only where these times tell
    that they may have wrapped within it. A chunk that lasted more than 71 minutes may so be taken for a shorter one.

    Raises RecordingError where the file is not of this format, its chip is unknown, or it holds no events.
    """

    format = "AEDAT 2"
    hardened = True
    options = frozenset({"chip"})

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        return head.startswith((b"#!AER-DAT2.0", b"#!AER-DAT1.0"))

    def __init__(self, path: str | Path, chip: str | None = None) -> None:
        super().__init__(path)
        try:
            header = read_header(self._file, self.path, versions=("1.0", "2.0"))
            self.event_size, self.layout = self._chip(header, chip)
            self._first = header.size  # byte of the file
            self._record = np.dtype([("word", ">u4" if header.version == "2.0" else ">u2"), ("t", ">u4")])
            self._starts, self._epochs = self._index(self._count())
            self.span_us = self._span()
        except BaseException:
            self.close()
            raise

    def _chip(self, header: Header, given: str | None) -> Chip:
        named = filter(None, (re.match(r"\s*AEChip: *(.*)", line) for line in header.lines))
        name = given or next((match[1] for match in named), "")
        found = find_chip(name)
        if found is not None and (header.version == "2.0" or found.layout is DVS128):
            return found
        what = f"the chip {name[:80]!r} is not known in AEDAT {header.version}" if name else "its header names no chip"
        raise RecordingError(f"{self.path}: {what}; give one with --chip: DVS128, DAVIS240 or DAVIS346")

    def _count(self) -> int:
        """How many words there are; what is missing of the last one is counted."""
        count, rest = divmod(self._file.seek(0, 2) - self._first, self._record.itemsize)
        self.counts += Counter({"bytes missing at the end": (self._record.itemsize - rest) * bool(rest)})
        if not count:
            raise RecordingError(f"{self.path}: holds no events; record again, or choose another file")
        return count

    def _index(self, count: int) -> tuple[Times, Times]:
        """When each chunk begins, and how much of that time comes from wraps."""
        stamps = np.concatenate([self._read(first, 1)[1] for first in range(0, count, CHUNK)])
        steps, wraps = np.diff(stamps), np.zeros(len(stamps), np.int64)
        for number in np.flatnonzero((steps < 0) | (steps > _FAR // 3)).tolist():
            wraps[number + 1] = _wraps(self._read(number * CHUNK, CHUNK + 1)[1])[-1]
        epochs = np.cumsum(wraps) << 32
        return np.maximum(0, stamps + epochs), epochs

    def _words(self, number: int) -> tuple[Words, Times]:
        words, stamps = self._read(number * CHUNK, CHUNK)
        if len(stamps) and np.ptp(stamps) > _FAR:
            stamps += _wraps(stamps) << 32
        return words, stamps + self._epochs[number]

    def _read(self, first: int, count: int) -> tuple[Words, Times]:
        """Words and times as they are stored."""
        size = self._record.itemsize
        data = read_at(self._file, self._first + first * size, count * size)
        records = np.frombuffer(data, self._record, len(data) // size)
        return records["word"].astype(np.uint32), records["t"].astype(np.int64)

    def _pass_over(self, words: Words) -> None:
        samples, imu = int((words >> 31).sum()), int((words & 0x8000_0C00 == 0x8000_0C00).sum())
        other = len(words) - samples
        self.others += Counter({"APS samples": samples - imu, "IMU words": imu, "external events": other})


_FAR = 3 << 30  # further in one step, 32 bits have wrapped; what one flipped bit does is less


def _wraps(stamps: Times) -> Times:
    """How often 32 bits have wrapped at each of the stamps since the first."""
    steps = np.diff(stamps, prepend=stamps[:1])
    return np.cumsum(np.where(steps < -_FAR, 1, np.where(steps > _FAR, -1, 0)))
