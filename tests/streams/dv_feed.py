"""What tests of iniVation's cameras share: events of theirs, and a thread that takes what a source yields."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from streams import EventPacket, Gap, RgbFrame, StreamError
from streams.dv_camera import DvCameraSource
from streams.items import Events, Item
from tests.conftest import random_events

T0 = 1_700_000_000_000_000  # microseconds: cameras tell the time of day


GREY = np.full((48, 64), 90, np.uint8)


def batch(start_us: int, end_us: int, n: int = 50) -> Events:
    return random_events(n, T0 + start_us, T0 + end_us)


def until(what: Callable[[], Any], timeout_s: float = 10) -> Any:
    """Wait for something to be true."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)
    return found


class Taken:
    """The items of a source, taken in a thread as they come."""

    def __init__(self, source: DvCameraSource) -> None:
        self.items: list[Item] = []
        self.failure: Exception | None = None
        self.source = source
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        try:
            self.items.extend(self.source)  # item by item
        except StreamError as error:
            self.failure = error

    def packets(self) -> list[EventPacket]:
        return [item for item in list(self.items) if isinstance(item, EventPacket)]

    def frames(self) -> list[RgbFrame]:
        return [item for item in list(self.items) if isinstance(item, RgbFrame)]

    def gaps(self) -> list[str]:
        return [item.reason for item in list(self.items) if isinstance(item, Gap)]

    def events(self) -> int:
        return sum(len(packet.events) for packet in self.packets())
