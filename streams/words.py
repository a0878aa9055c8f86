"""Files of before AEDAT 4: a word and a time for each event. What a word means depends on the chip."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.event_file import EventFile
from streams.files import open_recording
from streams.items import EVENT_DTYPE, Events
from streams.source import JUMP_US

CHUNK = 1 << 16  # words that are read at a time
_MAX_STEPS = 64  # back in time, in one chunk; more are damage, not a clock that was set back

Words = NDArray[np.uint32]
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a word holds the pixel and the polarity of an event; `word & mask` is `value` where it is one at all."""

    x: tuple[int, int]  # its lowest bit, and how many there are
    y: tuple[int, int]
    polarity: int  # its bit
    on: int  # what that bit is for ON
    mask: int
    value: int
    mirrored: bool  # x is counted from the right
    upward: bool  # y is counted from the bottom

    def is_event(self, words: Words) -> NDArray[np.bool_]:
        return np.asarray((words & np.uint32(self.mask)) == self.value)

    def decode(self, words: Words, times: Times, size: tuple[int, int], counts: Counter[str]) -> Events:
        """Events [n] of words [n] that all are events; what cannot be is dropped and counted. `size` is (w, h)."""
        x, y = (words >> first & ((1 << bits) - 1) for first, bits in (self.x, self.y))
        for reason, good in (
            ("events outside the sensor, dropped", (x < size[0]) & (y < size[1])),
            ("events before time began, dropped", times >= 0),
        ):
            if not good.all():
                counts[reason] += len(good) - int(good.sum())
                return self.decode(words[good], times[good], size, counts)
        events = np.zeros(len(words), EVENT_DTYPE)
        events["t"] = times
        events["x"] = size[0] - 1 - x if self.mirrored else x
        events["y"] = size[1] - 1 - y if self.upward else y
        events["p"] = words >> self.polarity & 1 == self.on
        return events


DVS128 = Layout((1, 7), (8, 7), 0, on=0, mask=0x8000_8000, value=0, mirrored=True, upward=True)
DAVIS = Layout((12, 10), (22, 9), 11, on=1, mask=0x8000_0400, value=0, mirrored=True, upward=True)


class Chip(NamedTuple):
    """A sensor that AEDAT files come from: its size (width, height), and its words in AEDAT 2.0."""

    size: tuple[int, int]
    layout: Layout


_SIZES = {128: (128, 128), 208: (208, 192), 240: (240, 180), 346: (346, 260), 640: (640, 480)}
#: By how their names begin in headers, whatever follows: a revision, a colour filter. aedat4to2 writes `DAVI346`.
CHIPS = {name: Chip((128, 128), DVS128) for name in ("dvs128", "tmpdiff128")}
CHIPS |= {f"{name}{width}": Chip(size, DAVIS) for width, size in _SIZES.items() for name in ("davis", "davi")}
CHIPS["sbret"] = CHIPS["davis240"]


def find_chip(name: str) -> Chip | None:
    """The chip of a name or of a jAER class (`eu.seebetter.ini.chips.davis.DAVIS240C`); None for an unknown one."""
    name = name.strip().rpartition(".")[2].lower()
    return next((chip for start, chip in CHIPS.items() if name.startswith(start)), None)


class WordFile(EventFile):
    """A file of words with a time each, in chunks of which the first times are known. Derive, and set these."""

    path: Path
    layout: Layout
    event_size: tuple[int, int]
    _starts: Times  # [chunks], of the first word of each

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.others: Counter[str] = Counter()  # what else is in the file, as far as it has been read
        self._file = open_recording(self.path)

    def close(self) -> None:
        self._file.close()

    def stored(self, from_us: int | None) -> Iterator[Events]:
        for number in range(0 if from_us is None else self._chunk_before(from_us), len(self._starts)):
            words, times = self._words(number)
            is_event = self.layout.is_event(words)
            if not is_event.all():
                self._pass_over(words[~is_event])
                words, times = words[is_event], times[is_event]
            yield from without_steps_back(self.layout.decode(words, times, self.event_size, self.counts))

    @abstractmethod
    def _words(self, number: int) -> tuple[Words, Times]:
        """The words of a chunk and their times in microseconds."""

    @abstractmethod
    def _pass_over(self, words: Words) -> None:
        """Count words that are not events."""

    def _chunk_before(self, time_us: int) -> int:
        """The last chunk with an event before a time, the first where there is none."""
        number = int(np.searchsorted(np.maximum.accumulate(self._starts), time_us)) - 1
        while number > 0 and not (self._event_times(number) < time_us).any():
            number -= 1
        return max(0, number)

    def _event_times(self, number: int) -> Times:
        words, times = self._words(number)
        return times[self.layout.is_event(words) & (times >= 0)]

    def _span(self) -> tuple[int, int]:
        """Times of the first event and the last one, of which the first and the last chunk tell."""
        first, last = self._event_times(0), self._event_times(len(self._starts) - 1)
        times = np.concatenate([first[:1], self._starts[min(1, len(first)) :], last[-1:]])
        return int(times.min()), int(times.max())


def without_steps_back(events: Events) -> Iterator[Events]:
    """The events in pieces between which the clock was set back: sorted as one, before and after would mix."""
    steps = np.flatnonzero(np.diff(events["t"]) < -JUMP_US) + 1
    yield from np.split(events, steps) if len(steps) <= _MAX_STEPS else [events]
