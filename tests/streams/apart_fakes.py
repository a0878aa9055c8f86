"""What a process apart may be given to open: decoders that do what a file says, such as to hang or to crash."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streams import RecordingError
from streams.items import EventPacket, Item, RgbFrame
from tests.conftest import random_events

PACKET_EVENTS = 100_000


def packet(number: int) -> EventPacket:
    """A packet by its number."""
    start = 1_000_000 + 10_000 * number
    return EventPacket(start, start + 10_000, random_events(PACKET_EVENTS, start, start + 10_000, seed=number))


def frame(number: int) -> RgbFrame:
    """A frame by its number, in colours or grey."""
    shape = (48, 64, 3) if number % 2 else (48, 64)
    return RgbFrame(number, number + 5, np.full(shape, number, np.uint8))


class Decoder:
    """Does what the file names when it is opened, or when it is read."""

    def __init__(self, path: Path, *, size: tuple[int, int] = (64, 48)) -> None:
        self.counts: Counter[str] = Counter()
        self.size, self.pid, self._text = size, os.getpid(), path.read_text()
        self.counts["seen at once"] = 2
        when, _, what = self._text.partition(" ")
        if when == "open":
            _do(what, path)

    def items(self, count: int, first: int = 0) -> Iterator[Item]:
        """Packets, then a frame for each of them."""
        for number in range(first, first + count):
            self.counts["seen"] += 1
            yield packet(number)
        yield from map(frame, range(count))

    def made(self) -> Iterator[Item]:
        """How many packets there were until now, as the time of a frame."""
        yield RgbFrame(self.counts["seen"], self.counts["seen"], frame(1).image)

    def many(self, colour: int) -> Iterator[Item]:
        """Frames of one colour, several to an answer."""
        image = np.full((512, 512, 3), colour, np.uint8)
        yield from (RgbFrame(k, k + 1, image) for k in range(100))

    def bad(self, path: str) -> Iterator[Item]:
        """A packet, and then what the file says."""
        yield packet(0)
        yield packet(1)
        _do(self._text.partition(" ")[2], Path(path))

    def close(self) -> None:
        """Nothing is open."""


def _do(what: str, path: Path) -> None:
    match what:
        case "hang":  # and hold the interpreter's lock
            re.match(r"(a|a)+$", "a" * 64 + "b")
        case "sleep":
            time.sleep(600)
        case "crash":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "eat":
            np.ones(1 << 31, np.uint8)
        case "refuse":
            raise RecordingError(f"{path}: holds nothing; record again")
        case "object":
            raise ValueError(f"{path} is not to its taste")
        case "fail":
            raise KeyError("a defect")
        case "write":
            os.write(1, b"noise" * 100)
            print("noise")


class Crashing(Decoder):
    """Crashes in a process that has opened something before."""

    opened = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        Crashing.opened += 1
        if Crashing.opened > 1:
            ctypes.string_at(0)
