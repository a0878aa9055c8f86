"""The process that decoders of strangers' files work in, so that one that hangs, crashes or eats memory harms no other.

    python -P -m streams.worker [MEMORY]       started, asked and ended by streams/worker_process.py

It reads requests on its standard input, an object of JSON a line, and answers each on its standard output, with a
parcel (streams/parcels.py). MEMORY is the descriptor of memory that it shares with the one that asks.

    open     a class as module:name, with path, options, limits        facts: these attributes of its instance
             and facts
    next     the number of an iteration, where it is new with a        some of its items, and with the last of them end
             method and arguments; drop: numbers of others to forget
    close                                                              nothing

An answer tells in counts what was lost since the one before, or else a fault, what kind of error, and its text. Who
takes too long for an answer says no more: see streams/limits.py.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Any

from streams.items import EventPacket, Item, RgbFrame
from streams.limits import Limits
from streams.parcels import Parcel, send

_ANSWER_BYTES, _ANSWER_S = 1 << 22, 0.05  # an answer has so much, unless it takes so long


class Opened:
    """A file that is open, and the iterations over what it holds."""

    def __init__(self, request: dict[str, Any]) -> None:
        path, (module, name) = Path(request["path"]), request["open"].split(":")
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in request["options"].items()}
        self._limits = Limits(**request["limits"])
        self._limits.begin()
        with self._limits.answering():
            self._opened = getattr(importlib.import_module(module), name)(path, **options)
            self.facts = {name: getattr(self._opened, name) for name in request["facts"]}
        self._iterations: dict[int, Iterator[Item]] = {}
        self._told: Counter[str] = Counter()

    def next(self, request: dict[str, Any]) -> Parcel:
        """Some items of an iteration."""
        for number in request.get("drop", ()):
            self._iterations.pop(number, None)
        number = request["next"]
        with self._limits.answering():
            if "method" in request:
                method = getattr(self._opened, request["method"])
                self._iterations[number] = iter(method(*request["arguments"]))
            items, end = _some(self._iterations[number])
        return {"end": end, "counts": self.lost()}, items

    def lost(self) -> dict[str, int]:
        """What was lost since the last time, by reason."""
        counts: Counter[str] = self._opened.counts
        lost = counts - self._told
        self._told = Counter(counts)
        return lost

    def close(self) -> None:
        """Close it."""
        with self._limits.answering():
            self._iterations.clear()
            self._opened.close()


def _some(iteration: Iterator[Item]) -> tuple[list[Item], bool]:
    """The next items, and whether there are no more."""
    items, size, began = list[Item](), 0, time.monotonic()
    for item in iteration:
        items.append(item)
        if isinstance(item, EventPacket):
            size += item.events.nbytes
        elif isinstance(item, RgbFrame):
            size += item.image.nbytes
        if size >= _ANSWER_BYTES or time.monotonic() - began > _ANSWER_S:
            return items, False
    return items, True


class Desk:
    """Does what it is asked, one thing after the other."""

    def __init__(self) -> None:
        self._opened: Opened | None = None

    def answer(self, request: dict[str, Any]) -> Parcel:
        """Of what is asked, or the fault in it."""
        try:
            if "open" in request:
                self._opened = Opened(request)
                return {"facts": self._opened.facts, "counts": self._opened.lost()}, []
            assert self._opened is not None
            if "next" in request:
                return self._opened.next(request)
            self._opened.close()
            return {}, []
        except Exception as error:
            return {"fault": type(error).__name__, "text": str(error)}, []


def main() -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is for the one that asks
    requests, answers = _taken(0, os.O_RDONLY), _taken(1, os.O_WRONLY)
    memory = mmap(int(sys.argv[1]), 0) if sys.argv[1:] else None
    desk = Desk()
    try:
        send(answers, {})  # it has started
        for line in os.fdopen(requests, "rb"):
            send(answers, *desk.answer(json.loads(line)), memory)
    except OSError:  # whose end of the pipe is closed
        pass


def _taken(descriptor: int, flags: int) -> int:
    """A copy of a standard stream; in its place there is nothing from now on, lest a library uses it."""
    copy, nowhere = os.dup(descriptor), os.open(os.devnull, flags)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return copy


if __name__ == "__main__":
    main()
